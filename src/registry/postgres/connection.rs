//! The connection that writes, and the schema that it makes or finds.

use sqlx::postgres::PgConnection;
use sqlx::{ConnectOptions, Connection, Executor, raw_sql};

use super::super::store::StoreError;
use super::database::Database;

/// Version n is what the first n of these make, as with SQLite. An entry is never edited once it was
/// released.
const MIGRATIONS: [&str; 2] = [
    include_str!("schema/0001_registry.sql"),
    include_str!("schema/0002_tokens.sql"),
];

/// Held while the schema is made or brought up to date: `CSGN`.
const LOCK: i64 = 0x4353_474e;

/// A connection whose commits are on disk when they are answered, also where the database was told
/// not to wait for it.
const LASTING: &str = "SELECT set_config('synchronous_commit', 'on', false)
     WHERE current_setting('synchronous_commit') = 'off'";

/// Opens the writer's connection on a database whose schema is up to date, or makes it so. With
/// `create` a database without our tables becomes a registry.
pub(super) async fn connect(database: &Database, create: bool) -> Result<PgConnection, StoreError> {
    let failed = |error| database.failed(error);
    let mut connection = database.options.connect().await.map_err(failed)?;
    connection.execute(LASTING).await.map_err(failed)?;
    let version = version(&mut connection, database).await?;
    if usize::try_from(version).is_ok_and(|version| version == MIGRATIONS.len()) {
        return Ok(connection);
    }
    if version == 0 && !create {
        return Err(database.corrupt("no registry: it was never set up"));
    }
    migrate(&mut connection, database).await?;
    Ok(connection)
}

/// The schema's version: 0 where there is none.
async fn version(connection: &mut PgConnection, database: &Database) -> Result<i64, StoreError> {
    let failed = |error| database.failed(error);
    // Not `to_regclass`: it may remember that there was none a moment ago.
    let there: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM pg_class WHERE relname = 'countersign_registry'
             AND relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = current_schema()))",
    )
    .fetch_one(&mut *connection)
    .await
    .map_err(failed)?;
    if !there {
        return Ok(0);
    }
    let version: i64 = sqlx::query_scalar("SELECT version FROM countersign_registry")
        .fetch_one(connection)
        .await
        .map_err(failed)?;
    let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    if version > known {
        return Err(StoreError::NewerSchema {
            place: database.text.to_string(),
            found: version,
            known,
        });
    }
    Ok(version)
}

/// All in one transaction: killed at any instant, it has happened or it has not.
async fn migrate(connection: &mut PgConnection, database: &Database) -> Result<(), StoreError> {
    let failed = |error| database.failed(error);
    let mut transaction = connection.begin().await.map_err(failed)?;
    sqlx::query("SELECT pg_advisory_xact_lock($1)")
        .bind(LOCK)
        .execute(&mut *transaction)
        .await
        .map_err(failed)?;
    // Asked again under the lock: another process may have been quicker.
    let from = version(&mut transaction, database).await?;
    if from == 0 {
        let table = "CREATE TABLE countersign_registry (version bigint NOT NULL);
                     INSERT INTO countersign_registry VALUES (0)";
        transaction.execute(raw_sql(table)).await.map_err(failed)?;
    }
    for step in MIGRATIONS.iter().skip(usize::try_from(from).unwrap_or(0)) {
        transaction.execute(raw_sql(*step)).await.map_err(failed)?;
    }
    sqlx::query("UPDATE countersign_registry SET version = $1")
        .bind(i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX))
        .execute(&mut *transaction)
        .await
        .map_err(failed)?;
    transaction.commit().await.map_err(failed)
}
