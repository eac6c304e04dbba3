//! A registry of a million certificates: what a server pays to start with it, to keep it in memory
//! and to look somebody up, and what a revocation costs beside one of a thousand.
//!
//! In processes of their own, so that neither the memory nor the caches of one part are another's.

use std::error::Error;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use countersign::clock;
use countersign::grant::WrittenGrants;
use countersign::identity::{Fingerprint, Name};
use countersign::registry::{
    self, Enrolment, EnrolmentKind, Feed, Reason, RegistryPlace, Revocation, Store,
};
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};

use crate::report::{Row, Target, median};

/// What the registry is compared with for revocations.
const FEW: u32 = 1_000;
/// Revocations of each of the two registries, in turns.
const REVOCATIONS: u32 = 300;
/// Requests in flight while it is filled.
const AT_ONCE: usize = 256;

#[derive(clap::Args, Debug)]
pub(crate) struct RegistryArgs {
    /// Where the two registries are.
    dir: PathBuf,
    #[command(subcommand)]
    part: Part,
}

#[derive(clap::Subcommand, Debug)]
enum Part {
    /// Enrols so many in one, and a thousand in the other.
    Fill { count: u32 },
    /// Loads the large one as a server does, and looks everybody up.
    Load { count: u32 },
    /// Revokes in both by turns.
    Revoke,
}

/// The part's figures as JSON, on stdout.
pub(crate) fn main(args: &RegistryArgs) -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let figures = match args.part {
        Part::Fill { count } => runtime.block_on(fill(&args.dir, count)),
        Part::Load { count } => runtime.block_on(load(&args.dir, count)),
        Part::Revoke => runtime.block_on(revoke(&args.dir)),
    }?;
    println!("{figures}");
    Ok(())
}

fn large(dir: &Path) -> RegistryPlace {
    RegistryPlace::File(dir.join("large.db"))
}

fn small(dir: &Path) -> RegistryPlace {
    RegistryPlace::File(dir.join("small.db"))
}

fn made(number: u32) -> Result<Enrolment, Box<dyn Error>> {
    let mut der = vec![0x30; 700];
    der[..4].copy_from_slice(&number.to_le_bytes());
    let sets = [
        &["tools:files__read_*", "resources:file:///srv/docs/*"][..],
        &["*"],
        &["role:ops"],
    ];
    let now = clock::unix_now();
    Ok(Enrolment {
        fingerprint: Fingerprint::of_der(&der),
        kind: EnrolmentKind::Leaf,
        name: Name::new(&format!("spiffe://example.org/team/agent-{number}"))?,
        serial: format!("{:08x}", 0x7000_0000_u32 ^ number),
        issuer: Some(Fingerprint::of_der(b"issuer")),
        profile: String::from("agent"),
        grants: Some(WrittenGrants::parse(sets[number as usize % sets.len()])?),
        not_before: now,
        not_after: clock::UnixTime(now.0 + 7 * 86_400),
        pinned: true,
        revocation: None,
        created_at: now,
        created_by: String::from("bench@host"),
        der,
    })
}

async fn fill(dir: &Path, count: u32) -> Result<Value, Box<dyn Error>> {
    enrol(&*registry::open(&small(dir), true).await?, FEW).await?;
    let store = registry::open(&large(dir), true).await?;
    let began = Instant::now();
    enrol(&*store, count).await?;
    Ok(json!({ "rate": f64::from(count) / began.elapsed().as_secs_f64() }))
}

async fn enrol(store: &dyn Store, count: u32) -> Result<(), Box<dyn Error>> {
    let mut waiting = stream::iter(0..count)
        .map(async |number| -> Result<u64, Box<dyn Error>> {
            let enrolment = made(number)?;
            Ok(store.enrol(&enrolment).await?)
        })
        .buffer_unordered(AT_ONCE);
    while let Some(enrolled) = waiting.next().await {
        enrolled?;
    }
    Ok(())
}

