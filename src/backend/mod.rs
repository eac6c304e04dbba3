//! Where tools live. A provider offers tools, resources and prompts; the catalogue merges
//! providers. Nothing here decides what a caller may do: what arrives was allowed and recorded.

mod catalogue;
mod encode;
pub mod files;
mod header;
mod offer;
mod outline;
pub mod own;
pub mod prompts;
mod provider;
mod result;
#[cfg(feature = "rmcp")]
pub mod rmcp;
mod schema;
#[cfg(test)]
mod testing;
mod toolbox;
mod unique;

pub use catalogue::{Catalogue, CatalogueError, Listed, ToolEntry};
pub use encode::{base64_string, json_string, raw_json};
pub use header::{HeaderError, ParamHeader};
pub use offer::{
    Annotations, Completion, Page, Prompt, PromptArgument, Resource, ResourceTemplate, Tool,
};
pub use provider::{
    Answer, AskError, Asker, Caller, Cancel, CompletionTarget, Context, Events, Happening, Note,
    Notes, Provider, RawJson,
};
pub use result::{
    Body, Content, Failure, PromptResult, ReadResult, ToolResult, encode_input_required,
};
pub use schema::{ArgumentError, Arguments, Schema};
pub use toolbox::Toolbox;
