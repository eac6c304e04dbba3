//! EST's paths (RFC 7030 section 3.2.2) on the desk. Reads what a request shows and says; decides
//! nothing about it.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use governor::Quota;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{
    ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue,
    RETRY_AFTER, WWW_AUTHENTICATE,
};
use hyper::{Method, Request, Response, StatusCode};
use zeroize::Zeroizing;

use super::desk::{Asked, Desk, Proof};
use super::rate::{Table, source};
use super::refusal::Refusal;
use crate::audit::Event;
use crate::est::{CERTS_ONLY, Invitation, PKCS10, PROBLEM, ROOT, to_body};
use crate::identity::Fingerprint;
use crate::registry::TokenRefusal;

/// The longest body: a request with an RSA key of 4096 bits has about 3 KiB.
const LONGEST: usize = 64 * 1024;
/// How long a body may take.
const BODY: Duration = Duration::from_secs(10);
/// RFC 7030 section 4.1.3 has its answers marked so.
const TRANSFER_ENCODING: HeaderName = HeaderName::from_static("content-transfer-encoding");
/// Seconds after which to come again when something is down here.
const COME_AGAIN: u64 = 5;

/// An answer, whole.
pub(super) type Answer = Response<Full<Bytes>>;

/// What one connection proved.
#[derive(Clone, Copy)]
pub(super) struct Caller {
    pub address: SocketAddr,
    pub certificate: Option<Fingerprint>,
}

/// The desk behind HTTP.
pub(super) struct Est {
    desk: Arc<Desk>,
    authorities: String,
    sources: Table<IpAddr>,
}

impl Est {
    pub fn new(desk: Arc<Desk>) -> Self {
        let rate = desk.parts().rates.per_source;
        let quota = Quota::per_second(rate).allow_burst(rate.saturating_mul(TWO));
        Self {
            authorities: to_body(&desk.authorities()),
            sources: Table::new(quota),
            desk,
        }
    }

    /// Answers one request; a refusal is an answer too.
    pub async fn answer(
        &self,
        request: Request<Incoming>,
        caller: Caller,
    ) -> Result<Answer, Infallible> {
        Ok(match self.serve(request, caller).await {
            Ok(answer) => answer,
            Err(refusal) => refused(&refusal),
        })
    }

    async fn serve(&self, request: Request<Incoming>, caller: Caller) -> Result<Answer, Refusal> {
        if let Err(seconds) = self.sources.check(&source(caller.address.ip())) {
            let detail = format!("too many requests from this address: wait {seconds} s");
            let limited = Refusal::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", detail);
            self.record(caller, &limited).await;
            return Err(limited);
        }
        let operation = request.uri().path().strip_prefix(ROOT).unwrap_or_default();
        match (operation, request.method()) {
            ("cacerts", &Method::GET) => Ok(certificates(&self.authorities)),
            ("simpleenroll", &Method::POST) => {
                let by_token = token(request.headers())?;
                let proof = by_token.or(caller.certificate.map(Proof::Certificate));
                self.enrol(request, caller, proof).await
            }
            ("simplereenroll", &Method::POST) => {
                let proof = caller.certificate.map(Proof::Certificate);
                self.enrol(request, caller, proof).await
            }
            // RFC 7030 section 4.5.2: nothing is asked of a request beyond what it must have.
            ("csrattrs", &Method::GET) => Ok(empty(StatusCode::NO_CONTENT)),
            ("cacerts" | "csrattrs", _) => Ok(not_allowed("GET")),
            ("simpleenroll" | "simplereenroll", _) => Ok(not_allowed("POST")),
            ("fullcmc" | "serverkeygen", _) => Err(Refusal::new(
                StatusCode::NOT_IMPLEMENTED,
                "not_implemented",
                "this server has cacerts, simpleenroll and simplereenroll",
            )),
            _ => Err(Refusal::new(
                StatusCode::NOT_FOUND,
                "not_found",
                "nothing is here",
            )),
        }
    }

    async fn enrol(
        &self,
        request: Request<Incoming>,
        caller: Caller,
        proof: Option<Proof>,
    ) -> Result<Answer, Refusal> {
        check_content_type(request.headers())?;
        let body = read(request.into_body()).await?;
        let address = caller.address;
        let body = &body;
        let answer = self
            .desk
            .enrol(Asked {
                address,
                proof,
                body,
            })
            .await?;
        Ok(certificates(&to_body(&answer)))
    }

    async fn record(&self, caller: Caller, refusal: &Refusal) {
        let event = Event::Refused {
            address: caller.address,
            reason: &refusal.detail,
            class: refusal.reason,
            name: None,
            fingerprint: caller.certificate,
        };
        // Kept and tried again by the log itself.
        let _ = self.desk.audit().event(event).await;
    }
}

