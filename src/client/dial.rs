//! From a target and credentials to a connection, and from a silent end to its reason.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::bridge::Dial;
use super::caller::Client;
use super::carrier::Carrier;
use super::credentials::Credentials;
use super::farewell::Farewells;
use super::fault::{Alert, ClientError};
use super::target::Target;
use super::transport::Transport;
use super::{http, websocket};
use crate::cert::load_chain;
use crate::clock::unix_now;
use crate::enrol::is_due;
use crate::identity::Fingerprint;
use crate::peer::Agreed;
use crate::tls::{ClientTls, ClientTlsError, Identity, agreed_with};

/// How long the alert of a refused client may take after the handshake.
const LAST_WORD: Duration = Duration::from_secs(1);

/// A client over TLS, by any transport.
pub type TlsClient = Client<Carrier>;

/// Whom a connection presents, and its TLS.
struct Current {
    tls: ClientTls,
    identity: Identity,
}

/// Everything that a connection needs, loaded once. Cheap to clone.
#[derive(Clone)]
pub struct Dialer {
    /// Shared by all clones, so that a renewed certificate is taken up by all.
    current: Arc<ArcSwap<Current>>,
    credentials: Credentials,
    target: Target,
    transport: Transport,
    patience: Duration,
    farewells: Farewells,
}

impl Dialer {
    /// By the raw stream. `patience`: how long connecting and the handshakes may take together.
    ///
    /// # Errors
    /// The certificate, the key or the CA bundle cannot be used.
    pub fn new(
        target: Target,
        credentials: &Credentials,
        patience: Duration,
    ) -> Result<Self, ClientError> {
        Self::over(Transport::Raw, target, credentials, patience)
    }

    /// By any transport; otherwise as [`Self::new`].
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn over(
        transport: Transport,
        target: Target,
        credentials: &Credentials,
        patience: Duration,
    ) -> Result<Self, ClientError> {
        let current = load(credentials, transport)?;
        let farewells = Farewells::default();
        Ok(Self {
            current: Arc::new(ArcSwap::from_pointee(current)),
            credentials: credentials.clone(),
            target,
            transport,
            patience,
            farewells,
        })
    }

