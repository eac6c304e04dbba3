//! Hours of what a server lives through, looked at from outside: calls, handshakes, peers that go
//! away in the middle of a line, revocations. Memory, descriptors and threads must come to rest,
//! and the audit log must be whole at the end.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt as _;

use crate::load::{self, Expect, Line, Outcome};
use crate::ours::Ours;
use crate::process::Server;

const CLIENTS: usize = 16;

#[derive(clap::Args, Debug)]
pub(crate) struct SoakArgs {
    /// How long.
    #[arg(long, default_value_t = 30.0)]
    minutes: f64,
    /// Another program than the one that was built with this one.
    #[arg(long)]
    program: Option<PathBuf>,
}

/// What is looked at.
#[derive(Clone, Copy, Debug)]
struct Sample {
    rss: u64,
    descriptors: usize,
    threads: usize,
}

fn sample(server: &Server) -> Result<Sample, Box<dyn Error>> {
    let entries = |what: &str| -> Result<usize, Box<dyn Error>> {
        Ok(fs::read_dir(format!("/proc/{}/{what}", server.pid()))?.count())
    };
    Ok(Sample {
        rss: server.memory()?.rss,
        descriptors: entries("fd")?,
        threads: entries("task")?,
    })
}

pub(crate) fn main(args: &SoakArgs) -> Result<bool, Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let program = args
        .program
        .as_deref()
        .unwrap_or(Path::new(env!("CARGO_BIN_EXE_countersign")));
    let ours = Arc::new(Ours::set_up(program, dir.path(), CLIENTS)?);
    let server = Arc::new(ours.serve()?);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let line = Line::call("self__whoami", "{}");
    let calm = sample(&server)?;
    let length = Duration::from_secs_f64(args.minutes * 60.0);
    let (stop, rounds) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    let busy = runtime.spawn(churn(
        ours.clone(),
        server.clone(),
        line.clone(),
        stop.clone(),
        rounds.clone(),
    ));

    let (start, mut samples) = (Instant::now(), Vec::new());
    while start.elapsed() < length {
        std::thread::sleep((length / 40).min(Duration::from_secs(30)));
        if busy.is_finished() {
            break;
        }
        // With the load on: each revocation is a new certificate, so that the registry grows too.
        ours.revocations(&runtime, &server, &line, 1)?;
        let now = sample(&server)?;
        println!(
            "{:>6.1} min: {:>7} KiB resident, {} descriptors, {} threads, {} rounds",
            start.elapsed().as_secs_f64() / 60.0,
            now.rss / 1024,
            now.descriptors,
            now.threads,
            rounds.load(Ordering::Relaxed)
        );
        samples.push(now);
    }
    stop.store(true, Ordering::Relaxed);
    runtime.block_on(busy)?.map_err(|error| error.to_string())?;
    std::thread::sleep(Duration::from_secs(2));
    judge(calm, &samples, sample(&server)?)?;
    drop(server);
    ours.verify_audit()?;
    println!("the audit log is whole");
    Ok(true)
}

/// The second half must not be heavier than the first, and nothing may be held at the end.
fn judge(calm: Sample, samples: &[Sample], end: Sample) -> Result<(), Box<dyn Error>> {
    let (first, second) = samples.split_at(samples.len() / 2);
    let most = |part: &[Sample]| part.iter().map(|sample| sample.rss).max().unwrap_or(0);
    let allowed = most(first) + most(first) / 10 + 4 * 1024 * 1024;
    if most(second) > allowed {
        return Err(format!("memory grows: {} bytes, then {}", most(first), most(second)).into());
    }
    if end.descriptors > calm.descriptors + 8 {
        return Err(format!(
            "{} descriptors before, {} after",
            calm.descriptors, end.descriptors
        )
        .into());
    }
    Ok(())
}

async fn churn(
    ours: Arc<Ours>,
    server: Arc<Server>,
    line: Line,
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicU64>,
) -> Outcome<()> {
    let moment = Duration::from_millis(500);
    while !stop.load(Ordering::Relaxed) {
        load::calls(&server, &ours.pki, &line, Expect::Result, (8, 4), moment).await?;
        load::handshakes(&server, &ours.pki, false, 4, moment).await?;
        load::handshakes(&server, &ours.pki, true, 4, moment).await?;
        rude(&ours, &server, &line).await?;
        rounds.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// Peers that go without a word: before TLS, after the handshake, in the middle of a line, and with
/// answers on their way.
async fn rude(ours: &Ours, server: &Server, line: &Line) -> Outcome<()> {
    for n in 0..20 {
        let mut tcp = tokio::net::TcpStream::connect(server.address).await?;
        tcp.write_all(b"\x16\x03\x01").await?;
        drop(tcp);
        let config = ours
            .pki
            .client(n, false)
            .map_err(|error| error.to_string())?;
        let mut stream = load::connect(server.address, &config).await?;
        let text = line.bytes(1);
        match n % 3 {
            0 => {}
            1 => stream.write_all(&text[..text.len() / 2]).await?,
            _ => stream.write_all(&text.repeat(50)).await?,
        }
        stream.flush().await?;
        drop(stream);
    }
    Ok(())
}
