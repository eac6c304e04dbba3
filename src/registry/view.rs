//! The registry in a server's memory: what admission and every decision look at.

use std::sync::Arc;

use crate::clock::UnixTime;
use crate::grant::WrittenGrants;
use crate::identity::{Fingerprint, Name};

/// What a pin says.
#[derive(Clone, Debug, PartialEq)]
pub struct Pin {
    pub fingerprint: Fingerprint,
    pub name: Name,
    pub grants: Option<Arc<WrittenGrants>>,
    pub not_after: UnixTime,
    /// Whether it covers what this certificate signed (a delegate).
    pub delegate: bool,
}

/// How a certificate stands.
#[derive(Clone, Debug, PartialEq)]
pub enum Standing { Unknown, Unpinned, Pinned(Pin), Revoked }

/// In memory, shared, answered without I/O.
#[derive(Debug, Default)]
pub struct View {}

impl View {
    /// How this certificate stands; about 100 ns.
    #[must_use] pub fn standing(&self, fingerprint: &Fingerprint) -> Standing { todo!("{fingerprint}") }
    /// Grows with every change that was applied; compare it to know that nothing changed.
    #[must_use] pub fn generation(&self) -> u64 { 0 }
}
