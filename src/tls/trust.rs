//! The trust state: anchors, CRLs, and the chains that were verified under it.
use std::sync::Arc;
use crate::registry::View;
use super::anchor::AnchorOptions;

#[derive(Debug, thiserror::Error)]
pub enum TrustError { #[error("no trust anchor is configured: nobody could ever be admitted")] NoAnchor, #[error("anchor `{anchor}`: {cause}")] Anchor { anchor: String, cause: String } }

/// Swapped as a whole by a reload; a failed reload keeps the old one.
pub struct Trust {}
impl Trust {
    /// `permission_oid`: dotted. # Errors As [`TrustError`] says, all anchors looked at.
    pub fn load(anchors: &[AnchorOptions], permission_oid: &str, view: Arc<View>) -> Result<Self, Vec<TrustError>> { let _ = (anchors, permission_oid, view); todo!() }
    /// Loads everything again in place.
    /// # Errors
    /// The old state stays in force.
    pub fn reload(&self, anchors: &[AnchorOptions], permission_oid: &str) -> Result<(), Vec<TrustError>> { let _ = (anchors, permission_oid); todo!() }
    /// The pin that is in force for a peer now: the leaf's, or that of the nearest delegate above it.
    /// `Err` when it may no longer stay (revoked, unpinned, expired).
    /// # Errors
    /// The refusal.
    pub fn standing(&self, chain: &crate::peer::Chain, now: crate::clock::UnixTime) -> Result<Option<crate::registry::Pin>, super::refusal::Refusal> { let _ = (chain, now); todo!() }
}
