//! One-time tokens: who may enrol once, and as what. The token itself is never kept: what is kept
//! does not let anybody in.

use std::fmt;
use std::time::Duration;

use ring::digest;

use crate::clock::UnixTime;
use crate::grant::WrittenGrants;
use crate::identity::Name;

/// SHA-256 over a token's secret. The secret is 256 random bits, so no slow hash is needed.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenDigest([u8; 32]);

impl TokenDigest {
    /// Of the secret's bytes.
    #[must_use]
    pub fn of(secret: &[u8]) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest::digest(&digest::SHA256, secret).as_ref());
        Self(bytes)
    }

    /// As a store keeps it.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for TokenDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenDigest({})", hex::encode(&self.0[..6]))
    }
}

/// What one token is good for.
#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    /// Of its secret; no two tokens share it.
    pub digest: TokenDigest,
    /// The only name that may be enrolled with it.
    pub name: Name,
    /// What the certificate will allow; empty: the profile's default.
    pub grants: WrittenGrants,
    /// The kind of certificate.
    pub profile: String,
    /// DNS names and addresses, for servers.
    pub hosts: Vec<String>,
    /// The certificate's lifetime, where not the profile's; whole seconds.
    pub lifetime: Option<Duration>,
    /// The last second in which it can be used.
    pub expires_at: UnixTime,
    /// When it was made.
    pub created_at: UnixTime,
    /// Who made it (`user@host`).
    pub created_by: String,
    /// When it was used, if it was: then it is of no more use.
    pub used_at: Option<UnixTime>,
}

/// A token that lets nobody in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenRefusal {
    /// Never made here, or purged since.
    #[error("this token is not known")]
    Unknown,
    /// Used before: each is good for one certificate.
    #[error("this token was used before")]
    Used,
    /// Too late.
    #[error("this token has expired")]
    Expired,
}

impl Token {
    /// Whether it can be used at `now`.
    ///
    /// # Errors
    /// It was used, or it is too late; of both, that it was used is told.
    pub fn check(&self, now: UnixTime) -> Result<(), TokenRefusal> {
        if self.used_at.is_some() {
            return Err(TokenRefusal::Used);
        }
        if now > self.expires_at {
            return Err(TokenRefusal::Expired);
        }
        Ok(())
    }
}
