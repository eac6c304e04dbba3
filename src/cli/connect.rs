//! `countersign connect`.

use std::io::Write;
use std::time::Duration;

use clap::Args;

use super::exit::{Exit, Failure};
use super::reach::ReachArgs;
use super::render::{Out, plain};
use super::renew::{cert_files, told};
use super::run::on_this_thread;
use super::snippet::{For, snippet};
use crate::client::{Bridge, BridgeOptions};
use crate::enrol::keep;

const ABOUT: &str = "\
Lines pass unchanged in both directions. When the connection breaks, each request that was waiting is
answered with a JSON-RPC error (code 4503), and the bridge connects again; a session that was opened
by `initialize` is opened again as it was. Subscriptions of such a session end with its connection.
When stdin ends, the bridge waits for the answers that are still to come and exits.";

/// What is typed after `connect`.
#[derive(Debug, Args)]
#[command(after_long_help = ABOUT)]
pub struct ConnectArgs {
    /// Print the snippet for an MCP client's configuration, and exit
    #[arg(long, value_name = "CLIENT")]
    print_config: Option<For>,
    /// How long to try for the first connection, and how long requests wait for a reconnect
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = humantime::parse_duration)]
    patience: Duration,
    #[command(flatten)]
    reach: ReachArgs,
}

impl ConnectArgs {
    /// Bridges until stdin ends.
    ///
    /// # Errors
    /// Refused, or never connected.
    pub fn run(self, out: &mut Out) -> Result<Exit, Failure> {
        if let Some(whose) = self.print_config {
            out.json(&snippet(whose, &self.reach)?)?;
            return Ok(Exit::Success);
        }
        let credentials = self.reach.credentials()?;
        let dialer = self.reach.dialer_of(&credentials)?;
        let files = cert_files(&credentials);
        let options = BridgeOptions {
            first: self.patience,
            patience: self.patience,
            ..BridgeOptions::default()
        };
        on_this_thread(async {
            let bridge = Bridge::new(
                dialer,
                tokio::io::stdin(),
                tokio::io::stdout(),
                options,
                Box::new(report),
            );
            tokio::select! {
                ended = bridge.run() => Ok(ended.map(|()| Exit::Success)?),
                never = keep(files, |outcome| report(&told(&outcome))) => match never {},
                _ = tokio::signal::ctrl_c() => Ok(Exit::Interrupted),
            }
        })
    }
}

fn report(line: &str) {
    // Without a stderr there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "countersign: {}", plain(line));
}
