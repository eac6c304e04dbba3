//! Why a request was not answered with a certificate: what the client is told, by RFC 9457. Who
//! got this far has shown a secret or a certificate, or is told no more than that it must.

use hyper::StatusCode;

use crate::ca::{CsrError, IssueError, Outside, ProfileError, RenewError, SignError};
use crate::est::BodyError;
use crate::registry::{StoreError, TokenRefusal};

/// A refusal of the desk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Of the answer.
    pub status: StatusCode,
    /// One word, for programs.
    pub reason: &'static str,
    /// One sentence, for people.
    pub detail: String,
}

impl Refusal {
    /// With these parts.
    pub fn new(status: StatusCode, reason: &'static str, detail: impl ToString) -> Self {
        Self {
            status,
            reason,
            detail: detail.to_string(),
        }
    }

    /// Not allowed to this client.
    pub fn forbidden(reason: &'static str, detail: impl ToString) -> Self {
        Self::new(StatusCode::FORBIDDEN, reason, detail)
    }

    /// Nothing that could be read.
    pub fn bad(detail: impl ToString) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", detail)
    }

    /// Neither a token nor a certificate.
    pub fn unauthenticated() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "credentials_needed",
            "enrolling takes a one-time token or a certificate of this CA",
        )
    }

    /// Something on this side; the client may try again.
    pub fn unavailable(reason: &'static str, detail: impl ToString) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, reason, detail)
    }

    /// As the body of the answer.
    pub fn problem(&self) -> String {
        serde_json::json!({
            "title": self.status.canonical_reason().unwrap_or_default(),
            "status": self.status.as_u16(),
            "reason": self.reason,
            "detail": self.detail,
        })
        .to_string()
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Token(refusal) => refusal.into(),
            outage if outage.is_outage() => {
                tracing::error!(error = %outage, "the registry took nothing");
                // Where the registry is, is no stranger's business.
                Self::unavailable("registry_unavailable", "the registry cannot be reached now")
            }
            other => Self::forbidden("not_enrolled", other),
        }
    }
}

impl From<TokenRefusal> for Refusal {
    fn from(refusal: TokenRefusal) -> Self {
        match refusal {
            TokenRefusal::Unknown => Self::new(StatusCode::UNAUTHORIZED, "token_unknown", refusal),
            TokenRefusal::Used => Self::forbidden("token_used", refusal),
            TokenRefusal::Expired => Self::forbidden("token_expired", refusal),
        }
    }
}

impl From<IssueError> for Refusal {
    fn from(error: IssueError) -> Self {
        match error {
            IssueError::Store(error) => error.into(),
            other => {
                tracing::error!(error = %other, "nothing was issued");
                Self::unavailable("not_issued", "nothing was issued")
            }
        }
    }
}

impl From<SignError> for Refusal {
    fn from(error: SignError) -> Self {
        match error {
            SignError::Build(_) => Self::bad(error),
            SignError::IssuerEnded { .. } => Self::unavailable("authority_ended", error),
            other => Self::forbidden("not_allowed", other),
        }
    }
}

impl From<CsrError> for Refusal {
    fn from(error: CsrError) -> Self {
        Self::bad(error)
    }
}

impl From<RenewError> for Refusal {
    fn from(error: RenewError) -> Self {
        match error {
            RenewError::Sign(error) => error.into(),
            RenewError::Issue(error) => error.into(),
            RenewError::Store(error) => error.into(),
            RenewError::Revoked(_) | RenewError::Meanwhile(_) => Self::forbidden("revoked", error),
            RenewError::Unpinned(_) => Self::forbidden("unpinned", error),
            other => Self::forbidden("not_allowed", other),
        }
    }
}

impl From<BodyError> for Refusal {
    fn from(error: BodyError) -> Self {
        Self::bad(error)
    }
}

impl From<ProfileError> for Refusal {
    fn from(error: ProfileError) -> Self {
        tracing::error!(%error, "a profile cannot be used");
        Self::forbidden(
            "no_profile",
            "the profile of this certificate is not known here",
        )
    }
}

impl From<Outside> for Refusal {
    fn from(error: Outside) -> Self {
        Self::forbidden("not_allowed", error)
    }
}
