//! What a handler offers, asked for page by page and read into our own words. Members that we have
//! no word for (`icons`, `_meta`) are carried as they are.

use std::sync::Arc;

use rmcp::ServerHandler;
use rmcp::model::{ErrorCode, ErrorData, PaginatedRequestParams};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::backend::offer::{
    Annotations, Prompt, PromptArgument, Resource, ResourceTemplate, Tool,
};
use crate::backend::schema::Schema;

use super::standing::Standing;

/// Elements that a list may have.
const MOST: usize = 10_000;
/// Pages that a list may take.
const PAGES: usize = 1_000;

/// Asks one of the handler's lists through: what is on it, as JSON objects.
macro_rules! every_page {
    ($handler:expr, $standing:expr, $list:ident, $items:ident) => {{
        let mut all = Vec::new();
        let mut cursor = None;
        for page in 0.. {
            let params = PaginatedRequestParams::default().with_cursor(cursor.take());
            let listed = $handler.$list(Some(params), $standing.context()).await;
            let listed = match listed {
                Ok(listed) => listed,
                Err(error) if error.code == ErrorCode::METHOD_NOT_FOUND => break,
                Err(error) => return Err(error),
            };
            all.extend(listed.$items.iter().map(object));
            cursor = listed.next_cursor;
            if cursor.is_none() {
                break;
            }
            if all.len() > MOST || page >= PAGES {
                return Err(too_long());
            }
        }
        all
    }};
}

type Object = Map<String, Value>;

fn object(one: &impl Serialize) -> Object {
    match serde_json::to_value(one) {
        Ok(Value::Object(members)) => members,
        _ => Object::new(),
    }
}

fn too_long() -> ErrorData {
    let why = format!("a list is longer than {MOST} elements or {PAGES} pages");
    ErrorData::internal_error(why, None)
}

/// Every tool; a message names one whose schema cannot be checked against.
pub async fn tools<H: ServerHandler>(
    handler: &H,
    standing: &Standing<H>,
) -> Result<Vec<Result<Tool, String>>, ErrorData> {
    let all = every_page!(handler, standing, list_tools, tools);
    Ok(all.into_iter().map(tool).collect())
}

/// Every prompt.
pub async fn prompts<H: ServerHandler>(
    handler: &H,
    standing: &Standing<H>,
) -> Result<Vec<Prompt>, ErrorData> {
    let all = every_page!(handler, standing, list_prompts, prompts);
    Ok(all.into_iter().map(prompt).collect())
}

/// Every template.
pub async fn templates<H: ServerHandler>(
    handler: &H,
    standing: &Standing<H>,
) -> Result<Vec<ResourceTemplate>, ErrorData> {
    let all = every_page!(
        handler,
        standing,
        list_resource_templates,
        resource_templates
    );
    let template = |mut one: Object| ResourceTemplate {
        uri_template: text(&mut one, "uriTemplate").unwrap_or_default(),
        name: text(&mut one, "name").unwrap_or_default(),
        title: text(&mut one, "title"),
        description: text(&mut one, "description"),
        mime_type: text(&mut one, "mimeType"),
        more: rest(&one),
    };
    Ok(all.into_iter().map(template).collect())
}

/// Every resource, by its URI.
pub async fn resources<H: ServerHandler>(
    handler: &H,
    standing: &Standing<H>,
) -> Result<Vec<Resource>, ErrorData> {
    let all = every_page!(handler, standing, list_resources, resources);
    let resource = |mut one: Object| Resource {
        uri: text(&mut one, "uri").unwrap_or_default(),
        name: text(&mut one, "name").unwrap_or_default(),
        title: text(&mut one, "title"),
        description: text(&mut one, "description"),
        mime_type: text(&mut one, "mimeType"),
        size: one.remove("size").and_then(|size| size.as_u64()),
        last_modified: None,
        more: rest(&one),
    };
    let mut all: Vec<_> = all.into_iter().map(resource).collect();
    all.sort_by(|one, other| one.uri.cmp(&other.uri));
    all.dedup_by(|one, other| one.uri == other.uri);
    Ok(all)
}

fn text(one: &mut Object, key: &str) -> Option<String> {
    match one.remove(key) {
        Some(Value::String(text)) => Some(text),
        _ => None,
    }
}

/// What is left of an object, as members.
fn rest(one: &Object) -> String {
    let members: Vec<_> = one
        .iter()
        .map(|(key, value)| format!("{}:{value}", Value::from(key.as_str())))
        .collect();
    members.join(",")
}

fn tool(mut one: Object) -> Result<Tool, String> {
    let name = text(&mut one, "name").unwrap_or_default();
    let input = one.remove("inputSchema").unwrap_or_default().to_string();
    let input = Schema::new(&input).map_err(|why| format!("tool `{name}`: {why}"))?;
    let description = text(&mut one, "description").unwrap_or_default();
    let mut tool = Tool::new(&name, &description, Arc::new(input));
    let hints = one.remove("annotations").unwrap_or_default();
    let shown = hints["title"].as_str().map(str::to_owned);
    tool.title = text(&mut one, "title").or(shown);
    tool.output = one.remove("outputSchema").map(|schema| schema.to_string());
    let hint = |key: &str, otherwise| hints[key].as_bool().unwrap_or(otherwise);
    let worst = Annotations::default();
    tool.annotations = Annotations {
        read_only: hint("readOnlyHint", worst.read_only),
        destructive: hint("destructiveHint", worst.destructive),
        idempotent: hint("idempotentHint", worst.idempotent),
        open_world: hint("openWorldHint", worst.open_world),
    };
    tool.more = rest(&one);
    Ok(tool)
}

fn prompt(mut one: Object) -> Prompt {
    let argument = |one: &Value| {
        let text = |key: &str| one[key].as_str().map(str::to_owned);
        PromptArgument {
            name: text("name").unwrap_or_default(),
            title: text("title"),
            description: text("description"),
            required: one["required"].as_bool().unwrap_or_default(),
        }
    };
    let arguments = one.remove("arguments").unwrap_or_default();
    Prompt {
        name: text(&mut one, "name").unwrap_or_default(),
        title: text(&mut one, "title"),
        description: text(&mut one, "description"),
        arguments: arguments
            .as_array()
            .map(|all| all.iter().map(argument).collect())
            .unwrap_or_default(),
        more: rest(&one),
    }
}
