//! The invitation: all that `join` needs, as one string. `cs1.` and then, in base64url, the CA's
//! address, the fingerprint of its root, the name, and the secret that is good for one certificate.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::identity::Fingerprint;
use crate::secret::Secret;

/// The secret's length: 256 random bits.
pub const SECRET_BYTES: usize = 32;

const PREFIX: &str = "cs1.";
/// Longer than any that is made: a host name has at most 253 characters, a name 2048.
const LONGEST: usize = 4096;

/// The text is no invitation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvitationError {
    /// Not ours, or only a part of one.
    #[error("this is not a token of Countersign, or not all of it")]
    Malformed,
    /// The system has no random numbers.
    #[error("the operating system gives no random numbers")]
    Random,
}

/// What an invitation says. `Debug` shows nothing of the secret.
#[derive(Clone, Debug)]
pub struct Invitation {
    /// `host:port` of the CA.
    pub address: String,
    /// The root's fingerprint: whoever answers must have a certificate below it.
    pub root: Fingerprint,
    /// The name that will be enrolled, a SPIFFE ID.
    pub name: String,
    /// 32 random bytes.
    pub secret: Secret,
}

/// The form inside the string; one letter a field keeps it short enough for a terminal's line.
#[derive(Serialize, Deserialize)]
struct Packed {
    a: String,
    f: String,
    n: String,
    s: Zeroizing<String>,
}

impl Invitation {
    /// With a fresh secret.
    ///
    /// # Errors
    /// No random numbers.
    pub fn new(address: String, root: Fingerprint, name: String) -> Result<Self, InvitationError> {
        let mut secret = vec![0; SECRET_BYTES];
        SystemRandom::new()
            .fill(&mut secret)
            .map_err(|_| InvitationError::Random)?;
        Ok(Self {
            address,
            root,
            name,
            secret: Secret::new(secret),
        })
    }

    /// The string that is handed over. It lets its holder in: show it once.
    #[must_use]
    pub fn reveal(&self) -> Zeroizing<String> {
        let packed = Packed {
            a: self.address.clone(),
            f: URL_SAFE_NO_PAD.encode(self.root.as_bytes()),
            n: self.name.clone(),
            s: self.password(),
        };
        let json = Zeroizing::new(serde_json::to_vec(&packed).expect("four strings are JSON"));
        Zeroizing::new(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(&*json)))
    }

    /// The secret as a password of HTTP (RFC 7617) or as a bearer token (RFC 6750).
    #[must_use]
    pub fn password(&self) -> Zeroizing<String> {
        Zeroizing::new(URL_SAFE_NO_PAD.encode(self.secret.expose()))
    }

    /// Reads the string.
    ///
    /// # Errors
    /// It is not one, or was cut.
    pub fn read(text: &str) -> Result<Self, InvitationError> {
        let read = || {
            let packed = text
                .trim()
                .strip_prefix(PREFIX)
                .filter(|t| t.len() <= LONGEST)?;
            let json = Zeroizing::new(URL_SAFE_NO_PAD.decode(packed).ok()?);
            let packed: Packed = serde_json::from_slice(&json).ok()?;
            let root = URL_SAFE_NO_PAD.decode(&packed.f).ok()?;
            Some(Self {
                root: Fingerprint::from_bytes(root.try_into().ok()?),
                secret: read_password(&packed.s)?,
                address: packed.a,
                name: packed.n,
            })
        };
        read().ok_or(InvitationError::Malformed)
    }

    /// The secret of what came as a password: the password alone, or the whole string, because
    /// that is what people have at hand.
    #[must_use]
    pub fn secret_of(text: &str) -> Option<Secret> {
        if text.starts_with(PREFIX) {
            return Self::read(text).ok().map(|invitation| invitation.secret);
        }
        read_password(text)
    }
}

fn read_password(text: &str) -> Option<Secret> {
    // Anything longer is not worth decoding.
    if text.len() > 2 * SECRET_BYTES {
        return None;
    }
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    (bytes.len() == SECRET_BYTES).then(|| Secret::new(bytes))
}

impl fmt::Display for Invitation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an invitation of `{}` to `{}`", self.name, self.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made() -> Invitation {
        let root = Fingerprint::of_der(b"root");
        let name = String::from("spiffe://example.org/team/agent-7");
        Invitation::new(String::from("ca.example.org:8444"), root, name).unwrap()
    }

    #[test]
    fn what_was_handed_over_is_read_back_and_no_part_of_it() {
        let made = made();
        let text = made.reveal();
        let read = Invitation::read(&format!(" {}\n", *text)).unwrap();
        assert_eq!(read.secret.expose(), made.secret.expose());
        assert_eq!(
            (&read.address, read.root, &read.name),
            (&made.address, made.root, &made.name)
        );
        for end in 0..text.len() {
            assert!(Invitation::read(&text[..end]).is_err(), "{end}");
        }
        assert!(Invitation::read(&text.replacen("cs1", "cs2", 1)).is_err());
    }

    #[test]
    fn as_a_password_both_forms_are_taken() {
        let made = made();
        for text in [made.password(), made.reveal()] {
            let secret = Invitation::secret_of(&text).unwrap();
            assert_eq!(secret.expose(), made.secret.expose());
        }
        for wrong in ["", "hunter2", "cs1.", &made.password()[1..]] {
            assert!(Invitation::secret_of(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn neither_debug_nor_display_shows_the_secret() {
        let made = made();
        let shown = format!("{made:?} {made}");
        assert!(!shown.contains(&*made.password()) && !shown.contains(&*made.reveal()));
        assert!(!shown.contains(&hex::encode(made.secret.expose())));
    }

    #[test]
    fn no_two_have_the_same_secret() {
        assert_ne!(made().secret.expose(), made().secret.expose());
    }
}
