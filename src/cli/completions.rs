//! `countersign completions`.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::args::Cli;
use super::exit::{Exit, Failure};
use super::render::Out;

const HOW: &str = "\
Examples:
  countersign completions bash > ~/.local/share/bash-completion/completions/countersign
  countersign completions zsh  > ~/.zfunc/_countersign
  countersign completions fish > ~/.config/fish/completions/countersign.fish";

/// What is typed after `completions`.
#[derive(Debug, Args)]
#[command(after_help = HOW)]
pub struct CompletionsArgs {
    /// Which shell
    shell: Shell,
}

impl CompletionsArgs {
    /// Prints the script.
    ///
    /// # Errors
    /// stdout cannot be written.
    pub fn run(self, out: &mut Out) -> Result<Exit, Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "countersign", &mut script);
        out.bytes(&script)?;
        Ok(Exit::Success)
    }
}
