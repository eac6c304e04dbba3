//! A program's own tools behind Countersign's door; `docs/embed.md` explains it.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use countersign::backend::{ToolResult, Toolbox};
use countersign::config::Config;
use countersign::server;

fn read() -> Result<Config, String> {
    Config::load(Path::new("pki/dev/countersign.toml"), std::iter::empty())
        .map_err(|all| all.iter().map(|one| format!("{one}\n")).collect())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let schema = r#"{"type":"object","properties":{"text":{"type":"string"}},"required":["text"]}"#;
    let tools =
        Toolbox::new().tool("shout", "Shouts", schema, |context, arguments| async move {
            #[derive(serde::Deserialize)]
            struct Shout {
                text: String,
            }
            let Shout { text } = arguments.parse()?;
            let who = context.caller.peer.name().short().to_owned();
            Ok(ToolResult::text(format!("{who}: {}", text.to_uppercase())))
        })?;
    let providers = vec![("demo".to_owned(), Arc::new(tools) as _)];
    let stop = async {
        tokio::signal::ctrl_c()
            .await
            .map_or("no signals", |()| "SIGINT")
    };
    let ready = |_: server::Ready| ();
    Ok(server::serve(read()?, providers, Box::new(read), stop, ready).await?)
}
