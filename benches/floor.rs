//! The floor: what TLS and the sockets cost when nothing is decided and nothing is written down.
//!
//! tokio-rustls with the crypto provider that Countersign uses, mutual TLS with the stock
//! `WebPkiClientVerifier` (with CRLs when asked), stateless tickets, a task per connection. Each
//! complete line is written back; lines that arrived together leave in one write, in place, without
//! a copy. A connection keeps 4 KiB of buffer of its own; what a long line made it grow by is
//! given back as soon as the line has been answered.
//!
//! `--speak` has it speak something else than lines: `floor_web.rs`.
//!
//! With `--answer N` each line is answered by a line of N bytes instead, so that a server which
//! takes little and gives much (or the reverse) can be held against the same bytes in each
//! direction.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use rustls::ServerConfig;
use rustls::pki_types::CertificateRevocationListDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::server::WebPkiClientVerifier;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::floor_web;
use crate::pki;

/// What a connection keeps while it is idle.
const KEPT: usize = 4 * 1024;

/// How much is asked for at once while a long line comes in: one TLS record.
const RECORD: usize = 16 * 1024;

#[derive(clap::Args, Debug)]
pub(crate) struct FloorArgs {
    /// PEM chain of the server.
    #[arg(long)]
    cert: PathBuf,
    /// PKCS#8 PEM key of the server.
    #[arg(long)]
    key: PathBuf,
    /// PEM bundle that client chains must end in.
    #[arg(long)]
    roots: PathBuf,
    /// PEM CRLs for the stock verifier; every certificate of a chain needs its issuer's.
    #[arg(long)]
    crl: Vec<PathBuf>,
    /// Runtime threads; 0 is one per core, as Countersign does it.
    #[arg(long, default_value_t = 0)]
    workers: usize,
    /// What is spoken above TLS.
    #[arg(long, value_enum, default_value_t = Speech::Lines)]
    speak: Speech,
    /// Answer each line with a line of this many bytes instead of itself.
    #[arg(long)]
    answer: Option<usize>,
}

/// What a floor speaks.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speech {
    Lines,
    Websocket,
    /// With tokio-tungstenite as it comes.
    WebsocketStock,
    Http1,
    Http2,
}

pub(crate) fn main(args: &FloorArgs) -> Result<(), Box<dyn std::error::Error>> {
    let config = Arc::new(server_config(args)?);
    let answer = args.answer.map(|n| {
        let mut line = vec![b'x'; n.max(1)];
        line[n.max(1) - 1] = b'\n';
        Bytes::from(line)
    });
    let speech = args.speak;
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.enable_all();
    if args.workers > 0 {
        builder.worker_threads(args.workers);
    }
    builder.build()?.block_on(async {
        let listener = listen()?;
        println!("listening {}", listener.local_addr()?);
        let acceptor = TlsAcceptor::from(config);
        loop {
            let Ok((tcp, _)) = listener.accept().await else {
                continue;
            };
            let (acceptor, answer) = (acceptor.clone(), answer.clone());
            tokio::spawn(async move {
                let _ = match (speech, answer) {
                    (Speech::Lines, Some(line)) => answered(tcp, acceptor, &line).await,
                    (Speech::Lines, None) => echoed(tcp, acceptor).await,
                    (_, answer) => floor_web::serve(speech, tcp, acceptor, answer).await,
                };
            });
        }
    })
}

fn listen() -> io::Result<TcpListener> {
    let socket = tokio::net::TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(([127, 0, 0, 1], 0).into())?;
    socket.listen(4096)
}

fn server_config(args: &FloorArgs) -> Result<ServerConfig, Box<dyn std::error::Error>> {
    let provider = Arc::new(pki::provider());
    let mut crls = Vec::new();
    for path in &args.crl {
        for crl in CertificateRevocationListDer::pem_file_iter(path)? {
            crls.push(crl?);
        }
    }
    let mut verifier = WebPkiClientVerifier::builder_with_provider(
        Arc::new(pki::roots(&args.roots)?),
        provider.clone(),
    );
    if !crls.is_empty() {
        verifier = verifier.with_crls(crls);
    }
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier.build()?)
        .with_single_cert(pki::chain(&args.cert)?, pki::key(&args.key)?)?;
    config.alpn_protocols = match args.speak {
        Speech::Lines => vec![b"mcp".to_vec()],
        Speech::Websocket | Speech::WebsocketStock | Speech::Http1 => vec![b"http/1.1".to_vec()],
        Speech::Http2 => vec![b"h2".to_vec()],
    };
    config.ticketer = pki::ticketer()?;
    Ok(config)
}

/// Every complete line goes back as it came.
async fn echoed(tcp: TcpStream, acceptor: TlsAcceptor) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let mut stream = acceptor.accept(tcp).await?;
    let mut buffer = Vec::with_capacity(KEPT);
    loop {
        make_room(&mut buffer);
        let before = buffer.len();
        if stream.read_buf(&mut buffer).await? == 0 {
            return stream.shutdown().await;
        }
        let Some(end) = memchr::memrchr(b'\n', &buffer[before..]) else {
            continue;
        };
        let end = before + end + 1;
        stream.write_all(&buffer[..end]).await?;
        stream.flush().await?;
        buffer.drain(..end);
    }
}

/// Every line is answered by the same line.
async fn answered(tcp: TcpStream, acceptor: TlsAcceptor, line: &[u8]) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let mut stream = acceptor.accept(tcp).await?;
    let mut buffer = Vec::with_capacity(KEPT);
    loop {
        make_room(&mut buffer);
        let before = buffer.len();
        if stream.read_buf(&mut buffer).await? == 0 {
            return stream.shutdown().await;
        }
        let Some(end) = memchr::memrchr(b'\n', &buffer[before..]) else {
            continue;
        };
        let end = before + end + 1;
        // Answers to lines that came together leave together, as far as a few records go.
        let mut lines = memchr::memchr_iter(b'\n', &buffer[before..end]).count();
        let together = (4 * RECORD / line.len()).max(1);
        while lines > 0 {
            let now = lines.min(together);
            if now == 1 {
                stream.write_all(line).await?;
            } else {
                stream.write_all(&line.repeat(now)).await?;
            }
            lines -= now;
        }
        stream.flush().await?;
        buffer.drain(..end);
    }
}

/// Room for the next read: [`KEPT`] while idle, a record at a time behind a line that is longer.
fn make_room(buffer: &mut Vec<u8>) {
    if buffer.is_empty() {
        if buffer.capacity() > KEPT {
            *buffer = Vec::with_capacity(KEPT);
        }
    } else if buffer.capacity() - buffer.len() < KEPT / 2 {
        buffer.reserve(RECORD);
    }
}
