//! TLS for the CA's own endpoint, where whoever enrols for the first time has no certificate yet:
//! a client may present one, and then it must chain to the CA's root and be valid. Whether it may
//! do anything is asked of the registry at every request, not here.

use std::fmt;
use std::io;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::either_usage::EitherUsage;
use super::identity::Identity;
use super::profile::Profile;
use super::provider::ClockTime;
use super::refusal::{Class, Refusal};
use super::server::{ServerTlsError, linger, of_handshake};
use super::socket::Socket;

/// Old programs enrol too, so TLS 1.2 is spoken here (RFC 7030 asks for 1.1 or later).
pub(super) const PROFILE: Profile = Profile::Compatible;

/// Handshakes with optional client certificates. The identity can be swapped under it.
pub struct OpenTls {
    acceptor: TlsAcceptor,
    certificate: Arc<Shown>,
}

/// What is shown to clients: the chain with the root at its end, so that a client who knows only
/// the root's fingerprint can check it.
struct Shown {
    current: ArcSwap<CertifiedKey>,
    above: Vec<Vec<u8>>,
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shown")
    }
}

impl OpenTls {
    /// `roots`: those that client certificates may chain to, DER. `above`: what is shown above our
    /// own certificate, DER: up to the roots. `alpn`: as in [`super::ServerTlsOptions`].
    ///
    /// # Errors
    /// rustls refuses the root or the key.
    pub fn new(
        identity: &Identity,
        roots: &[Vec<u8>],
        above: &[&[u8]],
        alpn: &[&[u8]],
    ) -> Result<Self, ServerTlsError> {
        let refused = |cause: &dyn fmt::Display| ServerTlsError::Rustls(cause.to_string());
        let mut store = RootCertStore::empty();
        for root in roots {
            store
                .add(root.clone().into())
                .map_err(|cause| refused(&cause))?;
        }
        let roots = store.roots.clone();
        let inner =
            WebPkiClientVerifier::builder_with_provider(Arc::new(store), PROFILE.provider())
                .allow_unauthenticated()
                .build()
                .map_err(|cause| refused(&cause))?;
        let verifier = Arc::new(EitherUsage { inner, roots });
        let above: Vec<_> = above.iter().map(|der| der.to_vec()).collect();
        let certificate = Arc::new(Shown {
            current: ArcSwap::new(with_all(identity, &above)),
            above,
        });
        let mut config =
            ServerConfig::builder_with_details(PROFILE.provider(), Arc::new(ClockTime))
                .with_protocol_versions(PROFILE.versions())
                .map_err(|cause| refused(&cause))?
                .with_client_cert_verifier(verifier)
                .with_cert_resolver(certificate.clone());
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        // A resumed session would carry a certificate that was verified long ago.
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Self {
            acceptor: TlsAcceptor::from(Arc::new(config)),
            certificate,
        })
    }

    /// Another certificate and key for new handshakes.
    pub fn reload(&self, identity: &Identity) {
        let shown = with_all(identity, &self.certificate.above);
        self.certificate.current.store(shown);
    }

    /// The handshake, and the certificates (DER, leaf first) that the client proved, if it showed
    /// any. No deadline of its own.
    ///
    /// # Errors
    /// The refusal; the client got its alert.
    pub async fn accept(
        &self,
        tcp: TcpStream,
    ) -> Result<(TlsStream<Socket>, Vec<Vec<u8>>), Refusal> {
        let stream = match self.acceptor.accept(Socket::new(tcp)).into_fallible().await {
            Ok(stream) => stream,
            Err((cause, tcp)) => {
                linger(tcp).await;
                return Err(of_certificate(&cause).unwrap_or_else(|| of_handshake(&cause)));
            }
        };
        let presented = stream.get_ref().1.peer_certificates();
        let presented = presented.map(|all| all.iter().map(|der| der.to_vec()).collect());
        Ok((stream, presented.unwrap_or_default()))
    }
}

/// The refusal of a certificate that was presented.
fn of_certificate(cause: &io::Error) -> Option<Refusal> {
    let Some(rustls::Error::InvalidCertificate(cause)) = cause.get_ref()?.downcast_ref() else {
        return None;
    };
    let class = match cause {
        CertificateError::UnknownIssuer => Class::UnknownCa,
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => Class::Expired,
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            Class::NotYetValid
        }
        _ => Class::BadCertificate,
    };
    Some(Refusal::new(
        class,
        format!("the client's certificate is refused: {cause}"),
    ))
}

fn with_all(identity: &Identity, above: &[Vec<u8>]) -> Arc<CertifiedKey> {
    let certified = identity.certified();
    let mut chain = certified.cert.clone();
    for der in above {
        if chain.iter().all(|known| known.as_ref() != der.as_slice()) {
            chain.push(der.clone().into());
        }
    }
    Arc::new(CertifiedKey::new(chain, certified.key.clone()))
}
