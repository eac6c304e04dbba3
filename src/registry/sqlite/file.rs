//! The database file: its mode, its connections, its schema.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, Executor, SqliteConnection, raw_sql};

use super::super::store::StoreError;
use crate::clock;

/// `CSGN`, in the header of every database that is ours.
const APPLICATION_ID: i64 = 0x4353_474e;
/// Version n is what the first n of these make. An entry is never edited once it was released.
const MIGRATIONS: [&str; 2] = [
    include_str!("schema/0001_registry.sql"),
    include_str!("schema/0002_tokens.sql"),
];
/// How long a writer waits for one in another process.
const BUSY: Duration = Duration::from_secs(5);
/// How long one waits that SQLite did not let wait.
const COME_AGAIN: Duration = Duration::from_millis(5);

/// Where the database is, and which file that was when it was opened.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub path: PathBuf,
    pub text: String,
    identity: Option<(u64, u64)>,
}

impl Place {
    /// Finds the file, or creates an empty one that only its owner can read: SQLite gives its side
    /// files the mode of the database.
    pub fn prepare(path: &Path, create: bool) -> Result<Self, StoreError> {
        let mut place = Self {
            path: path.to_owned(),
            text: path.display().to_string(),
            identity: None,
        };
        if create {
            place.create().map_err(|error| place.unreachable(&error))?;
        }
        let meta = fs::metadata(path).map_err(|error| place.unreachable(&error))?;
        if !meta.is_file() {
            return Err(place.unreachable(&"it is not a file"));
        }
        place.check_mode(&meta)?;
        place.identity = identity(&meta);
        Ok(place)
    }

    fn create(&self) -> io::Result<()> {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        match options.open(&self.path) {
            Ok(file) => file.sync_all()?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
            Err(error) => return Err(error),
        }
        // The name of the file is on disk only when its folder is.
        let folder = self
            .path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    }

    #[cfg(unix)]
    fn check_mode(&self, meta: &fs::Metadata) -> Result<(), StoreError> {
        let mode = std::os::unix::fs::PermissionsExt::mode(&meta.permissions()) & 0o7777;
        if mode & 0o002 == 0 {
            return Ok(());
        }
        Err(StoreError::Exposed {
            place: self.text.clone(),
            mode,
        })
    }

    #[cfg(not(unix))]
    fn check_mode(&self, _: &fs::Metadata) -> Result<(), StoreError> {
        Ok(())
    }

    /// Whether the path still leads to the file that was opened. What is written to a file that was
    /// removed is lost, and what is read from one that was replaced is old.
    pub fn check_same(&self) -> Result<(), StoreError> {
        match fs::metadata(&self.path) {
            Ok(meta) if identity(&meta) == self.identity => Ok(()),
            Ok(_) => Err(self.unreachable(
                &"another file took its place while it was open: restart this process to use it",
            )),
            Err(error) => Err(self.unreachable(&format!("it is gone while it was open: {error}"))),
        }
    }

    /// Options of a connection that writes.
    pub fn writing(&self) -> SqliteConnectOptions {
        self.options()
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .thread_name(|_| "registry-writer".to_owned())
    }

    /// Options of a connection that only reads.
    pub fn reading(&self) -> SqliteConnectOptions {
        self.options()
            .pragma("query_only", "ON")
            .thread_name(|_| "registry-reader".to_owned())
    }

    fn options(&self) -> SqliteConnectOptions {
        SqliteConnectOptions::new()
            .filename(&self.path)
            .create_if_missing(false)
            .busy_timeout(BUSY)
            .foreign_keys(true)
            .disable_statement_logging()
    }

    /// The system's failure in our words.
    pub fn unreachable(&self, cause: &dyn std::fmt::Display) -> StoreError {
        StoreError::Unreachable {
            place: self.text.clone(),
            cause: cause.to_string(),
        }
    }

    /// Something in the database that we did not write.
    pub fn corrupt(&self, what: impl Into<String>) -> StoreError {
        StoreError::Corrupt {
            place: self.text.clone(),
            what: what.into(),
        }
    }

