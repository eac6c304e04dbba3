//! How every client command reaches its server: target, credentials, patience, Ctrl-C.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde_json::value::RawValue;

use super::exit::Failure;
use super::renew::{cert_files, renew_in_background};
use crate::cert::{Opener, opened_by, read_passphrase};
use crate::client::{
    ClientError, Credentials, CredentialsError, Dialer, Event, Folder, Listing, Request, Stop,
    Target, TlsClient, Transport,
};
use crate::enrol::CertFiles;
use crate::peer::Agreed;
use crate::secret::Secret;

/// How long connecting and the handshake may take.
const CONNECTING: Duration = Duration::from_secs(10);

/// Where to and as whom.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Connection")]
pub struct ReachArgs {
    /// The server, as `host:port` or `mcps://host:port`
    #[arg(
        short,
        long,
        env = "COUNTERSIGN_SERVER",
        value_name = "HOST:PORT",
        default_value = "127.0.0.1:8443"
    )]
    pub server: Target,
    /// The way in: the raw stream, a WebSocket, or Streamable HTTP (HTTP/2 where the server has it)
    #[arg(
        long,
        env = "COUNTERSIGN_TRANSPORT",
        value_name = "TRANSPORT",
        default_value = "raw",
        value_parser = transports()
    )]
    pub transport: Transport,
    /// The identity to present: `NAME.crt` and `NAME.key` of the credentials folder. Without it: the
    /// `operator` of a development folder, else the folder's only identity
    #[arg(long = "as", env = "COUNTERSIGN_AS", value_name = "NAME", conflicts_with_all = ["cert", "key"])]
    pub identity: Option<String>,
    /// The credentials folder [default: `pki/dev` where it is there, else `~/.config/countersign`]
    #[arg(long, env = "COUNTERSIGN_HOME", value_name = "DIR")]
    pub pki: Option<PathBuf>,
    /// The certificate chain, instead of a credentials folder
    #[arg(long, value_name = "FILE", requires = "key")]
    pub cert: Option<PathBuf>,
    /// Its private key (PKCS#8, mode 0600), or the PKCS#11 URI (RFC 7512) of a key in a token
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub key: Option<PathBuf>,
    /// The CA that the server's certificate must come from [default: `ca.pem` of the folder]
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// A file with the passphrase of an encrypted key, or the PIN of a token; without it the terminal is
    /// asked
    #[arg(long, value_name = "FILE")]
    pub key_passphrase_file: Option<PathBuf>,
    /// How long an answer may take, for example `30s` or `5m`
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = humantime::parse_duration)]
    pub timeout: Duration,
}

fn transports() -> impl clap::builder::TypedValueParser<Value = Transport> {
    use clap::builder::TypedValueParser as _;
    clap::builder::PossibleValuesParser::new(Transport::NAMES)
        .try_map(|name| name.parse::<Transport>())
}

impl ReachArgs {
    /// The files to use; they are not read yet.
    ///
    /// # Errors
    /// None, or not clear which.
    pub fn files(&self) -> Result<Credentials, CredentialsError> {
        let (Some(cert), Some(key)) = (&self.cert, &self.key) else {
            let mut chosen = self.folder().choose(self.identity.as_deref());
            if let (Ok(credentials), Some(ca)) = (&mut chosen, &self.ca) {
                credentials.ca.clone_from(ca);
            }
            return chosen;
        };
        let ca = match &self.ca {
            Some(ca) => ca.clone(),
            None => {
                let beside = cert.with_file_name("ca.pem");
                let folder = cert.parent().unwrap_or(Path::new(".")).to_owned();
                if !beside.is_file() {
                    return Err(CredentialsError::NoCa { folder });
                }
                beside
            }
        };
        Ok(Credentials {
            name: None,
            cert: cert.clone(),
            key: key.clone(),
            ca,
            passphrase: None,
        })
    }

    /// The credentials, with the passphrase where the key needs one.
    ///
    /// # Errors
    /// None, not clear which, or no passphrase to be had.
    pub fn credentials(&self) -> Result<Credentials, Failure> {
        let mut credentials = self.files()?;
        credentials.passphrase = self.passphrase(&credentials.key)?;
        Ok(credentials)
    }

    /// Everything for connections, loaded, with these credentials.
    ///
    /// # Errors
    /// Unusable credentials.
    pub fn dialer_of(
        &self,
        transport: Transport,
        credentials: &Credentials,
    ) -> Result<Dialer, Failure> {
        let (server, patience) = (self.server.clone(), CONNECTING.min(self.timeout));
        Ok(Dialer::over(transport, server, credentials, patience)?)
    }

    /// Connects.
    ///
    /// # Errors
    /// Unusable credentials, no server, or refused.
    pub async fn connect(&self) -> Result<Reach, Failure> {
        let credentials = self.credentials()?;
        let dialer = self.dialer_of(self.transport, &credentials)?;
        let client = dialer.client().await?;
        Ok(Reach {
            files: cert_files(&credentials),
            dialer,
            client: Some(client),
            timeout: self.timeout,
        })
    }

