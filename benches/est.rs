//! How many certificates a second `ca serve` gives out: the real process, clients with TLS of their
//! own, a token and a name for each, SQLite; each is on disk before its answer.

use std::error::Error;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use countersign::clock::unix_now;
use countersign::est::to_body;
use countersign::grant::WrittenGrants;
use countersign::identity::Name;
use countersign::registry::{self, RegistryPlace, Token, TokenDigest};
use futures_util::future::try_join_all;
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::load::Outcome;
use crate::pki::{provider, roots};
use crate::process::Server;

/// Clients at once, each with one request on its way.
const AT_ONCE: usize = 32;

/// How the clients come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coming {
    /// A connection with a full handshake for each certificate, as machines enrol.
    Afresh,
    /// One connection for many.
    Kept,
}

/// Certificates a second, `count` of them.
pub(crate) async fn rate(
    server: &Server,
    root: &Path,
    registry: &Path,
    coming: Coming,
    count: usize,
) -> Outcome<f64> {
    put_tokens(registry, coming, count).await?;
    let config = config(root).map_err(|error| error.to_string())?;
    let next = Arc::new(AtomicUsize::new(0));
    let began = Instant::now();
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..AT_ONCE {
        let client = Client {
            address: server.address,
            config: config.clone(),
            coming,
        };
        clients.spawn(client.enrol(next.clone(), count));
    }
    while let Some(done) = clients.join_next().await {
        done??;
    }
    let took = began.elapsed();
    let all = u32::try_from(count)?;
    Ok(f64::from(all) / took.as_secs_f64())
}

fn secret(number: usize, coming: Coming) -> [u8; 32] {
    let mut secret = [if coming == Coming::Afresh { 1 } else { 2 }; 32];
    secret[..8].copy_from_slice(&number.to_be_bytes());
    secret
}

/// By the library: `ca invite` a thousand times is not what is measured.
async fn put_tokens(path: &Path, coming: Coming, count: usize) -> Outcome<()> {
    let store = registry::open(&RegistryPlace::File(path.to_owned()), false).await?;
    let grants = WrittenGrants::parse(&["tools:files__*"])?;
    let tokens = (0..count)
        .map(|number| {
            let name = format!("spiffe://countersign.internal/{coming:?}/agent-{number}");
            Ok(Token {
                digest: TokenDigest::of(&secret(number, coming)),
                name: Name::new(&name)?,
                grants: grants.clone(),
                profile: "agent".into(),
                hosts: Vec::new(),
                lifetime: None,
                expires_at: unix_now().plus(Duration::from_secs(900)),
                created_at: unix_now(),
                created_by: "bench".into(),
                used_at: None,
            })
        })
        .collect::<Outcome<Vec<_>>>()?;
    for some in tokens.chunks(200) {
        try_join_all(some.iter().map(|token| store.put_token(token))).await?;
    }
    Ok(())
}

fn config(root: &Path) -> Result<Arc<ClientConfig>, Box<dyn Error>> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots(root)?)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

type Sender = SendRequest<Full<Bytes>>;

struct Client {
    address: SocketAddr,
    config: Arc<ClientConfig>,
    coming: Coming,
}

impl Client {
    async fn connect(&self) -> Outcome<Sender> {
        let tcp = TcpStream::connect(self.address).await?;
        tcp.set_nodelay(true)?;
        let name = ServerName::try_from("127.0.0.1")?;
        let tls = TlsConnector::from(self.config.clone())
            .connect(name, tcp)
            .await?;
        let (sender, connection) = handshake(TokioIo::new(tls)).await?;
        tokio::spawn(connection);
        Ok(sender)
    }

    async fn enrol(self, next: Arc<AtomicUsize>, count: usize) -> Outcome<()> {
        // One key for all: making keys is not what is measured.
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let body = Bytes::from(to_body(params.serialize_request(&key)?.der()));
        let mut sender = None;
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return Ok(());
            }
            let mut open = match sender.take() {
                Some(open) if self.coming == Coming::Kept => open,
                _ => self.connect().await?,
            };
            let password = URL_SAFE_NO_PAD.encode(secret(number, self.coming));
            let request = Request::post("/.well-known/est/simpleenroll")
                .header("host", self.address.to_string())
                .header("content-type", "application/pkcs10")
                .header("authorization", format!("Bearer {password}"))
                .body(Full::new(body.clone()))?;
            open.ready().await?;
            let answer = open.send_request(request).await?;
            let status = answer.status();
            let body = answer.into_body().collect().await?.to_bytes();
            if status != 200 {
                return Err(format!("{status}: {}", String::from_utf8_lossy(&body)).into());
            }
            sender = Some(open);
        }
    }
}
