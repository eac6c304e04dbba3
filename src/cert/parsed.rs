//! What one certificate says. Strict where identity and permissions hang on it: what cannot be read
//! is an error, never an absence.

use std::collections::HashSet;
use std::fmt::Write;

use x509_parser::der_parser::oid::Oid;
use x509_parser::prelude::{FromDer, GeneralName, ParsedExtension, X509Certificate, X509Name};
use x509_parser::public_key::PublicKey;

use crate::clock::UnixTime;
use crate::grant::{WrittenGrants, decode_extension};
use crate::identity::Fingerprint;

/// `1.3.6.1.4.1.32473.8.1`: IANA's documentation number; an organisation sets its own.
pub const DEFAULT_PERMISSION_OID: &str = "1.3.6.1.4.1.32473.8.1";

/// Why a certificate says nothing that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Not DER, not X.509, bytes after the end, or a field that cannot be read.
    #[error("not an X.509 certificate: {0}")]
    Der(String),
    /// RFC 5280 section 4.2: no extension may appear twice.
    #[error("the certificate carries the extension {0} twice")]
    Duplicate(String),
    /// The permission extension is there and does not parse.
    #[error(transparent)]
    Permissions(#[from] crate::grant::ExtensionError),
}

/// The fields that identity and permissions are read from; nothing is judged yet.
#[derive(Clone, Debug, PartialEq)]
pub struct Parsed {
    /// SHA-256 over the DER.
    pub fingerprint: Fingerprint,
    /// The DER integer's content bytes in lower-case hex, leading zeros kept.
    pub serial: String,
    /// Every CN of the subject.
    pub common_names: Vec<String>,
    /// The subject in RFC 4514 form, for people.
    pub subject: String,
    /// The issuer in RFC 4514 form, for people.
    pub issuer: String,
    /// The subject's DER: what path building compares.
    pub subject_der: Vec<u8>,
    /// The issuer's DER.
    pub issuer_der: Vec<u8>,
    /// URI SANs, in order.
    pub uris: Vec<String>,
    /// DNS SANs, in order.
    pub dns: Vec<String>,
    /// The first second of validity.
    pub not_before: UnixTime,
    /// The last second of validity.
    pub not_after: UnixTime,
    /// Basic constraints say CA.
    pub is_ca: bool,
    /// Basic constraints' path length: how many CAs may stand between this one and a leaf.
    pub path_len: Option<u32>,
    /// Bits of the modulus, where the public key is an RSA key.
    pub rsa_bits: Option<usize>,
    /// The permission extension, where it is there.
    pub permissions: Option<WrittenGrants>,
}

impl Parsed {
    /// Reads one certificate. `permission_oid`: dotted decimal.
    ///
    /// # Errors
    /// Malformed, a duplicate extension of any kind, or a permission extension that does not parse:
    /// fail closed.
    pub fn from_der(der: &[u8], permission_oid: &str) -> Result<Self, ParseError> {
        let (rest, certificate) =
            X509Certificate::from_der(der).map_err(|e| ParseError::Der(e.to_string()))?;
        if !rest.is_empty() {
            return Err(ParseError::Der(String::from(
                "bytes follow the certificate",
            )));
        }
        let mut parsed = Self::fields(der, &certificate)?;
        parsed.read_extensions(&certificate, permission_oid)?;
        Ok(parsed)
    }

    fn fields(der: &[u8], certificate: &X509Certificate<'_>) -> Result<Self, ParseError> {
        Ok(Self {
            fingerprint: Fingerprint::of_der(der),
            serial: hex::encode(certificate.raw_serial()),
            common_names: common_names(certificate.subject())?,
            subject: rfc4514(certificate.subject()),
            issuer: rfc4514(certificate.issuer()),
            subject_der: certificate.subject().as_raw().to_vec(),
            issuer_der: certificate.issuer().as_raw().to_vec(),
            uris: Vec::new(),
            dns: Vec::new(),
            not_before: UnixTime(certificate.validity().not_before.timestamp()),
            not_after: UnixTime(certificate.validity().not_after.timestamp()),
            is_ca: false,
            path_len: None,
            rsa_bits: rsa_bits(certificate),
            permissions: None,
        })
    }

