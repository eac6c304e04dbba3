//! The order of the measurements, and what each is held against.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::apart::Apart;
use crate::est::{self, Coming};
use crate::floor::Speech;
use crate::issuer;
use crate::load::{self, Crowd, Expect, HandshakeCost, Line, Outcome};
use crate::ours::Ours;
use crate::pki::{self, Pki};
use crate::process::Server;
use crate::registry;
use crate::report::{Report, Row, Target, median};
use crate::web_rows;

/// How many client certificates take turns.
const CLIENTS: usize = 64;

#[derive(clap::Args, Debug, Clone)]
pub(crate) struct RunArgs {
    /// Where the JSON goes.
    #[arg(long, default_value = "target/bench.json")]
    json: PathBuf,
    /// Short windows and a small crowd: to see that everything runs, not to judge by.
    #[arg(long)]
    quick: bool,
    /// Only the measures whose key begins so.
    #[arg(long)]
    only: Option<String>,
    /// The size of the idle crowd; lowered to what the descriptor limit allows.
    #[arg(long, default_value_t = 10_000)]
    pub(crate) crowd: usize,
    /// Measures the floor and nothing else.
    #[arg(long)]
    floor_only: bool,
    /// How often floor and Countersign are measured in turn.
    #[arg(long)]
    turns: Option<usize>,
    /// Another program than the one that was built with this one.
    #[arg(long)]
    program: Option<PathBuf>,
}

pub(crate) struct Bench {
    pub(crate) args: RunArgs,
    pub(crate) window: Duration,
    pub(crate) turns: usize,
    pub(crate) pki: Pki,
    pub(crate) ours: Option<Ours>,
    pub(crate) runtime: tokio::runtime::Runtime,
    /// What calls are made on: one thread.
    pub(crate) load: tokio::runtime::Runtime,
    pub(crate) apart: Apart,
    pub(crate) report: Report,
}

/// What was measured, turn by turn.
pub(crate) struct Turns<T> {
    floor: Vec<T>,
    pub(crate) ours: Vec<T>,
}

impl<T> Turns<T> {
    fn each<R>(&self, read: impl Fn(&T) -> R) -> (Vec<R>, Vec<R>) {
        (
            self.floor.iter().map(&read).collect(),
            self.ours.iter().map(&read).collect(),
        )
    }

    fn medians(&self, read: impl Fn(&T) -> f64) -> (Option<f64>, Option<f64>) {
        let (floor, ours) = self.each(read);
        (median(floor), median(ours))
    }
}

pub(crate) fn main(args: &RunArgs) -> Result<bool, Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let (pki, ours) = if args.floor_only {
        (pki::make(dir.path(), CLIENTS)?, None)
    } else {
        let program = args.program.as_deref();
        let program = program.unwrap_or(Path::new(env!("CARGO_BIN_EXE_countersign")));
        eprintln!("bench: making a CA and {CLIENTS} clients");
        let ours = Ours::set_up(program, dir.path(), CLIENTS)?;
        (ours.pki.clone(), Some(ours))
    };
    let mut bench = Bench {
        args: args.clone(),
        window: Duration::from_millis(if args.quick { 500 } else { 3000 }),
        turns: args.turns.unwrap_or(if args.quick { 1 } else { 5 }),
        pki,
        ours,
        runtime: tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()?,
        load: tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?,
        apart: Apart::new()?,
        report: Report::default(),
    };
    bench.limit_crowd()?;
    if !bench.apart.are_apart() {
        let note = "one processor only: servers share it with their load, and pay for waking it";
        bench.report.notes.push(note.to_owned());
    }
    bench.lines(("calls-1", "calls-1-same-bytes"), 1, Target::Ratio(1.5))?;
    bench.lines(("calls-16", "calls-16-same-bytes"), 16, Target::Above(3.5))?;
    web_rows::run(&mut bench)?;
    bench.large_both()?;
    bench.handshakes("handshakes-full", false)?;
    bench.handshakes("handshakes-resumed", true)?;
    bench.first_result()?;
    bench.crowd()?;
    bench.command()?;
    bench.bridge()?;
    bench.registry()?;
    bench.issuances()?;
    bench.issuer()?;
    bench.finish()
}

