//! From presented certificates to a verified path: chain, usage, validity, CRL by webpki; then the
//! one name and the layers of authority from the certificates of that path, and no others.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use webpki::{
    EndEntityCert, Error, ExpirationPolicy, KeyUsage, RevocationCheckDepth, RevocationOptions,
    RevocationOptionsBuilder, UnknownStatusPolicy, UnsupportedSignatureAlgorithmContext,
    UnsupportedSignatureAlgorithmForPublicKeyContext, VerifiedPath,
};

use super::anchor::{Anchor, CrlMode, NameFrom};
use super::cache::Verified;
use super::profile::Profile;
use super::provider::pki_time;
use super::refusal::{Class, Refusal};
use crate::cert::{ParseError, Parsed};
use crate::clock::UnixTime;
use crate::identity::{Fingerprint, Name, SpiffeId};
use crate::peer::{Chain, Layer, Link, Source};

/// Shorter RSA keys are refused whatever the profile.
const LEAST_RSA_BITS: usize = 2048;

/// What a client presented, and when.
pub(super) struct Presented<'a> {
    pub(super) leaf: &'a CertificateDer<'a>,
    pub(super) others: &'a [CertificateDer<'a>],
    pub(super) now: UnixTime,
}

/// How paths are built, the same for all.
pub(super) struct Rules<'a> {
    /// What signatures are believed.
    pub(super) profile: Profile,
    pub(super) permission_oid: &'a str,
}

/// A verified chain, and whether everything that was presented had a part in it. A client that adds
/// what it likes could otherwise fill the cache with endless variants of one chain.
pub(super) struct Found {
    pub(super) verified: Verified,
    pub(super) nothing_besides: bool,
}

/// Looks for a path to one of the anchors, in their order. When there is none, the most telling of
/// their errors is the answer.
pub(super) fn find(
    anchors: &[Anchor],
    presented: &Presented<'_>,
    rules: &Rules<'_>,
) -> Result<Found, Refusal> {
    let fingerprint = Fingerprint::of_der(presented.leaf);
    let leaf = EndEntityCert::try_from(presented.leaf)
        .map_err(|cause| refuse(&cause, presented, rules).of(fingerprint))?;
    let mut worst = Failure::Path(Error::UnknownIssuer);
    for anchor in anchors {
        match below(anchor, &leaf, presented, rules) {
            Ok(found) => return Ok(found),
            Err(failure) if failure.rank() > worst.rank() => worst = failure,
            Err(_) => {}
        }
    }
    Err(match worst {
        Failure::Path(cause) => refuse(&cause, presented, rules).of(fingerprint),
        Failure::Refused(refusal) => refusal.of(fingerprint),
    })
}

/// Why one anchor does not know a leaf.
enum Failure {
    /// webpki found no path.
    Path(Error),
    /// There is a path, and something else is wrong.
    Refused(Refusal),
}

impl Failure {
    fn rank(&self) -> u8 {
        match self {
            Self::Path(Error::UnknownIssuer) => 0,
            Self::Path(Error::InvalidSignatureForPublicKey) => 1,
            Self::Path(Error::CertRevoked) => 4,
            Self::Path(_) => 2,
            Self::Refused(_) => 3,
        }
    }
}

impl From<Error> for Failure {
    fn from(cause: Error) -> Self {
        Self::Path(cause)
    }
}

fn below(
    anchor: &Anchor,
    leaf: &EndEntityCert<'_>,
    presented: &Presented<'_>,
    rules: &Rules<'_>,
) -> Result<Found, Failure> {
    let between: Vec<CertificateDer<'_>> = presented
        .others
        .iter()
        .chain(&anchor.between)
        .map(|der| CertificateDer::from(der.as_ref()))
        .collect();
    let path = match build(
        anchor,
        leaf,
        &between,
        UnknownStatusPolicy::Deny,
        presented,
        rules,
    ) {
        Err(Error::UnknownRevocationStatus) => {
            let policy = UnknownStatusPolicy::Allow;
            let path = build(anchor, leaf, &between, policy, presented, rules)?;
            check_coverage(anchor, &path, rules)?;
            path
        }
        other => other?,
    };
    if let Some(problem) = &anchor.crl_problem {
        let reason = format!("anchor `{}` requires a CRL: {problem}", anchor.name);
        return Err(Failure::Refused(Refusal::new(Class::AccessDenied, reason)));
    }
    describe(anchor, &path, presented, rules).map_err(Failure::Refused)
}

