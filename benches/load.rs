//! The load: connections, lines in flight, handshakes, idle crowds; and what each cost the server.
//! `web.rs` does the same over WebSocket and HTTP.

use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, HandshakeKind};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::pki::Pki;
use crate::process::{Memory, Server};

pub(crate) type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// A request line with a hole for the id.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    head: Vec<u8>,
    tail: Vec<u8>,
}

impl Line {
    /// A modern `tools/call`; `arguments` is the JSON object.
    pub(crate) fn call(tool: &str, arguments: &str) -> Self {
        let tail = format!(
            concat!(
                r#","method":"tools/call","params":{{"name":"{}","arguments":{},"_meta":{{"#,
                r#""io.modelcontextprotocol/protocolVersion":"2026-07-28","#,
                r#""io.modelcontextprotocol/clientCapabilities":{{}},"#,
                r#""io.modelcontextprotocol/clientInfo":{{"name":"bench","version":"1"}}}}}}}}"#,
                "\n"
            ),
            tool, arguments
        );
        Self {
            head: br#"{"jsonrpc":"2.0","id":"#.to_vec(),
            tail: tail.into_bytes(),
        }
    }

    /// A `tools/call` of an older revision.
    pub(crate) fn legacy_call(tool: &str, arguments: &str) -> Self {
        let tail = format!(
            r#","method":"tools/call","params":{{"name":"{tool}","arguments":{arguments}}}}}"#
        );
        Self {
            head: br#"{"jsonrpc":"2.0","id":"#.to_vec(),
            tail: (tail + "\n").into_bytes(),
        }
    }

    /// The message without the end of the line.
    pub(crate) fn message(&self, id: u64) -> Vec<u8> {
        let mut out = self.bytes(id);
        out.pop();
        out
    }

    /// The whole line.
    pub(crate) fn bytes(&self, id: u64) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(id, &mut out);
        out
    }

    fn write(&self, id: u64, out: &mut Vec<u8>) {
        use std::io::Write as _;
        out.extend_from_slice(&self.head);
        let _ = write!(out, "{id}");
        out.extend_from_slice(&self.tail);
    }
}

/// Whether an answer is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expect {
    /// Any line.
    Echo,
    /// A result that is no tool error.
    Result,
}

impl Expect {
    /// The first answer of a connection is read whole, the others at their beginning.
    pub(crate) fn check(self, line: &[u8], first: bool) -> Outcome<()> {
        if self == Self::Echo {
            return Ok(());
        }
        if first {
            let value: serde_json::Value = serde_json::from_slice(line)?;
            let good = value
                .get("result")
                .is_some_and(|result| result.get("isError") != Some(&true.into()));
            if !good {
                return Err(
                    format!("the server answered: {}", String::from_utf8_lossy(line)).into(),
                );
            }
        } else if memchr::memmem::find(&line[..line.len().min(256)], br#""error":"#).is_some() {
            return Err(format!("the server answered: {}", String::from_utf8_lossy(line)).into());
        }
        Ok(())
    }
}

/// A source address from 127.0.0.0/8, another one each time, so that closed connections that linger
/// do not use up the ports.
fn source() -> SocketAddr {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    let low = u8::try_from(n % 250 + 1).unwrap_or(1);
    let high = u8::try_from(n / 250 % 250 + 1).unwrap_or(1);
    (Ipv4Addr::new(127, 1, high, low), 0).into()
}

pub(crate) async fn connect(
    address: SocketAddr,
    config: &Arc<ClientConfig>,
) -> Outcome<TlsStream<TcpStream>> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(source())?;
    let tcp = socket.connect(address).await?;
    tcp.set_nodelay(true)?;
    let name = ServerName::try_from("localhost")?;
    Ok(TlsConnector::from(config.clone())
        .connect(name, tcp)
        .await?)
}

/// One request and its answer; the bytes of the answer.
pub(crate) async fn once(
    stream: &mut TlsStream<TcpStream>,
    line: &Line,
    id: u64,
    expect: Expect,
) -> Outcome<usize> {
    let mut out = Vec::with_capacity(512);
    line.write(id, &mut out);
    stream.write_all(&out).await?;
    stream.flush().await?;
    out.clear();
    loop {
        if stream.read_buf(&mut out).await? == 0 {
            return Err("the server closed the connection".into());
        }
        if out.last() == Some(&b'\n') {
            expect.check(&out[..out.len() - 1], true)?;
            return Ok(out.len());
        }
    }
}

/// What calls cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CallCost {
    /// Per call, of the server.
    pub(crate) cpu: Duration,
    pub(crate) per_second: f64,
    pub(crate) request_bytes: u64,
    pub(crate) answer_bytes: u64,
}

#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) calls: AtomicU64,
    pub(crate) received: AtomicU64,
    pub(crate) stop: AtomicBool,
}

