//! A client on rustls directly: it sends what the test says, right or wrong, and reports the alert.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::sign::CertifiedKey;
use rustls::{AlertDescription, ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::pki::{Certified, PATIENCE};

pub fn provider() -> Arc<CryptoProvider> {
    #[cfg(feature = "post-quantum")]
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    #[cfg(not(feature = "post-quantum"))]
    let provider = rustls::crypto::ring::default_provider();
    Arc::new(provider)
}

#[derive(Debug)]
struct Shows(Arc<CertifiedKey>);

impl rustls::client::ResolvesClientCert for Shows {
    fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// What the server did with a client.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// It echoed.
    Served,
    /// It refused with this alert.
    Alert(AlertDescription),
    /// It ended the connection without an alert.
    Closed,
}

/// One configuration, and so one cache of sessions.
#[derive(Clone)]
pub struct Client {
    pub config: ClientConfig,
}

impl Client {
    /// Presents the certificate with its chain.
    pub fn of(certified: &Certified, server_root: &Certified) -> Self {
        Self::showing(certified, &certified.chain(), server_root)
    }

    /// Signs with the key of `holder` and presents `chain`, whoever that is.
    pub fn showing(
        holder: &Certified,
        chain: &[rustls::pki_types::CertificateDer<'static>],
        server_root: &Certified,
    ) -> Self {
        let key = PrivatePkcs8KeyDer::from(holder.key.serialize_der());
        let key = provider()
            .key_provider
            .load_private_key(PrivateKeyDer::from(key))
            .unwrap();
        let shows = Shows(Arc::new(CertifiedKey::new(chain.to_vec(), key)));
        let config = builder(server_root).with_client_cert_resolver(Arc::new(shows));
        Self { config }
    }

    /// Has no certificate.
    pub fn anonymous(server_root: &Certified) -> Self {
        Self {
            config: builder(server_root).with_no_client_auth(),
        }
    }

    pub fn offering(mut self, alpn: &[&str]) -> Self {
        self.config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        self
    }

    /// TCP, handshake, and one echoed line, which in TLS 1.3 is the first that a client hears of
    /// how it was judged.
    pub async fn connect(&self, address: SocketAddr) -> Result<Conversation, Answer> {
        let tcp = TcpStream::connect(address).await.unwrap();
        let connector = TlsConnector::from(Arc::new(self.config.clone()));
        let name = ServerName::try_from("localhost").unwrap();
        let stream = connector
            .connect(name, tcp)
            .await
            .map_err(|cause| answer(&cause))?;
        let mut conversation = Conversation { stream };
        conversation.echo().await?;
        Ok(conversation)
    }

    pub async fn knock(&self, address: SocketAddr) -> Answer {
        let outcome = tokio::time::timeout(PATIENCE, self.connect(address)).await;
        match outcome.expect("the server answers in time") {
            Ok(conversation) => {
                conversation.end().await;
                Answer::Served
            }
            Err(answer) => answer,
        }
    }
}

fn builder(
    server_root: &Certified,
) -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
    let mut roots = RootCertStore::empty();
    roots.add(server_root.der.clone()).unwrap();
    ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(rustls::ALL_VERSIONS)
        .unwrap()
        .with_root_certificates(roots)
}

fn answer(cause: &io::Error) -> Answer {
    match cause
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>())
    {
        Some(rustls::Error::AlertReceived(alert)) => Answer::Alert(*alert),
        Some(other) => panic!("the client itself failed: {other}"),
        None => Answer::Closed,
    }
}

/// A connection that was admitted.
#[derive(Debug)]
pub struct Conversation {
    pub stream: TlsStream<TcpStream>,
}

impl Conversation {
    /// Sends a line and reads it back.
    pub async fn echo(&mut self) -> Result<(), Answer> {
        // A server that refuses may be gone before this arrives: what it said is still to be read.
        let _ = self.stream.write_all(b"hello\n").await;
        let _ = self.stream.flush().await;
        let mut heard = [0; 6];
        match self.stream.read_exact(&mut heard).await {
            Ok(_) => {
                assert_eq!(&heard, b"hello\n");
                Ok(())
            }
            Err(cause) => Err(answer(&cause)),
        }
    }

    /// Ready when the server has ended the connection.
    pub async fn ended(&mut self) {
        let mut heard = [0; 64];
        let end = async { while !matches!(self.stream.read(&mut heard).await, Ok(0) | Err(_)) {} };
        tokio::time::timeout(PATIENCE, end)
            .await
            .expect("the server ends the connection");
    }

    pub async fn end(mut self) {
        let _ = self.stream.shutdown().await;
    }
}