    /// Whom it presents.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.current.load().identity.clone()
    }

    /// Whom to present now. One that is due to be renewed may have been: then the files are read
    /// again, and what cannot be used is not taken.
    fn current(&self) -> Arc<Current> {
        let current = self.current.load_full();
        if !is_due(&current.identity, unix_now()) {
            return current;
        }
        let chain = load_chain(&self.credentials.cert);
        let leaf = chain.map(|chain| Fingerprint::of_der(&chain[0]));
        if leaf.is_ok_and(|leaf| leaf == current.identity.fingerprint()) {
            return current;
        }
        match load(&self.credentials, self.transport) {
            Ok(renewed) => {
                let renewed = Arc::new(renewed);
                self.current.store(Arc::clone(&renewed));
                renewed
            }
            Err(_) => current,
        }
    }

    /// Where it goes.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// What is still to be said when connections are dropped. Wait for it before the runtime ends.
    #[must_use]
    pub fn farewells(&self) -> Farewells {
        self.farewells.clone()
    }

    /// A new connection after the TLS handshake. In TLS 1.3 a server judges the client only then:
    /// its refusal comes with the first read.
    ///
    /// # Errors
    /// Not reachable, not in time, refused, or not trusted.
    pub async fn tls(&self) -> Result<TlsStream<TcpStream>, ClientError> {
        let address = self.target.address();
        let current = self.current();
        let connecting = current.tls.connect(&address, self.target.host());
        match tokio::time::timeout(self.patience, connecting).await {
            Err(_) => Err(self.too_late()),
            Ok(Err(cause)) => Err(sort(address, cause)),
            Ok(Ok(stream)) => Ok(stream),
        }
    }

    /// A new stream of lines, and what the TLS handshake agreed on.
    async fn carrier(&self) -> Result<(Carrier, Agreed), ClientError> {
        let stream = self.tls().await?;
        let agreed = agreed_with(&stream);
        let carrier = match self.transport {
            Transport::Raw => Carrier::Raw(Box::new(stream)),
            Transport::WebSocket => {
                let peer = self.target.address();
                let opening = websocket::open(stream, &peer, self.farewells());
                let opened = tokio::time::timeout(self.patience, opening).await;
                Carrier::WebSocket(Box::new(opened.map_err(|_| self.too_late())??))
            }
            Transport::Http => {
                Carrier::Http(http::open(Arc::new(self.clone()), stream, &self.farewells)?)
            }
        };
        Ok((carrier, agreed))
    }

    /// A new connection as a client.
    ///
    /// # Errors
    /// As [`Self::tls`], or the server does not speak the transport.
    pub async fn client(&self) -> Result<TlsClient, ClientError> {
        let (carrier, agreed) = match self.carrier().await {
            Ok(opened) => opened,
            Err(error) => return Err(self.reason(error).await),
        };
        Ok(Client::over(carrier, self.target.address()).with_agreed(agreed))
    }

    /// The reason behind a connection that ended without a word. A refusing server's alert can be lost
    /// when our request crosses its close; so this connects again and only listens.
    pub async fn reason(&self, error: ClientError) -> ClientError {
        if !matches!(error, ClientError::Closed { heard: false, .. }) {
            return error;
        }
        let mut stream = match self.tls().await {
            Ok(stream) => stream,
            Err(told @ ClientError::Refused { .. }) => return told,
            Err(_) => return error,
        };
        // Over HTTP/2 a server that does not refuse speaks first; that is no reason either.
        match tokio::time::timeout(LAST_WORD, stream.read(&mut [0])).await {
            Ok(Err(cause)) => match ClientError::of_io(&self.target.address(), &cause, false) {
                told @ ClientError::Refused { .. } => told,
                _ => error,
            },
            _ => error,
        }
    }

    fn too_late(&self) -> ClientError {
        ClientError::Timeout {
            peer: self.target.address(),
            after: self.patience,
        }
    }
}

impl TlsClient {
    /// Loads the credentials and connects by the raw stream; ten seconds of patience.
    ///
    /// # Errors
    /// As [`Dialer::new`] and [`Dialer::client`].
    pub async fn connect(target: &Target, credentials: &Credentials) -> Result<Self, ClientError> {
        Dialer::new(target.clone(), credentials, Duration::from_secs(10))?
            .client()
            .await
    }
}

impl Dial for Dialer {
    type Stream = Carrier;

    async fn dial(&mut self) -> Result<Self::Stream, ClientError> {
        match self.carrier().await {
            Ok((carrier, _)) => Ok(carrier),
            Err(error) => Err(Self::reason(self, error).await),
        }
    }

    async fn reason(&mut self, error: ClientError) -> ClientError {
        Self::reason(self, error).await
    }

    fn peer(&self) -> String {
        self.target.address()
    }
}

fn load(credentials: &Credentials, transport: Transport) -> Result<Current, ClientError> {
    let identity = Identity::load(
        &credentials.cert,
        &credentials.key,
        credentials.passphrase.as_ref(),
    )?;
    let tls = ClientTls::new(&identity, &credentials.ca, transport.alpn())
        .map_err(|cause| ClientError::Tls(cause.to_string()))?;
    Ok(Current { tls, identity })
}

fn sort(peer: String, cause: ClientTlsError) -> ClientError {
    match cause {
        ClientTlsError::Connect { cause, .. } => ClientError::Unreachable { peer, cause },
        ClientTlsError::Refused { class, .. } => ClientError::Refused {
            peer,
            alert: Alert::of_class(class),
        },
        ClientTlsError::Handshake { cause, .. } => ClientError::of_io(&peer, &cause, false),
        ClientTlsError::Tls(cause) => ClientError::Tls(cause),
    }
}