/// `connections` with `in_flight` requests each, for `window` after a warm-up of a quarter of it.
pub(crate) async fn calls(
    server: &Server,
    pki: &Pki,
    line: &Line,
    expect: Expect,
    (connections, in_flight): (usize, usize),
    window: Duration,
) -> Outcome<CallCost> {
    let counts = Arc::new(Counts::default());
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..connections {
        let config = pki.client(n, false).map_err(|e| e.to_string())?;
        let stream = connect(server.address, &config).await?;
        tasks.spawn(pump(
            stream,
            line.clone(),
            expect,
            in_flight,
            counts.clone(),
        ));
    }
    let request = line.bytes(100_000).len();
    watched(server, &counts, tasks, request, window).await
}

/// What the calls of these tasks cost the server in `window`, after a warm-up of a quarter of it.
pub(crate) async fn watched(
    server: &Server,
    counts: &Counts,
    mut tasks: tokio::task::JoinSet<Outcome<()>>,
    request_bytes: usize,
    window: Duration,
) -> Outcome<CallCost> {
    let awake = tokio::spawn(stay_awake());
    let watched = async {
        tokio::time::sleep(window / 4).await;
        let read = || -> Outcome<_> {
            let cpu = server.cpu().map_err(|e| e.to_string())?;
            Ok((
                cpu,
                Instant::now(),
                counts.calls.load(Ordering::Relaxed),
                counts.received.load(Ordering::Relaxed),
            ))
        };
        let before = read()?;
        tokio::time::sleep(window).await;
        let after = read()?;
        Outcome::Ok((before, after))
    };
    let (before, after) = tokio::select! {
        seen = watched => seen?,
        Some(ended) = tasks.join_next() => {
            ended??;
            return Err("a connection ended before its time".into());
        }
    };
    counts.stop.store(true, Ordering::Relaxed);
    awake.abort();
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    let calls = (after.2 - before.2).max(1);
    #[allow(clippy::cast_precision_loss, reason = "a rate for people")]
    Ok(CallCost {
        cpu: Duration::from_nanos(u64::try_from((after.0 - before.0).as_nanos())? / calls),
        per_second: calls as f64 / (after.1 - before.1).as_secs_f64(),
        request_bytes: request_bytes as u64,
        answer_bytes: (after.3 - before.3) / calls,
    })
}

/// Keeps a thread that is a runtime by itself from sleeping (`apart.rs`).
async fn stay_awake() {
    if Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread {
        loop {
            tokio::task::yield_now().await;
        }
    }
}

/// Keeps `in_flight` requests on their way: one new for each answer.
async fn pump(
    mut stream: TlsStream<TcpStream>,
    line: Line,
    expect: Expect,
    in_flight: usize,
    counts: Arc<Counts>,
) -> Outcome<()> {
    let mut next = 1u64;
    let mut out = Vec::new();
    for _ in 0..in_flight {
        line.write(next, &mut out);
        next += 1;
    }
    let mut got = Vec::with_capacity(64 * 1024);
    let (mut waiting, mut first) = (in_flight, true);
    while waiting > 0 {
        if !out.is_empty() {
            stream.write_all(&out).await?;
            stream.flush().await?;
            out.clear();
        }
        let before = got.len();
        got.reserve(16 * 1024);
        if stream.read_buf(&mut got).await? == 0 {
            return Err("the server closed the connection".into());
        }
        counts
            .received
            .fetch_add((got.len() - before) as u64, Ordering::Relaxed);
        let Some(end) = memchr::memrchr(b'\n', &got[before..]) else {
            continue;
        };
        let end = before + end + 1;
        let mut answers = 0;
        for answer in got[..end].split_inclusive(|b| *b == b'\n') {
            expect.check(answer, std::mem::take(&mut first))?;
            answers += 1;
        }
        got.drain(..end);
        counts.calls.fetch_add(answers as u64, Ordering::Relaxed);
        waiting -= answers;
        if !counts.stop.load(Ordering::Relaxed) {
            for _ in 0..answers {
                line.write(next, &mut out);
                next += 1;
            }
            waiting += answers;
        }
    }
    stream.shutdown().await?;
    Ok(())
}

/// What handshakes cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HandshakeCost {
    /// Per connection, of the server: accept, handshake, tickets, close.
    pub(crate) cpu: Duration,
    pub(crate) per_second: f64,
    /// The part that was resumed, 0 to 1.
    pub(crate) resumed: f64,
}

