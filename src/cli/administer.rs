//! `ca`, `pin`, `config`, `policy` and `audit`: finds the configuration for them, prints what they
//! answer, and turns their errors into failures.

use std::io::ErrorKind;

use clap::Args;
use serde::Serialize;

use super::audit::{AuditArgs, AuditCommandError};
use super::ca::{CaAction, CaCommand, CaCommandError, Serve};
use super::config::ConfigArgs;
use super::configured::{ConfigFile, environment};
use super::exit::{Exit, Failure};
use super::pin::PinCommand;
use super::policy::{PolicyArgs, PolicyCommandError};
use super::render::Out;
use super::run::on_this_thread;
use super::serve::on_all_threads;
use crate::clock::unix_now;

/// `countersign ca`.
#[derive(Debug, Args)]
pub struct CaArgs {
    #[command(flatten)]
    command: CaCommand,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(flatten)]
    file: ConfigFile,
}

impl CaArgs {
    /// Whether it is a process that stays.
    pub const fn is_server(&self) -> bool {
        matches!(self.command.action, CaAction::Serve(_))
    }

    /// Runs the command.
    ///
    /// # Errors
    /// Whatever went wrong, with its hint.
    pub fn run(mut self, out: &mut Out) -> Result<Exit, Failure> {
        let settings = self.file.settings()?;
        let place = &mut self.command.place;
        match &mut self.command.action {
            CaAction::Init(arguments) if arguments.dir.is_none() && place.ca.is_none() => {
                place.ca.clone_from(&settings.ca);
            }
            action => {
                place.ca = place.ca.take().or_else(|| settings.existing_ca());
                if let Some(profiles) = action.profiles_mut() {
                    *profiles = profiles.take().or_else(|| settings.profiles.clone());
                }
            }
        }
        if let CaAction::Serve(arguments) = self.command.action {
            let (place, passphrase_file) = (self.command.place, self.command.passphrase_file);
            let serve = Serve {
                arguments,
                place,
                passphrase_file,
            };
            on_all_threads(async { Ok(serve.run(&settings.certificates).await?) })?;
            return Ok(Exit::Success);
        }
        let answer = on_this_thread(async {
            Ok(self.command.run(&settings.certificates, unix_now()).await?)
        })?;
        show(out, self.json, &answer, || answer.human())?;
        all_have_it(&answer.missing())
    }
}

/// `countersign pin`.
#[derive(Debug, Args)]
pub struct PinArgs {
    #[command(flatten)]
    command: PinCommand,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(flatten)]
    file: ConfigFile,
}

impl PinArgs {
    /// Runs the command.
    ///
    /// # Errors
    /// Whatever went wrong, with its hint.
    pub fn run(self, out: &mut Out) -> Result<Exit, Failure> {
        let settings = self.file.settings()?;
        let answer = on_this_thread(async {
            Ok(self.command.run(&settings.certificates, unix_now()).await?)
        })?;
        show(out, self.json, &answer, || answer.human())?;
        all_have_it(&answer.missing())
    }
}

/// `countersign config`.
#[derive(Debug, Args)]
pub struct ConfigCommandArgs {
    #[command(flatten)]
    command: ConfigArgs,
    #[command(flatten)]
    file: ConfigFile,
}

impl ConfigCommandArgs {
    /// Runs the command.
    ///
    /// # Errors
    /// The output cannot be written.
    pub fn run(self) -> Result<Exit, Failure> {
        let (mut out, mut err) = (std::io::stdout().lock(), std::io::stderr().lock());
        let ended = self
            .command
            .run(&self.file.path(), environment(), &mut out, &mut err);
        ended.map(found).map_err(|cause| unwritable(&cause))
    }
}

/// `countersign policy`.
#[derive(Debug, Args)]
pub struct PolicyCommandArgs {
    #[command(flatten)]
    command: PolicyArgs,
    #[command(flatten)]
    file: ConfigFile,
}

impl PolicyCommandArgs {
    /// Runs the command.
    ///
    /// # Errors
    /// Whatever went wrong, with its hint.
    pub fn run(self, out: &mut Out) -> Result<Exit, Failure> {
        let config = self.file.load()?;
        let answer = on_this_thread(async { Ok(self.command.run(&config, unix_now()).await?) })?;
        out.line(&answer.render())?;
        Ok(found(answer.code()))
    }
}

/// `countersign audit`.
#[derive(Debug, Args)]
pub struct AuditCommandArgs {
    #[command(flatten)]
    command: AuditArgs,
    #[command(flatten)]
    file: ConfigFile,
}

impl AuditCommandArgs {
    /// Runs the command.
    ///
    /// # Errors
    /// A log cannot be read, or the output not written.
    pub fn run(self) -> Result<Exit, Failure> {
        let config = self.file.load_if_there()?;
        let log = config.map(|config| config.audit.path);
        match self
            .command
            .run(log.as_deref(), &mut std::io::stdout().lock())
        {
            Ok(code) => Ok(found(code)),
            Err(AuditCommandError::Output(cause)) => Err(unwritable(&cause)),
            Err(error @ AuditCommandError::NoFile) => Err(Failure::setup(error)
                .with_hint("name the log, or the configuration by `--config FILE`")),
            Err(error) => Err(Failure::setup(error)),
        }
    }
}

impl From<CaCommandError> for Failure {
    fn from(error: CaCommandError) -> Self {
        let failure = Self::setup(&error);
        match error.hint() {
            Some(hint) => failure.with_hint(hint),
            None => failure,
        }
    }
}

impl From<PolicyCommandError> for Failure {
    fn from(error: PolicyCommandError) -> Self {
        let failure = Self::setup(&error);
        match error.hint() {
            Some(hint) => failure.with_hint(hint),
            None => failure,
        }
    }
}

fn show(
    out: &mut Out,
    json: bool,
    answer: &impl Serialize,
    human: impl FnOnce() -> String,
) -> Result<Exit, Failure> {
    if json {
        out.json(answer)?
    } else {
        out.line(&human())?
    }
    Ok(Exit::Success)
}

/// What was asked for is done and recorded; but who waits for every server to know of it and goes on
/// because of the exit code must not be misled.
fn all_have_it(missing: &[&str]) -> Result<Exit, Failure> {
    if missing.is_empty() {
        return Ok(Exit::Success);
    }
    let names = missing.join("`, `");
    Err(Failure::new(
        Exit::Found,
        format!("it is recorded, but these servers have not applied it yet: `{names}`"),
    )
    .with_hint(
        "each does as soon as it hears of it; run this again with a longer `--wait`, and look          whether those servers reach the registry",
    ))
}

fn found(code: u8) -> Exit {
    if code == 0 {
        Exit::Success
    } else {
        Exit::Found
    }
}

fn unwritable(cause: &std::io::Error) -> Failure {
    if cause.kind() == ErrorKind::BrokenPipe {
        return Failure::silent(Exit::Success);
    }
    Failure::setup(format!("cannot write to stdout: {cause}"))
}
