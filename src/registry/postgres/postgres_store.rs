//! The store itself: who of its parts answers what.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::PgConnection;

use super::super::queue::{Request, Writer};
use super::super::record::{Change, Enrolment, Outline, Page, Revocation, RevokedSerial};
use super::super::rows::grants_to_text;
use super::super::store::{Confirmation, LIVE_FOR, Reply, Store, StoreError};
use super::super::token::{Token, TokenDigest};
use super::connection;
use super::database::Database;
use super::ear::{Ear, LISTENED};
use super::reader::Reader;
use super::writer::{DatabaseHand, PATIENCE};
use crate::clock::{self, UnixTime};
use crate::grant::WrittenGrants;
use crate::identity::Fingerprint;

/// Between two looks at how far the servers have come.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// The registry in a PostgreSQL database. A commit waits for the disk of the database (and for its
/// synchronous standby, where it has one); a reader never waits for a writer.
pub struct PostgresStore {
    database: Database,
    reader: Reader,
    writer: Writer,
    pub(super) ear: Arc<Ear>,
}

impl PostgresStore {
    /// Opens the registry in the database of `url`, on the current tokio runtime. With `create` its
    /// tables are made where there are none. An older schema is brought up to date. `password_file`:
    /// a file of its owner's alone, whose first line is the password.
    ///
    /// # Errors
    /// [`StoreError::Unreachable`], [`StoreError::Corrupt`] or [`StoreError::NewerSchema`].
    pub async fn open(
        url: &str,
        password_file: Option<&Path>,
        create: bool,
    ) -> Result<Self, StoreError> {
        let database = Database::prepare(url, password_file)?;
        let opening = async {
            let mut connection = connection::connect(&database, create).await?;
            let channel = channel(&mut connection, &database).await?;
            Ok((connection, channel))
        };
        let opened = tokio::time::timeout(PATIENCE, opening).await;
        let (connection, channel) = opened.unwrap_or_else(|_| {
            let cause = format!("no answer within {} seconds", PATIENCE.as_secs());
            Err(database.unreachable(&cause))
        })?;
        let ear = Arc::new(Ear::new(&database, &channel));
        let hand = DatabaseHand::new(&database, connection, Arc::clone(&ear), &channel);
        Ok(Self {
            reader: Reader::new(&database),
            writer: Writer::start(&database.text, hand),
            database,
            ear,
        })
    }

    async fn wait_for_change(&self, known: u64, patience: Duration) -> Result<u64, StoreError> {
        let began = clock::monotonic();
        let mut rings = self.ear.listen();
        let mut rung = true;
        loop {
            // Before the look, not after: what rings in between is looked at again.
            rings.mark_unchanged();
            let poll = self.ear.watch();
            let newest = self.reader.newest().await?;
            let left = patience.saturating_sub(clock::monotonic().saturating_duration_since(began));
            if newest != known || left.is_zero() {
                if newest != known && !rung && poll >= LISTENED {
                    self.ear.missed();
                }
                return Ok(newest);
            }
            // Either is a reason to look; that the ear is gone cannot be, while we hold it.
            rung = tokio::time::timeout(left.min(poll), rings.changed())
                .await
                .is_ok();
        }
    }

    async fn wait_for_servers(
        &self,
        seq: u64,
        patience: Duration,
    ) -> Result<Confirmation, StoreError> {
        let began = clock::monotonic();
        loop {
            let servers = self.reader.servers(LIVE_FOR).await?;
            let took = clock::monotonic().saturating_duration_since(began);
            let confirmation = Confirmation::of(servers, seq, took);
            if confirmation.is_complete() || took >= patience {
                return Ok(confirmation);
            }
            tokio::time::sleep(LOOK_AGAIN.min(patience.saturating_sub(took))).await;
        }
    }
}

/// Where changes are announced: registries of other schemas of this database have others.
async fn channel(connection: &mut PgConnection, database: &Database) -> Result<String, StoreError> {
    sqlx::query_scalar("SELECT 'countersign_' || to_hex(hashtext(current_schema()::text))")
        .fetch_one(connection)
        .await
        .map_err(|error| database.failed(error))
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore")
            .field("url", &self.database.text)
            .finish_non_exhaustive()
    }
}

impl Store for PostgresStore {
    fn place(&self) -> &str {
        &self.database.text
    }

    fn enrol<'a>(&'a self, enrolment: &'a Enrolment) -> Reply<'a, u64> {
        let grants = enrolment.grants.as_ref().map(grants_to_text);
        let request = Request::Enrol {
            enrolment: Box::new(enrolment.clone()),
            grants,
        };
        Box::pin(self.writer.number(request))
    }

