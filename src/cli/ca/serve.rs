//! `countersign ca serve`: the arguments turned into the CA's server, and where it can be reached.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};

use super::arguments::ServeArguments;
use super::error::CaCommandError;
use super::place::{Place, Settings};
use super::run::{Bench, profiles};
use crate::audit::{AuditLog, AuditOptions};
use crate::authority_server::{
    AuthorityServer, AuthorityServerOptions, CrlOptions, DeskParts, Listening, Rates, run,
};
use crate::ca::CaFiles;
use crate::cert::write_atomic;
use crate::clock::unix_now;

/// Where the running server says how it is dialled, for `ca invite`.
const ADDRESS_FILE: &str = "serve.address";

/// Everything that the server needs to know.
pub struct Serve {
    /// Its own arguments.
    pub arguments: ServeArguments,
    /// The registry and the CA.
    pub place: Place,
    /// File with the passphrase.
    pub passphrase_file: Option<PathBuf>,
}

impl Serve {
    /// Serves until SIGINT or SIGTERM.
    ///
    /// # Errors
    /// It does not start.
    pub async fn run(self, settings: &Settings) -> Result<(), CaCommandError> {
        let Self {
            arguments,
            place,
            passphrase_file,
        } = self;
        let files = CaFiles::new(&place.ca());
        let hosts = hosts(&arguments)?;
        let registry = place.registry(settings);
        let bench = Bench {
            registry: registry.clone(),
            files: files.clone(),
            passphrase_file: passphrase_file.clone(),
            settings,
            now: unix_now(),
        };
        let mut open = bench.open_all()?;
        // `open_all` gives the issuing CA first.
        let authority = open.remove(0);
        let store = bench.store(false).await?;
        let log = arguments
            .audit
            .unwrap_or_else(|| files.dir().join("audit.jsonl"));
        let (audit, _) = AuditLog::open(AuditOptions::new(log))?;
        let (again, of_folder) = (settings.clone(), files.clone());
        let reopen = move || {
            let bench = Bench {
                registry: registry.clone(),
                files: of_folder.clone(),
                passphrase_file: passphrase_file.clone(),
                settings: &again,
                now: unix_now(),
            };
            bench.open_all_unasked().map_err(|error| error.to_string())
        };
        let server = AuthorityServer {
            reopen: Arc::new(reopen),
            desk: DeskParts {
                authority,
                others: open,
                store: Arc::clone(&store),
                profiles: profiles(arguments.profiles.as_deref())?,
                permission_oid: settings.permission_oid.clone(),
                roles: settings.roles.clone(),
                audit,
                rates: Rates {
                    per_source: arguments.per_source,
                    per_name: arguments.per_name,
                },
            },
            options: AuthorityServerOptions {
                listen: arguments.listen,
                crl_listen: (!arguments.no_crl).then_some(arguments.crl_listen),
                hosts: hosts.clone(),
                crl: CrlOptions {
                    every: arguments.crl_every,
                },
            },
            files: files.clone(),
        };
        let stop = stopped()?;
        run(server, stop, |listening| tell(&files, &hosts, listening)).await?;
        Ok(())
    }
}

/// What the server is dialled by: as said, else the address that it listens on.
fn hosts(arguments: &ServeArguments) -> Result<Vec<String>, CaCommandError> {
    if !arguments.host.is_empty() {
        return Ok(arguments.host.clone());
    }
    let ip = arguments.listen.ip();
    if ip.is_unspecified() {
        return Err(CaCommandError::NoHost);
    }
    let mut hosts = vec![ip.to_string()];
    if ip.is_loopback() {
        hosts.push(String::from("localhost"));
    }
    Ok(hosts)
}

fn tell(files: &CaFiles, hosts: &[String], listening: Listening) {
    let address = hosts.first().map_or_else(
        || listening.est.to_string(),
        |host| dialled(host, listening.est),
    );
    let file = files.dir().join(ADDRESS_FILE);
    if let Err(error) = write_atomic(&file, format!("{address}\n").as_bytes(), 0o644) {
        tracing::warn!(%error, "`ca invite` needs `--server`");
    }
    let mut text = format!("enrolling on {} (dialled as {address})\n", listening.est);
    if let Some(crl) = listening.crl {
        text.push_str(&format!(
            "CRLs on http://{crl}/crl/issuing.crl and http://{crl}/crl/root.crl\n"
        ));
    }
    // Without a stderr there is nobody to tell.
    let _ = std::io::stderr().write_all(text.as_bytes());
}

fn dialled(host: &str, bound: SocketAddr) -> String {
    match host.parse::<IpAddr>() {
        Ok(ip) => SocketAddr::new(ip, bound.port()).to_string(),
        Err(_) => format!("{host}:{}", bound.port()),
    }
}

/// How the server of this folder was last dialled.
pub(super) fn last_address(files: &CaFiles) -> Option<String> {
    let text = std::fs::read_to_string(files.dir().join(ADDRESS_FILE)).ok()?;
    let text = text.trim();
    (!text.is_empty() && text.len() < 300).then(|| text.to_owned())
}

fn stopped() -> Result<impl Future<Output = &'static str> + Send, CaCommandError> {
    let mut interrupt = signal(SignalKind::interrupt()).map_err(CaCommandError::Signals)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(CaCommandError::Signals)?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => "SIGINT",
            _ = terminate.recv() => "SIGTERM",
        }
    })
}
