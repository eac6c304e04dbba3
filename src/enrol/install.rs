//! Writing certificates and keys so that at every instant, also after a kill or a power cut, the
//! certificate that is there has its key beside it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use zeroize::Zeroizing;

use super::error::EnrolError;
use super::files::CertFiles;
use crate::cert::{PrivateKey, pem, write_atomic};
use crate::tls::Identity;

/// The new pair, tried out before it takes the place of the old one.
pub(super) struct Pair<'a> {
    /// Leaf first, DER.
    pub chain: &'a [Vec<u8>],
    /// None of a key in a token.
    pub key: Option<&'a PrivateKey>,
}

impl Pair<'_> {
    /// Takes the pair as a program would. In memory: a key that is encrypted in its file must not
    /// lie beside it as it is. That a token's key fits was seen when the answer was checked.
    pub fn try_out(&self, files: &CertFiles) -> Result<(), EnrolError> {
        let Some(key) = self.key else { return Ok(()) };
        Identity::of(&files.cert, self.chain, &files.key, key)?;
        Ok(())
    }

    /// For the first time: nothing is there, or it may be written over.
    pub fn install(&self, files: &CertFiles) -> Result<(), EnrolError> {
        if let Some(key) = self.key {
            write_atomic(&files.key, keys_pem(&[key]).as_bytes(), 0o600)?;
        }
        write_atomic(&files.cert, pem::certificates(self.chain).as_bytes(), 0o600)?;
        Ok(())
    }

    /// In the place of a working pair: first both keys in one file, then the new certificate, then
    /// the new key alone. Whoever loads the pair in between takes the key that fits.
    pub fn replace(&self, files: &CertFiles, old: &PrivateKey) -> Result<(), EnrolError> {
        let Some(key) = self.key else {
            return self.replace_certificate(files);
        };
        write_atomic(&files.key, keys_pem(&[old, key]).as_bytes(), 0o600)?;
        self.replace_certificate(files)?;
        write_atomic(&files.key, keys_pem(&[key]).as_bytes(), 0o600)?;
        Ok(())
    }

    /// The same key, so one file.
    pub fn replace_certificate(&self, files: &CertFiles) -> Result<(), EnrolError> {
        rewrite(&files.cert, self.chain)
    }
}

/// Certificates in the place of others; who may read them stays as it is.
pub(super) fn rewrite(path: &Path, certificates: &[Vec<u8>]) -> Result<(), EnrolError> {
    let mode = fs::metadata(path).map_or(0o600, |meta| meta.permissions().mode());
    let text = pem::certificates(certificates);
    Ok(write_atomic(path, text.as_bytes(), mode & 0o777)?)
}

pub(super) fn keys_pem(keys: &[&PrivateKey]) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::new());
    // Reserved at once, so that no copy of a key is left where the text grew from.
    text.reserve(keys.iter().map(|key| key.0.expose().len() * 2 + 100).sum());
    for key in keys {
        text.push_str(&pem::block("PRIVATE KEY", key.0.expose()));
    }
    text
}