const TWO: std::num::NonZeroU32 = std::num::NonZeroU32::new(2).expect("two is not zero");

async fn read(body: Incoming) -> Result<Bytes, Refusal> {
    let whole = tokio::time::timeout(BODY, Limited::new(body, LONGEST).collect());
    match whole.await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(Refusal::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too_large",
            "a request has at most 64 KiB",
        )),
        Ok(Err(_)) => Err(Refusal::bad("the body was cut")),
        Err(_) => Err(Refusal::new(
            StatusCode::REQUEST_TIMEOUT,
            "timeout",
            "the body took too long",
        )),
    }
}

/// The token of a request, if it has one.
fn token(headers: &HeaderMap) -> Result<Option<Proof>, Refusal> {
    let Some(value) = headers.get(AUTHORIZATION) else {
        return Ok(None);
    };
    let unreadable = || {
        Refusal::new(
            StatusCode::UNAUTHORIZED,
            "credentials_needed",
            "`Authorization` is neither Basic nor Bearer",
        )
    };
    let text = value.to_str().map_err(|_| unreadable())?;
    let (scheme, rest) = text.split_once(' ').ok_or_else(unreadable)?;
    let (user, password) = match scheme.to_ascii_lowercase().as_str() {
        "bearer" => (None, Zeroizing::new(rest.trim().to_owned())),
        "basic" => basic(rest.trim()).ok_or_else(unreadable)?,
        _ => return Err(unreadable()),
    };
    let secret = Invitation::secret_of(&password).ok_or(TokenRefusal::Unknown)?;
    Ok(Some(Proof::Token { user, secret }))
}

fn basic(packed: &str) -> Option<(Option<String>, Zeroizing<String>)> {
    let bytes = Zeroizing::new(STANDARD.decode(packed).ok()?);
    let text = std::str::from_utf8(&bytes).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((Some(user.to_owned()), Zeroizing::new(password.to_owned())))
}

fn check_content_type(headers: &HeaderMap) -> Result<(), Refusal> {
    let given = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let kind = given
        .and_then(|given| given.split(';').next())
        .unwrap_or_default();
    if kind.trim().eq_ignore_ascii_case(PKCS10) {
        return Ok(());
    }
    Err(Refusal::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "content_type",
        "the body of a request is `application/pkcs10`",
    ))
}

fn certificates(body: &str) -> Answer {
    let mut answer = Response::new(Full::from(body.to_owned()));
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(CERTS_ONLY));
    headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("base64"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

pub(super) fn empty(status: StatusCode) -> Answer {
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = status;
    answer
}

pub(super) fn not_allowed(allowed: &'static str) -> Answer {
    let mut answer = empty(StatusCode::METHOD_NOT_ALLOWED);
    answer
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static(allowed));
    answer
}

fn refused(refusal: &Refusal) -> Answer {
    let mut answer = Response::new(Full::from(refusal.problem()));
    *answer.status_mut() = refusal.status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    match refusal.status {
        StatusCode::UNAUTHORIZED => {
            let challenge = HeaderValue::from_static("Basic realm=\"countersign\"");
            headers.insert(WWW_AUTHENTICATE, challenge);
        }
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
            headers.insert(RETRY_AFTER, HeaderValue::from(COME_AGAIN));
        }
        _ => {}
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, value.parse().unwrap());
        headers
    }

    #[test]
    fn a_token_comes_as_basic_or_bearer() {
        let root = Fingerprint::of_der(b"root");
        let made = Invitation::new("a:1".into(), root, "spiffe://a/b".into()).unwrap();
        let password = made.password();
        let basic = format!("Basic {}", STANDARD.encode(format!("b:{}", *password)));
        for (value, name) in [
            (format!("Bearer {}", *password), None),
            (format!("bearer {}", *made.reveal()), None),
            (basic, Some("b")),
        ] {
            let Ok(Some(Proof::Token { user, secret })) = token(&header(&value)) else {
                panic!("{value} is a token");
            };
            assert_eq!(user.as_deref(), name);
            assert_eq!(secret.expose(), made.secret.expose());
        }
        assert!(matches!(token(&HeaderMap::new()), Ok(None)));
        for wrong in ["Bearer hunter2", "Basic !!", "Digest x", "Bearer"] {
            let Err(refusal) = token(&header(wrong)) else {
                panic!("{wrong} is none");
            };
            assert_eq!(refusal.status, StatusCode::UNAUTHORIZED);
            assert!(!refusal.detail.contains("hunter2"));
        }
    }
}
