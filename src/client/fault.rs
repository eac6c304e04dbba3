//! What can go wrong between a client and a server, by whose fault, and what to do next.

use std::io;

use rustls::{AlertDescription, CertificateError};

use super::lines::LineError;
use super::message::RpcError;
use crate::tls::{Class, IdentityError};

/// Whose fault it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The server, or what answers in its place.
    Peer,
    /// Whoever gave the command: not permitted, no such thing, bad arguments.
    Caller,
    /// The credentials on this side.
    Credentials,
    /// The network, the clock, a server that is not running.
    Environment,
}

/// The class of refusal that a server's TLS alert tells. It tells no more: the reason is in the
/// server's audit log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Alert {
    /// The certificate comes from a CA that the server does not trust.
    UnknownCa,
    /// It ran out (or the clocks differ).
    Expired,
    /// It was revoked.
    Revoked,
    /// It is valid, but not enrolled or without any grant.
    AccessDenied,
    /// The server cannot use it: wrong usage, two identities, not yet valid, malformed.
    BadCertificate,
    /// None was sent.
    CertificateRequired,
    /// The server does not offer the transport that was asked for.
    NoApplicationProtocol,
    /// No TLS version in common.
    ProtocolVersion,
    /// Anything else, by its name.
    Other(String),
}

impl Alert {
    /// The class of a received alert.
    #[must_use]
    pub fn of(alert: AlertDescription) -> Self {
        match alert {
            AlertDescription::NoApplicationProtocol => Self::NoApplicationProtocol,
            AlertDescription::ProtocolVersion => Self::ProtocolVersion,
            other => match Class::of_alert(other) {
                Class::Protocol => Self::Other(format!("{other:?}")),
                class => Self::of_class(class),
            },
        }
    }

    /// The same by the class that `tls` already found.
    pub(super) fn of_class(class: Class) -> Self {
        match class {
            Class::UnknownCa => Self::UnknownCa,
            Class::Expired | Class::NotYetValid => Self::Expired,
            Class::Revoked => Self::Revoked,
            Class::AccessDenied => Self::AccessDenied,
            Class::BadCertificate => Self::BadCertificate,
            Class::NoCertificate => Self::CertificateRequired,
            Class::Protocol | Class::Timeout => Self::Other(class.to_string()),
        }
    }

    /// The alert's name as RFC 8446 writes it.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::UnknownCa => "unknown_ca",
            Self::Expired => "certificate_expired",
            Self::Revoked => "certificate_revoked",
            Self::AccessDenied => "access_denied",
            Self::BadCertificate => "bad_certificate",
            Self::CertificateRequired => "certificate_required",
            Self::NoApplicationProtocol => "no_application_protocol",
            Self::ProtocolVersion => "protocol_version",
            Self::Other(name) => name,
        }
    }

    fn meaning(&self) -> &'static str {
        match self {
            Self::UnknownCa => "it does not trust the CA that issued this certificate",
            Self::Expired => "this certificate has expired or is not valid yet",
            Self::Revoked => "this certificate was revoked",
            Self::AccessDenied => {
                "this certificate is valid but not admitted: it is not pinned, or it carries no grant"
            }
            Self::BadCertificate => "it cannot use this certificate",
            Self::CertificateRequired => "it wants a client certificate and got none",
            Self::NoApplicationProtocol => "it does not offer this transport at this address",
            Self::ProtocolVersion => "there is no TLS version in common",
            Self::Other(_) => "the handshake failed",
        }
    }

    fn hint(&self) -> &'static str {
        match self {
            Self::UnknownCa => {
                "use a certificate of a CA in the server's `[[anchor]]`, or add its CA there"
            }
            Self::Expired => {
                "issue a new one with `countersign ca issue NAME` (in development `countersign up` renews it), and check the clocks of both machines"
            }
            Self::Revoked => "it stays refused; issue a new one with `countersign ca issue NAME`",
            Self::AccessDenied => {
                "pin it on the server with `countersign pin add`, or issue it with a grant; the server's audit log has the reason"
            }
            Self::BadCertificate => {
                "the server's audit log has the reason: wrong usage, not valid yet, or not exactly one identity"
            }
            Self::CertificateRequired => {
                "name the certificate by `--as NAME` or `--cert` and `--key`"
            }
            Self::NoApplicationProtocol => "check the host, the port and the transport",
            Self::ProtocolVersion => {
                "Countersign speaks TLS 1.3, and 1.2 where the server's configuration allows it"
            }
            Self::Other(_) => "run `countersign doctor` to see which step fails",
        }
    }

    /// Whether another attempt with the same certificate could end otherwise.
    #[must_use]
    pub fn is_final(&self) -> bool {
        !matches!(self, Self::Other(_))
    }
}

