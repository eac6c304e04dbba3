//! Renewing by the certificate itself (`simplereenroll`), from two thirds of its life on.

use std::fs::{File, TryLockError};
use std::time::Duration;

use super::error::EnrolError;
use super::exchange::{ALPN, Exchange};
use super::files::CertFiles;
use super::install::{Pair, keys_pem, rewrite};
use super::key::Asking;
use super::verify::{Expected, check, vouched_for};
use crate::cert::{
    DEFAULT_PERMISSION_OID, KeyError, Parsed, PrivateKey, TokenKey, load_chain, load_keys, uri_of,
    write_atomic,
};
use crate::clock::UnixTime;
use crate::identity::Fingerprint;
use crate::tls::{ClientTls, Identity};

/// A certificate that took the place of another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renewed {
    /// Its fingerprint.
    pub fingerprint: Fingerprint,
    /// Its end.
    pub not_after: UnixTime,
}

/// When a certificate is to be renewed: at two thirds of its life, and up to a twelfth of it later.
/// How much later hangs on the fingerprint alone, so that a fleet does not come at once, and every
/// process with the same certificate means the same time.
#[must_use]
pub fn due_at(not_before: UnixTime, not_after: UnixTime, fingerprint: &Fingerprint) -> UnixTime {
    let life = not_after.since(not_before);
    let [a, b, ..] = fingerprint.as_bytes();
    let later = life / 12 * u32::from(u16::from_be_bytes([*a, *b])) / 65_536;
    not_before.plus(life / 3 * 2 + later)
}

/// Whether an identity is to be renewed now.
#[must_use]
pub fn is_due(identity: &Identity, now: UnixTime) -> bool {
    let due = due_at(
        identity.not_before(),
        identity.not_after(),
        &identity.fingerprint(),
    );
    now >= due
}

/// Renews what the files hold: if it is due, or `even_if_early`. Nothing is replaced before the new
/// certificate was tried out; `None`: it was not due. A root that takes the place of a trusted one, which
/// vouches for it, is trusted from then on.
///
/// # Errors
/// The old certificate is still there and works as before.
pub async fn renew(
    files: &CertFiles,
    even_if_early: bool,
    now: UnixTime,
) -> Result<Option<Renewed>, EnrolError> {
    let note = files.note()?;
    let _lock = lock(files)?;
    let held = Held::load(files)?;
    if !even_if_early
        && now
            < due_at(
                held.leaf.not_before,
                held.leaf.not_after,
                &held.leaf.fingerprint,
            )
    {
        return Ok(None);
    }
    let identity = Identity::load(&files.cert, &files.key, files.passphrase.as_ref())?;
    let tls =
        ClientTls::new(&identity, &files.ca, ALPN).map_err(|e| EnrolError::Tls(e.to_string()))?;
    let asking = match &held.key {
        HeldKey::Plain(key) => Asking::fresh(&held.name, Some(key))?,
        // It stays: nobody is asked for a passphrase to seal another one with.
        HeldKey::Sealed(key) => Asking::same(&held.name, key)?,
        HeldKey::Token(key) => Asking::of_token(&held.name, key)?,
    };
    let mut exchange = Exchange::open(&tls, &note.address).await?;
    let authorities = exchange.authorities().await?;
    let leaf = exchange.enrol_again(&asking.request).await?;
    let roots = load_chain(&files.ca)?;
    let expected = Expected {
        public: &asking.public,
        name: &held.name,
        roots: &roots,
        now,
    };
    let (parsed, chain) = check(&leaf, &authorities, &expected).map_err(|what| {
        let address = note.address.clone();
        EnrolError::Answer { address, what }
    })?;
    let pair = Pair {
        chain: &chain,
        key: asking.key.as_ref(),
    };
    pair.try_out(files)?;
    let new = vouched_for(&authorities, &roots, now);
    if !new.is_empty() {
        let all: Vec<_> = roots.iter().chain(&new).cloned().collect();
        rewrite(&files.ca, &all)?;
    }
    match &held.key {
        HeldKey::Plain(old) => pair.replace(files, old)?,
        HeldKey::Sealed(_) | HeldKey::Token(_) => pair.replace_certificate(files)?,
    }
    Ok(Some(Renewed {
        fingerprint: parsed.fingerprint,
        not_after: parsed.not_after,
    }))
}

