//! What the registry knows, as plain data.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

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

impl EnrolmentKind {
    /// The word for it: `leaf`, `authority` or `external`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Leaf => "leaf",
            Self::Authority => "authority",
            Self::External => "external",
        }
    }

    /// The number that every store writes for it; never reused for another kind.
    pub(super) const fn code(self) -> i64 {
        match self {
            Self::Leaf => 0,
            Self::Authority => 1,
            Self::External => 2,
        }
    }

    pub(super) const fn from_code(code: i64) -> Option<Self> {
        match code {
            0 => Some(Self::Leaf),
            1 => Some(Self::Authority),
            2 => Some(Self::External),
            _ => None,
        }
    }
}

/// One certificate as the registry knows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Enrolment {
    /// SHA-256 over [`Self::der`]; no two enrolments share it.
    pub fingerprint: Fingerprint,
    /// What kind of certificate it is.
    pub kind: EnrolmentKind,
    /// The name that it speaks for; a renewed certificate keeps it.
    pub name: Name,
    /// Lower-case hex.
    pub serial: String,
    /// The issuing certificate's fingerprint, where it is known.
    pub issuer: Option<Fingerprint>,
    /// The profile it was issued with; empty for `External`.
    pub profile: String,
    /// The pin's own set; `None`: the pin allows whatever the certificate carries.
    pub grants: Option<WrittenGrants>,
    /// First second of validity.
    pub not_before: UnixTime,
    /// Last second of validity (RFC 5280: inclusive).
    pub not_after: UnixTime,
    /// Whether a server admits by it (an unpinned certificate stays on record).
    pub pinned: bool,
    /// When, why and by whom it was revoked; a revocation is final.
    pub revocation: Option<Revocation>,
    /// When it was enrolled.
    pub created_at: UnixTime,
    /// Who did it, as the operating system tells it (`user@host`), for `ca show`.
    pub created_by: String,
    /// The certificate, DER; empty in a list.
    pub der: Vec<u8>,
}

impl Enrolment {
    /// Neither revoked nor expired at `now`.
    #[must_use]
    pub fn is_live(&self, now: UnixTime) -> bool {
        self.revocation.is_none() && self.not_after >= now
    }

    /// As much of it as a server keeps in memory.
    #[must_use]
    pub fn outline(&self) -> Outline {
        Outline {
            fingerprint: self.fingerprint,
            kind: self.kind,
            name: self.name.clone(),
            grants: self.grants.clone().map(Arc::new),
            not_after: self.not_after,
            pinned: self.pinned,
            revoked: self.revocation.is_some(),
        }
    }
}

/// As much of an enrolment as a server decides by.
#[derive(Clone, Debug, PartialEq)]
pub struct Outline {
    /// The certificate.
    pub fingerprint: Fingerprint,
    /// What kind of certificate it is.
    pub kind: EnrolmentKind,
    /// The name that it speaks for.
    pub name: Name,
    /// The pin's own set, if it has one.
    pub grants: Option<Arc<WrittenGrants>>,
    /// Last second of validity.
    pub not_after: UnixTime,
    /// Whether a server admits by it.
    pub pinned: bool,
    /// Whether it is revoked.
    pub revoked: bool,
}

/// A stretch of the whole registry, in the order of enrolment.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Page {
    /// What the stretch holds.
    pub outlines: Vec<Outline>,
    /// Where the next stretch begins; `None`: this was the last.
    pub next: Option<u64>,
}

/// RFC 5280 section 5.3.1: why a certificate was revoked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reason {
    /// Nobody said (0).
    #[default]
    Unspecified,
    /// The subject's key is known or feared to be in other hands (1).
    KeyCompromise,
    /// The CA's key is (2).
    CaCompromise,
    /// The subject's name or other data changed (3).
    AffiliationChanged,
    /// Another certificate took its place (4).
    Superseded,
    /// It is no longer needed (5).
    CessationOfOperation,
    /// What it was allowed was taken back (9).
    PrivilegeWithdrawn,
}

/// The text is not one of RFC 5280's reasons.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a reason: it is one of unspecified, keyCompromise, cACompromise, \
     affiliationChanged, superseded, cessationOfOperation, privilegeWithdrawn"
)]
pub struct UnknownReason(pub String);