/// A client command failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Our own certificate or key cannot be used.
    #[error("the client's credentials cannot be used: {0}")]
    Identity(#[from] IdentityError),
    /// The CA bundle or the TLS configuration cannot be used.
    #[error("the client's credentials cannot be used: {0}")]
    Tls(String),
    /// No TCP connection.
    #[error("cannot reach `{peer}`: {cause}")]
    Unreachable {
        /// The server, as it was named.
        peer: String,
        /// What went wrong.
        cause: String,
    },
    /// No answer within the time that was given.
    #[error("`{peer}` gave no answer within {}", humantime::format_duration(*.after))]
    Timeout {
        /// The server, as it was named.
        peer: String,
        /// How long it was waited for.
        after: std::time::Duration,
    },
    /// The server refused this client by an alert.
    #[error("`{peer}` refused this client: {} (TLS alert {})", .alert.meaning(), .alert.name())]
    Refused {
        /// The server, as it was named.
        peer: String,
        /// What the server said.
        alert: Alert,
    },
    /// We do not trust the server.
    #[error("the certificate of `{peer}` is refused: {cause}")]
    Untrusted {
        /// The server, as it was named.
        peer: String,
        /// What went wrong.
        cause: String,
        /// What to do next.
        hint: &'static str,
    },
    /// The connection ended. `heard`: whether a message had come before.
    #[error("`{peer}` closed the connection{}", if *.heard { " before it answered" } else { " without a word" })]
    Closed {
        /// The server, as it was named.
        peer: String,
        /// Whether a message had come before.
        heard: bool,
    },
    /// The server does not keep to TLS, JSON-RPC or MCP.
    #[error("`{peer}` does not keep to the protocol: {cause}")]
    Protocol {
        /// The server, as it was named.
        peer: String,
        /// What went wrong.
        cause: String,
    },
    /// The server answered with a JSON-RPC error.
    #[error("{} (code {})", message_of(.0), .0.code)]
    Answered(RpcError),
    /// The caller gave up, and the server was told.
    #[error("cancelled")]
    Cancelled,
}

impl ClientError {
    /// By whose fault.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Identity(_) | Self::Tls(_) | Self::Refused { .. } => Fault::Credentials,
            Self::Unreachable { .. } | Self::Timeout { .. } | Self::Closed { .. } => {
                Fault::Environment
            }
            Self::Untrusted { .. } | Self::Protocol { .. } => Fault::Peer,
            Self::Answered(error)
                if matches!(error.code, -32603 | -32700 | -32600 | -32022..=-32020) =>
            {
                Fault::Peer
            }
            Self::Answered(_) | Self::Cancelled => Fault::Caller,
        }
    }

    /// What to do next.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::Identity(_) | Self::Tls(_) => {
                "a client needs its certificate, its key (mode 0600) and the CA of the server; `countersign doctor` checks them one by one"
            }
            Self::Unreachable { .. } => {
                "is the server running there? start one with `countersign up`, or name another by `--server HOST:PORT`"
            }
            Self::Timeout { .. } => "give it longer with `--timeout`, or run `countersign doctor`",
            Self::Refused { alert, .. } => alert.hint(),
            Self::Untrusted { hint, .. } => hint,
            Self::Closed { heard: false, .. } => {
                "the server may be stopping, full, or refuse this certificate; `countersign doctor` looks closer"
            }
            Self::Closed { .. } => {
                "it may have stopped, or this certificate ended or was revoked meanwhile"
            }
            Self::Protocol { .. } => "is that address a Countersign server?",
            Self::Answered(error) => return answer_hint(error.code),
            Self::Cancelled => return None,
        })
    }

    /// Whether the same certificate at the same server cannot get in, however often it tries.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Refused { alert, .. } => alert.is_final(),
            Self::Untrusted { .. } | Self::Identity(_) | Self::Tls(_) => true,
            _ => false,
        }
    }

    /// Sorts a failed read or write; `heard`: whether a message had come on this connection.
    pub(super) fn of_io(peer: &str, cause: &io::Error, heard: bool) -> Self {
        let peer = peer.to_owned();
        if let Some(tls) = cause
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<rustls::Error>())
        {
            return Self::of_rustls(peer, tls);
        }
        match cause.kind() {
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::NotConnected => Self::Closed { peer, heard },
            io::ErrorKind::InvalidData => Self::Protocol {
                peer,
                cause: cause.to_string(),
            },
            _ => Self::Unreachable {
                peer,
                cause: cause.to_string(),
            },
        }
    }

    pub(super) fn of_line(peer: &str, cause: LineError, heard: bool) -> Self {
        match cause {
            LineError::Io(cause) => Self::of_io(peer, &cause, heard),
            LineError::TooLong(_) => Self::Protocol {
                peer: peer.to_owned(),
                cause: cause.to_string(),
            },
        }
    }

    pub(super) fn of_rustls(peer: String, cause: &rustls::Error) -> Self {
        match cause {
            rustls::Error::AlertReceived(alert) => Self::Refused {
                peer,
                alert: Alert::of(*alert),
            },
            rustls::Error::NoApplicationProtocol => Self::Refused {
                peer,
                alert: Alert::NoApplicationProtocol,
            },
            rustls::Error::InvalidCertificate(cause) => Self::Untrusted {
                peer,
                cause: untrusted(cause),
                hint: untrusted_hint(cause),
            },
            other => Self::Protocol {
                peer,
                cause: other.to_string(),
            },
        }
    }
}

