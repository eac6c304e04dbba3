//! Pins for certificates of other CAs. A pin replaces neither the chain nor revocation: a server
//! asks for all of them.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use crate::cert::{FileError, ParseError, Parsed, load_chain};
use crate::clock::UnixTime;
use crate::grant::WrittenGrants;
use crate::identity::{Name, NameError};
use crate::registry::{Confirmation, Enrolment, EnrolmentKind, Store, StoreError};

use super::remaining::remaining;

/// Why nothing was pinned.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// The file.
    #[error(transparent)]
    File(#[from] FileError),
    /// What is in it.
    #[error("`{path}`: {error}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: ParseError,
    },
    /// A pin on a CA would cover everything that it signs.
    #[error("`{0}` holds the certificate of a CA: a pin is for one peer's certificate")]
    Authority(PathBuf),
    /// Nothing to call it by, or several things.
    #[error("`{path}` has {count} {place} to take the name from, where one is needed")]
    Candidates {
        /// The file.
        path: PathBuf,
        /// How many.
        count: usize,
        /// Which field.
        place: &'static str,
    },
    /// The name's spelling.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A pin that allows nothing.
    #[error("`{0}` carries no permissions, so a pin without grants would allow nothing")]
    NoGrants(PathBuf),
    /// Over already.
    #[error("`{path}`: the certificate has {standing}")]
    Ended {
        /// The file.
        path: PathBuf,
        /// In people's words.
        standing: String,
    },
    /// Revoked: pinning does not undo that.
    #[error("certificate {0} is revoked, and a pin does not undo that")]
    Revoked(String),
    /// The registry.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Where the name of a certificate of another CA stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameFrom {
    /// The one URI among the subject alternative names.
    Uri,
    /// The one DNS name among them.
    Dns,
    /// The one common name of the subject.
    Cn,
}

/// Not a word that names a place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a place of a name: uri, dns or cn")]
pub struct NameFromError(String);

impl FromStr for NameFrom {
    type Err = NameFromError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "uri" => Ok(Self::Uri),
            "dns" => Ok(Self::Dns),
            "cn" => Ok(Self::Cn),
            other => Err(NameFromError(other.to_owned())),
        }
    }
}

/// What is to be pinned.
#[derive(Clone, Debug)]
pub struct NewPin<'a> {
    /// A PEM file; its first certificate counts.
    pub file: &'a Path,
    /// The name, where it is not to be taken from the certificate.
    pub name: Option<&'a str>,
    /// Where in the certificate the name stands.
    pub from: NameFrom,
    /// The pin's own set; `None`: what the certificate carries.
    pub grants: Option<WrittenGrants>,
    /// The pin's end, where it is before the certificate's.
    pub ttl: Option<Duration>,
    /// The permission extension's identifier.
    pub permission_oid: &'a str,
}

/// What a pin came to.
#[derive(Debug)]
pub struct Pinned {
    /// As recorded.
    pub enrolment: Enrolment,
    /// It was on record before and only its pin changed.
    pub known: bool,
    /// How far the live servers have come; `None` where nothing had to change.
    pub confirmation: Option<Confirmation>,
}

/// Pins a certificate of another CA. One that is on record already is pinned again, with the new
/// grants where some are given.
///
/// # Errors
/// Not a usable certificate, no name, nothing allowed, or the registry did not take it.
pub async fn pin(
    store: &dyn Store,
    new: &NewPin<'_>,
    by: &str,
    now: UnixTime,
) -> Result<Pinned, PinError> {
    // `load_chain` gives at least one.
    let der = load_chain(new.file)?.swap_remove(0);
    let file = new.file.to_owned();
    let parsed = Parsed::from_der(&der, new.permission_oid).map_err(|error| PinError::Parse {
        path: file.clone(),
        error,
    })?;
    if parsed.is_ca {
        return Err(PinError::Authority(file));
    }
    if parsed.not_after <= now {
        let standing = remaining(parsed.not_before, parsed.not_after, now);
        return Err(PinError::Ended {
            path: file,
            standing,
        });
    }
    if new.grants.is_none() && parsed.permissions.is_none() {
        return Err(PinError::NoGrants(file));
    }
    if let Some(known) = store.get(parsed.fingerprint).await? {
        return pin_again(store, known, new).await;
    }
    let enrolment = Enrolment {
        fingerprint: parsed.fingerprint,
        kind: EnrolmentKind::External,
        name: name(new, &parsed)?,
        serial: parsed.serial.clone(),
        issuer: None,
        profile: String::new(),
        grants: new.grants.clone(),
        not_before: parsed.not_before,
        not_after: new
            .ttl
            .map_or(parsed.not_after, |ttl| now.plus(ttl).min(parsed.not_after)),
        pinned: true,
        revocation: None,
        created_at: now,
        created_by: by.to_owned(),
        der,
    };
    store.enrol(&enrolment).await?;
    Ok(Pinned {
        enrolment,
        known: false,
        confirmation: None,
    })
}

async fn pin_again(
    store: &dyn Store,
    mut enrolment: Enrolment,
    new: &NewPin<'_>,
) -> Result<Pinned, PinError> {
    if enrolment.revocation.is_some() {
        return Err(PinError::Revoked(enrolment.fingerprint.to_string()));
    }
    if new.grants.is_some() && enrolment.grants != new.grants {
        store
            .set_grants(enrolment.fingerprint, new.grants.as_ref())
            .await?;
        enrolment.grants.clone_from(&new.grants);
    }
    if !enrolment.pinned {
        store.set_pinned(enrolment.fingerprint, true).await?;
        enrolment.pinned = true;
    }
    Ok(Pinned {
        enrolment,
        known: true,
        confirmation: None,
    })
}

fn name(new: &NewPin<'_>, parsed: &Parsed) -> Result<Name, PinError> {
    if let Some(name) = new.name {
        return Ok(Name::new(name)?);
    }
    let (candidates, place) = match new.from {
        NameFrom::Uri => (&parsed.uris, "URI names"),
        NameFrom::Dns => (&parsed.dns, "DNS names"),
        NameFrom::Cn => (&parsed.common_names, "common names"),
    };
    match candidates.as_slice() {
        [one] => Ok(Name::new(one)?),
        several => Err(PinError::Candidates {
            path: new.file.to_owned(),
            count: several.len(),
            place,
        }),
    }
}

/// Takes the pin off the certificate that `key` names, and waits for the live servers.
///
/// # Errors
/// No such certificate, several, or the registry did not take it.
pub async fn unpin(
    store: &dyn Store,
    key: &str,
    patience: Duration,
    now: UnixTime,
) -> Result<Pinned, PinError> {
    let mut enrolment = store.find(key, now).await?;
    if !enrolment.pinned {
        return Ok(Pinned {
            enrolment,
            known: true,
            confirmation: None,
        });
    }
    let seq = store.set_pinned(enrolment.fingerprint, false).await?;
    enrolment.pinned = false;
    let confirmation = store.confirmed(seq, patience).await?;
    Ok(Pinned {
        enrolment,
        known: true,
        confirmation: Some(confirmation),
    })
}
