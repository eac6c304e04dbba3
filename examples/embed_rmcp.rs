//! A handler of the rmcp SDK behind Countersign's door; `docs/embed.md` explains it.

use std::{alloc::System, error::Error, sync::Arc};

use countersign::{backend::Caller, backend::rmcp::host, secret::WipingAllocator, server};
use rmcp::handler::server::{tool::Extension, wrapper::Parameters};
use rmcp::{schemars, tool, tool_router};

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct Shout {
    text: String,
}

#[global_allocator]
static MEMORY: WipingAllocator<System> = WipingAllocator(System);

struct Demo;

#[tool_router(server_handler)]
impl Demo {
    #[tool(description = "Shouts")]
    fn shout(&self, Parameters(said): Parameters<Shout>, who: Extension<Arc<Caller>>) -> String {
        format!("{}, says {}", said.text.to_uppercase(), who.0.peer.name())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let file = std::env::args().nth(1);
    let file = file.unwrap_or("pki/dev/countersign.toml".to_owned());
    let demo = host(Demo).await?;
    Ok(server::host(file, vec![("demo".to_owned(), Arc::new(demo))]).await?)
}
