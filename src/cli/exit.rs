//! How a command ends: exit codes by name, and failures with a hint.

use std::fmt::Display;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use crate::client::{ClientError, CredentialsError, Fault};

/// The exit codes, the same for every command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Success = 0,
    /// The tool ran and says that it failed, or a check found something.
    Found = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// The server refused the identity, or this request of it.
    Refused = 3,
    /// No server there, or no answer in time.
    Unreachable = 4,
    /// The server does not keep to the protocol, or failed inside.
    Protocol = 5,
    /// Something on this machine: a file, a key, a configuration, a port that is taken.
    Setup = 6,
    /// Ctrl-C.
    Interrupted = 130,
}

/// For `--help` and the man page.
pub const EXIT_CODES: &str = "\
Exit codes:
    0  success
    1  failed: the tool ran and answered with an error, or a check found something
    2  usage: the command line makes no sense
    3  refused: the server did not let this identity in, or refused the request
    4  unreachable: no server there, or no answer in time
    5  protocol: the server does not keep to the protocol, or failed inside
    6  setup: a file, key, configuration or port on this machine
  130  interrupted by Ctrl-C, after the call was cancelled on the server";

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// A command failed. It prints as `error:` and `hint:`.
#[derive(Debug)]
pub struct Failure {
    message: Option<String>,
    hint: Option<String>,
    exit: Exit,
}

impl Failure {
    /// `message`: lower-case first letter, no full stop, what it is about in backticks.
    pub fn new(exit: Exit, message: impl Display) -> Self {
        Self {
            message: Some(message.to_string()),
            hint: None,
            exit,
        }
    }

    /// A mistake on the command line.
    pub fn usage(message: impl Display) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// Something on this machine.
    pub fn setup(message: impl Display) -> Self {
        Self::new(Exit::Setup, message)
    }

    /// With what to do next.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Display) -> Self {
        self.hint = Some(hint.to_string());
        self
    }

    /// Nothing to say: whoever read our output has gone.
    pub(super) fn silent(exit: Exit) -> Self {
        Self {
            message: None,
            hint: None,
            exit,
        }
    }

    /// How the process ends.
    #[must_use]
    pub fn exit(&self) -> Exit {
        self.exit
    }

    /// The message, if there is one.
    #[must_use]
    pub fn message(&self) -> Option<&str> {
        self.message.as_deref()
    }

    /// Prints to stderr.
    pub fn print(&self) {
        let Some(message) = &self.message else { return };
        let (red, cyan, off) = if colours() {
            ("\x1b[1;31m", "\x1b[1;36m", "\x1b[0m")
        } else {
            ("", "", "")
        };
        let mut text = format!("{red}error:{off} {message}\n");
        if let Some(hint) = &self.hint {
            text.push_str(&format!("{cyan}hint:{off} {hint}\n"));
        }
        // Without a stderr there is nobody to tell.
        let _ = std::io::stderr().write_all(text.as_bytes());
    }
}

/// Whether stderr is a terminal whose user has not refused colours by `NO_COLOR`.
pub(super) fn colours() -> bool {
    #[expect(
        clippy::disallowed_methods,
        reason = "the command line reads the environment"
    )]
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    !refused && std::io::stderr().is_terminal()
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let exit = match (&error, error.fault()) {
            (ClientError::Cancelled, _) => Exit::Interrupted,
            (ClientError::Refused { .. }, _) | (_, Fault::Caller) => Exit::Refused,
            (_, Fault::Credentials) => Exit::Setup,
            (_, Fault::Environment) => Exit::Unreachable,
            (_, Fault::Peer) => Exit::Protocol,
        };
        let failure = Self::new(exit, super::render::plain(&error.to_string()));
        match error.hint() {
            Some(hint) => failure.with_hint(hint),
            None => failure,
        }
    }
}

impl From<CredentialsError> for Failure {
    fn from(error: CredentialsError) -> Self {
        Self::setup(&error).with_hint(error.hint())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::{Alert, RpcError};

    #[test]
    fn every_failure_has_its_exit_code() {
        let answered = |code| {
            ClientError::Answered(RpcError {
                code,
                message: "no".into(),
                data: None,
            })
        };
        let peer = || "p".to_owned();
        for (error, exit) in [
            (ClientError::Cancelled, Exit::Interrupted),
            (
                ClientError::Refused {
                    peer: peer(),
                    alert: Alert::Revoked,
                },
                Exit::Refused,
            ),
            (answered(4403), Exit::Refused),
            (answered(-32602), Exit::Refused),
            (answered(-32603), Exit::Protocol),
            (
                ClientError::Unreachable {
                    peer: peer(),
                    cause: "no".into(),
                },
                Exit::Unreachable,
            ),
            (
                ClientError::Closed {
                    peer: peer(),
                    heard: false,
                },
                Exit::Unreachable,
            ),
            (
                ClientError::Protocol {
                    peer: peer(),
                    cause: "x".into(),
                },
                Exit::Protocol,
            ),
            (ClientError::Tls("x".into()), Exit::Setup),
        ] {
            assert_eq!(Failure::from(error).exit(), exit);
        }
        assert_eq!(
            Failure::from(CredentialsError::Empty { folder: "x".into() }).exit(),
            Exit::Setup
        );
    }
}
