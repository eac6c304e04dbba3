//! Whether an answer is what was asked for: our key, our name, valid now, and below a CA that is
//! trusted already. Nothing is written before this has said yes.

use x509_parser::prelude::{FromDer, X509Certificate};

use crate::cert::{DEFAULT_PERMISSION_OID, Parsed};
use crate::clock::UnixTime;

/// More CAs than any path has.
const DEEPEST: usize = 6;

/// What an answer is held against.
pub(super) struct Expected<'a> {
    /// DER `SubjectPublicKeyInfo`.
    pub public: &'a [u8],
    /// The name that was asked for.
    pub name: &'a str,
    /// Roots that are trusted already, DER.
    pub roots: &'a [Vec<u8>],
    pub now: UnixTime,
}

/// The chain to be written: the certificate, and the CAs below the root.
pub(super) fn check(
    leaf: &[u8],
    authorities: &[Vec<u8>],
    expected: &Expected<'_>,
) -> Result<(Parsed, Vec<Vec<u8>>), String> {
    // The permissions are the server's business: whichever identifier they have, they are not read.
    let parsed = Parsed::from_der(leaf, DEFAULT_PERMISSION_OID).map_err(|e| e.to_string())?;
    let (_, certificate) = X509Certificate::from_der(leaf).map_err(|e| e.to_string())?;
    if certificate.public_key().raw != expected.public {
        return Err(String::from("it is for another key"));
    }
    if parsed.uris != [expected.name] {
        return Err(format!("it is not for `{}`", expected.name));
    }
    if parsed.is_ca {
        return Err(String::from("it is the certificate of a CA"));
    }
    if parsed.not_after <= expected.now {
        return Err(format!(
            "it ended at {}: check the clocks",
            parsed.not_after
        ));
    }
    if parsed.not_before > expected.now {
        return Err(format!(
            "it begins at {}: check the clocks",
            parsed.not_before
        ));
    }
    let chain = path(leaf, authorities, expected.roots)?;
    Ok((parsed, chain))
}

fn path(leaf: &[u8], authorities: &[Vec<u8>], roots: &[Vec<u8>]) -> Result<Vec<Vec<u8>>, String> {
    let mut chain = vec![leaf.to_vec()];
    while chain.len() <= DEEPEST {
        let last = &chain[chain.len() - 1];
        if roots.iter().any(|root| is_signed_by(last, root)) {
            return Ok(chain);
        }
        let issuer = authorities
            .iter()
            .find(|issuer| !chain.contains(issuer) && is_signed_by(last, issuer));
        match issuer {
            Some(issuer) => chain.push(issuer.clone()),
            None => break,
        }
    }
    Err(String::from(
        "it does not come from the CA that is trusted here",
    ))
}

fn is_signed_by(subject: &[u8], issuer: &[u8]) -> bool {
    let (Ok((_, subject)), Ok((_, issuer))) = (
        X509Certificate::from_der(subject),
        X509Certificate::from_der(issuer),
    ) else {
        return false;
    };
    issuer.is_ca()
        && subject.issuer().as_raw() == issuer.subject().as_raw()
        && subject.verify_signature(Some(issuer.public_key())).is_ok()
}