pub(crate) fn micros(span: Duration) -> f64 {
    span.as_secs_f64() * 1e6
}

fn millis(span: Duration) -> f64 {
    span.as_secs_f64() * 1e3
}

/// Errors that crossed threads, for those that do not.
pub(crate) fn here<T>(outcome: Outcome<T>) -> Result<T, Box<dyn Error>> {
    outcome.map_err(|error| error.to_string().into())
}

impl Bench {
    pub(crate) fn wanted(&self, key: &str) -> bool {
        let wanted = self
            .args
            .only
            .as_deref()
            .is_none_or(|only| key.starts_with(only));
        if wanted {
            eprintln!("bench: {key}");
        }
        wanted
    }

    /// The load and the server need one descriptor a connection, and some to live on.
    fn limit_crowd(&mut self) -> Result<(), Box<dyn Error>> {
        let limits = std::fs::read_to_string("/proc/self/limits")?;
        let open = limits
            .lines()
            .find(|line| line.starts_with("Max open files"));
        let most = open.and_then(|line| line.split_whitespace().nth(3)?.parse::<usize>().ok());
        let most = most.unwrap_or(1024).saturating_sub(300);
        let asked = if self.args.quick {
            self.args.crowd.min(1000)
        } else {
            self.args.crowd
        };
        self.args.crowd = asked.min(most);
        if self.args.crowd < asked {
            let note = format!(
                "the limit of open files allows {} idle connections instead of {asked}: raise it with `ulimit -n`",
                self.args.crowd
            );
            self.report.notes.push(note);
        }
        Ok(())
    }

    fn floor(&self, crl: bool, answer: Option<usize>) -> Result<Server, Box<dyn Error>> {
        self.floor_of(Speech::Lines, crl, answer)
    }

    pub(crate) fn floor_of(
        &self,
        speech: Speech,
        crl: bool,
        answer: Option<usize>,
    ) -> Result<Server, Box<dyn Error>> {
        let mut command = Command::new(std::env::current_exe()?);
        let file = |flag: &str, path: &Path| [flag.into(), path.as_os_str().to_owned()];
        command.arg("floor").arg("--speak").arg(match speech {
            Speech::Lines => "lines",
            Speech::Websocket => "websocket",
            Speech::WebsocketStock => "websocket-stock",
            Speech::Http1 => "http1",
            Speech::Http2 => "http2",
        });
        command.args(file("--cert", &self.pki.server_cert));
        command.args(file("--key", &self.pki.server_key));
        command.args(file("--roots", &self.pki.root));
        if crl {
            for list in &self.pki.crls {
                command.args(file("--crl", list));
            }
        }
        if let Some(bytes) = answer {
            command.args(["--answer", &bytes.to_string()]);
        }
        Server::start(&mut command)
    }

    /// Floor and ours, one after the other, as often as asked.
    fn in_turns<T>(
        &self,
        floor: &Server,
        ours: Option<&Server>,
        measure: impl AsyncFn(&Server, Expect) -> Outcome<T>,
    ) -> Result<Turns<T>, Box<dyn Error>> {
        self.by_turns(floor, ours, |server, expect| {
            here(self.runtime.block_on(measure(server, expect)))
        })
    }

    fn by_turns<T>(
        &self,
        floor: &Server,
        ours: Option<&Server>,
        measure: impl Fn(&Server, Expect) -> Result<T, Box<dyn Error>>,
    ) -> Result<Turns<T>, Box<dyn Error>> {
        let mut turns = Turns {
            floor: Vec::new(),
            ours: Vec::new(),
        };
        for _ in 0..self.turns {
            turns.floor.push(measure(floor, Expect::Echo)?);
            if let Some(ours) = ours {
                turns.ours.push(measure(ours, Expect::Result)?);
            }
        }
        Ok(turns)
    }

