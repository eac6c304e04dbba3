//! `countersign prompt`.

use clap::Args;
use serde::Deserialize;

use super::arguments::Given;
use super::content::{self, Block};
use super::exit::{Exit, Failure};
use super::reach::ReachArgs;
use super::render::{Out, plain};
use super::run::on_this_thread;
use crate::client::Request;

/// What is typed after `prompt`.
#[derive(Debug, Args)]
pub struct PromptArgs {
    /// The prompt's name, as `countersign prompts` shows it
    #[arg(value_name = "NAME")]
    name: String,
    /// Arguments, always strings: `key=text`
    #[arg(value_name = "KEY=VALUE")]
    arguments: Vec<String>,
    /// Print the result as the server's JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    reach: ReachArgs,
}

#[derive(Deserialize)]
struct Filled {
    messages: Vec<Message>,
}

#[derive(Deserialize)]
struct Message {
    role: String,
    content: Block,
}

impl PromptArgs {
    /// Fills in the prompt.
    ///
    /// # Errors
    /// Whatever went wrong, with its hint.
    pub fn run(self, out: &mut Out) -> Result<Exit, Failure> {
        let given = Given::parse(&self.arguments)?;
        let mut request = Request::new("prompts/get").with_text("name", &self.name);
        if !given.is_empty() {
            request = request.with("arguments", given.object());
        }
        let result = on_this_thread(async {
            let mut reach = self.reach.connect().await?;
            let result = reach.ask(&request, &mut |_| {}).await?;
            reach.close().await;
            Ok(result)
        })?;
        if self.json {
            out.line(result.get())?;
            return Ok(Exit::Success);
        }
        let Filled { messages } = content::read(&result)?;
        for (index, message) in messages.iter().enumerate() {
            // One message is its text; of several each needs its speaker.
            if messages.len() > 1 {
                let gap = if index > 0 { "\n" } else { "" };
                out.line(&format!("{gap}{}:", plain(&message.role)))?;
            }
            message.content.show(out)?;
        }
        Ok(Exit::Success)
    }
}
