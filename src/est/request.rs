//! What a certification request says (PKCS#10, RFC 2986): a key whose holder signed it, and wishes.
//! The wishes are read so that they can be compared with what is allowed; none is granted here.

use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::cri_attributes::ParsedCriAttribute;
use x509_parser::oid_registry::{OID_PKCS1_SHA1WITHRSA, OID_SHA1_WITH_RSA};
use x509_parser::prelude::{FromDer, GeneralName, ParsedExtension, X509Extension};
use x509_parser::public_key::PublicKey;

use crate::grant::{WrittenGrants, decode_extension};

/// The shortest RSA key that is signed, in bits.
const SHORTEST_RSA: usize = 2048;

/// The bytes are no request that can be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Not DER, not PKCS#10, or bytes after the end.
    #[error("not a certification request: {0}")]
    Der(String),
    /// The signature was not made by the key in it.
    #[error("the request is not signed by the key that it is for")]
    Signature,
    /// SHA-1, a short RSA key, or something else that is not taken.
    #[error("the request's key or signature is too weak or not supported")]
    Weak,
    /// The wished permissions do not parse.
    #[error("the permissions in the request: {0}")]
    Permissions(#[from] crate::grant::ExtensionError),
}

/// A request whose key was proven.
#[derive(Clone, Debug, PartialEq)]
pub struct CertRequest {
    /// DER `SubjectPublicKeyInfo`.
    pub subject_key: Vec<u8>,
    /// Every CN of the subject.
    pub common_names: Vec<String>,
    /// URI names that it wishes for.
    pub uris: Vec<String>,
    /// The permissions that it wishes for, where it says so.
    pub grants: Option<WrittenGrants>,
}

impl CertRequest {
    /// Reads a request and checks that its key signed it. `permission_oid`: dotted decimal.
    ///
    /// # Errors
    /// As [`RequestError`] says.
    pub fn from_der(der: &[u8], permission_oid: &str) -> Result<Self, RequestError> {
        let wrong = |what: &dyn std::fmt::Display| RequestError::Der(what.to_string());
        let (rest, request) =
            X509CertificationRequest::from_der(der).map_err(|error| wrong(&error))?;
        if !rest.is_empty() {
            return Err(wrong(&"bytes follow the request"));
        }
        check_strength(&request)?;
        request
            .verify_signature()
            .map_err(|_| RequestError::Signature)?;
        let info = &request.certification_request_info;
        let mut read = Self {
            subject_key: info.subject_pki.raw.to_vec(),
            common_names: Vec::new(),
            uris: Vec::new(),
            grants: None,
        };
        for name in info.subject.iter_common_name() {
            let name = name
                .as_str()
                .map_err(|_| wrong(&"a common name is not text"))?;
            read.common_names.push(name.to_owned());
        }
        for attribute in info.attributes() {
            if let ParsedCriAttribute::ExtensionRequest(wished) = attribute.parsed_attribute() {
                for extension in &wished.extensions {
                    read.wish(extension, permission_oid)?;
                }
            }
        }
        Ok(read)
    }

    fn wish(&mut self, extension: &X509Extension<'_>, oid: &str) -> Result<(), RequestError> {
        if let ParsedExtension::SubjectAlternativeName(names) = extension.parsed_extension() {
            for name in &names.general_names {
                if let GeneralName::URI(uri) = name {
                    self.uris.push((*uri).to_owned());
                }
            }
        }
        if extension.oid.to_id_string() == oid {
            if self.grants.is_some() {
                let twice = String::from("the permissions are there twice");
                return Err(RequestError::Der(twice));
            }
            self.grants = Some(decode_extension(extension.value)?);
        }
        Ok(())
    }
}

fn check_strength(request: &X509CertificationRequest<'_>) -> Result<(), RequestError> {
    let algorithm = &request.signature_algorithm.algorithm;
    if [OID_PKCS1_SHA1WITHRSA, OID_SHA1_WITH_RSA].contains(algorithm) {
        return Err(RequestError::Weak);
    }
    let key = request.certification_request_info.subject_pki.parsed();
    match key {
        Ok(PublicKey::RSA(rsa)) if rsa.key_size() < SHORTEST_RSA => Err(RequestError::Weak),
        Ok(_) => Ok(()),
        Err(_) => Err(RequestError::Weak),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, CustomExtension, DnType, KeyPair, SanType};

    use super::*;

    const OID: &str = "1.3.6.1.4.1.32473.8.1";

    fn der(change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, "agent-7");
        params.subject_alt_names = vec![SanType::URI(
            "spiffe://example.org/agent-7".try_into().unwrap(),
        )];
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        params.serialize_request(&key).unwrap().der().to_vec()
    }

    #[test]
    fn a_request_is_read() {
        let grants = WrittenGrants::parse(&["tools:read_*"]).unwrap();
        let content = crate::grant::encode_extension(&grants);
        let with = |params: &mut CertificateParams| {
            let extension =
                CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 32473, 8, 1], content);
            params.custom_extensions.push(extension);
        };
        let read = CertRequest::from_der(&der(with), OID).unwrap();
        assert_eq!(read.common_names, ["agent-7"]);
        assert_eq!(read.uris, ["spiffe://example.org/agent-7"]);
        assert_eq!(read.grants, Some(grants));
        let plain = CertRequest::from_der(&der(|_| ()), OID).unwrap();
        assert_eq!(plain.grants, None);
    }

    #[test]
    fn a_request_that_its_key_did_not_sign_is_refused() {
        let good = der(|_| ());
        CertRequest::from_der(&good, OID).unwrap();
        let mut wrong = good.clone();
        // The name is inside what is signed.
        let at = wrong.windows(7).position(|w| w == b"agent-7").unwrap();
        wrong[at] = b'b';
        assert_eq!(
            CertRequest::from_der(&wrong, OID),
            Err(RequestError::Signature)
        );
        let longer = [good.as_slice(), &[0]].concat();
        assert!(matches!(
            CertRequest::from_der(&longer, OID),
            Err(RequestError::Der(_))
        ));
        for end in 0..good.len() {
            assert!(CertRequest::from_der(&good[..end], OID).is_err());
        }
    }
}
