//! The server's side of the handshake, and admission after it. The one place that makes a [`Peer`].

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{AlertDescription, HandshakeKind, ProtocolVersion, ServerConfig, ServerConnection};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::identity::Identity;
use super::profile::Profile;
use super::provider::{ClockTime, group_name, suite_name, ticketer};
use super::refusal::{Class, Refusal};
use super::socket::Socket;
use super::trust::Trust;
use super::verifier::{BoundTickets, NOTES, Notes, Verifier};
use crate::clock;
use crate::peer::{Agreed, Peer};

/// How long a refused client is given to take its alert before the socket goes: closing a socket
/// with unread bytes resets it, and the alert in flight is lost.
const LINGER: Duration = Duration::from_millis(500);

/// The most bytes that are read and dropped meanwhile.
const LINGER_BYTES: usize = 64 * 1024;

/// What rustls or the key has against a configuration.
#[derive(Debug, thiserror::Error)]
pub enum ServerTlsError {
    /// rustls refuses it.
    #[error("TLS cannot be set up: {0}")]
    Rustls(String),
}

/// What `[tls]` says.
#[derive(Clone, Debug)]
pub struct ServerTlsOptions {
    /// Offered by ALPN, in order of preference. A client that offers others only is refused; one
    /// that offers nothing is let in.
    pub alpn: Vec<Vec<u8>>,
    /// What a handshake may agree on.
    pub profile: Profile,
}

/// Somebody who is in.
pub struct Accepted {
    /// Who.
    pub peer: Peer,
    /// The connection; on the heap, because it is large and is handed on through several futures,
    /// each of which would hold room for it.
    pub stream: Box<TlsStream<Socket>>,
    /// What ALPN agreed on, if it did.
    pub alpn: Option<Vec<u8>>,
}

/// Handshakes with mandatory client certificates. The identity and the trust state can be swapped
/// under it without breaking a connection.
pub struct ServerTls {
    acceptor: TlsAcceptor,
    certificate: Arc<Certificate>,
    trust: Arc<Trust>,
}

/// The certificate for new handshakes.
struct Certificate(ArcSwap<Identity>);

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load().certified())
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Certificate")
    }
}

impl ServerTls {
    /// Puts the parts together.
    ///
    /// # Errors
    /// rustls refuses the key or certificate.
    pub fn new(
        identity: &Identity,
        trust: Arc<Trust>,
        options: &ServerTlsOptions,
    ) -> Result<Self, ServerTlsError> {
        let refused = |cause: rustls::Error| ServerTlsError::Rustls(cause.to_string());
        let provider = options.profile.provider();
        let certificate = Arc::new(Certificate(ArcSwap::from_pointee(identity.clone())));
        let verifier = Arc::new(Verifier::new(trust.clone(), provider.clone()));
        let mut config = ServerConfig::builder_with_details(provider, Arc::new(ClockTime))
            .with_protocol_versions(options.profile.versions())
            .map_err(refused)?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(certificate.clone());
        config.alpn_protocols.clone_from(&options.alpn);
        // Without it TLS 1.2 binds neither tickets nor certificates to the whole handshake.
        config.require_ems = true;
        // Sessions live in tickets only: nothing is kept here for who has left.
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        let sealer = ticketer().map_err(refused)?;
        config.ticketer = Arc::new(BoundTickets::new(trust.clone(), sealer));
        Ok(Self {
            acceptor: TlsAcceptor::from(Arc::new(config)),
            certificate,
            trust,
        })
    }

    /// New certificate and key for new handshakes. Connections and tickets live on.
    ///
    /// # Errors
    /// The old ones stay.
    pub fn reload(&self, identity: &Identity) -> Result<(), ServerTlsError> {
        identity
            .certified()
            .keys_match()
            .map_err(|cause| ServerTlsError::Rustls(cause.to_string()))?;
        self.certificate.0.store(Arc::new(identity.clone()));
        Ok(())
    }

    /// Whether a handshake may have to wait for its signature: the key is in a token.
    #[must_use]
    pub fn waits(&self) -> bool {
        self.certificate.0.load().in_token()
    }

    /// The trust state that it admits by.
    #[must_use]
    pub fn trust(&self) -> &Arc<Trust> {
        &self.trust
    }

