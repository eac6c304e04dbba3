//! A provider out of closures: for a program that embeds this library and has a few tools.

use std::pin::Pin;
use std::sync::Arc;

use super::offer::Tool;
use super::provider::{Answer, Context, Provider};
use super::result::{Failure, ToolResult};
use super::schema::{Arguments, Schema};

type Running = Pin<Box<dyn Future<Output = Result<ToolResult, Failure>> + Send>>;
type Handler = Box<dyn Fn(Context, Arguments) -> Running + Send + Sync>;

/// Tools by name, each a closure.
///
/// ```
/// use countersign::backend::{Toolbox, ToolResult};
///
/// # fn main() -> Result<(), String> {
/// let schema = r#"{"type":"object","properties":{"name":{"type":"string"}},"required":["name"]}"#;
/// let tools = Toolbox::new().tool("greet", "Greets", schema, |context, arguments| async move {
///     #[derive(serde::Deserialize)]
///     struct Greet { name: String }
///     let Greet { name } = arguments.parse()?;
///     Ok(ToolResult::text(format!("hello {name}, says {}", context.caller.peer.name())))
/// })?;
/// # let _ = tools;
/// # Ok(())
/// # }
/// ```
#[derive(Default)]
pub struct Toolbox {
    tools: Vec<(Tool, Handler)>,
}

impl Toolbox {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a tool. `schema`: JSON Schema of its arguments, an object.
    ///
    /// # Errors
    /// The schema is not one, or the name is taken.
    pub fn tool<F, R>(
        self,
        name: &str,
        description: &str,
        schema: &str,
        run: F,
    ) -> Result<Self, String>
    where
        F: Fn(Context, Arguments) -> R + Send + Sync + 'static,
        R: Future<Output = Result<ToolResult, Failure>> + Send + 'static,
    {
        let schema = Schema::new(schema).map_err(|error| format!("tool `{name}`: {error}"))?;
        self.add(Tool::new(name, description, Arc::new(schema)), run)
    }

    /// Adds a tool with all that can be said of one.
    ///
    /// # Errors
    /// The name is taken.
    pub fn add<F, R>(mut self, tool: Tool, run: F) -> Result<Self, String>
    where
        F: Fn(Context, Arguments) -> R + Send + Sync + 'static,
        R: Future<Output = Result<ToolResult, Failure>> + Send + 'static,
    {
        if self.tools.iter().any(|(known, _)| known.name == tool.name) {
            return Err(format!("two tools are called `{}`", tool.name));
        }
        let handler: Handler =
            Box::new(move |context, arguments| Box::pin(run(context, arguments)));
        self.tools.push((tool, handler));
        Ok(self)
    }
}

impl Provider for Toolbox {
    fn tools(&self) -> Vec<Tool> {
        self.tools.iter().map(|(tool, _)| tool.clone()).collect()
    }

    fn call_tool(&self, context: Context, name: &str, arguments: Arguments) -> Answer<ToolResult> {
        match self.tools.iter().find(|(tool, _)| tool.name == name) {
            Some((_, handler)) => Answer::Later(handler(context, arguments)),
            None => Answer::Now(Err(Failure::NotFound)),
        }
    }
}
