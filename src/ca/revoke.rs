//! Revoking: in the registry first, because its commit is what puts it in force; then waiting for
//! the servers that live.

use std::time::Duration;

use crate::clock::UnixTime;
use crate::registry::{Confirmation, Enrolment, Reason, Revocation, Store, StoreError};

/// Why nothing was revoked.
#[derive(Debug, thiserror::Error)]
pub enum RevokeError {
    /// The registry.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What a revocation came to.
#[derive(Debug)]
pub struct Revoked {
    /// The certificate, with its revocation.
    pub enrolment: Enrolment,
    /// It was revoked before; that revocation stands as it was.
    pub already: bool,
    /// How far the live servers have come.
    pub confirmation: Confirmation,
}

/// Revokes the certificate that `key` names (name, fingerprint or serial) and waits until every
/// live server has applied it, at most `patience`.
///
/// # Errors
/// No such certificate, several, or the registry did not take it.
pub async fn revoke(
    store: &dyn Store,
    key: &str,
    reason: Reason,
    by: &str,
    patience: Duration,
    now: UnixTime,
) -> Result<Revoked, RevokeError> {
    let enrolment = store.find(key, now).await?;
    revoke_one(store, enrolment, reason, by, patience, now).await
}

/// Revokes every live certificate of a name. All are in force before the first is waited for.
///
/// # Errors
/// No live certificate of this name, several names end so, or the registry did not take it; those
/// that it took are revoked.
pub async fn revoke_all(
    store: &dyn Store,
    name: &str,
    reason: Reason,
    by: &str,
    patience: Duration,
    now: UnixTime,
) -> Result<Vec<Revoked>, RevokeError> {
    let live = store.named(name, now).await?;
    let Some(first) = live.first() else {
        return Err(StoreError::NotFound(name.to_owned()).into());
    };
    if live.iter().any(|other| other.name != first.name) {
        return Err(StoreError::Ambiguous(name.to_owned()).into());
    }
    let revocation = Revocation {
        at: now,
        reason,
        by: by.to_owned(),
    };
    let mut newest = 0;
    for enrolment in &live {
        newest = newest.max(store.revoke(enrolment.fingerprint, &revocation).await?);
    }
    let confirmation = store.confirmed(newest, patience).await?;
    let done = |enrolment| Revoked {
        enrolment: Enrolment {
            revocation: Some(revocation.clone()),
            ..enrolment
        },
        already: false,
        confirmation: confirmation.clone(),
    };
    Ok(live.into_iter().map(done).collect())
}

async fn revoke_one(
    store: &dyn Store,
    mut enrolment: Enrolment,
    reason: Reason,
    by: &str,
    patience: Duration,
    now: UnixTime,
) -> Result<Revoked, RevokeError> {
    let already = enrolment.revocation.is_some();
    let revocation = Revocation {
        at: now,
        reason,
        by: by.to_owned(),
    };
    // Of one that is revoked already the first revocation stays, and it is waited for again: who
    // asks a second time may do so because the first did not reach every server in time.
    let seq = store.revoke(enrolment.fingerprint, &revocation).await?;
    enrolment.revocation.get_or_insert(revocation);
    let confirmation = store.confirmed(seq, patience).await?;
    Ok(Revoked {
        enrolment,
        already,
        confirmation,
    })
}
