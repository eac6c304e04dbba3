//! Where the key of a new CA is kept: under a passphrase in a file, or in a token, and then the file
//! holds its URI. Never as it is.

use crate::cert::{KeyError, KeyKind, KeyUri, TokenKey, encrypt_pkcs8};
use crate::secret::Secret;

use super::create::CreateError;
use super::signer::Signer;

/// Where a key is kept.
#[derive(Clone, Copy, Debug)]
pub enum Keeping<'a> {
    /// As PKCS#8, encrypted under this passphrase.
    Sealed(&'a Secret),
    /// In a token. A key of that name that is there already is taken; else it is made there.
    Token {
        /// The token and the key.
        uri: &'a KeyUri,
        /// The PIN, unless the URI says where it is.
        pin: Option<&'a Secret>,
    },
}

impl Keeping<'_> {
    /// The key, and what its file holds.
    pub(super) fn make(self, kind: KeyKind) -> Result<(Signer, String), CreateError> {
        match self {
            Self::Sealed(passphrase) => {
                let (signer, key) = Signer::generate(kind)?;
                Ok((signer, encrypt_pkcs8(&key, passphrase)?))
            }
            Self::Token { uri, pin } => {
                let key = TokenKey::open_or_make(uri, pin, kind).map_err(KeyError::from)?;
                Ok((Signer::from_token(key)?, format!("{uri}\n")))
            }
        }
    }
}
