//! An issuer is revoked while thousands of connections hang on it: how long until the last is closed,
//! and what those notice whose issuer is another.
//!
//! In life all of them are on machines of their own, and what they do or wait for there must not count as the
//! server's delay:
//!
//! - The crowd is a process that runs only while nobody else wants the processor (the policy `SCHED_IDLE`). A
//!   nice value of 19 is not enough: whoever wakes up waits for the end of a slice that such a process has
//!   begun, some milliseconds (Linux 6.6 and later). Even so it may run until the next tick when it owes
//!   somebody nothing by the scheduler's book, so it is one thread, which hears of a few ends at a time and
//!   has the scheduler look again after each: each member learns of its end from the kernel and ends its
//!   own side. What was said before the end is read when all have ended, and must be a goodbye.
//! - Those beside it are threads that call at a fixed pace, so that a call that is held up does not hold up
//!   the counting. They get a processor at once when they want one (the policy `SCHED_RR`), where the
//!   system lets them; the JSON says whether it did.

use std::error::Error;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use countersign::clock::unix_now;
use countersign::registry::{self, Reason, RegistryPlace, Revocation};
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio_rustls::client::TlsStream;

use crate::load::{self, Expect, Line, Outcome};
use crate::pki::Pki;
use crate::process::Server;

/// Connections beside the crowd…
const BESIDE: usize = 4;
/// …each of which calls so often.
const PACE: Duration = Duration::from_millis(2);
/// So many of the slowest calls are told one by one.
const WORST: usize = 30;
/// The crowd hears of so many ends at a time: the kernel is not interrupted while it tells.
const EVENTS: usize = 32;
/// How long they call before anything happens.
const CALM: Duration = Duration::from_secs(3);

#[derive(clap::Args, Debug)]
pub(crate) struct CrowdArgs {
    #[arg(long)]
    address: SocketAddr,
    #[arg(long)]
    roots: PathBuf,
    #[arg(long)]
    size: usize,
    /// Chain and key of each member, in pairs.
    files: Vec<PathBuf>,
}

/// What one revocation came to.
#[derive(Clone, Debug)]
pub(crate) struct Closed {
    /// From the beginning of the revocation to the end of the last connection.
    pub(crate) took: Duration,
    /// The 99th percentile of the calls beside it before, and meanwhile.
    pub(crate) usual: Duration,
    pub(crate) meanwhile: Duration,
    /// Half of them were faster before, and meanwhile.
    pub(crate) half: (Duration, Duration),
    /// Whether the threads that called had a processor at once.
    pub(crate) real_time: bool,
    /// Calls that were counted meanwhile.
    pub(crate) calls: usize,
    /// The slowest of them: when they were due after the revocation, and how long they took.
    pub(crate) worst: Vec<(Duration, Duration)>,
}