async fn load(dir: &Path, count: u32) -> Result<Value, Box<dyn Error>> {
    // What the runtime and the first connection take is not the registry's.
    drop(registry::open(&small(dir), false).await?);
    let before = resident()?;
    let began = Instant::now();
    let store = registry::open(&large(dir), false).await?;
    let (feed, view) = Feed::load(store, String::from("bench")).await?;
    let start = began.elapsed();
    let each = resident()?.saturating_sub(before) / u64::from(count);
    if view.len() != count as usize {
        return Err(format!("{} of {count} were loaded", view.len()).into());
    }
    let prints: Vec<Fingerprint> = (0..count)
        .map(|number| made(number).map(|enrolment| enrolment.fingerprint))
        .collect::<Result<_, _>>()?;
    let began = Instant::now();
    for print in &prints {
        black_box(view.standing(black_box(print)));
    }
    let lookup = began.elapsed() / count;
    feed.run_until(std::future::ready(()), |_| ()).await;
    Ok(json!({
        "start_seconds": start.as_secs_f64(), "bytes_each": each,
        "lookup_micros": lookup.as_secs_f64() * 1e6,
    }))
}

/// By turns, so that a disk that changes its speed changes it for both.
async fn revoke(dir: &Path) -> Result<Value, Box<dyn Error>> {
    let stores = [
        registry::open(&small(dir), false).await?,
        registry::open(&large(dir), false).await?,
    ];
    let revocation = Revocation {
        at: clock::unix_now(),
        reason: Reason::Superseded,
        by: String::from("bench@host"),
    };
    let mut took: [Vec<f64>; 2] = Default::default();
    for number in 0..REVOCATIONS {
        let print = made(number)?.fingerprint;
        for (store, took) in stores.iter().zip(&mut took) {
            let began = Instant::now();
            store.revoke(print, &revocation).await?;
            took.push(began.elapsed().as_secs_f64() * 1e3);
        }
    }
    let [few, many] = took;
    Ok(json!({ "few_millis": median(few), "many_millis": median(many) }))
}

/// Bytes of this process in memory.
fn resident() -> Result<u64, Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes: u64 = line
        .ok_or("no VmRSS")?
        .trim()
        .trim_end_matches(" kB")
        .parse()?;
    Ok(kilobytes * 1024)
}

/// Runs the parts one after the other, on registries in `dir`.
pub(crate) fn rows(dir: &Path, count: u32) -> Result<Vec<Row>, Box<dyn Error>> {
    let dir = dir.join("registry");
    std::fs::create_dir_all(&dir)?;
    let part = |arguments: &[&str]| -> Result<Value, Box<dyn Error>> {
        let program = std::env::current_exe()?;
        let done = Command::new(program)
            .arg("registry")
            .arg(&dir)
            .args(arguments)
            .output()?;
        if !done.status.success() {
            return Err(String::from_utf8_lossy(&done.stderr).into_owned().into());
        }
        Ok(serde_json::from_slice(&done.stdout)?)
    };
    let number = count.to_string();
    eprintln!("bench: enrolling {count}");
    let filled = part(&["fill", &number])?;
    let loaded = part(&["load", &number])?;
    let revoked = part(&["revoke"])?;
    std::fs::remove_dir_all(&dir)?;
    let row = |key, measure: &str, unit, figures: (&Value, &Value), target| Row {
        key,
        measure: format!("{measure} ({count} enrolled)"),
        unit,
        floor: figures.0.as_f64(),
        ours: figures.1.as_f64(),
        target,
        detail: json!({ "enrolled": count, "enrolments_per_second": filled["rate"] }),
    };
    let none = &Value::Null;
    Ok(vec![
        row(
            "registry-start",
            "loading the registry at the start",
            "s",
            (none, &loaded["start_seconds"]),
            Target::AtMost(6.0),
        ),
        row(
            "registry-memory",
            "memory for each certificate",
            "bytes",
            (none, &loaded["bytes_each"]),
            Target::AtMost(200.0),
        ),
        row(
            "registry-lookup",
            "looking one up",
            "µs",
            (none, &loaded["lookup_micros"]),
            Target::AtMost(1.0),
        ),
        row(
            "registry-revocation",
            "a revocation; floor: among 1,000",
            "ms",
            (&revoked["few_millis"], &revoked["many_millis"]),
            Target::Ratio(1.1),
        ),
    ])
}
