//! `countersign join`.

use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;
use zeroize::Zeroizing;

use super::exit::{Exit, Failure};
use super::render::{Out, plain};
use super::run::on_this_thread;
use crate::cert::{KeyKind, KeyUri, TokenKey, read_passphrase};
use crate::clock::unix_now;
use crate::enrol::{EnrolError, Joined, join};
use crate::est::{Invitation, InvitationError};
use crate::secret::Secret;

const ABOUT: &str = "\
The token says where the CA is, which CA it must be (by the fingerprint of its root), and who is \
enrolled. The key is made here, or in the token that --key names, and is sent nowhere. The token is good for one certificate.

Give `-` for the token to read it from stdin: other users of this machine can see command lines.";

/// More than this is no token.
const LONGEST: u64 = 8192;

/// What is typed after `join`.
#[derive(Debug, Args)]
#[command(after_long_help = ABOUT)]
pub struct JoinArgs {
    /// The token that `countersign ca invite` printed, or `-` for stdin
    #[arg(value_name = "TOKEN")]
    token: String,
    /// Folder for NAME.crt, NAME.key, ca.pem and NAME.renew.toml [default: ~/.config/countersign]
    #[arg(long, env = "COUNTERSIGN_HOME", value_name = "DIR")]
    out: Option<PathBuf>,
    /// Dial the CA's server here, and not where the token says
    #[arg(long, value_name = "HOST:PORT")]
    server: Option<String>,
    /// A key in a PKCS#11 token (RFC 7512), such as `pkcs11:token=me;object=agent`, made there if it
    /// is not there yet [default: a key is made and written to NAME.key]
    #[arg(long, value_name = "URI")]
    key: Option<String>,
    /// File with the token's PIN, where the URI does not say where it is [default: the terminal]
    #[arg(long, value_name = "FILE", requires = "key")]
    key_passphrase_file: Option<PathBuf>,
    /// Write over files of this name
    #[arg(long)]
    replace: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl JoinArgs {
    /// Enrols.
    ///
    /// # Errors
    /// Whatever went wrong, with its hint.
    pub fn run(self, out: &mut Out) -> Result<Exit, Failure> {
        let mut invitation = Invitation::read(&self.token()?).map_err(|error| {
            let failure = Failure::usage(error);
            match error {
                InvitationError::Malformed => {
                    failure.with_hint("it begins with `cs1.` and is one word; ask for it again")
                }
                InvitationError::Random => failure,
            }
        })?;
        let token = self.in_token()?;
        if let Some(server) = self.server {
            invitation.address = server;
        }
        let dir = match self.out {
            Some(dir) => dir,
            None => std::env::home_dir()
                .map(|home| home.join(".config/countersign"))
                .ok_or_else(|| Failure::usage("there is no home folder").with_hint("give --out"))?,
        };
        let joined = on_this_thread(async {
            let (token, now) = (token.as_ref(), unix_now());
            Ok(join(&invitation, &dir, token, self.replace, now).await?)
        })?;
        if self.json {
            out.json(&report(&joined))?;
        } else {
            out.line(&human(&joined))?;
        }
        Ok(Exit::Success)
    }

    /// The key in a token, where one was named.
    fn in_token(&self) -> Result<Option<TokenKey>, Failure> {
        let Some(text) = &self.key else {
            return Ok(None);
        };
        let uri = KeyUri::parse(text).map_err(Failure::usage)?;
        let pin = if uri.has_pin() {
            None
        } else {
            let file = self.key_passphrase_file.as_deref();
            Some(pin(&uri, file)?)
        };
        let key = TokenKey::open_or_make(&uri, pin.as_ref(), KeyKind::default());
        key.map(Some).map_err(Failure::setup)
    }

    fn token(&self) -> Result<Zeroizing<String>, Failure> {
        if self.token != "-" {
            return Ok(Zeroizing::new(self.token.clone()));
        }
        let mut text = Zeroizing::new(String::new());
        std::io::stdin()
            .take(LONGEST)
            .read_to_string(&mut text)
            .map_err(|cause| {
                Failure::usage(format!("cannot read the token from stdin: {cause}"))
            })?;
        Ok(text)
    }
}

fn pin(uri: &KeyUri, file: Option<&Path>) -> Result<Secret, Failure> {
    if let Some(file) = file {
        return read_passphrase(file).map_err(Failure::setup);
    }
    rpassword::prompt_password(format!("PIN of the token {}: ", uri.token_name()))
        .map(Secret::from)
        .map_err(|cause| {
            Failure::setup(format!(
                "the token takes a PIN and none could be asked for: {cause}"
            ))
            .with_hint(
                "name a file with it by `--key-passphrase-file`, or in the URI by `pin-source`",
            )
        })
}

fn report(joined: &Joined) -> serde_json::Value {
    json!({
        "name": joined.name,
        "fingerprint": joined.fingerprint.to_string(),
        "not_after": joined.not_after.to_string(),
        "certificate": joined.files.cert,
        "key": joined.files.key,
        "ca": joined.files.ca,
        "renewal": joined.files.note_path(),
    })
}

fn human(joined: &Joined) -> String {
    format!(
        "{} is enrolled until {}; it renews itself.\n\ncertificate  {}\nkey          {}\n\
         ca           {}\nfingerprint  {}\n",
        joined.name,
        joined.not_after,
        joined.files.cert.display(),
        joined.files.key.display(),
        joined.files.ca.display(),
        joined.fingerprint,
    )
}

impl From<EnrolError> for Failure {
    fn from(error: EnrolError) -> Self {
        let exit = match &error {
            EnrolError::Refused { later: true, .. }
            | EnrolError::Unreachable { .. }
            | EnrolError::Busy(_) => Exit::Unreachable,
            EnrolError::Refused { .. } | EnrolError::Alert { .. } => Exit::Refused,
            EnrolError::WrongAuthority { .. }
            | EnrolError::Certificate { .. }
            | EnrolError::Protocol { .. }
            | EnrolError::Answer { .. } => Exit::Protocol,
            _ => Exit::Setup,
        };
        let failure = Self::new(exit, plain(&error.to_string()));
        match error.hint() {
            Some(hint) => failure.with_hint(hint),
            None => failure,
        }
    }
}
