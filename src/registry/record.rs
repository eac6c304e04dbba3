//! What the registry knows, as plain data.

use crate::clock::UnixTime;
use crate::grant::WrittenGrants;
use crate::identity::{Fingerprint, Name};

/// What kind of certificate was enrolled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnrolmentKind {
    /// Issued by our CA to a peer.
    Leaf,
    /// Issued by our CA to a CA below it (an issuing CA or a delegate).
    Authority,
    /// Pinned by hand: a certificate of another CA.
    External,
}

/// One certificate as the registry knows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Enrolment {
    pub fingerprint: Fingerprint,
    pub kind: EnrolmentKind,
    pub name: Name,
    /// Lower-case hex.
    pub serial: String,
    /// The issuing certificate's fingerprint, where it is known.
    pub issuer: Option<Fingerprint>,
    /// The profile it was issued with; empty for `External`.
    pub profile: String,
    /// The pin's own set; `None`: the pin allows whatever the certificate carries.
    pub grants: Option<WrittenGrants>,
    pub not_before: UnixTime,
    pub not_after: UnixTime,
    /// Whether a server admits by it (an unpinned certificate stays on record).
    pub pinned: bool,
    pub revocation: Option<Revocation>,
    pub created_at: UnixTime,
    /// Who did it, as the operating system tells it (`user@host`), for `ca show`.
    pub created_by: String,
    /// The certificate, DER.
    pub der: Vec<u8>,
}

/// RFC 5280 section 5.3.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason { Unspecified, KeyCompromise, CaCompromise, AffiliationChanged, Superseded, CessationOfOperation, PrivilegeWithdrawn }

#[derive(Clone, Debug, PartialEq)]
pub struct Revocation { pub at: UnixTime, pub reason: Reason, pub by: String }

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind { Enrolled, Pinned, Unpinned, Regranted, Revoked }

/// One entry of the change feed; `seq` only grows.
#[derive(Clone, Debug, PartialEq)]
pub struct Change { pub seq: u64, pub kind: ChangeKind, pub fingerprint: Fingerprint }
