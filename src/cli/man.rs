//! `countersign man`.

use std::path::PathBuf;

use clap::{Args, CommandFactory};

use super::args::Cli;
use super::exit::{Exit, Failure};
use super::render::Out;

/// What is typed after `man`.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// Write the page, and one for each command, into this folder
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

impl ManArgs {
    /// Prints or writes the pages.
    ///
    /// # Errors
    /// stdout or the folder cannot be written.
    pub fn run(self, out: &mut Out) -> Result<Exit, Failure> {
        let command = Cli::command();
        if let Some(folder) = &self.out {
            let fail =
                |cause| Failure::setup(format!("cannot write in `{}`: {cause}", folder.display()));
            std::fs::create_dir_all(folder).map_err(fail)?;
            clap_mangen::generate_to(command, folder).map_err(fail)?;
            return Ok(Exit::Success);
        }
        let mut page = Vec::new();
        clap_mangen::Man::new(command)
            .render(&mut page)
            .map_err(|cause| Failure::setup(format!("cannot render the man page: {cause}")))?;
        out.bytes(&page)?;
        Ok(Exit::Success)
    }
}
