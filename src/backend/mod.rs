//! Where tools live. A provider offers tools, resources and prompts; the catalogue merges providers.

mod catalogue;
pub mod files;
pub mod own;
pub mod prompts;
mod provider;
mod result;
mod schema;

pub use catalogue::{Catalogue, CatalogueError, Listed};
pub use provider::{Annotations, Answer, Cancel, PromptArgument, RawJson, Caller, Completion, CompletionTarget, Context, Events, Happening, LogLevel, Note, Notes, Page, Prompt, Provider, Resource, ResourceTemplate, Tool};
pub use result::{Body, Content, Failure, PromptResult, ReadResult, ToolResult};
pub use schema::{ArgumentError, Arguments, Schema};