    fn read_extensions(
        &mut self,
        certificate: &X509Certificate<'_>,
        permission_oid: &str,
    ) -> Result<(), ParseError> {
        let mut seen: HashSet<&Oid<'_>> = HashSet::new();
        for extension in certificate.extensions() {
            if !seen.insert(&extension.oid) {
                return Err(ParseError::Duplicate(extension.oid.to_id_string()));
            }
            match extension.parsed_extension() {
                ParsedExtension::ParseError { error } => {
                    let oid = extension.oid.to_id_string();
                    return Err(ParseError::Der(format!("extension {oid}: {error}")));
                }
                ParsedExtension::BasicConstraints(constraints) => {
                    self.is_ca = constraints.ca;
                    self.path_len = constraints.path_len_constraint;
                }
                ParsedExtension::SubjectAlternativeName(names) => {
                    self.read_names(&names.general_names)?;
                }
                _ => {}
            }
            if extension.oid.to_id_string() == permission_oid {
                self.permissions = Some(decode_extension(extension.value)?);
            }
        }
        Ok(())
    }

    fn read_names(&mut self, names: &[GeneralName<'_>]) -> Result<(), ParseError> {
        for name in names {
            match name {
                GeneralName::URI(uri) => self.uris.push((*uri).into()),
                GeneralName::DNSName(name) => self.dns.push((*name).into()),
                GeneralName::Invalid(..) => {
                    let what = "a subject alternative name cannot be read";
                    return Err(ParseError::Der(what.into()));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// How people call it: the SPIFFE URI, else the CN, else the subject. CAs of one trust domain
    /// share its URI, so for them it is the CN.
    #[must_use]
    pub fn display_name(&self) -> String {
        let spiffe = self
            .uris
            .iter()
            .find(|uri| !self.is_ca && uri.starts_with("spiffe://"));
        spiffe
            .or(self.common_names.first())
            .unwrap_or(&self.subject)
            .clone()
    }
}

fn rsa_bits(certificate: &X509Certificate<'_>) -> Option<usize> {
    match certificate.public_key().parsed() {
        Ok(PublicKey::RSA(key)) => Some(key.key_size()),
        _ => None,
    }
}

/// A CN that is no readable text is an error: left out, it could turn two candidates into one.
fn common_names(name: &X509Name<'_>) -> Result<Vec<String>, ParseError> {
    name.iter_common_name()
        .map(|cn| cn.as_str().map(String::from))
        .collect::<Result<_, _>>()
        .map_err(|_| ParseError::Der(String::from("a common name of the subject is not text")))
}

/// RFC 4514: the most specific part first, special characters escaped.
fn rfc4514(name: &X509Name<'_>) -> String {
    let mut text = String::new();
    let parts: Vec<_> = name.iter_rdn().collect();
    for (at, part) in parts.iter().rev().enumerate() {
        text.push_str(if at == 0 { "" } else { "," });
        for (at, attribute) in part.iter().enumerate() {
            text.push_str(if at == 0 { "" } else { "+" });
            let oid = attribute.attr_type().to_id_string();
            text.push_str(short_name(&oid).unwrap_or(&oid));
            text.push('=');
            match attribute.as_str() {
                Ok(value) => escape(value, &mut text),
                Err(_) => {
                    text.push('#');
                    text.push_str(&hex::encode(attribute.as_slice()));
                }
            }
        }
    }
    text
}

fn short_name(oid: &str) -> Option<&'static str> {
    Some(match oid {
        "2.5.4.3" => "CN",
        "2.5.4.6" => "C",
        "2.5.4.7" => "L",
        "2.5.4.8" => "ST",
        "2.5.4.9" => "STREET",
        "2.5.4.10" => "O",
        "2.5.4.11" => "OU",
        "0.9.2342.19200300.100.1.1" => "UID",
        "0.9.2342.19200300.100.1.25" => "DC",
        _ => return None,
    })
}

fn escape(value: &str, text: &mut String) {
    let last = value.chars().count().saturating_sub(1);
    for (at, c) in value.chars().enumerate() {
        match c {
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' => text.extend(['\\', c]),
            '#' if at == 0 => text.push_str("\\#"),
            ' ' if at == 0 || at == last => text.push_str("\\ "),
            c if c.is_control() => {
                for byte in c.to_string().bytes() {
                    // Writing to a String cannot fail.
                    let _ = write!(text, "\\{byte:02x}");
                }
            }
            c => text.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, CustomExtension, DnType, KeyPair, SanType};

    use super::*;

    const OID: &[u64] = &[1, 3, 6, 1, 4, 1, 32473, 8, 1];

    fn params() -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::OrganizationName, "A, B");
        params.distinguished_name.push(DnType::CommonName, "reader");
        params.subject_alt_names = vec![
            SanType::URI("spiffe://example.org/reader".try_into().unwrap()),
            SanType::DnsName("reader.example.org".try_into().unwrap()),
        ];
        params.not_before = time::OffsetDateTime::from_unix_timestamp(1_000_000).unwrap();
        params.not_after = time::OffsetDateTime::from_unix_timestamp(2_000_000).unwrap();
        params.serial_number = Some(vec![0, 0xab, 0xcd].into());
        params
    }

    fn der(params: &CertificateParams) -> Vec<u8> {
        params
            .self_signed(&KeyPair::generate().unwrap())
            .unwrap()
            .der()
            .to_vec()
    }

    fn read(params: &CertificateParams) -> Result<Parsed, ParseError> {
        Parsed::from_der(&der(params), DEFAULT_PERMISSION_OID)
    }

    #[test]
    fn the_fields_are_read() {
        let parsed = read(&params()).unwrap();
        assert_eq!(parsed.uris, ["spiffe://example.org/reader"]);
        assert_eq!(parsed.dns, ["reader.example.org"]);
        assert_eq!(parsed.common_names, ["reader"]);
        assert_eq!(parsed.subject, "CN=reader,O=A\\, B");
        assert_eq!(parsed.serial, "00abcd");
        assert_eq!(
            (parsed.not_before, parsed.not_after),
            (UnixTime(1_000_000), UnixTime(2_000_000))
        );
        assert!(!parsed.is_ca && parsed.permissions.is_none());
        assert_eq!(parsed.display_name(), "spiffe://example.org/reader");
    }

    #[test]
    fn a_ca_and_its_path_length() {
        let mut params = params();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Constrained(1));
        let parsed = read(&params).unwrap();
        assert!(parsed.is_ca);
        assert_eq!(parsed.path_len, Some(1));
    }

    #[test]
    fn bytes_after_the_end_are_refused() {
        let mut bytes = der(&params());
        Parsed::from_der(&bytes, DEFAULT_PERMISSION_OID).unwrap();
        bytes.push(0);
        let error = Parsed::from_der(&bytes, DEFAULT_PERMISSION_OID).unwrap_err();
        assert!(matches!(error, ParseError::Der(_)), "{error}");
    }

    #[test]
    fn a_second_extension_of_one_kind_is_refused_whatever_it_is() {
        let mut params = params();
        let one = || CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]);
        params.custom_extensions = vec![one()];
        read(&params).unwrap();
        params.custom_extensions = vec![one(), one()];
        assert_eq!(read(&params), Err(ParseError::Duplicate("1.2.3.4".into())));
    }

    #[test]
    fn the_permission_extension_is_read_or_the_certificate_refused() {
        let grants = WrittenGrants::parse(&["tools:read_*", "role:reader"]).unwrap();
        let content = crate::grant::encode_extension(&grants);
        let mut params = params();
        params.custom_extensions = vec![CustomExtension::from_oid_content(OID, content.clone())];
        assert_eq!(read(&params).unwrap().permissions, Some(grants));
        let other = Parsed::from_der(&der(&params), "1.3.6.1.4.1.99999.1").unwrap();
        assert_eq!(other.permissions, None);
        let broken = [content.as_slice(), &[0]].concat();
        params.custom_extensions = vec![CustomExtension::from_oid_content(OID, broken)];
        assert!(matches!(read(&params), Err(ParseError::Permissions(_))));
    }
}