fn message_of(error: &RpcError) -> &str {
    if error.message.is_empty() {
        "the server answered with an error"
    } else {
        &error.message
    }
}

fn untrusted(cause: &CertificateError) -> String {
    match cause {
        CertificateError::UnknownIssuer => {
            "it does not come from the CA that this client trusts".to_owned()
        }
        CertificateError::NotValidForName => "it is not for this host".to_owned(),
        other => other.to_string(),
    }
}

fn untrusted_hint(cause: &CertificateError) -> &'static str {
    match cause {
        CertificateError::UnknownIssuer => {
            "is this the right server, and `ca.pem` (or `--ca`) the CA that issued its certificate?"
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "use a host name that the server's certificate is for; do not accept another one"
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "renew the server's certificate (in development `countersign up` does), and check the clocks"
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "check the clocks of both machines"
        }
        _ => "the server must present a valid server certificate",
    }
}

fn answer_hint(code: i64) -> Option<&'static str> {
    Some(match code {
        4403 => {
            "ask for a certificate with the grant that is missing (`countersign ca issue NAME --grant …`)"
        }
        4429 => "the limit of this identity is reached; try again later",
        -32602 | -32601 | -32002 => {
            "it does not exist, or this identity may not use it, or an argument is wrong; the lists (`tools`, `resources`, `prompts`) show what it may"
        }
        -32022 => "this client speaks MCP revision 2026-07-28 only",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tls(error: rustls::Error) -> ClientError {
        ClientError::of_io(
            "host:1",
            &io::Error::new(io::ErrorKind::InvalidData, error),
            false,
        )
    }

    #[test]
    fn an_alert_becomes_its_class() {
        for (alert, class) in [
            (AlertDescription::UnknownCA, Alert::UnknownCa),
            (AlertDescription::CertificateExpired, Alert::Expired),
            (AlertDescription::CertificateRevoked, Alert::Revoked),
            (AlertDescription::AccessDenied, Alert::AccessDenied),
            (
                AlertDescription::CertificateRequired,
                Alert::CertificateRequired,
            ),
        ] {
            let error = tls(rustls::Error::AlertReceived(alert));
            assert!(error.is_refusal());
            assert_eq!(error.fault(), Fault::Credentials);
            let ClientError::Refused { alert, .. } = error else {
                panic!("{error}")
            };
            assert_eq!(alert, class);
        }
        // A server that fails inside may do better next time.
        assert!(
            !tls(rustls::Error::AlertReceived(
                AlertDescription::InternalError
            ))
            .is_refusal()
        );
    }

    #[test]
    fn a_closed_connection_is_no_refusal_and_a_bad_server_is() {
        let reset = io::Error::from(io::ErrorKind::ConnectionReset);
        let closed = ClientError::of_io("host:1", &reset, false);
        assert!(matches!(closed, ClientError::Closed { heard: false, .. }));
        assert!(!closed.is_refusal());
        let wrong = tls(rustls::Error::InvalidCertificate(
            CertificateError::UnknownIssuer,
        ));
        assert_eq!(wrong.fault(), Fault::Peer);
        assert!(wrong.is_refusal());
    }
}
