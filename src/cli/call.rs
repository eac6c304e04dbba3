//! `countersign call`.

use clap::Args;
use serde_json::value::RawValue;

use super::arguments::{Given, whole};
use super::content::{self, ToolResult};
use super::exit::{EXIT_CODES, Exit, Failure};
use super::meter::Meter;
use super::reach::ReachArgs;
use super::render::Out;
use super::run::on_this_thread;
use crate::client::Request;

const EXAMPLES: &str = "\
Arguments:
  key=text     a string, whatever it looks like: `limit=5` sends \"5\"
  key:=json    any JSON: `limit:=5`, `deep:=true`, `names:=[\"a\",\"b\"]`

Examples:
  countersign call self__whoami
  countersign call files__read_file path=notes.txt
  countersign call files__search_files glob='*.md' limit:=20
  echo '{\"path\": \"notes.txt\"}' | countersign call files__read_file --args-json -
";

/// What is typed after `call`.
#[derive(Debug, Args)]
#[command(after_long_help = format!("{EXAMPLES}\n{EXIT_CODES}"), after_help = EXAMPLES)]
pub struct CallArgs {
    /// The tool's name, as `countersign tools` shows it
    #[arg(value_name = "TOOL")]
    tool: String,
    /// Arguments: `key=text` for a string, `key:=json` for anything else
    #[arg(value_name = "KEY=VALUE")]
    arguments: Vec<String>,
    /// All arguments as one JSON object; `-` reads it from stdin
    #[arg(
        long,
        value_name = "JSON",
        conflicts_with = "arguments",
        allow_hyphen_values = true
    )]
    args_json: Option<String>,
    /// Print the result as the server's JSON
    #[arg(long)]
    json: bool,
    /// Show what the tool logs, from this level on
    #[arg(long, value_name = "LEVEL", value_parser = ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"])]
    log_level: Option<String>,
    #[command(flatten)]
    reach: ReachArgs,
}

impl CallArgs {
    /// Calls the tool.
    ///
    /// # Errors
    /// Whatever went wrong, with its hint.
    pub fn run(self, out: &mut Out) -> Result<Exit, Failure> {
        let given = Given::parse(&self.arguments)?;
        let arguments = match &self.args_json {
            Some(text) => whole(text)?,
            None => given.object(),
        };
        let result = on_this_thread(self.ask(arguments))?;
        if self.json {
            out.line(result.get())?;
        }
        let answer: ToolResult = content::read(&result)?;
        if answer.is_error {
            return self.failed(&answer, &given);
        }
        if !self.json {
            answer.show(out)?;
        }
        Ok(Exit::Success)
    }

    async fn ask(&self, arguments: Box<RawValue>) -> Result<Box<RawValue>, Failure> {
        let mut request = Request::new("tools/call")
            .with_text("name", &self.tool)
            .with("arguments", arguments);
        request.progress = Meter::wanted();
        request.log_level = self.log_level.as_deref();
        let mut reach = self.reach.connect().await?;
        let mut meter = Meter::default();
        let answer = reach.ask(&request, &mut |event| meter.hear(event)).await;
        meter.finish();
        let answer = answer?;
        reach.close().await;
        Ok(answer)
    }

    fn failed(&self, answer: &ToolResult, given: &Given) -> Result<Exit, Failure> {
        // With `--json` the answer is on stdout already, whole.
        if self.json {
            return Ok(Exit::Found);
        }
        let complaint = answer.complaint();
        let failure = Failure::new(Exit::Found, format!("`{}` failed: {complaint}", self.tool));
        Err(match given.hint(&complaint) {
            Some(hint) => failure.with_hint(hint),
            None => failure,
        })
    }
}
