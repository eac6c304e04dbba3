//! The order of the measurements, and what each is held against.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::json;

use crate::load::{self, Expect, Line};
use crate::pki::{self, Pki};
use crate::process::Server;
use crate::report::{Report, Row, Target, median};

#[derive(clap::Args, Debug)]
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
    crowd: usize,
}

/// How long and how often.
#[derive(Clone, Copy, Debug)]
struct Pace {
    window: Duration,
    turns: usize,
}

struct Bench {
    args: RunArgs,
    pace: Pace,
    pki: Pki,
    runtime: tokio::runtime::Runtime,
    report: Report,
}

pub(crate) fn main(args: &RunArgs) -> Result<bool, Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let pace = if args.quick {
        Pace {
            window: Duration::from_millis(500),
            turns: 1,
        }
    } else {
        Pace {
            window: Duration::from_secs(3),
            turns: 5,
        }
    };
    let mut bench = Bench {
        args: RunArgs {
            json: args.json.clone(),
            only: args.only.clone(),
            ..*args
        },
        pace,
        pki: pki::make(dir.path(), 64)?,
        runtime: tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()?,
        report: Report::default(),
    };
    bench.limit_crowd()?;
    bench.calls("calls-1", 1, Target::Ratio(1.5))?;
    bench.calls("calls-16", 16, Target::Above(3.5))?;
    bench.handshakes("handshakes-full", false)?;
    bench.handshakes("handshakes-resumed", true)?;
    bench.first_result()?;
    bench.crowd()?;
    bench.finish()
}

impl Bench {
    fn wanted(&self, key: &str) -> bool {
        self.args
            .only
            .as_deref()
            .is_none_or(|only| key.starts_with(only))
    }

    /// The driver and the server need one descriptor a connection, and some to live on.
    fn limit_crowd(&mut self) -> Result<(), Box<dyn Error>> {
        let limits = std::fs::read_to_string("/proc/self/limits")?;
        let open = limits
            .lines()
            .find(|line| line.starts_with("Max open files"));
        let most = open
            .and_then(|line| line.split_whitespace().nth(3))
            .and_then(|n| n.parse::<usize>().ok());
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
        let mut command = Command::new(std::env::current_exe()?);
        let path = |flag: &str, path: &Path| [flag.into(), path.as_os_str().to_owned()];
        command.arg("floor");
        command.args(path("--cert", &self.pki.server_cert));
        command.args(path("--key", &self.pki.server_key));
        command.args(path("--roots", &self.pki.root));
        if crl {
            for file in &self.pki.crls {
                command.args(path("--crl", file));
            }
        }
        if let Some(bytes) = answer {
            command.args(["--answer", &bytes.to_string()]);
        }
        Server::start(&mut command)
    }

    fn calls(
        &mut self,
        key: &'static str,
        in_flight: usize,
        target: Target,
    ) -> Result<(), Box<dyn Error>> {
        if !self.wanted(key) {
            return Ok(());
        }
        let line = Line::call("self__whoami", "{}");
        let floor = self.floor(false, None)?;
        let mut costs = Vec::new();
        for _ in 0..self.pace.turns {
            let shape = (16, in_flight);
            let cost = self.runtime.block_on(load::calls(
                &floor,
                &self.pki,
                &line,
                Expect::Echo,
                shape,
                self.pace.window,
            ));
            costs.push(cost.map_err(|e| e.to_string())?);
        }
        let cpu = |c: &load::CallCost| c.cpu.as_secs_f64() * 1e6;
        let floor_rate = median(costs.iter().map(|c| c.per_second).collect());
        self.report.rows.push(Row {
            key,
            measure: format!("`tools/call`, 16 connections, {in_flight} in flight each"),
            unit: "µs CPU/call",
            floor: median(costs.iter().map(cpu).collect()),
            ours: None,
            target,
            detail: json!({
                "floor": { "calls_per_second": floor_rate, "request_bytes": costs[0].request_bytes,
                    "answer_bytes": costs[0].answer_bytes, "turns": costs.iter().map(cpu).collect::<Vec<_>>() },
            }),
        });
        Ok(())
    }

