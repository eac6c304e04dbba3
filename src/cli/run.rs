//! Parse, run, exit.

use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;

use super::args::{Cli, Command};
use super::dumps::refuse_dumps;
use super::exit::{Exit, Failure};
use super::render::Out;

/// The whole program.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(told) => {
            // `--help` and `--version` come this way too, with exit code 0. A closed stdout is no news.
            let _ = told.print();
            return ExitCode::from(if told.use_stderr() {
                Exit::Usage
            } else {
                Exit::Success
            });
        }
    };
    match run(cli) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            failure.print();
            failure.exit().into()
        }
    }
}

fn run(cli: Cli) -> Result<Exit, Failure> {
    log(cli.log.as_deref(), default_log(&cli.command))?;
    refuse_dumps();
    let out = &mut Out::new();
    match cli.command {
        Command::Up(args) => args.run(out),
        Command::Serve(args) => args.run(),
        Command::Ca(args) => args.run(out),
        Command::Pin(args) => args.run(out),
        Command::Config(args) => args.run(),
        Command::Policy(args) => args.run(out),
        Command::Audit(args) => args.run(),
        Command::Call(args) => args.run(out),
        Command::Tools(args) => args.run(out, &super::lists::TOOLS),
        Command::Resources(args) => args.run(out, &super::lists::RESOURCES),
        Command::Read(args) => args.run(out),
        Command::Prompts(args) => args.run(out, &super::lists::PROMPTS),
        Command::Prompt(args) => args.run(out),
        Command::Whoami(args) => args.run(out),
        Command::Ping(args) => args.run(out),
        Command::Connect(args) => args.run(out),
        Command::Join(args) => args.run(out),
        Command::Renew(args) => args.run(out),
        Command::Doctor(args) => args.run(out),
        Command::Completions(args) => args.run(out),
        Command::Man(args) => args.run(out),
    }
}

/// Clients are quiet: what went wrong is told once, as an error.
fn default_log(command: &Command) -> Option<&'static str> {
    match command {
        Command::Up(_) | Command::Serve(_) => Some("info"),
        Command::Ca(args) if args.is_server() => Some("info"),
        _ => None,
    }
}

fn log(given: Option<&str>, default: Option<&str>) -> Result<(), Failure> {
    let Some(filter) = given.or(default) else {
        return Ok(());
    };
    let filter = EnvFilter::try_new(filter)
        .map_err(|cause| Failure::usage(format!("`{filter}` is not a log filter: {cause}")))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(super::exit::colours())
        .init();
    Ok(())
}

/// A runtime on this thread only: it starts in no time, which is what a single call needs.
pub(super) fn on_this_thread<T>(
    future: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime =
        runtime.map_err(|cause| Failure::setup(format!("cannot start the runtime: {cause}")))?;
    let result = runtime.block_on(future);
    // A read of stdin that is still going on cannot be taken back, and is not waited for.
    runtime.shutdown_background();
    result
}
