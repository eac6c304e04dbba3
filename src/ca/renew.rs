//! Renewing: the same name, the same grants or fewer, another certificate. Old and new overlap, so
//! that nobody is cut off between them; what was taken from the old one is not given back by the new.

use std::time::Duration;

use crate::cert::{ParseError, Parsed};
use crate::clock::UnixTime;
use crate::grant::WrittenGrants;
use crate::identity::{Fingerprint, SpiffeError, SpiffeId};
use crate::registry::{
    Confirmation, Enrolment, EnrolmentKind, Reason, Revocation, Store, StoreError,
};

use super::authority::Authority;
use super::enrol::hosts;
use super::issue::{IssueError, Issued, issue};
use super::profile::{Profile, Usage};
use super::sign::{Request, Rules, SignError, Signed, is_within};

/// Why there is no renewed certificate.
#[derive(Debug, thiserror::Error)]
pub enum RenewError {
    /// Revoked for good.
    #[error("the certificate {0} is revoked, and a renewal does not undo that")]
    Revoked(Fingerprint),
    /// Somebody took its pin off.
    #[error("the certificate {0} is no longer pinned, and a renewal does not undo that")]
    Unpinned(Fingerprint),
    /// A delegate, an issuing CA, or somebody else's certificate.
    #[error("the certificate {fingerprint} is of kind `{kind}`: only a leaf of this CA is renewed")]
    Kind {
        /// Which.
        fingerprint: Fingerprint,
        /// Its kind.
        kind: &'static str,
    },
    /// More than the old one may do.
    #[error("`{grant}` is more than the certificate of `{name}` allows: a renewal only narrows")]
    Wider {
        /// As written in the request.
        grant: String,
        /// Whose certificate.
        name: String,
    },
    /// What is on record does not parse.
    #[error("the certificate on record cannot be read: {0}")]
    Parse(#[from] ParseError),
    /// What is on record has no SPIFFE ID.
    #[error("the name on record is no SPIFFE ID: {0}")]
    Name(#[from] SpiffeError),
    /// Signing.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// Recording.
    #[error(transparent)]
    Issue(#[from] IssueError),
    /// The registry.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It was revoked or unpinned while the new one was being made; that one is revoked too.
    #[error(
        "the certificate {0} was revoked or unpinned meanwhile, so the new one was revoked too"
    )]
    Meanwhile(Fingerprint),
}

/// What is to be renewed, and how.
#[derive(Clone, Debug)]
pub struct Renewal<'a> {
    /// As recorded, with the certificate.
    pub old: &'a Enrolment,
    /// The new key, DER `SubjectPublicKeyInfo`.
    pub subject_key: &'a [u8],
    /// `None`: the same.
    pub grants: Option<WrittenGrants>,
    /// The profile of this name: [`Enrolment::profile`].
    pub profile: &'a Profile,
    /// How long, where not the profile's lifetime.
    pub ttl: Option<Duration>,
}

impl Authority {
    /// Signs a certificate that takes the place of another, which this CA or one before it issued.
    ///
    /// # Errors
    /// The old one is revoked, unpinned or no leaf, the grants are wider, or signing is refused.
    pub fn renew(
        &self,
        renewal: &Renewal<'_>,
        rules: Rules<'_>,
        now: UnixTime,
    ) -> Result<Signed, RenewError> {
        let old = renewal.old;
        check_standing(old, renewal.profile)?;
        let parsed = Parsed::from_der(&old.der, rules.permission_oid)?;
        let carried = parsed.permissions.unwrap_or_default();
        let grants = match &renewal.grants {
            Some(asked) => {
                check_narrower(asked, &carried, old.name.as_str(), rules)?;
                asked.clone()
            }
            None => carried,
        };
        let request = Request {
            name: old.name.as_str().parse::<SpiffeId>()?,
            subject_key: renewal.subject_key,
            grants,
            profile: renewal.profile,
            ttl: renewal.ttl,
            dns: parsed.dns,
            ips: hosts(&old.der).ips,
        };
        let mut signed = self.sign(&request, rules, now)?;
        // The pin's own set was narrowed by somebody: it stays narrow.
        signed.pin.clone_from(&old.grants);
        if old.not_after < now {
            signed
                .notes
                .push(format!("the one before ended at {}", old.not_after));
        }
        Ok(signed)
    }
}

