//! The client's side: the server's certificate is verified by rustls' own verifier against the
//! given roots, ours is presented, sessions are resumed.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::{ResolvesClientCert, WebPkiServerVerifier};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::identity::Identity;
use super::known_root::KnownRoot;
use super::profile::Profile;
use super::provider::{ClockTime, group_name, suite_name};
use super::refusal::Class;
use crate::cert::load_chain;
use crate::identity::Fingerprint;
use crate::peer::Agreed;

/// How long one address may take to answer while another one is left to try.
const NEXT_ADDRESS: Duration = Duration::from_secs(3);

/// What a client agrees to: all that a server's configuration may ask for.
const PROFILE: Profile = Profile::Compatible;

/// And while it enrols, at a server that is ours.
pub(super) const ENROLMENT: Profile = Profile::Modern;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ClientTlsError {
    /// Name resolution or TCP.
    #[error("cannot connect to {address}: {cause}")]
    Connect {
        /// As it was given.
        address: String,
        /// What the system says, of the last address tried.
        cause: String,
    },
    /// The server refused us by an alert.
    #[error("the server at {address} refused the handshake: {class}")]
    Refused {
        /// As it was given.
        address: String,
        /// What the alert tells.
        class: Class,
    },
    /// We refused the server, or the handshake went wrong.
    #[error("TLS with {address}: {cause}")]
    Handshake {
        /// As it was given.
        address: String,
        /// What is wrong; rustls' own error is inside where it is one.
        cause: io::Error,
    },
    /// Files or names that cannot be used.
    #[error("{0}")]
    Tls(String),
}

/// A client's configuration; cheap to clone, shares its session cache.
#[derive(Clone)]
pub struct ClientTls {
    connector: TlsConnector,
}

impl ClientTls {
    /// `roots`: PEM bundle that the server's certificate must chain to. `alpn`: what is offered, in
    /// order of preference.
    ///
    /// # Errors
    /// Unusable files.
    pub fn new(identity: &Identity, roots: &Path, alpn: &[&[u8]]) -> Result<Self, ClientTlsError> {
        let unusable = |cause: &dyn std::fmt::Display| ClientTlsError::Tls(cause.to_string());
        let store = Arc::new(root_store(roots)?);
        let verifier = WebPkiServerVerifier::builder_with_provider(store, PROFILE.provider())
            .build()
            .map_err(|cause| unusable(&format_args!("`{}`: {cause}", roots.display())))?;
        let mut config =
            ClientConfig::builder_with_details(PROFILE.provider(), Arc::new(ClockTime))
                .with_protocol_versions(PROFILE.versions())
                .map_err(|cause| unusable(&cause))?
                .with_webpki_verifier(verifier)
                .with_client_cert_resolver(Arc::new(Always(identity.certified())));
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        Ok(Self {
            connector: TlsConnector::from(Arc::new(config)),
        })
    }

    /// Without a certificate to show, and with nothing known of the server but the fingerprint of
    /// the CA at the top of its chain, which it has to send along: for whoever enrols.
    ///
    /// # Errors
    /// rustls refuses the configuration.
    pub fn below(root: Fingerprint, alpn: &[&[u8]]) -> Result<Self, ClientTlsError> {
        let mut config =
            ClientConfig::builder_with_details(ENROLMENT.provider(), Arc::new(ClockTime))
                .with_protocol_versions(ENROLMENT.versions())
                .map_err(|cause| ClientTlsError::Tls(cause.to_string()))?
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(KnownRoot(root)))
                .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        Ok(Self {
            connector: TlsConnector::from(Arc::new(config)),
        })
    }

    /// TCP connect and handshake. `address`: `host:port`, tried at each address that it resolves
    /// to; `server_name`: what the certificate must be for.
    ///
    /// # Errors
    /// With the alert that the server sent, where it sent one. In TLS 1.3 a client's handshake is
    /// over before the server has judged its certificate: the alert then comes with the first read,
    /// and [`explain_alert`] reads it.
    pub async fn connect(
        &self,
        address: &str,
        server_name: &str,
    ) -> Result<TlsStream<TcpStream>, ClientTlsError> {
        let name = ServerName::try_from(server_name.to_owned()).map_err(|_| {
            ClientTlsError::Tls(format!(
                "`{server_name}` is neither a host name nor an address"
            ))
        })?;
        let tcp = connect_tcp(address).await?;
        self.handshake(tcp, address, name).await
    }

    async fn handshake(
        &self,
        tcp: TcpStream,
        address: &str,
        name: ServerName<'static>,
    ) -> Result<TlsStream<TcpStream>, ClientTlsError> {
        self.connector.connect(name, tcp).await.map_err(|cause| {
            let address = address.to_owned();
            match explain_alert(&cause) {
                Some(class) if class != Class::Protocol => {
                    ClientTlsError::Refused { address, class }
                }
                _ => ClientTlsError::Handshake { address, cause },
            }
        })
    }
}

/// Shows the same certificate to every server: what issuers a server hints at is not our choice.
#[derive(Debug)]
struct Always(Arc<CertifiedKey>);

impl ResolvesClientCert for Always {
    fn resolve(&self, _: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.key.choose_scheme(schemes).map(|_| self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// The class of the alert that ended a connection, if one did: what the server says of us.
#[must_use]
pub fn explain_alert(error: &io::Error) -> Option<Class> {
    match error.get_ref()?.downcast_ref::<rustls::Error>()? {
        rustls::Error::AlertReceived(alert) => Some(Class::of_alert(*alert)),
        _ => None,
    }
}

/// What was agreed with a server, for `doctor`.
#[must_use]
pub fn agreed_with(stream: &TlsStream<TcpStream>) -> Agreed {
    let session = stream.get_ref().1;
    Agreed {
        version: match session.protocol_version() {
            Some(rustls::ProtocolVersion::TLSv1_2) => "TLSv1.2",
            Some(rustls::ProtocolVersion::TLSv1_3) => "TLSv1.3",
            _ => "",
        },
        suite: session.negotiated_cipher_suite().map_or("", suite_name),
        group: session
            .negotiated_key_exchange_group()
            .map_or("", |g| group_name(g.name())),
        resumed: session.handshake_kind() == Some(rustls::HandshakeKind::Resumed),
    }
}

fn root_store(roots: &Path) -> Result<RootCertStore, ClientTlsError> {
    let mut store = RootCertStore::empty();
    for der in load_chain(roots).map_err(|cause| ClientTlsError::Tls(cause.to_string()))? {
        store
            .add(CertificateDer::from(der))
            .map_err(|cause| ClientTlsError::Tls(format!("`{}`: {cause}", roots.display())))?;
    }
    Ok(store)
}

async fn connect_tcp(address: &str) -> Result<TcpStream, ClientTlsError> {
    let error = |cause: &dyn std::fmt::Display| ClientTlsError::Connect {
        address: address.to_owned(),
        cause: cause.to_string(),
    };
    let found = tokio::net::lookup_host(address)
        .await
        .map_err(|cause| error(&cause))?;
    let found: Vec<SocketAddr> = found.collect();
    let mut last = error(&"the name has no address");
    for (at, place) in found.iter().enumerate() {
        let attempt = TcpStream::connect(place);
        let outcome = if at + 1 < found.len() {
            tokio::time::timeout(NEXT_ADDRESS, attempt)
                .await
                .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        } else {
            attempt.await
        };
        match outcome {
            Ok(tcp) => {
                tcp.set_nodelay(true).map_err(|cause| error(&cause))?;
                return Ok(tcp);
            }
            Err(cause) => last = error(&format_args!("{place}: {cause}")),
        }
    }
    Err(last)
}