    pub(crate) fn serve(&self) -> Result<Option<Server>, Box<dyn Error>> {
        self.ours.as_ref().map(Ours::serve).transpose()
    }

    fn handshakes(&mut self, key: &'static str, resume: bool) -> Result<(), Box<dyn Error>> {
        if !self.wanted(key) {
            return Ok(());
        }
        let (floor, ours) = (self.floor(true, None)?, self.serve()?);
        let costs = self.in_turns(&floor, ours.as_ref(), async |server, _| {
            load::handshakes(server, &self.pki, resume, 8, self.window).await
        })?;
        let (floor_cpu, ours_cpu) = costs.medians(|cost| micros(cost.cpu));
        let side = |costs: &[HandshakeCost]| -> Value {
            json!({
                "cpu_us": costs.iter().map(|c| micros(c.cpu)).collect::<Vec<_>>(),
                "per_second": median(costs.iter().map(|c| c.per_second).collect()),
                "resumed": median(costs.iter().map(|c| c.resumed).collect()),
            })
        };
        let measure = if resume {
            "resumed handshakes"
        } else {
            "full handshakes, floor with a CRL"
        };
        self.report.rows.push(Row {
            key,
            measure: measure.to_owned(),
            unit: "µs CPU/handshake",
            floor: floor_cpu,
            ours: ours_cpu,
            target: Target::Ratio(if resume { 1.2 } else { 0.85 }),
            detail: json!({ "floor": side(&costs.floor), "ours": side(&costs.ours) }),
        });
        if !resume {
            // Not judged: the same floor without a CRL.
            let plain = self.floor(false, None)?;
            let costs = self.in_turns(&plain, None, async |server, _| {
                load::handshakes(server, &self.pki, false, 8, self.window).await
            })?;
            self.report.rows.push(Row {
                key: "handshakes-full-no-crl",
                measure: "the same, floor without a CRL".to_owned(),
                unit: "µs CPU/handshake",
                floor: costs.medians(|cost| micros(cost.cpu)).0,
                ours: ours_cpu,
                target: Target::None,
                detail: json!({ "floor": side(&costs.floor) }),
            });
        }
        Ok(())
    }

    fn first_result(&mut self) -> Result<(), Box<dyn Error>> {
        if !self.wanted("first-result") {
            return Ok(());
        }
        let line = Line::call("self__whoami", "{}");
        let (floor, ours) = (self.floor(true, None)?, self.serve()?);
        let times = if self.args.quick { 20 } else { 100 };
        let took = self.in_turns(&floor, ours.as_ref(), async |server, expect| {
            let all = load::first_results(server, &self.pki, &line, expect, times).await?;
            Ok(median(all.into_iter().map(millis).collect()).unwrap_or(0.0))
        })?;
        let (floor, ours) = took.medians(|took| *took);
        self.report.rows.push(Row {
            key: "first-result",
            measure: "from connecting to the first result, full handshake".to_owned(),
            unit: "ms",
            floor,
            ours,
            target: Target::None,
            detail: json!({ "times": times }),
        });
        Ok(())
    }

