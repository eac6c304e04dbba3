//! Opens whichever registry is configured.

use std::sync::Arc;

use super::place::RegistryPlace;
use super::postgres::PostgresStore;
use super::sqlite::SqliteStore;
use super::store::{Store, StoreError};

/// Opens the registry at `place`, on the current tokio runtime. With `create` it is made where there
/// is none: a file, or the tables of an empty database. An older schema is brought up to date.
///
/// # Errors
/// An outage: see [`StoreError::is_outage`].
pub async fn open(place: &RegistryPlace, create: bool) -> Result<Arc<dyn Store>, StoreError> {
    Ok(match place {
        RegistryPlace::File(path) => Arc::new(SqliteStore::open(path, create).await?),
        RegistryPlace::Database { url, password_file } => {
            Arc::new(PostgresStore::open(url, password_file.as_deref(), create).await?)
        }
    })
}
