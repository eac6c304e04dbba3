//! Where the passphrase of a CA key comes from: a file that was named, the environment, a systemd
//! credential, the file that the quickstart keeps beside its keys, or the terminal.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use crate::cert::{PassphraseError, read_passphrase};
use crate::secret::Secret;

const VARIABLE: &str = "COUNTERSIGN_CA_PASSPHRASE";
const CREDENTIAL: &str = "countersign-ca";

/// The sources, in this order.
#[derive(Debug)]
pub struct Passphrases {
    file: Option<PathBuf>,
    variable: Option<Secret>,
    credential: Option<PathBuf>,
    terminal: bool,
}

impl Passphrases {
    /// With `file` as named on the command line.
    #[must_use]
    pub fn new(file: Option<PathBuf>) -> Self {
        let credential = variable("CREDENTIALS_DIRECTORY")
            .map(|dir| PathBuf::from(dir).join(CREDENTIAL))
            .filter(|path| path.exists());
        let value = variable(VARIABLE).filter(|value| !value.is_empty());
        Self {
            file,
            variable: value.map(|value| Secret::new(value.into_vec())),
            credential,
            terminal: has_terminal(),
        }
    }

    /// The same, but nobody is asked.
    #[must_use]
    pub fn without_terminal(self) -> Self {
        Self {
            terminal: false,
            ..self
        }
    }

    /// The passphrase of the key at `key`.
    ///
    /// # Errors
    /// No source has one, or it cannot be read.
    pub fn of(&self, key: &Path) -> Result<Secret, PassphraseError> {
        if let Some(known) = self.unasked(key)? {
            return Ok(known);
        }
        if !self.terminal {
            return Err(PassphraseError::Missing {
                key: key.to_owned(),
            });
        }
        ask(key, &format!("Passphrase of {}: ", key.display()))
    }

    /// A passphrase for a key that is being made: asked for twice where it is asked for.
    ///
    /// # Errors
    /// As [`Self::of`]; the two entries differ, or are empty.
    pub fn fresh(&self, key: &Path) -> Result<Secret, PassphraseError> {
        if let Some(known) = self.unasked(key)? {
            return Ok(known);
        }
        if !self.terminal {
            return Err(PassphraseError::Missing {
                key: key.to_owned(),
            });
        }
        ask_twice(key)
    }

    /// The passphrase of a file that is made for somebody else: from `file`, which `option` names, or
    /// the terminal.
    ///
    /// # Errors
    /// As [`Self::fresh`].
    pub fn of_export(
        file: Option<&Path>,
        option: &'static str,
        made: &Path,
    ) -> Result<Secret, PassphraseError> {
        if let Some(file) = file {
            return read_passphrase(file);
        }
        if !has_terminal() {
            return Err(PassphraseError::Wanted {
                what: format!("passphrase for `{}`", made.display()),
                place: option,
            });
        }
        ask_twice(made)
    }

    /// The PIN of a token whose key's URI does not say where it is: from the terminal alone, for the
    /// other sources are the CA's.
    ///
    /// # Errors
    /// There is no terminal.
    pub fn of_token(key: &Path) -> Result<Secret, PassphraseError> {
        if !has_terminal() {
            return Err(PassphraseError::Wanted {
                what: format!("PIN for the token of `{}`", key.display()),
                place: "`?pin-source=/path/of/a/file` in the key's URI",
            });
        }
        ask(key, "PIN of the token: ")
    }

    fn unasked(&self, key: &Path) -> Result<Option<Secret>, PassphraseError> {
        if let Some(file) = &self.file {
            return read_passphrase(file).map(Some);
        }
        if let Some(value) = &self.variable {
            return Ok(Some(value.clone()));
        }
        if let Some(credential) = &self.credential {
            return read_passphrase(credential).map(Some);
        }
        let beside = key.with_file_name("passphrase");
        if beside.exists() {
            read_passphrase(&beside).map(Some)
        } else {
            Ok(None)
        }
    }
}

fn variable(name: &str) -> Option<OsString> {
    #[expect(
        clippy::disallowed_methods,
        reason = "the command line may read the environment"
    )]
    std::env::var_os(name)
}

fn ask(key: &Path, prompt: &str) -> Result<Secret, PassphraseError> {
    rpassword::prompt_password(prompt)
        .map(Secret::from)
        .map_err(|error| PassphraseError::Prompt {
            key: key.to_owned(),
            cause: error.to_string(),
        })
}

fn has_terminal() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

fn ask_twice(key: &Path) -> Result<Secret, PassphraseError> {
    let first = ask(key, &format!("New passphrase of {}: ", key.display()))?;
    let second = ask(key, "Once more: ")?;
    let wrong = |cause: &str| PassphraseError::Prompt {
        key: key.to_owned(),
        cause: cause.to_owned(),
    };
    if first.expose().is_empty() {
        return Err(wrong("it is empty"));
    }
    if first.expose() != second.expose() {
        return Err(wrong("the two entries differ"));
    }
    Ok(first)
}
