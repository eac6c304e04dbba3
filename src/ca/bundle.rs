//! One file for a server's anchor: the certificates of all CAs of a folder and their CRLs, also of
//! those that were replaced and whose certificates still count. Rewritten as a whole whenever one of
//! them changes.

use std::path::Path;

use crate::cert::{FileError, Parsed, load_chain, pem, write_atomic};
use crate::clock::UnixTime;

use super::files::CaFiles;

/// Writes `bundle.pem`. What has ended, and what cannot be read, is left out.
///
/// # Errors
/// The folder cannot be read, or the file not be written.
pub fn write_bundle(files: &CaFiles, oid: &str, now: UnixTime) -> Result<(), FileError> {
    let unreadable = |cause| FileError::Read {
        path: files.retired(),
        cause,
    };
    let mut certificates: Vec<Vec<u8>> = Vec::new();
    let mut crls = String::new();
    for generation in files.generations().map_err(unreadable)? {
        let [root, issuing] = [
            generation.root_certificate(),
            generation.issuing_certificate(),
        ];
        let before = certificates.len();
        for path in [root, issuing, generation.cross_certificate()] {
            add(&path, oid, now, &mut certificates);
        }
        if certificates.len() == before && before > 0 {
            // The same CAs as another generation's, or ended.
            continue;
        }
        for path in [generation.root_crl(), generation.issuing_crl()] {
            crls.push_str(&std::fs::read_to_string(path).unwrap_or_default());
        }
    }
    let text = pem::certificates(&certificates) + &crls;
    write_atomic(&files.bundle(), text.as_bytes(), 0o644)
}

fn add(path: &Path, oid: &str, now: UnixTime, certificates: &mut Vec<Vec<u8>>) {
    for der in load_chain(path).unwrap_or_default() {
        let lives = Parsed::from_der(&der, oid).is_ok_and(|parsed| parsed.not_after > now);
        if lives && !certificates.contains(&der) {
            certificates.push(der);
        }
    }
}
