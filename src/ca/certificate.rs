//! What stands in a certificate, field by field, in the shape that RFC 5280 asks for. Decides
//! nothing: who may be given what is `sign`'s business.

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CustomExtension, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyUsagePurpose, PublicKeyData, SanType,
    SerialNumber,
};
use ring::digest;
use time::OffsetDateTime;

use crate::clock::UnixTime;
use crate::grant::{WrittenGrants, encode_extension};

use super::profile::Usage;
use super::serial::{self, RandomError};
use super::signer::Signer;

/// Why a certificate or CRL could not be put together.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// No random numbers.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// The time is outside what a certificate can say.
    #[error("{0} cannot be written in a certificate")]
    Time(UnixTime),
    /// Not dotted decimal.
    #[error("`{0}` is not an object identifier such as `1.3.6.1.4.1.32473.8.1`")]
    Oid(String),
    /// A name with characters that a certificate cannot carry there.
    #[error("`{0}` cannot stand in a subject alternative name")]
    Name(String),
    /// The encoder or the signing key refused.
    #[error("the certificate cannot be signed: {0}")]
    Encoder(#[from] rcgen::Error),
}

/// What kind of certificate it is.
pub(super) enum Role<'a> {
    /// Signs nothing.
    Leaf(&'a [Usage]),
    /// Signs certificates and CRLs, with so many CAs below it at most.
    Authority(u8),
}

/// The fields that differ.
pub(super) struct Contents<'a> {
    pub common_name: &'a str,
    pub organization: Option<&'a str>,
    pub names: Vec<SanType>,
    pub not_before: UnixTime,
    pub not_after: UnixTime,
    pub role: Role<'a>,
    /// The extension's identifier and content.
    pub permissions: Option<(&'a str, &'a WrittenGrants)>,
}

/// Signed by itself.
pub(super) fn self_signed(
    contents: &Contents<'_>,
    signer: &Signer,
) -> Result<Certificate, BuildError> {
    Ok(parameters(contents, signer)?.self_signed(signer)?)
}

/// Signed by an issuer.
pub(super) fn signed_by(
    contents: &Contents<'_>,
    subject_key: &impl PublicKeyData,
    issuer: &Issuer<'_, &Signer>,
) -> Result<Certificate, BuildError> {
    Ok(parameters(contents, subject_key)?.signed_by(subject_key, issuer)?)
}

/// A URI as a subject alternative name.
pub(super) fn uri(text: &str) -> Result<SanType, BuildError> {
    Ok(SanType::URI(
        text.try_into()
            .map_err(|_| BuildError::Name(text.to_owned()))?,
    ))
}

/// A DNS name as a subject alternative name.
pub(super) fn dns(text: &str) -> Result<SanType, BuildError> {
    Ok(SanType::DnsName(
        text.try_into()
            .map_err(|_| BuildError::Name(text.to_owned()))?,
    ))
}

pub(super) fn date(time: UnixTime) -> Result<OffsetDateTime, BuildError> {
    OffsetDateTime::from_unix_timestamp(time.0).map_err(|_| BuildError::Time(time))
}

fn parameters(
    contents: &Contents<'_>,
    subject_key: &impl PublicKeyData,
) -> Result<CertificateParams, BuildError> {
    let mut parameters = CertificateParams::default();
    parameters.serial_number = Some(SerialNumber::from_slice(&serial::fresh()?));
    parameters.not_before = date(contents.not_before)?;
    parameters.not_after = date(contents.not_after)?;
    parameters.distinguished_name = subject(contents);
    parameters.subject_alt_names.clone_from(&contents.names);
    // The encoder leaves the authority key identifier out unless it is asked for.
    parameters.use_authority_key_identifier_extension = true;
    parameters.key_identifier_method = key_identifier(subject_key);
    match contents.role {
        Role::Leaf(usages) => {
            parameters.is_ca = IsCa::ExplicitNoCa;
            parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
            parameters.extended_key_usages = usages.iter().map(|usage| purpose(*usage)).collect();
        }
        Role::Authority(below) => {
            parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(below));
            parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        }
    }
    if let Some((oid, grants)) = contents.permissions {
        let extension = CustomExtension::from_oid_content(&arcs(oid)?, encode_extension(grants));
        parameters.custom_extensions.push(extension);
    }
    Ok(parameters)
}

/// RFC 7093 section 2, method 1: the left 160 bits of SHA-256 over the public key's bits. The
/// encoder's own hashes the whole `SubjectPublicKeyInfo`, which other programs do not recognize.
fn key_identifier(subject_key: &impl PublicKeyData) -> KeyIdMethod {
    let hash = digest::digest(&digest::SHA256, subject_key.der_bytes());
    KeyIdMethod::PreSpecified(hash.as_ref()[..20].to_vec())
}

fn subject(contents: &Contents<'_>) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    if let Some(organization) = contents.organization {
        subject.push(DnType::OrganizationName, organization);
    }
    subject.push(DnType::CommonName, contents.common_name);
    subject
}

const fn purpose(usage: Usage) -> ExtendedKeyUsagePurpose {
    match usage {
        Usage::Client => ExtendedKeyUsagePurpose::ClientAuth,
        Usage::Server => ExtendedKeyUsagePurpose::ServerAuth,
    }
}

/// Dotted decimal to numbers; X.660: at least two arcs, the first 0 to 2, and under 0 and 1 the
/// second below 40 (the encoder would panic on others).
fn arcs(oid: &str) -> Result<Vec<u64>, BuildError> {
    let wrong = || BuildError::Oid(oid.to_owned());
    let arcs: Vec<u64> = oid
        .split('.')
        .map(str::parse)
        .collect::<Result<_, _>>()
        .map_err(|_| wrong())?;
    match arcs[..] {
        [0 | 1, 0..40, ..] | [2, 0..=1_000_000, ..] => Ok(arcs),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_dotted_decimal() {
        assert_eq!(
            arcs("1.3.6.1.4.1.32473.8.1").unwrap(),
            [1, 3, 6, 1, 4, 1, 32473, 8, 1]
        );
        for wrong in [
            "",
            "1",
            "1.",
            "3.1",
            "1.40.1",
            "1.-3",
            "a.b",
            "1.3.99999999999999999999",
        ] {
            assert!(arcs(wrong).is_err(), "{wrong}");
        }
    }
}
