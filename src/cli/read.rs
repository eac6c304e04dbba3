//! `countersign read`.

use std::path::PathBuf;

use clap::Args;
use serde::Deserialize;

use super::content::{self, Block};
use super::exit::{Exit, Failure};
use super::reach::ReachArgs;
use super::render::Out;
use super::run::on_this_thread;
use crate::client::Request;

/// What is typed after `read`.
#[derive(Debug, Args)]
pub struct ReadArgs {
    /// The resource, as `countersign resources` shows it
    #[arg(value_name = "URI")]
    uri: String,
    /// Write the content to a file, bytes decoded, instead of showing it
    #[arg(short, long, value_name = "FILE", conflicts_with = "json")]
    out: Option<PathBuf>,
    /// Print the result as the server's JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    reach: ReachArgs,
}

#[derive(Deserialize)]
struct ReadResult {
    contents: Vec<Block>,
}

impl ReadArgs {
    /// Reads the resource.
    ///
    /// # Errors
    /// Whatever went wrong, with its hint.
    pub fn run(self, out: &mut Out) -> Result<Exit, Failure> {
        let result = on_this_thread(async {
            let mut reach = self.reach.connect().await?;
            let request = Request::new("resources/read").with_text("uri", &self.uri);
            let result = reach.ask(&request, &mut |_| {}).await?;
            reach.close().await;
            Ok(result)
        })?;
        if self.json {
            out.line(result.get())?;
            return Ok(Exit::Success);
        }
        let ReadResult { contents } = content::read(&result)?;
        match &self.out {
            Some(file) => {
                let mut bytes = Vec::new();
                for block in &contents {
                    bytes.extend(block.bytes()?);
                }
                std::fs::write(file, bytes).map_err(|cause| {
                    Failure::setup(format!("cannot write `{}`: {cause}", file.display()))
                })?;
            }
            None => {
                for block in &contents {
                    block.show(out)?;
                }
            }
        }
        Ok(Exit::Success)
    }
}
