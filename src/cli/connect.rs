//! `countersign connect`.

use std::io::Write;
use std::time::Duration;

use clap::Args;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::exit::{Exit, Failure};
use super::listen::ListenArgs;
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
When stdin ends, the bridge waits for the answers that are still to come and exits; it cancels them
when nobody reads stdout any more.

With `--listen` it is an HTTP endpoint instead, `http://ADDRESS:PORT/mcp`, for clients that cannot
present a certificate. It listens on loopback addresses only, answers only to a request that names it
as its host, and asks for a bearer token, because whoever reaches it acts as this identity.";

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
    listen: ListenArgs,
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
        if let Some(address) = self.listen.listen {
            return self.listen.run(address, &self.reach);
        }
        let credentials = self.reach.credentials()?;
        let dialer = self.reach.dialer_of(self.reach.transport, &credentials)?;
        let files = cert_files(&credentials);
        let farewells = dialer.farewells();
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
            )
            .until(output_is_gone);
            let ended = tokio::select! {
                ended = bridge.run() => Ok(ended.map(|()| Exit::Success)?),
                never = keep(files, |outcome| report(&told(&outcome))) => match never {},
                _ = tokio::signal::ctrl_c() => Ok(Exit::Interrupted),
            };
            farewells.finish().await;
            ended
        })
    }
}

/// Whether nobody reads stdout any more. Never so where that cannot be known, as for a file.
fn output_is_gone() -> bool {
    let stdout = std::io::stdout();
    // Errors are always reported, whatever is asked for.
    let mut watched = [PollFd::new(&stdout, PollFlags::empty())];
    let asked = poll(&mut watched, Some(&Timespec::default()));
    let gone = PollFlags::ERR | PollFlags::HUP;
    asked.is_ok() && watched[0].revents().intersects(gone)
}

pub(super) fn report(line: &str) {
    // Without a stderr there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "countersign: {}", plain(line));
}