fn build<'p>(
    anchor: &'p Anchor,
    leaf: &'p EndEntityCert<'p>,
    between: &'p [CertificateDer<'p>],
    unknown: UnknownStatusPolicy,
    presented: &Presented<'_>,
    rules: &Rules<'_>,
) -> Result<VerifiedPath<'p>, Error> {
    let lists = anchor.crls.lists();
    let check_root = |path: &VerifiedPath<'_>| check_root(anchor, path, presented.now);
    leaf.verify_for_usage(
        rules.profile.signatures().all,
        &anchor.trusted,
        between,
        pki_time(presented.now),
        KeyUsage::client_auth(),
        revocation(anchor.crl_mode, &lists, unknown),
        Some(&check_root),
    )
}

fn revocation<'a>(
    mode: Option<CrlMode>,
    lists: &'a [&'a webpki::CertRevocationList<'a>],
    unknown: UnknownStatusPolicy,
) -> Option<RevocationOptions<'a>> {
    let freshness = match mode {
        Some(CrlMode::Require) => ExpirationPolicy::Enforce,
        _ => ExpirationPolicy::Ignore,
    };
    let options = RevocationOptionsBuilder::new(lists).ok()?;
    let options = options
        .with_depth(RevocationCheckDepth::Chain)
        .with_status_policy(unknown);
    Some(options.with_expiration_policy(freshness).build())
}

/// The place of the path's anchor among the anchor's roots.
fn root_of(anchor: &Anchor, path: &VerifiedPath<'_>) -> Option<usize> {
    anchor
        .trusted
        .iter()
        .position(|trusted| std::ptr::eq(trusted, path.anchor()))
}

/// webpki takes an anchor's name and key and no more: its validity and path length are judged here.
fn check_root(anchor: &Anchor, path: &VerifiedPath<'_>, now: UnixTime) -> Result<(), Error> {
    let root = root_of(anchor, path).and_then(|at| anchor.roots.get(at));
    let root = root.ok_or(Error::UnknownIssuer)?;
    if now < root.not_before {
        let (time, not_before) = (pki_time(now), pki_time(root.not_before));
        return Err(Error::CertNotValidYet { time, not_before });
    }
    if now > root.not_after {
        let (time, not_after) = (pki_time(now), pki_time(root.not_after));
        return Err(Error::CertExpired { time, not_after });
    }
    let depth = path.intermediate_certificates().count();
    match root.path_len {
        Some(most) if depth > most as usize => Err(Error::PathLenConstraintViolated),
        _ => Ok(()),
    }
}

/// Some certificate of the path has no CRL of its issuer. With `prefer` that is so; with `require`
/// it is allowed for one that a delegate signed: a delegate is short-lived and publishes none, and
/// the registry's revocation covers what is below it.
fn check_coverage(
    anchor: &Anchor,
    path: &VerifiedPath<'_>,
    rules: &Rules<'_>,
) -> Result<(), Failure> {
    if anchor.crl_mode != Some(CrlMode::Require) {
        return Ok(());
    }
    let leaf: &webpki::Cert<'_> = path.end_entity();
    let issued: Vec<_> = std::iter::once(leaf)
        .chain(path.intermediate_certificates())
        .collect();
    for (at, certificate) in issued.iter().enumerate() {
        let signer = issued.get(at + 1);
        let by_delegate = at == 0 && signer.is_some_and(|by| is_delegate(by, rules));
        if !by_delegate && !anchor.crls.cover(certificate.issuer()) {
            return Err(Failure::Path(Error::UnknownRevocationStatus));
        }
    }
    Ok(())
}

fn is_delegate(certificate: &webpki::Cert<'_>, rules: &Rules<'_>) -> bool {
    Parsed::from_der(&certificate.der(), rules.permission_oid)
        .is_ok_and(|parsed| parsed.path_len == Some(0) && parsed.permissions.is_some())
}