    /// Memory of a crowd, and with that crowd connected the time from a revocation to the close.
    fn crowd(&mut self) -> Result<(), Box<dyn Error>> {
        if !self.wanted("memory") && !self.wanted("revocation") {
            return Ok(());
        }
        let line = Line::call("self__whoami", "{}");
        let size = self.args.crowd;
        let weigh = |server: &Server, expect| -> Result<Crowd, Box<dyn Error>> {
            here(
                self.runtime
                    .block_on(load::crowd(server, &self.pki, &line, expect, size)),
            )
        };
        #[allow(clippy::cast_precision_loss, reason = "a size for people")]
        let kib = |bytes: u64| bytes as f64 / 1024.0;
        let (floor, opened) = {
            let server = self.floor(true, None)?;
            let crowd = weigh(&server, Expect::Echo)?;
            (crowd.each, crowd.streams.len())
        };
        let server = self.serve()?;
        let crowd = server
            .as_ref()
            .map(|server| weigh(server, Expect::Result))
            .transpose()?;
        let ours = crowd.as_ref().map(|crowd| crowd.each);
        let detail = json!({
            "floor": { "rss": floor.rss, "private": floor.private },
            "ours": ours.map(|m| json!({ "rss": m.rss, "private": m.private })),
        });
        self.report.rows.push(Row {
            key: "memory",
            measure: format!("resident memory for each of {opened} idle connections"),
            unit: "KiB",
            floor: Some(kib(floor.rss)),
            ours: ours.map(|m| kib(m.rss)),
            target: Target::Ratio(1.25),
            detail,
        });
        if let (Some(ours), Some(server)) = (&self.ours, &server) {
            let times = if self.args.quick { 3 } else { 21 };
            let took = ours.revocations(&self.runtime, server, &line, times)?;
            self.report.rows.push(Row {
                key: "revocation",
                measure: format!(
                    "from the start of `ca revoke` to the close, {opened} connections live"
                ),
                unit: "ms",
                floor: None,
                ours: median(took.iter().copied().map(millis).collect()),
                target: Target::AtMost(60.0),
                detail: json!({ "ms": took.iter().copied().map(millis).collect::<Vec<_>>() }),
            });
        }
        Ok(())
    }

    /// `countersign call`, from the start of the process to its end.
    fn command(&mut self) -> Result<(), Box<dyn Error>> {
        if !self.wanted("command") {
            return Ok(());
        }
        let (Some(ours), Some(server)) = (&self.ours, self.serve()?) else {
            return Ok(());
        };
        let times = if self.args.quick { 5 } else { 51 };
        let took = ours.commands(&server, times)?;
        self.report.rows.push(Row {
            key: "command",
            measure: "`countersign call`, from process start to result".to_owned(),
            unit: "ms",
            floor: None,
            ours: median(took.iter().copied().map(millis).collect()),
            target: Target::AtMost(25.0),
            detail: json!({ "ms": took.iter().copied().map(millis).collect::<Vec<_>>() }),
        });
        Ok(())
    }

    /// The registry, as a library.
    fn registry(&mut self) -> Result<(), Box<dyn Error>> {
        if !self.wanted("registry") || self.args.floor_only {
            return Ok(());
        }
        let count = if self.args.quick { 20_000 } else { 1_000_000 };
        let dir = tempfile::tempdir_in("target")?;
        self.report.rows.extend(registry::rows(dir.path(), count)?);
        Ok(())
    }

    /// `ca serve`: certificates a second.
    fn issuances(&mut self) -> Result<(), Box<dyn Error>> {
        if !self.wanted("est") {
            return Ok(());
        }
        let Some(ours) = &self.ours else {
            return Ok(());
        };
        let count = if self.args.quick { 400 } else { 4_000 };
        let server = ours.serve_ca()?;
        for (key, coming, how) in [
            ("est", Coming::Afresh, "a connection each"),
            ("est-kept", Coming::Kept, "connections kept"),
        ] {
            let (root, registry) = (&self.pki.root, ours.registry());
            let rate = est::rate(&server, root, &registry, coming, count);
            self.report.rows.push(Row {
                key,
                measure: format!("certificates by EST, each on disk before its answer, {how}"),
                unit: "a second",
                floor: None,
                ours: Some(here(self.runtime.block_on(rate))?),
                target: Target::AtLeast(400.0),
                detail: json!({ "certificates": count }),
            });
        }
        Ok(())
    }