impl Reason {
    /// Every reason, in the order of its code.
    pub const ALL: [Self; 7] = [
        Self::Unspecified,
        Self::KeyCompromise,
        Self::CaCompromise,
        Self::AffiliationChanged,
        Self::Superseded,
        Self::CessationOfOperation,
        Self::PrivilegeWithdrawn,
    ];

    /// `CRLReason` of RFC 5280 section 5.3.1.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Unspecified => 0,
            Self::KeyCompromise => 1,
            Self::CaCompromise => 2,
            Self::AffiliationChanged => 3,
            Self::Superseded => 4,
            Self::CessationOfOperation => 5,
            Self::PrivilegeWithdrawn => 9,
        }
    }

    /// The name that RFC 5280 gives it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unspecified => "unspecified",
            Self::KeyCompromise => "keyCompromise",
            Self::CaCompromise => "cACompromise",
            Self::AffiliationChanged => "affiliationChanged",
            Self::Superseded => "superseded",
            Self::CessationOfOperation => "cessationOfOperation",
            Self::PrivilegeWithdrawn => "privilegeWithdrawn",
        }
    }

    pub(super) fn from_code(code: i64) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|reason| i64::from(reason.code()) == code)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Reason {
    type Err = UnknownReason;

    /// RFC 5280's name, in any case, with or without hyphens (`key-compromise`).
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let plain: String = text.chars().filter(|c| *c != '-' && *c != '_').collect();
        Self::ALL
            .into_iter()
            .find(|reason| reason.as_str().eq_ignore_ascii_case(&plain))
            .ok_or_else(|| UnknownReason(text.to_owned()))
    }
}

/// That a certificate was revoked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// When.
    pub at: UnixTime,
    /// Why.
    pub reason: Reason,
    /// Who did it, as the operating system tells it (`user@host`).
    pub by: String,
}

/// One line of an issuer's CRL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevokedSerial {
    /// Lower-case hex.
    pub serial: String,
    /// The last second of the certificate's validity: after it the CRL need not name it any more.
    pub not_after: UnixTime,
    /// When, why and by whom.
    pub revocation: Revocation,
}

/// What happened to an enrolment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// It was recorded.
    Enrolled,
    /// A server admits by it again.
    Pinned,
    /// A server admits by it no longer.
    Unpinned,
    /// The pin's set changed.
    Regranted,
    /// It was revoked; for an authority this goes for everything below it too.
    Revoked,
    /// Its end was brought nearer.
    Shortened,
}

impl ChangeKind {
    /// As the audit log writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Enrolled => "enrolled",
            Self::Pinned => "pinned",
            Self::Unpinned => "unpinned",
            Self::Regranted => "regranted",
            Self::Revoked => "revoked",
            Self::Shortened => "shortened",
        }
    }

    pub(super) const fn code(self) -> i64 {
        match self {
            Self::Enrolled => 0,
            Self::Pinned => 1,
            Self::Unpinned => 2,
            Self::Regranted => 3,
            Self::Revoked => 4,
            Self::Shortened => 5,
        }
    }

    pub(super) const fn from_code(code: i64) -> Option<Self> {
        match code {
            0 => Some(Self::Enrolled),
            1 => Some(Self::Pinned),
            2 => Some(Self::Unpinned),
            3 => Some(Self::Regranted),
            4 => Some(Self::Revoked),
            5 => Some(Self::Shortened),
            _ => None,
        }
    }
}

/// One entry of the change feed; `seq` only grows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its place in the feed, from 1.
    pub seq: u64,
    /// What happened.
    pub kind: ChangeKind,
    /// To which certificate.
    pub fingerprint: Fingerprint,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_read_as_the_rfc_and_as_people_write_them() {
        for reason in Reason::ALL {
            assert_eq!(reason.as_str().parse(), Ok(reason));
            assert_eq!(Reason::from_code(i64::from(reason.code())), Some(reason));
        }
        assert_eq!("key-compromise".parse(), Ok(Reason::KeyCompromise));
        assert_eq!(
            "bored".parse::<Reason>(),
            Err(UnknownReason("bored".to_owned()))
        );
        assert_eq!(
            Reason::from_code(6),
            None,
            "certificateHold is not final, so it is none of ours"
        );
    }
}