    fn revoke<'a>(
        &'a self,
        fingerprint: Fingerprint,
        revocation: &'a Revocation,
    ) -> Reply<'a, u64> {
        let revocation = revocation.clone();
        Box::pin(self.writer.number(Request::Revoke {
            fingerprint,
            revocation,
        }))
    }

    fn set_pinned<'a>(&'a self, fingerprint: Fingerprint, pinned: bool) -> Reply<'a, u64> {
        Box::pin(self.writer.number(Request::SetPinned {
            fingerprint,
            pinned,
        }))
    }

    fn set_grants<'a>(
        &'a self,
        fingerprint: Fingerprint,
        grants: Option<&'a WrittenGrants>,
    ) -> Reply<'a, u64> {
        let grants = grants.map(grants_to_text);
        Box::pin(self.writer.number(Request::SetGrants {
            fingerprint,
            grants,
        }))
    }

    fn set_end(&self, fingerprint: Fingerprint, end: UnixTime) -> Reply<'_, u64> {
        Box::pin(self.writer.number(Request::SetEnd { fingerprint, end }))
    }

    fn get(&self, fingerprint: Fingerprint) -> Reply<'_, Option<Enrolment>> {
        Box::pin(self.reader.get(fingerprint))
    }

    fn find<'a>(&'a self, key: &'a str, now: UnixTime) -> Reply<'a, Enrolment> {
        Box::pin(self.reader.find(key, now))
    }

    fn named<'a>(&'a self, name: &'a str, now: UnixTime) -> Reply<'a, Vec<Enrolment>> {
        Box::pin(self.reader.named(name, now))
    }

    fn list(&self, after: Option<Fingerprint>, limit: u32) -> Reply<'_, Vec<Enrolment>> {
        Box::pin(self.reader.list(after, limit))
    }

    fn revoked(&self, issuer: Fingerprint, ending: UnixTime) -> Reply<'_, Vec<RevokedSerial>> {
        Box::pin(self.reader.revoked(issuer, ending))
    }

    fn page(&self, from: u64, limit: u32, ending: UnixTime) -> Reply<'_, Page> {
        Box::pin(self.reader.page(from, limit, ending))
    }

    fn changes(&self, after: u64, limit: u32) -> Reply<'_, Vec<Change>> {
        Box::pin(self.reader.changes(after, limit))
    }

    fn touched(&self, after: u64, upto: u64) -> Reply<'_, Vec<Outline>> {
        Box::pin(self.reader.touched(after, upto))
    }

    fn put_token<'a>(&'a self, token: &'a Token) -> Reply<'a, ()> {
        let request = Request::PutToken {
            grants: grants_to_text(&token.grants),
            token: Box::new(token.clone()),
        };
        Box::pin(self.writer.quietly(request))
    }

    fn token(&self, digest: TokenDigest) -> Reply<'_, Option<Token>> {
        Box::pin(self.reader.token(digest))
    }

    fn take_token<'a>(
        &'a self,
        digest: TokenDigest,
        enrolment: &'a Enrolment,
        now: UnixTime,
    ) -> Reply<'a, u64> {
        let grants = enrolment.grants.as_ref().map(grants_to_text);
        let enrolment = Box::new(enrolment.clone());
        Box::pin(self.writer.number(Request::TakeToken {
            digest,
            enrolment,
            grants,
            now,
        }))
    }

    fn purge_tokens(&self, before: UnixTime) -> Reply<'_, ()> {
        let request = Request::PurgeTokens { before };
        Box::pin(self.writer.quietly(request))
    }

    fn prune(&self, before: UnixTime) -> Reply<'_, u64> {
        Box::pin(self.writer.number(Request::Prune { before }))
    }

    fn newest(&self) -> Reply<'_, u64> {
        Box::pin(self.reader.newest())
    }

    fn changed(&self, known: u64, patience: Duration) -> Reply<'_, u64> {
        Box::pin(self.wait_for_change(known, patience))
    }

    fn heartbeat<'a>(&'a self, server: &'a str, applied: u64) -> Reply<'a, ()> {
        let request = Request::Heartbeat {
            server: server.to_owned(),
            applied,
        };
        Box::pin(self.writer.quietly(request))
    }

    fn farewell<'a>(&'a self, server: &'a str) -> Reply<'a, ()> {
        let request = Request::Farewell {
            server: server.to_owned(),
        };
        Box::pin(self.writer.quietly(request))
    }

    fn confirmed(&self, seq: u64, patience: Duration) -> Reply<'_, Confirmation> {
        Box::pin(self.wait_for_servers(seq, patience))
    }
}