/// Connections one after another on `width` tasks. Each ends when the server has closed it, so that
/// the server's part of the handshake is known to be over.
pub(crate) async fn handshakes(
    server: &Server,
    pki: &Pki,
    resume: bool,
    width: usize,
    window: Duration,
) -> Outcome<HandshakeCost> {
    #[derive(Default)]
    struct Done {
        all: AtomicU64,
        resumed: AtomicU64,
        stop: AtomicBool,
    }
    let done = Arc::new(Done::default());
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..width {
        // Full: every task goes round its share of the client certificates.
        let configs: Vec<_> = (task..pki.clients.len().max(width))
            .step_by(width)
            .map(|n| pki.client(n, resume).map_err(|e| e.to_string()))
            .collect::<Result<_, _>>()?;
        let (done, address) = (done.clone(), server.address);
        tasks.spawn(async move {
            for config in configs.iter().cycle() {
                if done.stop.load(Ordering::Relaxed) {
                    break;
                }
                let mut stream = connect(address, config).await?;
                stream.shutdown().await?;
                let mut rest = [0u8; 256];
                while stream.read(&mut rest).await? > 0 {}
                if stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed) {
                    done.resumed.fetch_add(1, Ordering::Relaxed);
                }
                done.all.fetch_add(1, Ordering::Relaxed);
            }
            Outcome::Ok(())
        });
    }
    let watched = async {
        tokio::time::sleep(window / 4).await;
        let read = || -> Outcome<_> {
            let cpu = server.cpu().map_err(|e| e.to_string())?;
            Ok((
                cpu,
                Instant::now(),
                done.all.load(Ordering::Relaxed),
                done.resumed.load(Ordering::Relaxed),
            ))
        };
        let before = read()?;
        tokio::time::sleep(window).await;
        Outcome::Ok((before, read()?))
    };
    let (before, after) = tokio::select! {
        seen = watched => seen?,
        Some(ended) = tasks.join_next() => {
            ended??;
            return Err("the handshakes ended before their time".into());
        }
    };
    done.stop.store(true, Ordering::Relaxed);
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    let all = (after.2 - before.2).max(1);
    #[allow(clippy::cast_precision_loss, reason = "a rate for people")]
    Ok(HandshakeCost {
        cpu: Duration::from_nanos(u64::try_from((after.0 - before.0).as_nanos())? / all),
        per_second: all as f64 / (after.1 - before.1).as_secs_f64(),
        resumed: (after.3 - before.3) as f64 / all as f64,
    })
}

/// Connections that did one call and then stay.
pub(crate) struct Crowd {
    pub(crate) streams: Vec<TlsStream<TcpStream>>,
    /// What the server holds for each, in bytes.
    pub(crate) each: Memory,
}

/// Opens `size` connections, makes one call on each, and weighs them.
pub(crate) async fn crowd(
    server: &Server,
    pki: &Pki,
    line: &Line,
    expect: Expect,
    size: usize,
) -> Outcome<Crowd> {
    let weigh = || server.settled_memory().map_err(|e| e.to_string());
    // Thread stacks, allocator arenas and lazily made tables are not the connections' cost.
    drop(open(server.address, pki, line, expect, 200).await?);
    let before = weigh()?;
    let streams = open(server.address, pki, line, expect, size).await?;
    let after = weigh()?;
    let share = |before: u64, after: u64| after.saturating_sub(before) / size as u64;
    Ok(Crowd {
        streams,
        each: Memory {
            rss: share(before.rss, after.rss),
            private: share(before.private, after.private),
        },
    })
}

pub(crate) async fn open(
    address: SocketAddr,
    pki: &Pki,
    line: &Line,
    expect: Expect,
    size: usize,
) -> Outcome<Vec<TlsStream<TcpStream>>> {
    const WIDTH: usize = 32;
    let configs: Vec<_> = (0..pki.clients.len())
        .map(|n| pki.client(n, false).map_err(|e| e.to_string()))
        .collect::<Result<_, _>>()?;
    let configs = Arc::new(configs);
    let next = Arc::new(AtomicUsize::new(0));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..WIDTH {
        let (configs, next, line) = (configs.clone(), next.clone(), line.clone());
        tasks.spawn(async move {
            let mut mine = Vec::new();
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= size {
                    return Outcome::Ok(mine);
                }
                let mut stream = connect(address, &configs[n % configs.len()]).await?;
                once(&mut stream, &line, n as u64, expect).await?;
                mine.push(stream);
            }
        });
    }
    let mut all = Vec::with_capacity(size);
    while let Some(some) = tasks.join_next().await {
        all.extend(some??);
    }
    Ok(all)
}

/// From the start of `connect` to the first answer, one after another.
pub(crate) async fn first_results(
    server: &Server,
    pki: &Pki,
    line: &Line,
    expect: Expect,
    times: usize,
) -> Outcome<Vec<Duration>> {
    let mut all = Vec::with_capacity(times);
    for n in 0..times {
        let config = pki.client(n, false).map_err(|e| e.to_string())?;
        let start = Instant::now();
        let mut stream = connect(server.address, &config).await?;
        once(&mut stream, line, 1, expect).await?;
        all.push(start.elapsed());
        stream.shutdown().await?;
    }
    Ok(all)
}
