//! The store behind the registry.

use std::pin::Pin as BoxPin;
use std::time::Duration;

use crate::clock::UnixTime;
use crate::grant::WrittenGrants;
use crate::identity::Fingerprint;

use super::record::{Change, Enrolment, Outline, Page, Revocation, RevokedSerial};
use super::token::{Token, TokenDigest, TokenRefusal};

/// A server counts as live for so long after its last heartbeat.
pub const LIVE_FOR: Duration = Duration::from_secs(5);

/// A server that was not heard of for so long is forgotten.
pub const FORGET_SERVER_AFTER: Duration = Duration::from_secs(24 * 3600);

/// Changes that one [`Store::prune`] forgets at most: more would hold up those who write.
pub const PRUNED_AT_ONCE: u32 = 1000;

/// What a store answers with: a boxed future, so that the trait can stand behind `dyn`.
pub type Reply<'a, T> = BoxPin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// Why a store did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The file is not there, is locked, the disk is full, the network is down.
    #[error("the registry at `{place}` cannot be reached: {cause}")]
    Unreachable {
        /// Path or address.
        place: String,
        /// What the system says.
        cause: String,
    },
    /// There is something, and it is not (or no longer) a registry.
    #[error("the registry at `{place}` holds something that this program cannot read: {what}")]
    Corrupt {
        /// Path or address.
        place: String,
        /// What is wrong with it.
        what: String,
    },
    /// A newer program wrote it.
    #[error(
        "the registry at `{place}` has schema version {found}, this program knows versions up to \
         {known}"
    )]
    NewerSchema {
        /// Path or address.
        place: String,
        /// The version in the store.
        found: i64,
        /// The newest that this program knows.
        known: i64,
    },
    /// Anybody on this machine could pin a certificate of their own.
    #[error("the registry at `{place}` can be written by everybody (mode {mode:04o})")]
    Exposed {
        /// The path.
        place: String,
        /// The permission bits.
        mode: u32,
    },
    /// No certificate answers to this key.
    #[error("`{0}` is not enrolled")]
    NotFound(String),
    /// Several certificates answer to this key.
    #[error("`{0}` names more than one certificate: give the fingerprint or the serial")]
    Ambiguous(String),
    /// Enrolled once is enrolled.
    #[error("certificate {0} is enrolled already")]
    Exists(Fingerprint),
    /// A revocation is final: a revoked certificate is neither pinned nor given grants again.
    #[error("certificate {0} is revoked, and a revocation is final")]
    Revoked(Fingerprint),
    /// The token lets nobody in.
    #[error(transparent)]
    Token(#[from] TokenRefusal),
}

impl StoreError {
    /// Whether the store itself failed (and not the request).
    #[must_use]
    pub const fn is_outage(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. }
                | Self::Corrupt { .. }
                | Self::NewerSchema { .. }
                | Self::Exposed { .. }
        )
    }
}

/// How far the live servers have come with a change.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Confirmation {
    /// The servers that were live when the waiting ended.
    pub live: Vec<String>,
    /// Those of them that have applied the change.
    pub confirmed: Vec<String>,
    /// How long the waiting took.
    pub took: Duration,
}

impl Confirmation {
    /// Of live servers with the newest change that each has applied.
    pub(super) fn of(servers: Vec<(String, i64)>, seq: u64, took: Duration) -> Self {
        let has = |applied: i64| u64::try_from(applied).is_ok_and(|applied| applied >= seq);
        Self {
            confirmed: servers
                .iter()
                .filter(|s| has(s.1))
                .map(|s| s.0.clone())
                .collect(),
            live: servers.into_iter().map(|server| server.0).collect(),
            took,
        }
    }

    /// Every live server has applied it (also when there is none).
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.live.len() == self.confirmed.len()
    }
}

