//! Why somebody was not let in. The audit log gets the reason, the stranger a TLS alert of the
//! class and no more.

use std::fmt;

use rustls::{AlertDescription, CertificateError};

use crate::identity::Fingerprint;

/// The class: what the alert tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The client presented none (`certificate_required`).
    NoCertificate,
    /// No path to an anchor (`unknown_ca`).
    UnknownCa,
    /// A certificate of the path has ended (`certificate_expired`).
    Expired,
    /// A certificate of the path has not begun (`certificate_expired`: TLS has no other).
    NotYetValid,
    /// The leaf or an issuer above it was revoked (`certificate_revoked`).
    Revoked,
    /// A good certificate that may not come in here (`access_denied`).
    AccessDenied,
    /// Malformed, of the wrong usage, or with not exactly one identity (`bad_certificate`).
    BadCertificate,
    /// The handshake itself went wrong, or the peer went away.
    Protocol,
    /// Not finished by the deadline.
    Timeout,
}

impl Class {
    /// As the audit log writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoCertificate => "no_certificate",
            Self::UnknownCa => "unknown_ca",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::Revoked => "revoked",
            Self::AccessDenied => "access_denied",
            Self::BadCertificate => "bad_certificate",
            Self::Protocol => "protocol",
            Self::Timeout => "timeout",
        }
    }

    /// The class that an alert from the other side stands for.
    #[must_use]
    pub fn of_alert(alert: AlertDescription) -> Self {
        match alert {
            AlertDescription::CertificateRequired | AlertDescription::NoCertificate => {
                Self::NoCertificate
            }
            AlertDescription::UnknownCA => Self::UnknownCa,
            AlertDescription::CertificateExpired => Self::Expired,
            AlertDescription::CertificateRevoked => Self::Revoked,
            AlertDescription::AccessDenied => Self::AccessDenied,
            AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateUnknown => Self::BadCertificate,
            _ => Self::Protocol,
        }
    }

    /// The error whose alert tells this class and nothing else.
    pub(super) fn certificate_error(self) -> CertificateError {
        match self {
            Self::UnknownCa => CertificateError::UnknownIssuer,
            Self::Expired => CertificateError::Expired,
            Self::NotYetValid => CertificateError::NotValidYet,
            Self::Revoked => CertificateError::Revoked,
            Self::BadCertificate => CertificateError::BadEncoding,
            Self::AccessDenied | Self::NoCertificate | Self::Protocol | Self::Timeout => {
                CertificateError::ApplicationVerificationFailure
            }
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A refusal with its reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Refusal {
    /// What the stranger is told.
    pub class: Class,
    /// What the audit log says: one line, no control characters.
    pub reason: String,
    /// The name, once a chain to an anchor vouches for it; never what a stranger merely claims.
    pub name: Option<String>,
    /// The leaf's fingerprint, where a certificate was presented.
    pub fingerprint: Option<Fingerprint>,
}

impl Refusal {
    /// A refusal of nobody in particular.
    #[must_use]
    pub fn new(class: Class, reason: impl Into<String>) -> Self {
        Self {
            class,
            reason: reason.into(),
            name: None,
            fingerprint: None,
        }
    }

    /// The same, with the certificate that it is about.
    #[must_use]
    pub fn of(mut self, fingerprint: Fingerprint) -> Self {
        self.fingerprint = Some(fingerprint);
        self
    }

    /// The same, with the name that a chain vouches for.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        self.name = Some(name.into());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alert_tells_its_class_back() {
        let told = [
            Class::UnknownCa,
            Class::Expired,
            Class::Revoked,
            Class::AccessDenied,
            Class::BadCertificate,
        ];
        for class in told {
            let alert = AlertDescription::from(class.certificate_error());
            assert_eq!(Class::of_alert(alert), class);
        }
        let alert = AlertDescription::from(Class::NotYetValid.certificate_error());
        assert_eq!(Class::of_alert(alert), Class::Expired);
    }
}
