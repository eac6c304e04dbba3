//! Where a new key is kept, as the command line says it: in a token, or in a file under a passphrase.

use std::path::Path;

use crate::ca::Keeping;
use crate::cert::{KeyKind, KeyUri, TokenKey, UriError, uri_of};
use crate::secret::Secret;

use super::error::CaCommandError;
use super::passphrase::Passphrases;

/// A place for a key, with what opens it.
pub(super) enum Kept {
    Sealed(Secret),
    Token {
        uri: Box<KeyUri>,
        pin: Option<Secret>,
    },
}

impl Kept {
    /// `token`: the URI that was given; `file`: where the key's file will be, for a prompt.
    pub fn of(
        token: Option<&str>,
        passphrases: &Passphrases,
        file: &Path,
    ) -> Result<Self, CaCommandError> {
        let Some(text) = token else {
            return Ok(Self::Sealed(passphrases.fresh(file)?));
        };
        let uri = KeyUri::parse(text)?;
        let pin = if uri.has_pin() {
            None
        } else {
            Some(passphrases.of(file)?)
        };
        let uri = Box::new(uri);
        Ok(Self::Token { uri, pin })
    }

    /// As [`Self::of`], for a key that takes the place of the one in `file`: a key in a token is not
    /// followed by one in a file just because nobody said otherwise.
    pub fn instead_of(
        token: Option<&str>,
        passphrases: &Passphrases,
        file: &Path,
        flag: &'static str,
    ) -> Result<Self, CaCommandError> {
        if token.is_none() && file.exists() && uri_of(file)?.is_some() {
            let file = file.to_owned();
            return Err(CaCommandError::WasInToken { file, flag });
        }
        Self::of(token, passphrases, file)
    }

    pub fn keeping(&self) -> Keeping<'_> {
        match self {
            Self::Sealed(passphrase) => Keeping::Sealed(passphrase),
            Self::Token { uri, pin } => Keeping::Token {
                uri,
                pin: pin.as_ref(),
            },
        }
    }
}

/// The key in a token that a certificate is for. `make`: one that is not there is made there.
pub(super) fn subject_in_token(
    text: &str,
    make: Option<KeyKind>,
) -> Result<TokenKey, CaCommandError> {
    let uri = KeyUri::parse(text)?;
    let pin = if uri.has_pin() {
        None
    } else {
        Some(Passphrases::of_token(Path::new(uri.as_str()))?)
    };
    Ok(match make {
        Some(kind) => TokenKey::open_or_make(&uri, pin.as_ref(), kind)?,
        None => TokenKey::open(&uri, pin.as_ref())?,
    })
}

impl From<UriError> for CaCommandError {
    fn from(error: UriError) -> Self {
        Self::Uri(error)
    }
}
