//! One conversation with the CA's server: HTTP/1.1 over a TLS connection that is already trusted.

use std::error::Error;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::error::EnrolError;
use crate::est::{Invitation, PKCS10, ROOT, from_body, read_certs_only, to_body};
use crate::tls::{Class, ClientTls, ClientTlsError, explain_alert};

/// For connecting, and for each answer.
const PATIENCE: Duration = Duration::from_secs(15);
/// The longest answer: a handful of certificates has some 10 KiB.
const LONGEST: usize = 256 * 1024;

/// What is offered by ALPN.
pub(super) const ALPN: &[&[u8]] = &[b"http/1.1"];

/// An open connection.
pub(super) struct Exchange {
    address: String,
    sender: SendRequest<Full<Bytes>>,
    driver: tokio::task::JoinHandle<()>,
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// A refusal as the server writes it (RFC 9457).
#[derive(Default, Deserialize)]
struct Problem {
    #[serde(default)]
    reason: String,
    #[serde(default)]
    detail: String,
}

impl Exchange {
    /// Connects to `address` (`host:port`).
    pub async fn open(tls: &ClientTls, address: &str) -> Result<Self, EnrolError> {
        let host = host_of(address).ok_or_else(|| EnrolError::Unreachable {
            address: address.to_owned(),
            cause: String::from("it is not `HOST:PORT`"),
        })?;
        let connected = tokio::time::timeout(PATIENCE, tls.connect(address, host)).await;
        let stream = connected
            .map_err(|_| late(address))?
            .map_err(|error| sort(address, error))?;
        let (sender, connection) = handshake(TokioIo::new(stream))
            .await
            .map_err(|error| EnrolError::protocol(address, error))?;
        let driver = tokio::spawn(async move {
            // What ends it is told to whoever waits for an answer.
            let _ = connection.await;
        });
        Ok(Self {
            address: address.to_owned(),
            sender,
            driver,
        })
    }

    /// The CA's certificates, DER.
    pub async fn authorities(&mut self) -> Result<Vec<Vec<u8>>, EnrolError> {
        let request = self.request(Method::GET, "cacerts", None, Bytes::new())?;
        let der = self.ask(request).await?;
        read_certs_only(&der).map_err(EnrolError::pkcs7(&self.address))
    }

    /// A certificate for the request (DER) by an invitation.
    pub async fn enrol(
        &mut self,
        request: &[u8],
        invitation: &Invitation,
    ) -> Result<Vec<u8>, EnrolError> {
        let password = invitation.password();
        // The whole name has a colon, behind which the password would begin (RFC 7617 section 2).
        let user = invitation.name.rsplit('/').next().unwrap_or_default();
        let pair = Zeroizing::new(format!("{user}:{}", *password));
        let basic = Zeroizing::new(format!("Basic {}", STANDARD.encode(pair.as_bytes())));
        let mut value = HeaderValue::from_str(&basic)
            .map_err(|_| EnrolError::Request(String::from("the name is not that of a client")))?;
        value.set_sensitive(true);
        self.certificate("simpleenroll", request, Some(value)).await
    }

    /// A certificate for the request (DER) by the certificate of the handshake.
    pub async fn enrol_again(&mut self, request: &[u8]) -> Result<Vec<u8>, EnrolError> {
        self.certificate("simplereenroll", request, None).await
    }

    async fn certificate(
        &mut self,
        operation: &str,
        request: &[u8],
        authorization: Option<HeaderValue>,
    ) -> Result<Vec<u8>, EnrolError> {
        let body = Bytes::from(to_body(request));
        let request = self.request(Method::POST, operation, authorization, body)?;
        let der = self.ask(request).await?;
        let mut all = read_certs_only(&der).map_err(EnrolError::pkcs7(&self.address))?;
        match all.len() {
            1 => Ok(all.remove(0)),
            // RFC 7030 section 4.2.3: only the certificate that was issued.
            _ => Err(EnrolError::protocol(
                &self.address,
                "several certificates for one request",
            )),
        }
    }

    fn request(
        &self,
        method: Method,
        operation: &str,
        authorization: Option<HeaderValue>,
        body: Bytes,
    ) -> Result<Request<Full<Bytes>>, EnrolError> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{ROOT}{operation}"))
            .header(HOST, &self.address)
            .header(
                USER_AGENT,
                concat!("countersign/", env!("CARGO_PKG_VERSION")),
            );
        if !body.is_empty() {
            request = request.header(CONTENT_TYPE, PKCS10);
        }
        if let Some(value) = authorization {
            request = request.header(AUTHORIZATION, value);
        }
        request
            .body(Full::new(body))
            .map_err(|error| EnrolError::protocol(&self.address, error))
    }