    fn folder(&self) -> Folder {
        let dev = Path::new("pki/dev");
        match &self.pki {
            // A development folder may be anywhere; `operator` is in no other.
            Some(folder) => Folder::new(folder, Some("operator")),
            None if dev.is_dir() => Folder::new(dev, Some("operator")),
            None => match std::env::home_dir() {
                Some(home) => Folder::new(home.join(".config/countersign"), None),
                None => Folder::new(dev, None),
            },
        }
    }

    fn passphrase(&self, key: &Path) -> Result<Option<Secret>, Failure> {
        if let Some(file) = &self.key_passphrase_file {
            return read_passphrase(file).map(Some).map_err(Failure::setup);
        }
        // What is wrong with the key's file is told when it is loaded.
        let prompt = match opened_by(key) {
            Ok(Opener::Nothing) | Err(_) => return Ok(None),
            Ok(Opener::Passphrase) => format!("Passphrase of {}: ", key.display()),
            Ok(Opener::Pin(token)) => format!("PIN of the token {token}: "),
        };
        rpassword::prompt_password(prompt)
            .map(|text| Some(Secret::from(text)))
            .map_err(|cause| {
                Failure::setup(format!(
                    "`{}` takes a passphrase or a PIN and none could be asked for: {cause}",
                    key.display()
                ))
                .with_hint("name a file with it by `--key-passphrase-file`")
            })
    }
}

/// A connected client with its patience.
pub struct Reach {
    /// For a renewal, which begins only when the answer is there.
    files: CertFiles,
    dialer: Dialer,
    /// Gone once it was closed.
    client: Option<TlsClient>,
    timeout: Duration,
}

impl Reach {
    /// One request to its result; Ctrl-C and the timeout cancel it on the server.
    ///
    /// # Errors
    /// Whatever went wrong, with its hint.
    pub async fn ask(
        &mut self,
        request: &Request<'_>,
        on: &mut (dyn FnMut(Event) + Send),
    ) -> Result<Box<RawValue>, Failure> {
        let mut stop = Box::pin(stop(self.timeout));
        match self.open().request_until(request, on, &mut stop).await {
            Ok(result) => Ok(result),
            Err(error) => Err(self.failure(error).await),
        }
    }

    /// Every page of a list.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub async fn list(&mut self, method: &str, key: &str) -> Result<Listing, Failure> {
        let mut stop = Box::pin(stop(self.timeout));
        match self.open().list(method, key, &mut stop).await {
            Ok(listing) => Ok(listing),
            Err(error) => Err(self.failure(error).await),
        }
    }

    /// What the TLS handshake agreed on.
    pub fn agreed(&self) -> Option<Agreed> {
        self.client.as_ref().and_then(TlsClient::agreed)
    }

    /// Says goodbye.
    pub async fn close(mut self) {
        self.end().await;
        renew_in_background(&self.files, &self.dialer.identity());
    }

    fn open(&mut self) -> &mut TlsClient {
        self.client
            .as_mut()
            .expect("nothing is asked after a failure")
    }

    async fn end(&mut self) {
        if let Some(mut client) = self.client.take() {
            client.close().await;
        }
        self.dialer.farewells().finish().await;
    }

    async fn failure(&mut self, error: ClientError) -> Failure {
        // The audit log should say that we left, not that the connection broke.
        if matches!(error, ClientError::Answered(_)) {
            self.end().await;
        }
        renew_in_background(&self.files, &self.dialer.identity());
        self.dialer.reason(error).await.into()
    }
}

async fn stop(after: Duration) -> Stop {
    tokio::select! {
        pressed = tokio::signal::ctrl_c() => match pressed {
            Ok(()) => Stop::Interrupted,
            // No signals on this system: then the system's own Ctrl-C ends the process.
            Err(_) => std::future::pending().await,
        },
        () = tokio::time::sleep(after) => Stop::Timeout(after),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        reach: ReachArgs,
    }

    fn parse(args: &[&str]) -> Result<ReachArgs, clap::Error> {
        Line::try_parse_from(std::iter::once("x").chain(args.iter().copied()))
            .map(|line| line.reach)
    }

    #[test]
    fn takes_a_folder_or_single_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        for name in [
            "ca.pem",
            "operator.crt",
            "operator.key",
            "reader.crt",
            "reader.key",
        ] {
            std::fs::write(path(name), "").unwrap();
        }
        let pki = dir.path().to_str().unwrap();
        let chosen = parse(&["--pki", pki]).unwrap().files().unwrap();
        assert_eq!(chosen.name.as_deref(), Some("operator"));
        let chosen = parse(&["--pki", pki, "--as", "reader", "--ca", "other.pem"])
            .unwrap()
            .files()
            .unwrap();
        assert_eq!(
            (chosen.key, chosen.ca),
            (path("reader.key").into(), "other.pem".into())
        );
        let (cert, key) = (path("operator.crt"), path("reader.key"));
        let chosen = parse(&["--cert", &cert, "--key", &key])
            .unwrap()
            .files()
            .unwrap();
        assert_eq!(
            (chosen.name, chosen.ca),
            (None, PathBuf::from(path("ca.pem")))
        );
        assert!(parse(&["--cert", &cert]).is_err());
        assert!(parse(&["--cert", &cert, "--key", &key, "--as", "reader"]).is_err());
        assert!(parse(&["--server", "https://x:1"]).is_err());
    }
}
