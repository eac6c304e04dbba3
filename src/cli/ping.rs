//! `countersign ping`: round trips of `server/discover`. Revision 2026-07-28 has no `ping`.

use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::exit::{Exit, Failure};
use super::reach::ReachArgs;
use super::render::{Out, millis};
use super::run::on_this_thread;
use crate::client::Request;
use crate::clock::monotonic;

/// What is typed after `ping`.
#[derive(Debug, Args)]
pub struct PingArgs {
    /// How many round trips
    #[arg(short, long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    count: u32,
    /// The wait between two of them
    #[arg(short, long, value_name = "DURATION", default_value = "200ms", value_parser = humantime::parse_duration)]
    interval: Duration,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    reach: ReachArgs,
}

impl PingArgs {
    /// Measures.
    ///
    /// # Errors
    /// Whatever went wrong, with its hint.
    pub fn run(self, out: &mut Out) -> Result<Exit, Failure> {
        on_this_thread(async {
            let began = monotonic();
            let mut reach = self.reach.connect().await?;
            let connected = began.elapsed();
            let peer = self.reach.server.address();
            if !self.json {
                let agreed = reach.agreed();
                let tls = agreed.map_or_else(String::new, |a| {
                    format!(" ({}, {}, {})", a.version, a.suite, a.group)
                });
                out.line(&format!(
                    "connected to {peer} in {}{tls}",
                    millis(connected)
                ))?;
            }
            let mut trips = Vec::new();
            for number in 1..=self.count {
                if number > 1 {
                    tokio::time::sleep(self.interval).await;
                }
                let sent = monotonic();
                reach
                    .ask(&Request::new("server/discover"), &mut |_| {})
                    .await?;
                let trip = sent.elapsed();
                trips.push(trip);
                if !self.json {
                    out.line(&format!("answer {number} from {peer}: {}", millis(trip)))?;
                }
            }
            reach.close().await;
            self.summary(out, connected, &mut trips)
        })?;
        Ok(Exit::Success)
    }

    fn summary(
        &self,
        out: &mut Out,
        connected: Duration,
        trips: &mut [Duration],
    ) -> Result<(), Failure> {
        let in_ms = |span: &Duration| span.as_secs_f64() * 1000.0;
        if self.json {
            let trips: Vec<f64> = trips.iter().map(in_ms).collect();
            return out.json(&json!({ "connect_ms": in_ms(&connected), "round_trips_ms": trips }));
        }
        trips.sort_unstable();
        let (Some(least), Some(most)) = (trips.first(), trips.last()) else {
            return Ok(());
        };
        let median = &trips[trips.len() / 2];
        let [least, median, most] = [least, median, most].map(|span| millis(*span));
        out.line(&format!(
            "round trip: least {least}, median {median}, most {most}"
        ))
    }
}