/// One registry. Every write is one transaction, is on disk when the future is ready, and appends
/// to the change feed in the same transaction. A write that was asked for is carried out even if
/// its future is dropped.
pub trait Store: Send + Sync + 'static {
    /// Path or address, for messages.
    fn place(&self) -> &str;

    /// Records a certificate. The answer is the change's `seq`.
    ///
    /// # Errors
    /// [`StoreError::Exists`], or an outage.
    fn enrol<'a>(&'a self, enrolment: &'a Enrolment) -> Reply<'a, u64>;

    /// Revokes, for good. Of one that is revoked already the first revocation stays, and its `seq`
    /// is the answer (where that was pruned, the newest `seq` that was).
    ///
    /// # Errors
    /// [`StoreError::NotFound`], or an outage.
    fn revoke<'a>(&'a self, fingerprint: Fingerprint, revocation: &'a Revocation)
    -> Reply<'a, u64>;

    /// Says whether servers admit by it. Where that is so already, the answer is the newest `seq`
    /// of this certificate.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::Revoked`] (only when pinning), or an outage.
    fn set_pinned<'a>(&'a self, fingerprint: Fingerprint, pinned: bool) -> Reply<'a, u64>;

    /// Replaces the pin's set.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::Revoked`], or an outage.
    fn set_grants<'a>(
        &'a self,
        fingerprint: Fingerprint,
        grants: Option<&'a WrittenGrants>,
    ) -> Reply<'a, u64>;

    /// Brings the end nearer: from `end` on (inclusive: its last second) nobody is admitted by it,
    /// although the certificate itself says longer. A later end than the present one changes
    /// nothing, and the answer is then the newest `seq` of this certificate.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::Revoked`], or an outage.
    fn set_end(&self, fingerprint: Fingerprint, end: UnixTime) -> Reply<'_, u64>;

    /// One certificate with all that is known of it.
    ///
    /// # Errors
    /// An outage.
    fn get(&self, fingerprint: Fingerprint) -> Reply<'_, Option<Enrolment>>;

    /// By name (whole or last segment), fingerprint (with or without colons, or its first 8 or
    /// more hex digits) or serial. Of several certificates of a name the live one is meant
    /// (neither revoked nor expired at `now`), and when none is live, the newest.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::Ambiguous`], or an outage.
    fn find<'a>(&'a self, key: &'a str, now: UnixTime) -> Reply<'a, Enrolment>;

    /// All live certificates of a name (whole or last segment) at `now`, newest first, without the
    /// DER, at most 1000.
    ///
    /// # Errors
    /// An outage.
    fn named<'a>(&'a self, name: &'a str, now: UnixTime) -> Reply<'a, Vec<Enrolment>>;

    /// All, newest first, without the DER; `after` is the last fingerprint of the page before.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when `after` is not enrolled, or an outage.
    fn list(&self, after: Option<Fingerprint>, limit: u32) -> Reply<'_, Vec<Enrolment>>;

    /// What an issuer's CRL names: its revoked certificates that end at `ending` or later, oldest
    /// revocation first.
    ///
    /// # Errors
    /// An outage.
    fn revoked(&self, issuer: Fingerprint, ending: UnixTime) -> Reply<'_, Vec<RevokedSerial>>;

    /// A stretch of at most `limit` enrolments from `from` on (0: the beginning), in the order of
    /// enrolment: those that are revoked, or end at `ending` or later.
    ///
    /// # Errors
    /// An outage.
    fn page(&self, from: u64, limit: u32, ending: UnixTime) -> Reply<'_, Page>;

    /// Changes with `seq > after`, oldest first, at most `limit`. Numbers follow on each other: where
    /// the first is not `after + 1`, those in between were pruned.
    ///
    /// # Errors
    /// An outage.
    fn changes(&self, after: u64, limit: u32) -> Reply<'_, Vec<Change>>;

    /// The present state of what the changes with `after < seq <= upto` touched, each once.
    ///
    /// # Errors
    /// An outage.
    fn touched(&self, after: u64, upto: u64) -> Reply<'_, Vec<Outline>>;

    /// Keeps a one-time token. It is no change: servers never hear of it.
    ///
    /// # Errors
    /// An outage.
    fn put_token<'a>(&'a self, token: &'a Token) -> Reply<'a, ()>;

    /// The token of this digest, used, expired or not.
    ///
    /// # Errors
    /// An outage.
    fn token(&self, digest: TokenDigest) -> Reply<'_, Option<Token>>;

    /// Uses a token and records the certificate that it was used for, both or neither: of several
    /// at the same time one gets it, and a process that is killed has not used it up for nothing.
    /// The answer is the change's `seq`.
    ///
    /// # Errors
    /// [`StoreError::Token`], [`StoreError::Exists`], or an outage; the token is not used then.
    fn take_token<'a>(
        &'a self,
        digest: TokenDigest,
        enrolment: &'a Enrolment,
        now: UnixTime,
    ) -> Reply<'a, u64>;

    /// Forgets the tokens that expired before `before`, used or not.
    ///
    /// # Errors
    /// An outage.
    fn purge_tokens(&self, before: UnixTime) -> Reply<'_, ()>;

    /// Shortens the change feed by at most [`PRUNED_AT_ONCE`] of its oldest changes; the answer is
    /// how many went. What goes was recorded before `before` and applied by every server that was
    /// heard of within [`FORGET_SERVER_AFTER`]; the newest change never goes. Servers that were not
    /// heard of for so long go too: one that comes back finds that changes are missing and loads
    /// anew. Enrolments and revocations stay.
    ///
    /// # Errors
    /// An outage.
    fn prune(&self, before: UnixTime) -> Reply<'_, u64>;

    /// The newest `seq`; 0 when nothing ever happened.
    ///
    /// # Errors
    /// An outage.
    fn newest(&self) -> Reply<'_, u64>;

    /// Waits until the newest `seq` is another than `known`, at most for `patience`, and answers
    /// with it. A smaller one means that the store was replaced by an older copy.
    ///
    /// # Errors
    /// An outage.
    fn changed(&self, known: u64, patience: Duration) -> Reply<'_, u64>;

    /// A live server says how far it has come (and that it lives). `server` is one process's name:
    /// two processes never share it.
    ///
    /// # Errors
    /// An outage.
    fn heartbeat<'a>(&'a self, server: &'a str, applied: u64) -> Reply<'a, ()>;

    /// A server goes.
    ///
    /// # Errors
    /// An outage.
    fn farewell<'a>(&'a self, server: &'a str) -> Reply<'a, ()>;

    /// Waits until all live servers have applied `seq`, or `patience` is over.
    ///
    /// # Errors
    /// An outage.
    fn confirmed(&self, seq: u64, patience: Duration) -> Reply<'_, Confirmation>;
}
