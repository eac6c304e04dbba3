//! What can go wrong between a client and the CA's server, and what to do next.

use std::path::PathBuf;

use crate::cert::{FileError, KeyError, ParseError};
use crate::est::CertsOnlyError;
use crate::tls::{Class, IdentityError};

/// Nothing was enrolled or renewed; what was there before is untouched.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// No TCP connection, or no answer in time.
    #[error("cannot reach the CA at `{address}`: {cause}")]
    Unreachable {
        /// `host:port`.
        address: String,
        /// What the system says.
        cause: String,
    },
    /// Whoever answers has no chain to the CA that is expected.
    #[error("`{address}` is not the expected CA: {cause}")]
    WrongAuthority {
        /// `host:port`.
        address: String,
        /// What is wrong with its certificate.
        cause: String,
    },
    /// The CA refused our certificate in the handshake.
    #[error("the CA at `{address}` refused this certificate: {class}")]
    Alert {
        /// `host:port`.
        address: String,
        /// What the alert tells.
        class: Class,
    },
    /// The CA answered with a refusal.
    #[error("the CA at `{address}` refused: {detail}")]
    Refused {
        /// `host:port`.
        address: String,
        /// One word of the server's.
        reason: String,
        /// One sentence of the server's.
        detail: String,
        /// Whether the same request may be answered later.
        later: bool,
    },
    /// It does not keep to EST.
    #[error("`{address}` does not answer as a CA's server: {what}")]
    Protocol {
        /// `host:port`.
        address: String,
        /// What is wrong.
        what: String,
    },
    /// The answer is not what was asked for.
    #[error("the certificate from `{address}` is not used: {what}")]
    Answer {
        /// `host:port`.
        address: String,
        /// What is wrong with it.
        what: String,
    },
    /// TLS cannot be set up with the files at hand.
    #[error("{0}")]
    Tls(String),
    /// A file of ours.
    #[error(transparent)]
    File(#[from] FileError),
    /// Our key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Our certificate and key.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// A certificate of ours.
    #[error("`{path}`: {cause}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: ParseError,
    },
    /// No key could be made, or no request signed.
    #[error("no request can be made: {0}")]
    Request(String),
    /// A file is in the way.
    #[error("`{0}` is there already")]
    InTheWay(PathBuf),
    /// `ca.pem` of another CA is in the way.
    #[error("`{0}` holds another CA")]
    OtherRoot(PathBuf),
    /// The folder cannot be made.
    #[error("cannot make the folder `{path}`: {cause}")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        cause: std::io::Error,
    },
    /// The note of where to renew.
    #[error("`{path}` does not say where to renew: {what}")]
    Note {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// Another process is at it.
    #[error("another process is renewing `{0}`")]
    Busy(PathBuf),
}

impl EnrolError {
    /// What to do next.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::Unreachable { .. } => {
                "is `countersign ca serve` running there, and is the address the one that is dialled from here?"
            }
            Self::WrongAuthority { .. } => {
                "do not go on: somebody else may answer there, or the CA was replaced; ask for a new token"
            }
            Self::Alert {
                class: Class::Expired | Class::NotYetValid,
                ..
            } => {
                "a certificate that has expired cannot renew itself: ask for a token and run `countersign join`; check the clocks"
            }
            Self::Alert { .. } => "ask for a token and run `countersign join`",
            Self::Refused { reason, .. } => return refusal_hint(reason),
            Self::InTheWay(_) => {
                "choose another folder with --out, or write over it with --replace"
            }
            Self::OtherRoot(_) => "choose another folder with --out: others there trust that CA",
            Self::Note { .. } => {
                "only what `countersign join` wrote renews itself: `NAME.renew.toml` holds `address = \"HOST:PORT\"` of `countersign ca serve`"
            }
            Self::Busy(_) => "it will be done in a moment",
            _ => return None,
        })
    }

    /// Whether another attempt, later and unchanged, could end otherwise.
    #[must_use]
    pub const fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Busy(_) => true,
            Self::Refused { later, .. } => *later,
            _ => false,
        }
    }

    pub(super) fn protocol(address: &str, what: impl ToString) -> Self {
        Self::Protocol {
            address: address.to_owned(),
            what: what.to_string(),
        }
    }

    pub(super) fn pkcs7(address: &str) -> impl FnOnce(CertsOnlyError) -> Self {
        move |error| Self::protocol(address, error)
    }
}

fn refusal_hint(reason: &str) -> Option<&'static str> {
    Some(match reason {
        "token_used" => {
            "each token is good for one certificate: ask for another with `countersign ca invite`; if nobody of yours used it, tell whoever gave it"
        }
        "token_expired" => "ask for another with `countersign ca invite`, and use it sooner",
        "token_unknown" => "is it the whole token, and of this CA?",
        "revoked" | "unpinned" | "not_enrolled" | "expired" => {
            "ask for a token with `countersign ca invite` and run `countersign join`"
        }
        "rate_limited" => "try again in a minute",
        "registry_unavailable" | "audit_unavailable" => {
            "try again later; the CA's own log has more"
        }
        _ => return None,
    })
}