/// Reads the identity and the authority from the certificates of a verified path.
fn describe(
    anchor: &Anchor,
    path: &VerifiedPath<'_>,
    presented: &Presented<'_>,
    rules: &Rules<'_>,
) -> Result<Found, Refusal> {
    let leaf: &webpki::Cert<'_> = path.end_entity();
    let issued: Vec<_> = std::iter::once(leaf)
        .chain(path.intermediate_certificates())
        .collect();
    let mut parsed = Vec::with_capacity(issued.len());
    for certificate in &issued {
        let read = Parsed::from_der(&certificate.der(), rules.permission_oid);
        parsed.push(read.map_err(|cause| unreadable(&cause))?);
    }
    let root = root_of(anchor, path).and_then(|at| anchor.roots.get(at));
    let root = root.ok_or_else(|| Refusal::new(Class::UnknownCa, "the anchor is gone"))?;
    if let Some(reason) = parsed.iter().find_map(weakness) {
        return Err(Refusal::new(Class::BadCertificate, reason));
    }
    let chain = chain(anchor, &parsed, root)?;
    let links: Arc<[Link]> = issued.iter().map(|certificate| link(certificate)).collect();
    let until = match anchor.crl_mode {
        Some(CrlMode::Require) => {
            let issuers = links.iter().map(|link| link.issuer.as_ref());
            chain.not_after.min(anchor.crls.fresh_until(issuers))
        }
        _ => chain.not_after,
    };
    let in_path = |der: &CertificateDer<'_>| {
        let print = Fingerprint::of_der(der);
        chain.issuers.contains(&print)
    };
    let nothing_besides =
        presented.others.len() <= chain.issuers.len() && presented.others.iter().all(in_path);
    let verified = Verified {
        chain: Arc::new(chain),
        links,
        until,
    };
    Ok(Found {
        verified,
        nothing_besides,
    })
}

/// `path`: the leaf, then each issuer below the anchor; `root`: the anchor's certificate.
fn chain(anchor: &Anchor, path: &[Parsed], root: &Parsed) -> Result<Chain, Refusal> {
    let leaf = &path[0];
    let all = || path.iter().chain(std::iter::once(root));
    let carried = all().filter_map(|certificate| {
        let grants = Arc::new(certificate.permissions.clone()?);
        Some(Layer {
            source: Source::Certificate(certificate.display_name()),
            grants,
        })
    });
    Ok(Chain {
        name: name(anchor.name_from, leaf)?,
        fingerprint: leaf.fingerprint,
        serial: leaf.serial.clone(),
        issuers: all()
            .skip(1)
            .map(|certificate| certificate.fingerprint)
            .collect(),
        anchor: anchor.name.clone(),
        mode: anchor.mode,
        not_before: all().map(|c| c.not_before).max().unwrap_or(UnixTime::MAX),
        not_after: all().map(|c| c.not_after).min().unwrap_or_default(),
        layers: carried.chain(anchor.ceiling.clone()).collect(),
        leaf_carries_grants: leaf.permissions.is_some(),
    })
}

fn link(certificate: &webpki::Cert<'_>) -> Link {
    Link {
        issuer: certificate.issuer().into(),
        serial: certificate.serial().into(),
    }
}

/// The one name; zero or two candidates is a refusal.
fn name(from: NameFrom, leaf: &Parsed) -> Result<Name, Refusal> {
    let (what, candidates) = match from {
        NameFrom::Spiffe | NameFrom::Uri => ("URI names", &leaf.uris),
        NameFrom::Dns => ("DNS names", &leaf.dns),
        NameFrom::Cn => ("common names", &leaf.common_names),
    };
    let refuse = |reason: String| Refusal::new(Class::BadCertificate, reason);
    let [one] = candidates.as_slice() else {
        let count = candidates.len();
        return Err(refuse(format!(
            "the certificate has {count} {what}, it must have one"
        )));
    };
    if from == NameFrom::Spiffe {
        one.parse::<SpiffeId>()
            .map_err(|cause| refuse(format!("`{}`: {cause}", one.escape_debug())))?;
    }
    Name::new(one).map_err(|cause| refuse(format!("`{}`: {cause}", one.escape_debug())))
}

fn unreadable(cause: &ParseError) -> Refusal {
    Refusal::new(
        Class::BadCertificate,
        cause.to_string().escape_debug().to_string(),
    )
}

/// What is wrong with the public key, whoever signed the certificate. (Of other keys than RSA the
/// profiles know only strong ones.)
pub(super) fn weakness(certificate: &Parsed) -> Option<String> {
    let bits = certificate.rsa_bits.filter(|bits| *bits < LEAST_RSA_BITS)?;
    let name = certificate.display_name();
    let name = clip(&name).escape_debug();
    Some(format!(
        "the RSA key of `{name}` has {bits} bits, and {LEAST_RSA_BITS} is the least"
    ))
}

