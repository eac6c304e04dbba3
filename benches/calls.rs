//! What calls cost: each server in short turns, round after round.
//!
//! A machine is faster at one time than a few seconds later, and what one server leaves behind (a log on
//! its way to the disk, a cache full of its own) slows down who comes next. So all that a row is made
//! of is measured in the same rounds, and the turns are short and many. What else the machine does makes
//! a turn dearer and never cheaper; of floor and Countersign alike the lower quartile counts, which moves
//! less from run to run than the median does. The JSON has every turn.

use std::error::Error;
use std::time::Duration;

use serde_json::{Value, json};

use crate::floor::Speech;
use crate::load::{self, CallCost, Expect, Line, Outcome};
use crate::process::Server;
use crate::report::{Row, Target, median, quartile};
use crate::run::{Bench, here, micros};

/// A turn of anything else is so many turns of calls, each with so much less time.
const SHORT: u32 = 6;
const LARGE: usize = 64 * 1024;

/// A floor that calls are held against, and the row for it.
pub(crate) struct Against {
    pub(crate) key: &'static str,
    pub(crate) measure: String,
    pub(crate) target: Target,
    pub(crate) speech: Speech,
    /// It answers as many bytes as Countersign does, in place of what it was sent.
    pub(crate) as_many: bool,
}

impl Against {
    /// A row that is not judged, for who wants to know how much of a difference is bytes.
    pub(crate) fn as_many(key: &'static str, speech: Speech) -> Self {
        Self {
            key,
            measure: "the same, floor answering as many bytes".to_owned(),
            target: Target::None,
            speech,
            as_many: true,
        }
    }
}

impl Bench {
    /// Lines on raw streams.
    pub(crate) fn lines(
        &mut self,
        (key, same): (&'static str, &'static str),
        in_flight: usize,
        target: Target,
    ) -> Result<(), Box<dyn Error>> {
        if !self.wanted(key) {
            return Ok(());
        }
        let speech = Speech::Lines;
        let against = vec![
            Against {
                key,
                measure: format!("tools/call, 16 connections, {in_flight} in flight each"),
                target,
                speech,
                as_many: false,
            },
            Against::as_many(same, speech),
        ];
        let ours = self.apart.as_server(|| self.serve())?;
        let (pki, line) = (self.pki.clone(), Line::call("self__whoami", "{}"));
        self.calls(ours, against, async |server, expect, window| {
            load::calls(server, &pki, &line, expect, (16, in_flight), window).await
        })
    }

    /// A tool that takes and gives as many bytes as it is told, against a floor that does the same.
    fn large(
        &mut self,
        key: &'static str,
        (arguments, result): (usize, usize),
    ) -> Result<(), Box<dyn Error>> {
        if !self.wanted(key) {
            return Ok(());
        }
        let text = "x".repeat(arguments);
        let line = Line::call(
            "bench__move",
            &format!(r#"{{"give":{result},"take":"{text}"}}"#),
        );
        let Some(ours) = &self.ours else {
            return Ok(());
        };
        let ours = self.apart.as_server(|| ours.serve_moving())?;
        let what = if arguments > result {
            "arguments"
        } else {
            "results"
        };
        let against = vec![Against {
            measure: format!("tools/call with 64 KiB {what}"),
            target: Target::Ratio(1.4),
            ..Against::as_many(key, Speech::Lines)
        }];
        let pki = self.pki.clone();
        self.calls(Some(ours), against, async |server, expect, window| {
            load::calls(server, &pki, &line, expect, (16, 1), window).await
        })
    }

    /// 64 KiB one way and the other.
    pub(crate) fn large_both(&mut self) -> Result<(), Box<dyn Error>> {
        self.large("large-arguments", (LARGE, 1))?;
        self.large("large-results", (1, LARGE))
    }

    /// Has each of these called for a turn, round after round, and makes the rows. Server and load are
    /// apart, and the load does not sleep (`apart.rs`).
    pub(crate) fn calls(
        &mut self,
        ours: Option<Server>,
        against: Vec<Against>,
        calls: impl AsyncFn(&Server, Expect, Duration) -> Outcome<CallCost>,
    ) -> Result<(), Box<dyn Error>> {
        let window = self.window / SHORT;
        let turn = |server: &Server, expect| {
            let run = || here(self.load.block_on(calls(server, expect, window)));
            self.apart.as_load(run)
        };
        let given = match &ours {
            Some(ours) => Some(usize::try_from(turn(ours, Expect::Result)?.answer_bytes)?),
            None => None,
        };
        let mut floors = Vec::new();
        for one in against {
            if one.as_many && given.is_none() {
                continue;
            }
            let answer = given.filter(|_| one.as_many);
            let start = || self.floor_of(one.speech, false, answer);
            let floor = self.apart.as_server(start)?;
            floors.push((one, floor, Vec::new()));
        }
        let mut costs = Vec::new();
        for _ in 0..self.turns * SHORT as usize {
            for (_, floor, costs) in &mut floors {
                costs.push(turn(floor, Expect::Echo)?);
            }
            if let Some(ours) = &ours {
                costs.push(turn(ours, Expect::Result)?);
            }
        }
        for (one, _, floor) in floors {
            self.report.rows.push(row(one, &floor, &costs));
        }
        Ok(())
    }
}

fn row(one: Against, floor: &[CallCost], ours: &[CallCost]) -> Row {
    let cost = |costs: &[CallCost]| quartile(costs.iter().map(|one| micros(one.cpu)).collect());
    let side = |costs: &[CallCost]| -> Value {
        json!({
            "cpu_us": costs.iter().map(|c| micros(c.cpu)).collect::<Vec<_>>(),
            "calls_per_second": median(costs.iter().map(|c| c.per_second).collect()),
            "request_bytes": costs.first().map(|c| c.request_bytes),
            "answer_bytes": costs.first().map(|c| c.answer_bytes),
        })
    };
    Row {
        key: one.key,
        measure: one.measure,
        unit: "µs CPU/call",
        floor: cost(floor),
        ours: cost(ours),
        target: one.target,
        detail: json!({ "floor": side(floor), "ours": side(ours) }),
    }
}
