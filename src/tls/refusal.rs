//! Why somebody was not let in. The audit log gets the reason, the stranger a TLS alert of the class.

/// The class: what the alert tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class { NoCertificate, UnknownCa, Expired, NotYetValid, Revoked, AccessDenied, BadCertificate, Protocol, Timeout }

/// A refusal with its reason.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{reason}")]
pub struct Refusal { pub class: Class, pub reason: String, pub name: Option<String>, pub fingerprint: Option<crate::identity::Fingerprint> }
