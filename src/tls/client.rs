//! The client's side.
use super::identity::Identity;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
#[derive(Debug, thiserror::Error)]
pub enum ClientTlsError { #[error("cannot connect to {address}: {cause}")] Connect { address: String, cause: String }, #[error("{0}")] Tls(String) }
pub struct ClientTls {}
impl ClientTls {
    /// `roots`: PEM bundle that the server's certificate must chain to.
    /// # Errors
    /// Unusable files.
    pub fn new(identity: &Identity, roots: &std::path::Path, alpn: &[&[u8]]) -> Result<Self, ClientTlsError> { let _ = (identity, roots, alpn); todo!() }
    /// TCP connect and handshake; `server_name`: what the certificate must be for.
    /// # Errors
    /// With the alert that the server sent, where it sent one (TLS 1.3: maybe only at the first read).
    pub async fn connect(&self, address: &str, server_name: &str) -> Result<TlsStream<TcpStream>, ClientTlsError> { let _ = (address, server_name); todo!() }
}
