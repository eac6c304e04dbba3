//! Certificate requests (PKCS#10, RFC 2986): the signature is verified, and then only the public key
//! is taken. What else the request asks for is kept to be told and compared, never to be granted.

use rustls::pki_types::CertificateSigningRequestDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::cri_attributes::ParsedCriAttribute;
use x509_parser::oid_registry::{OID_PKCS1_SHA1WITHRSA, OID_SHA1_WITH_RSA};
use x509_parser::prelude::{FromDer, GeneralName, ParsedExtension};

use crate::grant::{ExtensionError, WrittenGrants, decode_extension};

use super::subject_key::{self, SubjectKeyError};

/// No honest request comes near: an RSA key of 8192 bits and a hundred names make 8 KiB.
const LARGEST: usize = 64 * 1024;

/// Why a request is not looked at any further.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CsrError {
    /// Neither PEM nor DER of a PKCS#10 request, or too large.
    #[error("not a certificate request (PKCS#10, PEM or DER): {0}")]
    Malformed(String),
    /// Signed with SHA-1.
    #[error("the request is signed with SHA-1")]
    Sha1,
    /// Whoever made the request does not show that it holds the key, or the request was changed.
    #[error("the request's signature does not verify with its own key")]
    Signature,
    /// The permissions that it asks for do not parse.
    #[error("the permissions that the request asks for: {0}")]
    Permissions(ExtensionError),
    /// The key gets no certificate.
    #[error(transparent)]
    Key(#[from] SubjectKeyError),
}

/// A request whose signature was verified and whose key may have a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateRequest {
    subject_key: Vec<u8>,
    subject_der: Vec<u8>,
    subject: String,
    uris: Vec<String>,
    dns: Vec<String>,
    common_names: Vec<String>,
    extensions: Vec<(String, Vec<u8>)>,
}

impl CertificateRequest {
    /// Reads a request, PEM (its first block) or DER.
    ///
    /// # Errors
    /// As [`CsrError`] says.
    pub fn parse(content: &[u8]) -> Result<Self, CsrError> {
        if content.len() > LARGEST {
            return Err(CsrError::Malformed(String::from(
                "it is larger than 64 KiB",
            )));
        }
        // A DER sequence starts with 0x30, which no PEM text does.
        if content.first() == Some(&0x30) {
            return Self::from_der(content);
        }
        let der = CertificateSigningRequestDer::from_pem_slice(content)
            .map_err(|error| CsrError::Malformed(error.to_string()))?;
        Self::from_der(&der)
    }

    fn from_der(der: &[u8]) -> Result<Self, CsrError> {
        let malformed = |what: String| CsrError::Malformed(what);
        let (rest, request) = X509CertificationRequest::from_der(der)
            .map_err(|error| malformed(error.to_string()))?;
        if !rest.is_empty() {
            return Err(malformed(String::from("bytes follow it")));
        }
        let algorithm = &request.signature_algorithm.algorithm;
        if [OID_PKCS1_SHA1WITHRSA, OID_SHA1_WITH_RSA].contains(algorithm) {
            return Err(CsrError::Sha1);
        }
        let info = &request.certification_request_info;
        // The key first: what it is decides how the signature is verified.
        subject_key::check(info.subject_pki.raw)?;
        request
            .verify_signature()
            .map_err(|_| CsrError::Signature)?;
        let mut read = Self {
            subject_key: info.subject_pki.raw.to_vec(),
            subject_der: info.subject.as_raw().to_vec(),
            subject: info.subject.to_string(),
            uris: Vec::new(),
            dns: Vec::new(),
            common_names: Vec::new(),
            extensions: Vec::new(),
        };
        for name in info.subject.iter_common_name() {
            let name = name.as_str().map_err(|_| malformed(String::from("its CN is no text")))?;
            read.common_names.push(name.to_owned());
        }
        for attribute in info.attributes() {
            if let ParsedCriAttribute::ExtensionRequest(asked) = attribute.parsed_attribute() {
                let asked = asked.extensions.iter();
                let asked = asked.map(|one| (one.oid.to_id_string(), one.value.to_vec()));
                read.extensions.extend(asked);
            }
        }
        for extension in request.requested_extensions().into_iter().flatten() {
            if let ParsedExtension::SubjectAlternativeName(names) = extension {
                for name in &names.general_names {
                    match name {
                        GeneralName::URI(uri) => read.uris.push((*uri).to_owned()),
                        GeneralName::DNSName(name) => read.dns.push((*name).to_owned()),
                        _ => {}
                    }
                }
            }
        }
        Ok(read)
    }

    /// The public key, DER `SubjectPublicKeyInfo`: what [`super::Request`] takes.
    #[must_use]
    pub fn subject_key(&self) -> &[u8] {
        &self.subject_key
    }

    /// The subject that it asks for, DER.
    #[must_use]
    pub fn subject_der(&self) -> &[u8] {
        &self.subject_der
    }

    /// The URIs that it asks for.
    #[must_use]
    pub fn uris(&self) -> &[String] {
        &self.uris
    }

    /// Every common name of the subject that it asks for.
    #[must_use]
    pub fn common_names(&self) -> &[String] {
        &self.common_names
    }

    /// The permissions that it asks for, where it says so. `oid`: dotted decimal.
    ///
    /// # Errors
    /// They are there twice, or do not parse.
    pub fn permissions(&self, oid: &str) -> Result<Option<WrittenGrants>, CsrError> {
        let mut asked = self.extensions.iter().filter(|(other, _)| other == oid);
        let (first, second) = (asked.next(), asked.next());
        if second.is_some() {
            return Err(CsrError::Malformed(String::from("it has its permissions twice")));
        }
        first
            .map(|(_, value)| decode_extension(value))
            .transpose()
            .map_err(CsrError::Permissions)
    }

    /// The DNS names that it asks for.
    #[must_use]
    pub fn dns(&self) -> &[String] {
        &self.dns
    }

    /// What it asks for and does not get, for people; nothing where the URI is the name that is
    /// given, or where it asks for nothing.
    #[must_use]
    pub fn unheard(&self, name: &str) -> Option<String> {
        let others: Vec<&str> = self
            .uris
            .iter()
            .chain(&self.dns)
            .map(String::as_str)
            .filter(|asked| *asked != name)
            .collect();
        let asked = match (
            others.as_slice(),
            self.subject.as_str(),
            self.uris.is_empty(),
        ) {
            ([], "", _) | ([], _, false) => return None,
            ([], subject, true) => subject.to_owned(),
            (others, ..) => others.join(", "),
        };
        let asked: String = asked
            .chars()
            .filter(|c| !c.is_control())
            .take(200)
            .collect();
        Some(format!(
            "the request asks for `{asked}`; names come from the operator"
        ))
    }
}