    /// An issuer is revoked with the crowd under it.
    fn issuer(&mut self) -> Result<(), Box<dyn Error>> {
        if !self.wanted("issuer") {
            return Ok(());
        }
        let Some(ours) = &self.ours else {
            return Ok(());
        };
        let size = self.args.crowd;
        let mut all = Vec::new();
        for turn in 0..if self.args.quick { 1 } else { 9 } {
            let name = format!("farm-{turn}");
            let members = ours.delegate(&name, 16)?;
            let server = ours.serve()?;
            let revoke = here(
                self.runtime
                    .block_on(issuer::revocation(&ours.registry(), &name)),
            )?;
            let revoke = || here(self.runtime.block_on(revoke));
            all.push(issuer::revoked(&server, &members, &self.pki, size, revoke)?);
        }
        let of = |read: fn(&issuer::Closed) -> f64| median(all.iter().map(read).collect());
        let each = |read: fn(&issuer::Closed) -> f64| all.iter().map(read).collect::<Vec<_>>();
        let detail = json!({
            "close_ms": each(|one| millis(one.took)),
            "usual_us": each(|one| micros(one.usual)),
            "meanwhile_us": each(|one| micros(one.meanwhile)),
            "usual_half_us": each(|one| micros(one.half.0)),
            "meanwhile_half_us": each(|one| micros(one.half.1)),
            "real_time": all.iter().all(|one| one.real_time),
            "calls": all.iter().map(|one| one.calls).collect::<Vec<_>>(),
            "worst": all.iter().map(|one| {
                let worst = one.worst.iter();
                worst.map(|(at, took)| json!([millis(*at), micros(*took)])).collect::<Vec<_>>()
            }).collect::<Vec<_>>(),
        });
        let rows = [
            Row {
                key: "issuer-close",
                measure: format!(
                    "from the revocation of an issuer to the close of the last of {size} below it"
                ),
                unit: "ms",
                floor: None,
                ours: of(|one| millis(one.took)),
                target: Target::AtMost(500.0),
                detail: detail.clone(),
            },
            Row {
                key: "issuer-bystander",
                measure: "99th percentile of calls beside it; floor: before".to_owned(),
                unit: "µs",
                floor: of(|one| micros(one.usual)),
                ours: of(|one| micros(one.meanwhile)),
                target: Target::Ratio(2.0),
                detail,
            },
        ];
        self.report.rows.extend(rows);
        Ok(())
    }

    /// `countersign connect`, from the start of the process to the first answer on its stdout.
    fn bridge(&mut self) -> Result<(), Box<dyn Error>> {
        if !self.wanted("bridge") {
            return Ok(());
        }
        let (Some(ours), Some(server)) = (&self.ours, self.serve()?) else {
            return Ok(());
        };
        let times = if self.args.quick { 5 } else { 51 };
        let took = ours.bridges(&server, &Line::call("self__whoami", "{}"), times)?;
        self.report.rows.push(Row {
            key: "bridge",
            measure: "`countersign connect`, from process start to the first result".to_owned(),
            unit: "ms",
            floor: None,
            ours: median(took.iter().copied().map(millis).collect()),
            target: Target::None,
            detail: json!({ "ms": took.iter().copied().map(millis).collect::<Vec<_>>() }),
        });
        Ok(())
    }

    fn finish(self) -> Result<bool, Box<dyn Error>> {
        println!("{}", self.report.table());
        let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpu.lines().find_map(|line| line.strip_prefix("model name"));
        let about = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "cores": std::thread::available_parallelism().map(std::num::NonZero::get).ok(),
            "cpu": model.map(|model| model.trim_start_matches([' ', '\t', ':'])),
            "post_quantum": cfg!(feature = "post-quantum"),
            "quick": self.args.quick,
            "window_ms": self.window.as_millis(),
            "turns": self.turns,
        });
        let text = serde_json::to_string_pretty(&self.report.json(&about))?;
        if let Some(parent) = self.args.json.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(&self.args.json, text + "\n")?;
        println!("written to {}", self.args.json.display());
        Ok(self.report.all_met())
    }
}