    /// Handshake, then admission (also after resumption). No deadline of its own: the listener has
    /// it.
    ///
    /// # Errors
    /// The refusal, for the audit log; the peer got its alert.
    pub async fn accept(&self, tcp: TcpStream, address: SocketAddr) -> Result<Accepted, Refusal> {
        let handshake = self.acceptor.accept(Socket::new(tcp)).into_fallible();
        let noted = async {
            let done = handshake.await;
            (done, NOTES.with(RefCell::take))
        };
        match NOTES.scope(RefCell::new(Notes::default()), noted).await {
            (Ok(stream), _) => self.admit(stream, address).await,
            (Err((cause, tcp)), notes) => {
                linger(tcp).await;
                Err(notes.refusal.unwrap_or_else(|| of_handshake(&cause)))
            }
        }
    }

    /// Judges the finished handshake by what it proved, whatever was judged before: a resumed one
    /// never met the verifier, and things change while a handshake runs.
    async fn admit(
        &self,
        mut stream: TlsStream<Socket>,
        address: SocketAddr,
    ) -> Result<Accepted, Refusal> {
        match self.peer(stream.get_ref().1, address) {
            Ok(peer) => {
                let alpn = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
                Ok(Accepted {
                    peer,
                    stream: Box::new(stream),
                    alpn,
                })
            }
            Err(refusal) => {
                // The peer may be gone already; the refusal stands either way.
                let _ = tokio::time::timeout(LINGER, stream.shutdown()).await;
                linger(stream.into_inner().0).await;
                Err(refusal)
            }
        }
    }

    fn peer(&self, session: &ServerConnection, address: SocketAddr) -> Result<Peer, Refusal> {
        let Some((leaf, others)) = session.peer_certificates().and_then(<[_]>::split_first) else {
            return Err(Refusal::new(
                Class::NoCertificate,
                "the client presented no certificate",
            ));
        };
        let (_, verified) = self.trust.judge(leaf, others, clock::unix_now())?;
        let peer = Peer::admitted(verified.chain.clone(), agreed(session), address);
        Ok(peer.on_path(verified.links.clone()))
    }
}

fn agreed(session: &ServerConnection) -> Agreed {
    Agreed {
        version: match session.protocol_version() {
            Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
            Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
            _ => "",
        },
        suite: session.negotiated_cipher_suite().map_or("", suite_name),
        group: session
            .negotiated_key_exchange_group()
            .map_or("", |g| group_name(g.name())),
        resumed: session.handshake_kind() == Some(HandshakeKind::Resumed),
    }
}

/// Sends the end and reads what is still on its way, for a short while.
pub(super) async fn linger(mut tcp: Socket) {
    let drain = async {
        if tcp.shutdown().await.is_err() {
            return;
        }
        let mut left = LINGER_BYTES;
        let mut dropped = vec![0; 4096];
        while left > 0 {
            match tcp.read(&mut dropped).await {
                Ok(0) | Err(_) => return,
                Ok(count) => left = left.saturating_sub(count),
            }
        }
    };
    // Whoever is not done by then gets the reset.
    let _ = tokio::time::timeout(LINGER, drain).await;
}

/// A handshake that failed for another reason than the verifier's.
pub(super) fn of_handshake(cause: &io::Error) -> Refusal {
    let inner = cause
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let Some(inner) = inner else {
        return Refusal::new(Class::Protocol, went_away(cause));
    };
    match inner {
        rustls::Error::NoCertificatesPresented => {
            Refusal::new(Class::NoCertificate, "the client presented no certificate")
        }
        rustls::Error::AlertReceived(alert) => Refusal::new(Class::Protocol, rejected(*alert)),
        rustls::Error::InvalidCertificate(cause) => {
            let reason = format!("the signature of the handshake is wrong: {cause}");
            Refusal::new(Class::BadCertificate, reason)
        }
        other => Refusal::new(Class::Protocol, format!("the handshake failed: {other}")),
    }
}

fn went_away(cause: &io::Error) -> String {
    match cause.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => {
            String::from("the client left in the middle of the handshake")
        }
        _ => format!("the handshake failed: {cause}"),
    }
}

fn rejected(alert: AlertDescription) -> String {
    let name = alert.as_str().unwrap_or("one that is not known");
    format!("the client ended the handshake with the alert {name}")
}