    fn handshakes(&mut self, key: &'static str, resume: bool) -> Result<(), Box<dyn Error>> {
        if !self.wanted(key) {
            return Ok(());
        }
        let floor = self.floor(true, None)?;
        let mut costs = Vec::new();
        for _ in 0..self.pace.turns {
            let cost = self.runtime.block_on(load::handshakes(
                &floor,
                &self.pki,
                resume,
                8,
                self.pace.window,
            ));
            costs.push(cost.map_err(|e| e.to_string())?);
        }
        let cpu = |c: &load::HandshakeCost| c.cpu.as_secs_f64() * 1e6;
        let rate = median(costs.iter().map(|c| c.per_second).collect());
        let resumed = median(costs.iter().map(|c| c.resumed).collect());
        self.report.rows.push(Row {
            key,
            measure: if resume {
                "resumed handshakes"
            } else {
                "full handshakes, floor with a CRL"
            }
            .to_owned(),
            unit: "µs CPU/handshake",
            floor: median(costs.iter().map(cpu).collect()),
            ours: None,
            target: Target::Ratio(if resume { 1.2 } else { 0.85 }),
            detail: json!({ "floor": { "per_second": rate, "resumed": resumed,
                "turns": costs.iter().map(cpu).collect::<Vec<_>>() } }),
        });
        Ok(())
    }

    fn first_result(&mut self) -> Result<(), Box<dyn Error>> {
        if !self.wanted("first-result") {
            return Ok(());
        }
        let line = Line::call("self__whoami", "{}");
        let floor = self.floor(true, None)?;
        let times = if self.args.quick { 20 } else { 200 };
        let took = self.runtime.block_on(load::first_results(
            &floor,
            &self.pki,
            &line,
            Expect::Echo,
            times,
        ));
        let took = took.map_err(|e| e.to_string())?;
        self.report.rows.push(Row {
            key: "first-result",
            measure: "from `connect` to the first result, full handshake".to_owned(),
            unit: "ms",
            floor: median(took.iter().map(|t| t.as_secs_f64() * 1e3).collect()),
            ours: None,
            target: Target::None,
            detail: json!({ "times": times }),
        });
        Ok(())
    }

    fn crowd(&mut self) -> Result<(), Box<dyn Error>> {
        if !self.wanted("memory") {
            return Ok(());
        }
        let line = Line::call("self__whoami", "{}");
        let size = self.args.crowd;
        let floor = self.floor(true, None)?;
        let crowd =
            self.runtime
                .block_on(load::crowd(&floor, &self.pki, &line, Expect::Echo, size));
        let crowd = crowd.map_err(|e| e.to_string())?;
        #[allow(clippy::cast_precision_loss, reason = "a size for people")]
        let kib = |bytes: u64| bytes as f64 / 1024.0;
        self.report.rows.push(Row {
            key: "memory",
            measure: format!(
                "resident memory for each of {} idle connections",
                crowd.streams.len()
            ),
            unit: "KiB",
            floor: Some(kib(crowd.each.rss)),
            ours: None,
            target: Target::Ratio(1.25),
            detail: json!({ "floor": { "rss": crowd.each.rss, "private": crowd.each.private } }),
        });
        Ok(())
    }

    fn finish(self) -> Result<bool, Box<dyn Error>> {
        println!("{}", self.report.table());
        let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpu
            .lines()
            .find_map(|line| line.strip_prefix("model name"))
            .map(|m| m.trim_start_matches([' ', '\t', ':']));
        let about = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "cores": std::thread::available_parallelism().map(std::num::NonZero::get).ok(),
            "cpu": model,
            "post_quantum": cfg!(feature = "post-quantum"),
            "quick": self.args.quick,
            "window_ms": self.pace.window.as_millis(),
            "turns": self.pace.turns,
        });
        let text = serde_json::to_string_pretty(&self.report.json(about))?;
        if let Some(parent) = self.args.json.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(&self.args.json, text + "\n")?;
        println!("written to {}", self.args.json.display());
        Ok(self.report.all_met())
    }
}