/// The crowd's process: connects, says `ready`, waits until all are closed, says when.
pub(crate) fn main(args: &CrowdArgs) -> Result<(), Box<dyn Error>> {
    let clients = args.files.chunks_exact(2);
    let pki = Pki {
        root: args.roots.clone(),
        server_cert: PathBuf::new(),
        server_key: PathBuf::new(),
        crls: Vec::new(),
        clients: clients
            .map(|two| (two[0].clone(), two[1].clone()))
            .collect(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .max_io_events_per_tick(EVENTS)
        .enable_all()
        .build()?;
    let told = runtime.block_on(stay(args, &pki));
    println!("{}", told.map_err(|error| error.to_string())?);
    Ok(())
}

async fn stay(args: &CrowdArgs, pki: &Pki) -> Outcome<Value> {
    let line = Line::call("self__whoami", "{}");
    let streams = load::open(args.address, pki, &line, Expect::Result, args.size).await?;
    println!("ready");
    let mut open = tokio::task::JoinSet::new();
    for mut stream in streams {
        open.spawn(async move {
            ended(&mut stream).await;
            let now = SystemTime::now();
            // Only TCP's end: the streams are kept, so that nothing of this is freed meanwhile.
            let _ = stream.get_mut().0.shutdown().await;
            // The scheduler looks again after each of them who has a better claim.
            std::thread::yield_now();
            (now, stream)
        });
    }
    let mut last = SystemTime::UNIX_EPOCH;
    let mut streams = Vec::with_capacity(args.size);
    while let Some(one) = open.join_next().await {
        let (at, stream) = one?;
        last = last.max(at);
        streams.push(stream);
    }
    for mut stream in streams {
        if stream.read(&mut [0u8; 64]).await? != 0 {
            return Err("something came in place of a goodbye".into());
        }
    }
    let nanos = last.duration_since(SystemTime::UNIX_EPOCH)?.as_nanos();
    Ok(json!({ "closed": args.size, "last": u64::try_from(nanos)? }))
}

/// Ready when the server has ended this connection, of which nothing need have been read.
async fn ended(stream: &mut TlsStream<tokio::net::TcpStream>) {
    loop {
        let ready = stream.get_ref().0.ready(Interest::READABLE).await;
        if !ready.is_ok_and(|ready| !ready.is_read_closed()) {
            return;
        }
        // Something else has come.
        if !matches!(stream.read(&mut [0u8; 64]).await, Ok(count) if count > 0) {
            return;
        }
    }
}

struct Crowd {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Crowd {
    fn start(server: &Server, pki: &Pki, size: usize) -> Result<Self, Box<dyn Error>> {
        let mut command = Command::new("chrt");
        command.args(["--idle", "0"]).arg(std::env::current_exe()?);
        command
            .args(["crowd", "--address", &server.address.to_string()])
            .arg("--roots")
            .arg(&pki.root)
            .args(["--size", &size.to_string()]);
        for (cert, key) in &pki.clients {
            command.arg(cert).arg(key);
        }
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let out = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let mut crowd = Self { child, out };
        let said = crowd.line()?;
        if said.trim() != "ready" {
            return Err(format!("the crowd did not get in: `{said}`").into());
        }
        Ok(crowd)
    }

    fn line(&mut self) -> Result<String, Box<dyn Error>> {
        let mut line = String::new();
        self.out.read_line(&mut line)?;
        Ok(line)
    }

    /// When the last of them was closed.
    fn closed(&mut self) -> Result<SystemTime, Box<dyn Error>> {
        let told: Value = serde_json::from_str(&self.line()?)?;
        let last = told["last"].as_u64().ok_or("the crowd did not say when")?;
        Ok(SystemTime::UNIX_EPOCH + Duration::from_nanos(last))
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Gives this thread a processor as soon as it wants one; whether the system agreed.
fn at_once() -> bool {
    let this = std::fs::read_link("/proc/thread-self").unwrap_or_default();
    let id = this.file_name().unwrap_or_default();
    Command::new("chrt")
        .args(["--rr", "--pid", "1"])
        .arg(id)
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|done| done.success())
}

/// A call beside the crowd: when it was due, and how long it took from then on.
type Call = (Instant, Duration);
/// All of one connection, and whether its thread got a processor at once.
type Calls = Outcome<(Vec<Call>, bool)>;

fn beside(
    server: &Server,
    pki: &Pki,
    n: usize,
    stop: Arc<AtomicBool>,
) -> Result<JoinHandle<Calls>, Box<dyn Error>> {
    let tcp = TcpStream::connect(server.address)?;
    tcp.set_nodelay(true)?;
    let name = ServerName::try_from("localhost")?;
    let tls = ClientConnection::new(pki.client(n, false)?, name)?;
    let mut stream = StreamOwned::new(tls, tcp);
    let line = Line::call("self__whoami", "{}");
    let mut once = move |id: u64| -> Outcome<()> {
        stream.write_all(&line.bytes(id))?;
        stream.flush()?;
        let (mut got, mut buffer) = (Vec::new(), [0u8; 4096]);
        while got.last() != Some(&b'\n') {
            match stream.read(&mut buffer)? {
                0 => return Err("one beside the crowd was closed".into()),
                count => got.extend_from_slice(&buffer[..count]),
            }
        }
        let answer: Value = serde_json::from_slice(&got)?;
        if answer.get("result").is_none() {
            return Err(format!("the server answered: {answer}").into());
        }
        Ok(())
    };
    once(0).map_err(|error| error.to_string())?;
    Ok(std::thread::spawn(move || {
        let real_time = at_once();
        let mut calls = Vec::new();
        // Not all at the same instant.
        let mut due = Instant::now() + PACE / 4 * u32::try_from(n)?;
        let mut id = 1;
        while !stop.load(Ordering::Relaxed) {
            let now = Instant::now();
            let from = if now < due {
                std::thread::sleep(due - now);
                Instant::now()
            } else {
                // The one before was held up, and this one with it.
                due
            };
            once(id)?;
            calls.push((from, from.elapsed()));
            id += 1;
            due += PACE;
        }
        Ok((calls, real_time))
    }))
}

/// The calls that were due in this span.
fn within(calls: &[Call], from: Instant, to: Instant) -> impl Iterator<Item = &Call> {
    calls
        .iter()
        .filter(move |(due, _)| (from..=to).contains(due))
}

/// This percentile of the calls that were due in this span, and how many there were.
fn percentile(calls: &[Call], nth: usize, from: Instant, to: Instant) -> (Duration, usize) {
    let mut all: Vec<Duration> = within(calls, from, to).map(|(_, took)| *took).collect();
    all.sort_unstable();
    let at = all.len() * nth / 100;
    let found = all.get(at.min(all.len().saturating_sub(1)));
    (found.copied().unwrap_or_default(), all.len())
}

/// Revokes by the library, once it is asked to: what the command does beside that (it signs a CRL
/// with a key that it must open first) would be another process's load.
pub(crate) async fn revocation(
    registry: &Path,
    name: &str,
) -> Outcome<impl Future<Output = Outcome<()>> + use<>> {
    let store = registry::open(&RegistryPlace::File(registry.to_owned()), false).await?;
    let found = store.find(name, unix_now()).await?;
    Ok(async move {
        let revocation = Revocation {
            at: unix_now(),
            reason: Reason::KeyCompromise,
            by: "bench".into(),
        };
        let seq = store.revoke(found.fingerprint, &revocation).await?;
        let told = store.confirmed(seq, Duration::from_secs(2)).await?;
        if told.confirmed.len() != 1 {
            return Err(format!("the server has not confirmed: {told:?}").into());
        }
        Ok(())
    })
}

/// `size` connections of `crowd`, whose issuer `revoke` revokes; `others` have another.
pub(crate) fn revoked(
    server: &Server,
    crowd: &Pki,
    others: &Pki,
    size: usize,
    revoke: impl FnOnce() -> Result<(), Box<dyn Error>>,
) -> Result<Closed, Box<dyn Error>> {
    let mut crowd = Crowd::start(server, crowd, size)?;
    let stop = Arc::new(AtomicBool::new(false));
    let calling = (0..BESIDE)
        .map(|n| beside(server, others, n, stop.clone()))
        .collect::<Result<Vec<_>, _>>()?;
    // The first calls warm things up.
    std::thread::sleep(CALM / 4);
    let calm = Instant::now();
    std::thread::sleep(CALM);
    let (began, clock) = (Instant::now(), SystemTime::now());
    revoke()?;
    let took = crowd.closed()?.duration_since(clock)?;
    stop.store(true, Ordering::Relaxed);
    let (mut calls, mut real_time) = (Vec::new(), true);
    for thread in calling {
        let ended = thread.join().map_err(|_| "a thread panicked")?;
        let (of_one, at_once) = ended.map_err(|error| error.to_string())?;
        calls.extend(of_one);
        real_time &= at_once;
    }
    let before = |nth| percentile(&calls, nth, calm, began).0;
    let (usual, half_before) = (before(99), before(50));
    let (half_meanwhile, _) = percentile(&calls, 50, began, began + took);
    let mut worst: Vec<(Duration, Duration)> = within(&calls, began, began + took)
        .map(|(due, took)| (*due - began, *took))
        .collect();
    worst.sort_unstable_by_key(|(_, took)| std::cmp::Reverse(*took));
    worst.truncate(WORST);
    let (meanwhile, calls) = percentile(&calls, 99, began, began + took);
    Ok(Closed {
        took,
        usual,
        meanwhile,
        half: (half_before, half_meanwhile),
        real_time,
        calls,
        worst,
    })
}
