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

/// The roots that a CA names: its own, and while one takes the place of another both (RFC 7030 section
/// 4.1.3). Without those that have ended.
pub(super) fn roots(authorities: &[Vec<u8>], now: UnixTime) -> impl Iterator<Item = &Vec<u8>> {
    let holds = move |der: &[u8]| {
        Parsed::from_der(der, DEFAULT_PERMISSION_OID).is_ok_and(|root| root.not_after > now)
    };
    authorities
        .iter()
        .filter(move |der| is_signed_by(der, der) && holds(der))
        .take(DEEPEST)
}

/// The roots that the CA names and one of `trusted` vouches for: it signed the same name with the same
/// key. Whoever trusts it believes in what is below them already, as long as it lives.
pub(super) fn vouched_for(
    authorities: &[Vec<u8>],
    trusted: &[Vec<u8>],
    now: UnixTime,
) -> Vec<Vec<u8>> {
    let vouched = |root: &[u8]| {
        authorities.iter().any(|cross| {
            is_same(cross, root) && trusted.iter().any(|trusted| is_signed_by(cross, trusted))
        })
    };
    let new = roots(authorities, now).filter(|root| !trusted.contains(root) && vouched(root));
    new.cloned().collect()
}

/// Whether two certificates are of one name and key.
fn is_same(one: &[u8], other: &[u8]) -> bool {
    both(one, other).is_some_and(|(one, other)| {
        one.subject().as_raw() == other.subject().as_raw()
            && one.public_key().raw == other.public_key().raw
    })
}

fn is_signed_by(subject: &[u8], issuer: &[u8]) -> bool {
    both(subject, issuer).is_some_and(|(subject, issuer)| {
        issuer.is_ca()
            && subject.issuer().as_raw() == issuer.subject().as_raw()
            && subject.verify_signature(Some(issuer.public_key())).is_ok()
    })
}

fn both<'a>(one: &'a [u8], other: &'a [u8]) -> Option<(X509Certificate<'a>, X509Certificate<'a>)> {
    let read = |der| X509Certificate::from_der(der).ok();
    Some((read(one)?.1, read(other)?.1))
}

#[cfg(test)]
mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
    };

    use super::*;
    use crate::clock::unix_now;

    struct Root {
        params: CertificateParams,
        key: KeyPair,
        der: Vec<u8>,
    }

    impl Root {
        fn new(name: &str) -> Self {
            let mut params = CertificateParams::default();
            params.distinguished_name = DistinguishedName::new();
            params.distinguished_name.push(DnType::CommonName, name);
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let key = KeyPair::generate().unwrap();
            let der = params.self_signed(&key).unwrap().der().to_vec();
            Self { params, key, der }
        }

        /// `other`'s name and key, signed by this one.
        fn vouches_for(&self, other: &Self) -> Vec<u8> {
            let issuer = Issuer::from_params(&self.params, &self.key);
            let cross = other.params.signed_by(&other.key, &issuer).unwrap();
            cross.der().to_vec()
        }
    }

    #[test]
    fn only_a_root_that_a_trusted_one_vouches_for_is_taken() {
        let [old, new, stranger] = ["old", "new", "stranger"].map(Root::new);
        let now = unix_now();
        let trusted = [old.der.clone()];
        let taken = |named: &[&Vec<u8>], at| {
            let named: Vec<_> = named.iter().copied().cloned().collect();
            vouched_for(&named, &trusted, at)
        };
        let cross = old.vouches_for(&new);
        let found = taken(&[&cross, &new.der, &old.der], now);
        assert_eq!(found, std::slice::from_ref(&new.der));
        assert!(taken(&[&old.der], now).is_empty(), "known");
        assert!(
            taken(&[&new.der, &old.der], now).is_empty(),
            "nobody vouches"
        );
        assert!(taken(&[&cross, &old.der], now).is_empty(), "no root");
        assert!(
            taken(&[&cross, &stranger.der], now).is_empty(),
            "another's word"
        );
        let by_itself = stranger.vouches_for(&new);
        assert!(
            taken(&[&by_itself, &new.der], now).is_empty(),
            "a stranger's word"
        );
        let namesake = Root::new("new");
        assert!(
            taken(&[&cross, &namesake.der], now).is_empty(),
            "another's key"
        );
        assert!(
            taken(&[&cross, &new.der], UnixTime::MAX).is_empty(),
            "it has ended"
        );
    }
}