/// One renewal of an identity at a time; a process that is killed holds nothing.
fn lock(files: &CertFiles) -> Result<File, EnrolError> {
    let path = files.note_path();
    let wrong = |cause: std::io::Error| EnrolError::Note {
        path: path.clone(),
        what: cause.to_string(),
    };
    let file = File::open(&path).map_err(wrong)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(EnrolError::Busy(files.cert.clone())),
        Err(TryLockError::Error(cause)) => Err(wrong(cause)),
    }
}

/// What is there now.
struct Held {
    leaf: Parsed,
    name: String,
    key: HeldKey,
}

enum HeldKey {
    Plain(PrivateKey),
    Sealed(PrivateKey),
    Token(Box<TokenKey>),
}

impl Held {
    fn load(files: &CertFiles) -> Result<Self, EnrolError> {
        let chain = load_chain(&files.cert)?;
        let leaf = Parsed::from_der(&chain[0], DEFAULT_PERMISSION_OID);
        let leaf = leaf.map_err(|cause| EnrolError::Parse {
            path: files.cert.clone(),
            cause,
        })?;
        let name = leaf.display_name();
        if let Some(uri) = uri_of(&files.key)? {
            let key = TokenKey::open(&uri, files.passphrase.as_ref()).map_err(KeyError::from)?;
            let key = HeldKey::Token(Box::new(key));
            return Ok(Self { leaf, name, key });
        }
        let sealed = matches!(
            load_keys(&files.key, None),
            Err(KeyError::PassphraseNeeded { .. })
        );
        let keys = load_keys(&files.key, files.passphrase.as_ref())?;
        let several = keys.len() > 1;
        let key = fitting(keys, &chain[0]).ok_or_else(|| KeyError::NotAKey {
            path: files.key.display().to_string(),
        })?;
        if several {
            // A renewal was killed on its last step.
            write_atomic(&files.key, keys_pem(&[&key]).as_bytes(), 0o600)?;
        }
        let key = if sealed {
            HeldKey::Sealed(key)
        } else {
            HeldKey::Plain(key)
        };
        Ok(Self { leaf, name, key })
    }
}

/// The key of the certificate among those of the file.
fn fitting(mut keys: Vec<PrivateKey>, leaf: &[u8]) -> Option<PrivateKey> {
    if keys.len() == 1 {
        return keys.pop();
    }
    let (_, certificate) = x509_parser::parse_x509_certificate(leaf).ok()?;
    let public = certificate.public_key().raw;
    keys.into_iter().find(|key| {
        let same = Asking::same("spiffe://key/key", key);
        same.is_ok_and(|same| same.public == public)
    })
}

/// For how long a process may wait until it looks again, whatever happens to the clock.
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_due_at_two_thirds_and_a_little_later() {
        let (from, to) = (UnixTime(1_000_000), UnixTime(1_000_000 + 86_400));
        let mut times = Vec::new();
        for number in 0..200_u32 {
            let print = Fingerprint::of_der(&number.to_be_bytes());
            let due = due_at(from, to, &print).0 - from.0;
            assert!((57_600..57_600 + 7200).contains(&due), "{due}");
            assert_eq!(due_at(from, to, &print).0 - from.0, due);
            times.push(due);
        }
        times.sort_unstable();
        assert!(
            times[20] < 57_600 + 1800 && times[180] > 57_600 + 5400,
            "spread"
        );
    }

    #[test]
    fn a_short_life_is_renewed_before_its_end() {
        let print = Fingerprint::from_bytes([0xff; 32]);
        let due = due_at(UnixTime(0), UnixTime(60), &print);
        assert!((40..50).contains(&due.0), "{due:?}");
    }
}
