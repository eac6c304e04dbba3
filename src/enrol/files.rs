//! The files of one identity, and the note beside them that says where it is renewed.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::EnrolError;
use crate::cert::write_atomic;
use crate::secret::Secret;

/// `NAME.crt`, `NAME.key` and the CA that they belong to.
#[derive(Clone, Debug)]
pub struct CertFiles {
    /// PEM chain, leaf first.
    pub cert: PathBuf,
    /// PKCS#8 key in PEM.
    pub key: PathBuf,
    /// PEM bundle of the CA.
    pub ca: PathBuf,
    /// For an encrypted key.
    pub passphrase: Option<Secret>,
}

/// `NAME.renew.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Note {
    /// `host:port` of the CA's server.
    pub address: String,
}

impl CertFiles {
    /// With the CA's bundle `ca.pem` in the certificate's folder.
    #[must_use]
    pub fn new(cert: &Path, key: &Path) -> Self {
        Self {
            cert: cert.to_owned(),
            key: key.to_owned(),
            ca: cert.with_file_name("ca.pem"),
            passphrase: None,
        }
    }

    /// Where the note is.
    #[must_use]
    pub fn note_path(&self) -> PathBuf {
        self.cert.with_extension("renew.toml")
    }

    /// Whether somebody wrote down where this is renewed.
    #[must_use]
    pub fn renews(&self) -> bool {
        self.note_path().is_file()
    }

    /// The note.
    ///
    /// # Errors
    /// It is not there, or makes no sense.
    pub fn note(&self) -> Result<Note, EnrolError> {
        let path = self.note_path();
        let wrong = |what: String| EnrolError::Note {
            path: path.clone(),
            what,
        };
        let text = std::fs::read_to_string(&path).map_err(|error| wrong(error.to_string()))?;
        toml_edit::de::from_str(&text).map_err(|error| wrong(error.message().to_owned()))
    }

    /// Writes the note.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write_note(&self, note: &Note) -> Result<(), EnrolError> {
        let path = self.note_path();
        let body = toml_edit::ser::to_string(note).map_err(|error| EnrolError::Note {
            path: path.clone(),
            what: error.to_string(),
        })?;
        let text =
            format!("# Where this certificate is renewed, at two thirds of its life.\n{body}");
        Ok(write_atomic(&path, text.as_bytes(), 0o600)?)
    }
}
