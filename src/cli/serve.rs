//! `countersign serve`, and what it shares with `up`: the runtime, and how a server's failure to
//! start is told.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;

use super::configured::{ConfigFile, load, load_again};
use super::exit::{Exit, Failure};
use crate::audit::AuditError;
use crate::cert::KeyError;
use crate::config::Config;
use crate::listener::ListenError;
use crate::server::{Ready, ServerError, run};
use crate::tls::IdentityError;

/// What is typed after `serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    #[command(flatten)]
    file: ConfigFile,
}

impl ServeArgs {
    /// Serves until SIGINT or SIGTERM.
    ///
    /// # Errors
    /// It does not start.
    pub fn run(self) -> Result<Exit, Failure> {
        let path = self.file.path();
        let config = load(&path, None)?;
        on_all_threads(serve(config, path, None, |ready| {
            let addresses: Vec<String> = ready.addresses.iter().map(ToString::to_string).collect();
            // Without a stderr there is nobody to tell.
            let _ = writeln!(std::io::stderr(), "listening on {}", addresses.join(", "));
        }))
    }
}

/// Serves `config`, which was read from `path`; `address` stands in for `listen.address`, also after
/// a reload.
///
/// # Errors
/// It does not start.
pub async fn serve(
    config: Config,
    path: PathBuf,
    address: Option<String>,
    ready: impl FnOnce(Ready) + Send,
) -> Result<Exit, Failure> {
    let again = move || load_again(&path, address.as_deref());
    run(config, Box::new(again), ready)
        .await
        .map_err(|error| failure(&error))?;
    Ok(Exit::Success)
}

/// A runtime on all cores.
///
/// # Errors
/// The future's, or the system has no threads to give.
pub fn on_all_threads<T>(future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let runtime =
        runtime.map_err(|cause| Failure::setup(format!("cannot start the runtime: {cause}")))?;
    runtime.block_on(future)
}

fn failure(error: &ServerError) -> Failure {
    let failure = Failure::setup(error);
    match hint(error) {
        Some(hint) => failure.with_hint(hint),
        None => failure,
    }
}

fn hint(error: &ServerError) -> Option<&'static str> {
    use std::io::ErrorKind;
    Some(match error {
        ServerError::Listen(ListenError::Bind { cause, .. }) => match cause.kind() {
            ErrorKind::AddrInUse => {
                "another process listens there, maybe another Countersign: stop it, or choose another port (`up --listen`, or `listen.address`)"
            }
            ErrorKind::PermissionDenied => "ports below 1024 need a privilege: choose a higher one",
            ErrorKind::AddrNotAvailable => "this machine has no such address",
            _ => return None,
        },
        ServerError::Registry(_) => {
            "`registry.path` must be a file that this user may write, or `registry.url` a database that can be reached; `countersign up` makes everything in `pki/dev`"
        }
        ServerError::Trust(_) => {
            "`countersign config check` tells every mistake of the configuration"
        }
        ServerError::Identity(IdentityError::Key(KeyError::Token(error))) => {
            return super::ca::token_hint(error);
        }
        ServerError::Identity(IdentityError::Key(_)) => {
            "the key is PKCS#8 in PEM with mode 0600; an encrypted one needs `tls.key_passphrase_file`"
        }
        ServerError::Identity(_) => {
            "issue a server certificate with `countersign ca issue NAME --profile server --dns HOST`"
        }
        ServerError::Audit(AuditError::Busy { .. }) => {
            "a server with this configuration is running already: stop it, or use another folder (`up --dir DIR`)"
        }
        ServerError::Audit(_) => "the audit log must be writable: no call is served without it",
        ServerError::Files(_) => {
            "`root` of each `[[files]]` must be a folder that this user may read"
        }
        _ => return None,
    })
}
