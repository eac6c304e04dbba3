//! From a target and credentials to a connection, and from a silent end to its reason.

use std::time::Duration;

use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::bridge::Dial;
use super::caller::Client;
use super::credentials::Credentials;
use super::fault::{Alert, ClientError};
use super::target::Target;
use crate::identity::Fingerprint;
use crate::tls::{ClientTls, ClientTlsError, Identity, agreed_with};

/// The raw stream's ALPN name.
const ALPN: &[&[u8]] = &[b"mcp"];
/// How long the alert of a refused client may take after the handshake.
const LAST_WORD: Duration = Duration::from_secs(1);

/// A client over TLS.
pub type TlsClient = Client<TlsStream<TcpStream>>;

/// Everything that a connection needs, loaded once.
pub struct Dialer {
    tls: ClientTls,
    identity: Identity,
    credentials: Credentials,
    target: Target,
    patience: Duration,
}

impl Dialer {
    /// `patience`: how long connecting and the handshake may take together.
    ///
    /// # Errors
    /// The certificate, the key or the CA bundle cannot be used.
    pub fn new(
        target: Target,
        credentials: &Credentials,
        patience: Duration,
    ) -> Result<Self, ClientError> {
        let (tls, identity) = load(credentials)?;
        Ok(Self {
            tls,
            identity,
            credentials: credentials.clone(),
            target,
            patience,
        })
    }

    /// Whom it presents.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Takes a certificate that was renewed since; one that cannot be used is not taken.
    pub fn refresh(&mut self) {
        let leaf = crate::cert::load_chain(&self.credentials.cert)
            .map(|chain| Fingerprint::of_der(&chain[0]));
        if leaf.is_ok_and(|leaf| leaf != self.identity.fingerprint())
            && let Ok((tls, identity)) = load(&self.credentials)
        {
            (self.tls, self.identity) = (tls, identity);
        }
    }

    /// Where it goes.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// A new connection after its handshake. In TLS 1.3 a server judges the client only then: its
    /// refusal comes with the first read.
    ///
    /// # Errors
    /// Not reachable, not in time, refused, or not trusted.
    pub async fn stream(&self) -> Result<TlsStream<TcpStream>, ClientError> {
        let address = self.target.address();
        let connecting = self.tls.connect(&address, self.target.host());
        match tokio::time::timeout(self.patience, connecting).await {
            Err(_) => Err(ClientError::Timeout {
                peer: address,
                after: self.patience,
            }),
            Ok(Err(cause)) => Err(sort(address, cause)),
            Ok(Ok(stream)) => Ok(stream),
        }
    }

    /// A new connection as a client.
    ///
    /// # Errors
    /// As [`Self::stream`].
    pub async fn client(&self) -> Result<TlsClient, ClientError> {
        let stream = self.stream().await?;
        let agreed = agreed_with(&stream);
        Ok(Client::over(stream, self.target.address()).with_agreed(agreed))
    }

    /// The reason behind a connection that ended without a word. A refusing server's alert can be lost
    /// when our request crosses its close; so this connects again and only listens.
    pub async fn reason(&self, error: ClientError) -> ClientError {
        if !matches!(error, ClientError::Closed { heard: false, .. }) {
            return error;
        }
        let mut client = match self.client().await {
            Ok(client) => client,
            Err(told @ ClientError::Refused { .. }) => return told,
            Err(_) => return error,
        };
        match tokio::time::timeout(LAST_WORD, client.listen()).await {
            Ok(Err(told @ ClientError::Refused { .. })) => told,
            _ => error,
        }
    }
}

impl TlsClient {
    /// Loads the credentials and connects; ten seconds of patience.
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
    type Stream = TlsStream<TcpStream>;

    async fn dial(&mut self) -> Result<Self::Stream, ClientError> {
        self.refresh();
        self.stream().await
    }

    async fn reason(&mut self, error: ClientError) -> ClientError {
        Self::reason(self, error).await
    }

    fn peer(&self) -> String {
        self.target.address()
    }
}

fn load(credentials: &Credentials) -> Result<(ClientTls, Identity), ClientError> {
    let identity = Identity::load(
        &credentials.cert,
        &credentials.key,
        credentials.passphrase.as_ref(),
    )?;
    let tls = ClientTls::new(&identity, &credentials.ca, ALPN)
        .map_err(|cause| ClientError::Tls(cause.to_string()))?;
    Ok((tls, identity))
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
