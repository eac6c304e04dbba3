//! The database's address, its password, its failures.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use sqlx::ConnectOptions;
use sqlx::postgres::PgConnectOptions;
use zeroize::Zeroizing;

use super::super::place::connect_options;
use super::super::store::StoreError;
use crate::cert::check_private;

/// What the database itself does about a client that hangs, so that one cannot hold up the others
/// (milliseconds).
const GUARDS: [(&str, &str); 3] = [
    ("lock_timeout", "5000"),
    ("statement_timeout", "10000"),
    ("idle_in_transaction_session_timeout", "10000"),
];

/// One database. Not `Debug`: the options hold the password.
#[derive(Clone)]
pub(super) struct Database {
    /// The URL, for messages.
    pub text: Arc<str>,
    pub options: PgConnectOptions,
}

impl Database {
    pub fn prepare(url: &str, password_file: Option<&Path>) -> Result<Self, StoreError> {
        let unreachable = |cause: String| StoreError::Unreachable {
            place: url.to_owned(),
            cause,
        };
        let options = connect_options(url).map_err(|error| unreachable(error.to_string()))?;
        let mut options = options.options(GUARDS).disable_statement_logging();
        if !url.contains("application_name=") {
            options = options.application_name("countersign");
        }
        if let Some(path) = password_file {
            options = options.password(&password(path).map_err(unreachable)?);
        }
        Ok(Self {
            text: url.into(),
            options,
        })
    }

    /// The system's failure in our words.
    pub fn unreachable(&self, cause: &dyn std::fmt::Display) -> StoreError {
        StoreError::Unreachable {
            place: self.text.to_string(),
            cause: cause.to_string(),
        }
    }

    /// Something in the database that we did not write.
    pub fn corrupt(&self, what: impl Into<String>) -> StoreError {
        StoreError::Corrupt {
            place: self.text.to_string(),
            what: what.into(),
        }
    }

    /// PostgreSQL's failure in our words.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "it is what `map_err` hands over"
    )]
    pub fn failed(&self, error: sqlx::Error) -> StoreError {
        match &error {
            sqlx::Error::Database(database) => match database.code().as_deref() {
                // A table or column that is missing or is there already, and what a disk has done.
                Some("42P01" | "42703" | "42P07" | "XX001" | "XX002") => {
                    self.corrupt(database.message())
                }
                _ => self.unreachable(&database.message()),
            },
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => {
                self.corrupt(error.to_string())
            }
            _ => self.unreachable(&error),
        }
    }
}

fn password(path: &Path) -> Result<Zeroizing<String>, String> {
    let failed = |cause: &dyn std::fmt::Display| {
        format!(
            "the password file `{}` cannot be used: {cause}",
            path.display()
        )
    };
    check_private(path).map_err(|error| failed(&error))?;
    let text = Zeroizing::new(fs::read_to_string(path).map_err(|error| failed(&error))?);
    Ok(Zeroizing::new(
        text.lines().next().unwrap_or_default().to_owned(),
    ))
}