fn check_standing(old: &Enrolment, profile: &Profile) -> Result<(), RenewError> {
    if old.kind != EnrolmentKind::Leaf {
        let (fingerprint, kind) = (old.fingerprint, old.kind.as_str());
        return Err(RenewError::Kind { fingerprint, kind });
    }
    if old.revocation.is_some() {
        return Err(RenewError::Revoked(old.fingerprint));
    }
    if profile.is_for(Usage::Client) && !old.pinned {
        return Err(RenewError::Unpinned(old.fingerprint));
    }
    Ok(())
}

fn check_narrower(
    asked: &WrittenGrants,
    carried: &WrittenGrants,
    name: &str,
    rules: Rules<'_>,
) -> Result<(), RenewError> {
    for entry in asked.entries() {
        // A role that is not known here cannot be compared, so it counts as wider.
        if !is_within(entry, carried, rules.roles).unwrap_or(false) {
            let (grant, name) = (entry.to_string(), name.to_owned());
            return Err(RenewError::Wider { grant, name });
        }
    }
    Ok(())
}

/// Records a renewed certificate. A revocation or unpinning of the old one that was committed while
/// the new one was made takes the new one too: whoever took the old one away has not seen the new.
///
/// # Errors
/// The registry did not take it, or the old one fell meanwhile.
pub async fn issue_renewal(
    store: &dyn Store,
    signed: Signed,
    old: &Enrolment,
    by: &str,
    now: UnixTime,
) -> Result<Issued, RenewError> {
    let mut issued = issue(store, signed, by, now).await?;
    let short = old.fingerprint.short();
    issued.notes.retain(|note| !note.contains(&short));
    let present = store.get(old.fingerprint).await?;
    let stands = present
        .is_some_and(|present| present.revocation.is_none() && (present.pinned || !old.pinned));
    if stands {
        return Ok(issued);
    }
    let revocation = Revocation {
        at: now,
        reason: Reason::PrivilegeWithdrawn,
        by: by.to_owned(),
    };
    store
        .revoke(issued.enrolment.fingerprint, &revocation)
        .await?;
    Err(RenewError::Meanwhile(old.fingerprint))
}

/// The certificate that a name, fingerprint or serial means for a renewal: of several live ones of
/// a name the newest, for an overlap is not over yet when the next renewal is due.
///
/// # Errors
/// No such certificate, several names, or an outage.
pub async fn find_newest(
    store: &dyn Store,
    key: &str,
    now: UnixTime,
) -> Result<Enrolment, StoreError> {
    match store.find(key, now).await {
        Err(StoreError::Ambiguous(_)) => {}
        other => return other,
    }
    let live = store.named(key, now).await?;
    let ambiguous = || StoreError::Ambiguous(key.to_owned());
    let newest = live.first().ok_or_else(ambiguous)?;
    if live.iter().any(|other| other.name != newest.name) {
        return Err(ambiguous());
    }
    store.get(newest.fingerprint).await?.ok_or_else(ambiguous)
}

/// Brings the old one's end nearer and waits for the live servers, at most `patience`. It holds by
/// the pin: for a certificate that is not pinned, revoke.
///
/// # Errors
/// The registry did not take it.
pub async fn end_old(
    store: &dyn Store,
    old: Fingerprint,
    end: UnixTime,
    patience: Duration,
) -> Result<Confirmation, StoreError> {
    let seq = store.set_end(old, end).await?;
    store.confirmed(seq, patience).await
}
