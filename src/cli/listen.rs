//! `countersign connect --listen`: the endpoint for ordinary HTTP clients of this machine.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::Args;

use super::connect::report;
use super::exit::{Exit, Failure};
use super::reach::ReachArgs;
use super::renew::{cert_files, told};
use super::run::on_this_thread;
use crate::cert::check_private;
use crate::client::{Loopback, Token, Transport};
use crate::enrol::keep;

/// More than this is no token.
const LONGEST: u64 = 4098;

/// What is typed after `connect` for it.
#[derive(Debug, Args)]
#[command(next_help_heading = "Loopback endpoint")]
pub struct ListenArgs {
    /// Serve Streamable HTTP on a loopback address instead of stdin and stdout, for HTTP clients that
    /// know no client certificates: everything goes on to the server with this identity
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<SocketAddr>,
    /// Take the token that clients must send from this file; it is made with a new token when it is
    /// not there. Without it a new token is printed on stderr
    #[arg(
        long,
        value_name = "FILE",
        requires = "listen",
        conflicts_with = "no_token"
    )]
    token_file: Option<PathBuf>,
    /// Ask for no token: every program on this machine may then use this identity
    #[arg(long, requires = "listen")]
    no_token: bool,
}

impl ListenArgs {
    /// Serves until Ctrl-C.
    ///
    /// # Errors
    /// The address cannot be used, or the server refuses this identity.
    pub fn run(&self, address: SocketAddr, reach: &ReachArgs) -> Result<Exit, Failure> {
        if reach.transport == Transport::WebSocket {
            return Err(Failure::usage(
                "`--listen` carries HTTP: `--transport ws` does not go with it",
            ));
        }
        let token = self.token()?;
        let credentials = reach.credentials()?;
        let dialer = reach.dialer_of(Transport::Http, &credentials)?;
        let files = cert_files(&credentials);
        on_this_thread(async {
            let endpoint = Loopback::bind(address).await.map_err(|error| {
                Failure::setup(error)
                    .with_hint("for example `--listen 127.0.0.1:4000`; port 0 takes a free one")
            })?;
            report(&format!(
                "http://{}/mcp goes to `{}`",
                endpoint.address(),
                dialer.target()
            ));
            match (&token, &self.token_file) {
                (None, _) => report("no token is asked for"),
                (Some(_), Some(file)) => report(&format!("the token is in `{}`", file.display())),
                (Some(token), None) => {
                    report(&format!(
                        "clients send `Authorization: Bearer {}`",
                        token.expose()
                    ));
                }
            }
            let explaining = dialer.clone();
            tokio::select! {
                ended = endpoint.run(dialer, token.as_ref(), Box::new(report)) => match ended {
                    Ok(never) => match never {},
                    Err(error) => Err(explaining.reason(error).await.into()),
                },
                never = keep(files, |outcome| report(&told(&outcome))) => match never {},
                _ = tokio::signal::ctrl_c() => Ok(Exit::Interrupted),
            }
        })
    }

    fn token(&self) -> Result<Option<Token>, Failure> {
        if self.no_token {
            return Ok(None);
        }
        let new = || Token::random().ok_or_else(|| Failure::setup("there is no randomness"));
        let Some(file) = &self.token_file else {
            return new().map(Some);
        };
        match read(file)? {
            Some(token) => Ok(Some(token)),
            None => {
                let token = new()?;
                write(file, &token)?;
                Ok(Some(token))
            }
        }
    }
}

fn read(file: &Path) -> Result<Option<Token>, Failure> {
    let fail =
        |cause: &dyn std::fmt::Display| Failure::setup(format!("`{}`: {cause}", file.display()));
    let opened = match std::fs::File::open(file) {
        Err(cause) if cause.kind() == ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(|cause| fail(&cause))?,
    };
    check_private(file).map_err(Failure::setup)?;
    let mut text = Vec::new();
    opened
        .take(LONGEST)
        .read_to_end(&mut text)
        .map_err(|cause| fail(&cause))?;
    Token::given(text.trim_ascii())
        .map(Some)
        .map_err(|cause| fail(&cause))
}

fn write(file: &Path, token: &Token) -> Result<(), Failure> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file)
        .and_then(|mut made| writeln!(made, "{}", token.expose()))
        .map_err(|cause| Failure::setup(format!("`{}`: {cause}", file.display())))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_token_file_is_made_once_and_must_be_private() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        let args = |no_token| ListenArgs {
            listen: None,
            token_file: Some(file.clone()),
            no_token,
        };
        assert!(args(true).token().unwrap().is_none());
        let made = args(false).token().unwrap().unwrap();
        let again = args(false).token().unwrap().unwrap();
        assert_eq!(made.expose(), again.expose());
        assert_eq!(
            std::fs::metadata(&file).unwrap().permissions().mode() & 0o777,
            0o600
        );
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(args(false).token().is_err());
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(&file, "short").unwrap();
        let message = args(false)
            .token()
            .unwrap_err()
            .message()
            .unwrap()
            .to_owned();
        assert!(
            message.contains("16 to 4096") && !message.contains("short"),
            "{message}"
        );
    }
}