    async fn ask(&mut self, request: Request<Full<Bytes>>) -> Result<Vec<u8>, EnrolError> {
        let address = self.address.clone();
        let asking = async {
            let response = self.sender.send_request(request).await;
            let response = response.map_err(|error| broken(&address, &error))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), LONGEST).collect().await;
            let body = body.map_err(|error| EnrolError::protocol(&address, error))?;
            Ok::<_, EnrolError>((status, body.to_bytes()))
        };
        let (status, body) = tokio::time::timeout(PATIENCE, asking)
            .await
            .map_err(|_| late(&self.address))??;
        if status == StatusCode::OK {
            return from_body(&body).map_err(|error| EnrolError::protocol(&self.address, error));
        }
        Err(refused(&self.address, status, &body))
    }
}

/// The host of `host:port`, without the brackets of IPv6.
fn host_of(address: &str) -> Option<&str> {
    let (host, port) = address.rsplit_once(':')?;
    port.parse::<u16>().ok()?;
    let host = host
        .strip_prefix('[')
        .map_or(Some(host), |inner| inner.strip_suffix(']'))?;
    (!host.is_empty()).then_some(host)
}

fn refused(address: &str, status: StatusCode, body: &[u8]) -> EnrolError {
    let problem: Problem = serde_json::from_slice(body).unwrap_or_default();
    let detail = if problem.detail.is_empty() {
        format!("it answered with {status}")
    } else {
        problem
            .detail
            .chars()
            .filter(|c| !c.is_control())
            .take(500)
            .collect()
    };
    let later = status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS;
    EnrolError::Refused {
        address: address.to_owned(),
        reason: problem.reason,
        detail,
        later,
    }
}

fn late(address: &str) -> EnrolError {
    EnrolError::Unreachable {
        address: address.to_owned(),
        cause: format!("no answer within {}", humantime::format_duration(PATIENCE)),
    }
}

/// A connection that ended instead of an answer. In TLS 1.3 the alert that refuses our certificate
/// comes only now.
fn broken(address: &str, error: &hyper::Error) -> EnrolError {
    let address = address.to_owned();
    let mut source = error.source();
    while let Some(cause) = source {
        let io = cause.downcast_ref::<std::io::Error>();
        if let Some(class) = io.and_then(explain_alert) {
            return EnrolError::Alert { address, class };
        }
        source = cause.source();
    }
    EnrolError::Unreachable {
        address,
        cause: error.to_string(),
    }
}

fn sort(address: &str, error: ClientTlsError) -> EnrolError {
    let address = address.to_owned();
    match error {
        ClientTlsError::Connect { cause, .. } => EnrolError::Unreachable { address, cause },
        ClientTlsError::Refused { class, .. } => EnrolError::Alert { address, class },
        ClientTlsError::Handshake { cause, .. } => handshake_failed(address, &cause),
        ClientTlsError::Tls(cause) => EnrolError::Tls(cause),
    }
}

fn handshake_failed(address: String, cause: &std::io::Error) -> EnrolError {
    let inner = cause.get_ref().and_then(|inner| inner.downcast_ref());
    match inner {
        Some(rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer)) => {
            let cause = String::from("its certificate does not come from that CA");
            EnrolError::WrongAuthority { address, cause }
        }
        Some(rustls::Error::InvalidCertificate(cause)) => EnrolError::WrongAuthority {
            address,
            cause: cause.to_string(),
        },
        Some(rustls::Error::AlertReceived(_)) => EnrolError::Alert {
            address,
            class: Class::Protocol,
        },
        Some(other) => EnrolError::Protocol {
            address,
            what: other.to_string(),
        },
        None => EnrolError::Unreachable {
            address,
            cause: cause.to_string(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_of_an_address() {
        assert_eq!(host_of("ca.example.org:8444"), Some("ca.example.org"));
        assert_eq!(host_of("[::1]:8444"), Some("::1"));
        for wrong in ["", ":1", "a", "a:", "a:b", "[::1:8444", "a:70000"] {
            assert_eq!(host_of(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_refusal_is_told_in_the_servers_words_without_control_characters() {
        let body = br#"{"reason":"token_used","detail":"used\u001b[2J before"}"#;
        let EnrolError::Refused {
            reason,
            detail,
            later,
            ..
        } = refused("a:1", StatusCode::FORBIDDEN, body)
        else {
            panic!("it is a refusal")
        };
        assert_eq!(
            (reason.as_str(), detail.as_str(), later),
            ("token_used", "used[2J before", false)
        );
        let error = refused("a:1", StatusCode::SERVICE_UNAVAILABLE, b"<html>");
        assert!(error.is_passing());
        assert!(error.to_string().contains("503"), "{error}");
    }
}
