//! The store itself: who of its parts answers what.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::super::queue::{Request, Writer};
use super::super::record::{Change, Enrolment, Outline, Page, Revocation, RevokedSerial};
use super::super::rows::grants_to_text;
use super::super::store::{Confirmation, LIVE_FOR, Reply, Store, StoreError};
use super::super::token::{Token, TokenDigest};
use super::bell::Bell;
use super::file::{self, Place};
use super::reader::Reader;
use super::writer::FileHand;
use crate::clock::{self, UnixTime};
use crate::grant::WrittenGrants;
use crate::identity::Fingerprint;

/// Between two looks at how far the servers have come.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// The registry in one SQLite file, mode 0600. Several processes of one machine may have it open.
/// A commit waits for the disk; a reader never waits for a writer.
pub struct SqliteStore {
    place: Place,
    reader: Reader,
    writer: Writer,
    bell: Arc<Bell>,
}

impl SqliteStore {
    /// Opens the registry at `path`, on the current tokio runtime. With `create` it is made where
    /// there is none, or only the beginnings of one. An older schema is brought up to date.
    ///
    /// # Errors
    /// [`StoreError::Unreachable`], [`StoreError::Corrupt`], [`StoreError::NewerSchema`] or
    /// [`StoreError::Exposed`].
    pub async fn open(path: &Path, create: bool) -> Result<Self, StoreError> {
        let place = Place::prepare(path, create)?;
        let connection = file::connect(&place, create).await?;
        let bell = Arc::new(Bell::of(path));
        let hand = FileHand::new(&place, connection, Arc::clone(&bell));
        let writer = Writer::start(&place.text, hand);
        Ok(Self {
            reader: Reader::new(&place),
            place,
            writer,
            bell,
        })
    }

    async fn wait_for_change(&self, known: u64, patience: Duration) -> Result<u64, StoreError> {
        let began = clock::monotonic();
        let mut rings = self.bell.listen();
        loop {
            // Before the look, not after: what rings in between is looked at again.
            rings.mark_unchanged();
            let poll = self.bell.watch();
            self.place.check_same()?;
            let newest = self.reader.newest().await?;
            let left = patience.saturating_sub(clock::monotonic().saturating_duration_since(began));
            if newest != known || left.is_zero() {
                return Ok(newest);
            }
            // Either is a reason to look; that the bell is gone cannot be, while we hold it.
            let _ = tokio::time::timeout(left.min(poll), rings.changed()).await;
        }
    }

    async fn wait_for_servers(
        &self,
        seq: u64,
        patience: Duration,
    ) -> Result<Confirmation, StoreError> {
        let began = clock::monotonic();
        loop {
            let since = clock::since_epoch().saturating_sub(LIVE_FOR).as_millis();
            let servers = self
                .reader
                .servers(i64::try_from(since).unwrap_or(i64::MAX))
                .await?;
            let took = clock::monotonic().saturating_duration_since(began);
            let confirmation = Confirmation::of(servers, seq, took);
            if confirmation.is_complete() || took >= patience {
                return Ok(confirmation);
            }
            tokio::time::sleep(LOOK_AGAIN.min(patience.saturating_sub(took))).await;
        }
    }
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore")
            .field("path", &self.place.path)
            .finish_non_exhaustive()
    }
}

impl Store for SqliteStore {
    fn place(&self) -> &str {
        &self.place.text
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