/// As [`weakness`], of everything that was presented: a signature by a weak key is not even tried.
fn weakness_of(presented: &Presented<'_>, rules: &Rules<'_>) -> Option<String> {
    presented.others.iter().find_map(|der| {
        let parsed = Parsed::from_der(der, rules.permission_oid).ok()?;
        weakness(&parsed)
    })
}

/// The class of a path that was not found, and words for people.
fn refuse(cause: &Error, presented: &Presented<'_>, rules: &Rules<'_>) -> Refusal {
    let leaf = Parsed::from_der(presented.leaf, rules.permission_oid).ok();
    let issuer = leaf
        .as_ref()
        .map_or("nobody that can be read", |leaf| clip(&leaf.issuer));
    let ours = |end: rustls::pki_types::UnixTime, leaf_end: Option<UnixTime>| {
        if leaf_end.map(pki_time) == Some(end) {
            "the certificate"
        } else {
            "an issuer's certificate"
        }
    };
    let shown = |time: &rustls::pki_types::UnixTime| super::provider::unix_time(*time);
    let (class, reason) = match cause {
        Error::UnknownIssuer => (
            Class::UnknownCa,
            format!("no anchor leads to the issuer `{issuer}`"),
        ),
        Error::UnsupportedSignatureAlgorithmContext(UnsupportedSignatureAlgorithmContext {
            signature_algorithm_id: id,
            ..
        })
        | Error::UnsupportedSignatureAlgorithmForPublicKeyContext(
            UnsupportedSignatureAlgorithmForPublicKeyContext {
                signature_algorithm_id: id,
                ..
            },
        ) => (
            Class::BadCertificate,
            format!("a certificate of the path {}", rules.profile.disbelief(id)),
        ),
        Error::UnsupportedCrlSignatureAlgorithmContext(UnsupportedSignatureAlgorithmContext {
            signature_algorithm_id: id,
            ..
        })
        | Error::UnsupportedCrlSignatureAlgorithmForPublicKeyContext(
            UnsupportedSignatureAlgorithmForPublicKeyContext {
                signature_algorithm_id: id,
                ..
            },
        ) => (
            Class::AccessDenied,
            format!("the CRL {}", rules.profile.disbelief(id)),
        ),
        Error::InvalidSignatureForPublicKey if weakness_of(presented, rules).is_some() => (
            Class::BadCertificate,
            weakness_of(presented, rules).unwrap_or_default(),
        ),
        Error::InvalidSignatureForPublicKey => (
            Class::UnknownCa,
            format!("the issuer `{issuer}` has the name of a trusted CA, and another key signed"),
        ),
        Error::CertExpired { not_after, .. } => {
            let which = ours(*not_after, leaf.as_ref().map(|leaf| leaf.not_after));
            (
                Class::Expired,
                format!("{which} ended at {}", shown(not_after)),
            )
        }
        Error::CertNotValidYet { not_before, .. } => {
            let which = ours(*not_before, leaf.as_ref().map(|leaf| leaf.not_before));
            (
                Class::NotYetValid,
                format!("{which} begins at {}", shown(not_before)),
            )
        }
        Error::CertRevoked => (
            Class::Revoked,
            String::from("a CRL names the certificate or an issuer above it"),
        ),
        Error::CrlExpired { next_update, .. } => (
            Class::AccessDenied,
            format!(
                "the CRL that is required should have been renewed by {}",
                shown(next_update)
            ),
        ),
        Error::UnknownRevocationStatus => (
            Class::AccessDenied,
            String::from("a CRL is required, and none covers a certificate of the path"),
        ),
        Error::RequiredEkuNotFoundContext(_) | Error::EmptyEkuExtension => (
            Class::BadCertificate,
            String::from("the certificate is not for client authentication"),
        ),
        Error::CaUsedAsEndEntity => (
            Class::BadCertificate,
            String::from("a CA certificate is no client's certificate"),
        ),
        other => (
            Class::BadCertificate,
            format!("the certificates are not acceptable: {other}"),
        ),
    };
    Refusal::new(class, reason)
}

/// What a stranger wrote, short enough for a log. RFC 4514 form has no control characters.
fn clip(text: &str) -> &str {
    let end = text
        .char_indices()
        .nth(200)
        .map_or(text.len(), |(at, _)| at);
    &text[..end]
}
