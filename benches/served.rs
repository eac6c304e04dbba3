//! Countersign as a library, with a tool that moves as many bytes as it is told: what a program
//! that brings its own tools looks like, and what large arguments and results are measured with.

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;

use countersign::backend::{
    Annotations, Answer, Arguments, Context, Failure, Provider, Schema, Tool, ToolResult,
};
use countersign::config::Config;
use countersign::server;

#[derive(clap::Args, Debug)]
pub(crate) struct ServedArgs {
    /// As for `countersign serve`.
    #[arg(long)]
    config: PathBuf,
}

/// `move`: takes a text and gives one of the asked length.
struct Mover {
    schema: Arc<Schema>,
    /// What is given, at its longest.
    text: String,
}

const LONGEST: u32 = 1 << 20;

impl Mover {
    fn new() -> Result<Self, String> {
        let schema = format!(
            r#"{{"type":"object","properties":{{"take":{{"type":"string"}},"give":{{"type":"integer","minimum":0,"maximum":{LONGEST}}}}},"required":["take","give"],"additionalProperties":false}}"#
        );
        Ok(Self {
            schema: Arc::new(Schema::new(&schema)?),
            text: "y".repeat(LONGEST as usize),
        })
    }
}

impl Provider for Mover {
    fn tools(&self) -> Vec<Tool> {
        vec![Tool {
            name: String::from("move"),
            title: None,
            description: String::from("Takes a text and gives one of the asked length."),
            input: Arc::clone(&self.schema),
            output: None,
            requires: Vec::new(),
            annotations: Annotations {
                read_only: true,
                destructive: false,
                idempotent: true,
                open_world: false,
            },
            more: String::new(),
        }]
    }

    fn call_tool(&self, _: Context, name: &str, arguments: Arguments) -> Answer<ToolResult> {
        if name != "move" {
            return Answer::Now(Err(Failure::NotFound));
        }
        // The text is taken and not read: what a tool does with it is not what is measured.
        let give = arguments
            .member("give")
            .and_then(|raw| serde_json::from_slice::<usize>(raw).ok())
            .unwrap_or(0);
        let text = &self.text[..give.min(self.text.len())];
        Answer::Now(Ok(ToolResult::text(text)))
    }
}

pub(crate) fn main(args: &ServedArgs) -> Result<(), Box<dyn Error>> {
    let load = {
        let path = args.config.clone();
        move || {
            Config::load(&path, std::iter::empty()).map_err(|mistakes| {
                mistakes
                    .iter()
                    .map(|mistake| mistake.message.as_str())
                    .collect::<Vec<_>>()
                    .join("; ")
            })
        }
    };
    let config = load()?;
    let mover: Arc<dyn Provider> = Arc::new(Mover::new()?);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let providers = vec![(String::from("bench"), mover)];
    // Ended by the one who started it.
    let never = std::future::pending::<&'static str>();
    runtime.block_on(server::serve(
        config,
        providers,
        Box::new(load),
        never,
        |_| (),
    ))?;
    Ok(())
}