    /// SQLite's failure in our words.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "it is what `map_err` hands over"
    )]
    pub fn failed(&self, error: sqlx::Error) -> StoreError {
        match &error {
            sqlx::Error::Database(database) => match database.code().as_deref() {
                // SQLITE_CORRUPT and SQLITE_NOTADB, and what extends the former.
                Some("11" | "26" | "267" | "523" | "779") => self.corrupt(database.message()),
                _ => self.unreachable(&database.message()),
            },
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => {
                self.corrupt(error.to_string())
            }
            _ => self.unreachable(&error),
        }
    }
}

#[cfg(unix)]
fn identity(meta: &fs::Metadata) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    Some((meta.dev(), meta.ino()))
}

#[cfg(not(unix))]
fn identity(_: &fs::Metadata) -> Option<(u64, u64)> {
    None
}

/// Opens the writer's connection on a database whose schema is up to date, or makes it so. With
/// `create` an empty database becomes a registry (also one that a killed run left behind).
pub(super) async fn connect(place: &Place, create: bool) -> Result<SqliteConnection, StoreError> {
    let mut connection = connect_to_write(place).await?;
    let version = version(&mut connection, place).await?;
    let known = MIGRATIONS.len();
    if usize::try_from(version).is_ok_and(|version| version == known) {
        return Ok(connection);
    }
    if version == 0 && !create {
        return Err(place.corrupt("an empty database: the registry was never set up"));
    }
    migrate(&mut connection, place).await?;
    Ok(connection)
}

/// A connection that writes. The first of a new file turns it to write-ahead logging, and of two that
/// do so at once SQLite refuses one without asking its busy handler, for it could wait for ever: it
/// holds the read lock that the other one waits for. Refused, it has let go, and may come again.
async fn connect_to_write(place: &Place) -> Result<SqliteConnection, StoreError> {
    let began = clock::monotonic();
    loop {
        match place.writing().connect().await {
            Err(error) if is_busy(&error) && began.elapsed() < BUSY => {
                tokio::time::sleep(COME_AGAIN).await;
            }
            answer => return answer.map_err(|error| place.failed(error)),
        }
    }
}

/// `SQLITE_BUSY` and what extends it: the low byte of the code is the kind.
fn is_busy(error: &sqlx::Error) -> bool {
    const SQLITE_BUSY: u32 = 5;
    error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code)
        .and_then(|code| code.parse::<u32>().ok())
        .is_some_and(|code| code & 0xff == SQLITE_BUSY)
}

/// The schema's version: 0 for an empty database.
async fn version(connection: &mut SqliteConnection, place: &Place) -> Result<i64, StoreError> {
    let failed = |error| place.failed(error);
    let (application, version, tables): (i64, i64, i64) = sqlx::query_as(
        "SELECT a.application_id, v.user_version, (SELECT count(*) FROM sqlite_schema)
         FROM pragma_application_id a, pragma_user_version v",
    )
    .fetch_one(connection)
    .await
    .map_err(failed)?;
    if application == 0 && version == 0 && tables == 0 {
        return Ok(0);
    }
    if application != APPLICATION_ID {
        return Err(place.corrupt("the database of another program"));
    }
    let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    if version > known {
        return Err(StoreError::NewerSchema {
            place: place.text.clone(),
            found: version,
            known,
        });
    }
    Ok(version)
}

/// All in one transaction: killed at any instant, it has happened or it has not.
async fn migrate(connection: &mut SqliteConnection, place: &Place) -> Result<(), StoreError> {
    let failed = |error| place.failed(error);
    let mut transaction = connection
        .begin_with("BEGIN IMMEDIATE")
        .await
        .map_err(failed)?;
    // Asked again under the lock: another process may have been quicker.
    let from = version(&mut transaction, place).await?;
    let from = usize::try_from(from).unwrap_or(0);
    for step in MIGRATIONS.iter().skip(from) {
        transaction.execute(raw_sql(*step)).await.map_err(failed)?;
    }
    let stamp = sqlx::AssertSqlSafe(format!(
        "PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {}",
        MIGRATIONS.len()
    ));
    transaction.execute(raw_sql(stamp)).await.map_err(failed)?;
    transaction.commit().await.map_err(failed)
}
