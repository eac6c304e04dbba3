//! What can be told of a CA without its key.

use crate::identity::Fingerprint;

use super::authority::{Above, AuthorityError};
use super::files::CaFiles;

/// A CA from its certificates alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Whose names it gives out.
    pub trust_domain: String,
    /// Fingerprint of the root.
    pub root: Fingerprint,
}

impl Facts {
    /// Of the issuing CA of a folder, each link of its chain checked.
    ///
    /// # Errors
    /// Files, or certificates that do not fit together.
    pub fn of(files: &CaFiles, permission_oid: &str) -> Result<Self, AuthorityError> {
        let root = files.root_certificate();
        let above = Above::load(&files.issuing_certificate(), &root, permission_oid)?;
        Ok(Self {
            root: Fingerprint::of_der(&above.root),
            trust_domain: above.trust_domain,
        })
    }
}
