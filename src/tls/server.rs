//! The server's side of the handshake.
use std::sync::Arc;
use std::net::SocketAddr;
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use crate::peer::Peer;
use super::{identity::Identity, refusal::Refusal, trust::Trust};

#[derive(Debug, thiserror::Error)]
pub enum ServerTlsError { #[error("{0}")] Rustls(String) }
/// What `[tls]` says.
#[derive(Clone, Debug)]
pub struct ServerTlsOptions { /** Offered by ALPN, in order of preference. */ pub alpn: Vec<Vec<u8>>, pub allow_tls12: bool }
/// Somebody who is in.
pub struct Accepted { pub peer: Peer, pub stream: TlsStream<TcpStream>, pub alpn: Option<Vec<u8>> }
pub struct ServerTls {}
impl ServerTls {
    /// # Errors
    /// rustls refuses the key or certificate.
    pub fn new(identity: &Identity, trust: Arc<Trust>, options: &ServerTlsOptions) -> Result<Self, ServerTlsError> { let _ = (identity, trust, options); todo!() }
    /// New certificate and key for new handshakes.
    /// # Errors
    /// The old ones stay.
    pub fn reload(&self, identity: &Identity) -> Result<(), ServerTlsError> { let _ = identity; todo!() }
    /// Handshake, then admission (also after resumption). No deadline of its own: the listener has it.
    /// # Errors
    /// The refusal, for the audit log; the peer got its alert.
    pub async fn accept(&self, tcp: TcpStream, address: SocketAddr) -> Result<Accepted, Refusal> { let _ = (tcp, address); todo!() }
}
