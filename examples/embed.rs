//! A program's own tools behind Countersign's door; `docs/embed.md` explains it.

use std::alloc::System;
use std::error::Error;
use std::sync::Arc;

use countersign::backend::{Arguments, Context, Failure, ToolResult, Toolbox};
use countersign::secret::WipingAllocator;
use countersign::server;

#[global_allocator]
static MEMORY: WipingAllocator<System> = WipingAllocator(System);

#[derive(serde::Deserialize)]
struct Shout {
    text: String,
}

async fn shout(context: Context, arguments: Arguments) -> Result<ToolResult, Failure> {
    let Shout { text } = arguments.parse()?;
    let who = context.caller.peer.name();
    Ok(ToolResult::text(format!(
        "{}, says {who}",
        text.to_uppercase()
    )))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let schema = r#"{"type":"object","properties":{"text":{"type":"string"}},"required":["text"]}"#;
    let tools = Toolbox::new().tool("shout", "Shouts", schema, shout)?;
    let file = std::env::args().nth(1);
    let file = file.unwrap_or("pki/dev/countersign.toml".to_owned());
    Ok(server::host(file, vec![("demo".to_owned(), Arc::new(tools))]).await?)
}
