//! The store behind the registry.

use std::pin::Pin as BoxPin;
use std::time::Duration;

use crate::clock::UnixTime;
use crate::grant::WrittenGrants;
use crate::identity::Fingerprint;

use super::record::{Change, Enrolment, Revocation};

/// What a store answers with: a boxed future, so that the trait can stand behind `dyn`.
pub type Reply<'a, T> = BoxPin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("the registry at `{place}` cannot be reached: {cause}")]
    Unreachable { place: String, cause: String },
    #[error("the registry at `{place}` holds something that this program cannot read: {what}")]
    Corrupt { place: String, what: String },
    #[error("`{0}` is not enrolled")]
    NotFound(String),
    #[error("`{0}` names more than one certificate: give the fingerprint or the serial")]
    Ambiguous(String),
    #[error("certificate {0} is enrolled already")]
    Exists(Fingerprint),
}

/// How far the live servers have come with a change.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Confirmation { pub live: Vec<String>, pub confirmed: Vec<String>, pub took: Duration }

/// One registry. Every write is one transaction, is on disk when the future is ready, and appends
/// to the change feed in the same transaction.
pub trait Store: Send + Sync + 'static {
    fn enrol<'a>(&'a self, enrolment: &'a Enrolment) -> Reply<'a, u64>;
    fn revoke<'a>(&'a self, fingerprint: Fingerprint, revocation: &'a Revocation) -> Reply<'a, u64>;
    fn set_pinned<'a>(&'a self, fingerprint: Fingerprint, pinned: bool) -> Reply<'a, u64>;
    fn set_grants<'a>(&'a self, fingerprint: Fingerprint, grants: Option<&'a WrittenGrants>) -> Reply<'a, u64>;
    fn get(&self, fingerprint: Fingerprint) -> Reply<'_, Option<Enrolment>>;
    /// By name (whole or short; only live ones: neither revoked nor expired at `now`, when several), fingerprint or serial.
    fn find<'a>(&'a self, key: &'a str, now: UnixTime) -> Reply<'a, Enrolment>;
    /// All, newest first, without the DER; `after` is the last fingerprint of the page before.
    fn list(&self, after: Option<Fingerprint>, limit: u32) -> Reply<'_, Vec<Enrolment>>;
    /// Changes with `seq > after`, oldest first, at most `limit`.
    fn changes(&self, after: u64, limit: u32) -> Reply<'_, Vec<Change>>;
    /// A live server says how far it has come (and that it lives).
    fn heartbeat<'a>(&'a self, server: &'a str, applied: u64) -> Reply<'a, ()>;
    /// A server goes.
    fn farewell<'a>(&'a self, server: &'a str) -> Reply<'a, ()>;
    /// Waits until all live servers have applied `seq`, or `patience` is over.
    fn confirmed(&self, seq: u64, patience: Duration) -> Reply<'_, Confirmation>;
}
