//! What a provider offers, as it is listed: tools, prompts, resources, templates; and how each is
//! written as an element of its list.

use std::sync::Arc;

use crate::clock::UnixTime;
use crate::grant::Kind;

use super::encode;
use super::schema::Schema;

/// A tool as it is listed.
#[derive(Clone, Debug)]
pub struct Tool {
    /// 1 to 128 of `A-Z a-z 0-9 _ - .`; the catalogue puts `<provider>__` before it.
    pub name: String,
    /// For people.
    pub title: Option<String>,
    /// For models.
    pub description: String,
    /// Checked before the tool runs.
    pub input: Arc<Schema>,
    /// JSON Schema of `structuredContent`, raw JSON of an object.
    pub output: Option<String>,
    /// `readOnlyHint`, `destructiveHint`, `idempotentHint`, `openWorldHint`, honestly.
    pub annotations: Annotations,
    /// What the caller needs beside the grant of the tool itself, each of them: `admin:status` is
    /// `(Kind::Admin, "status")`. Without them the tool is neither listed nor called.
    pub requires: Vec<(Kind, String)>,
    /// Further members as raw JSON without braces (`"icons":[…],"_meta":{…}`); empty for none.
    pub more: String,
}

/// MCP `ToolAnnotations`. The default is the specification's: a tool may destroy something in an
/// open world unless it says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Annotations {
    /// It changes nothing.
    pub read_only: bool,
    /// It may overwrite or delete; means nothing for one that only reads.
    pub destructive: bool,
    /// Calling it again with the same arguments changes nothing more.
    pub idempotent: bool,
    /// It reaches beyond this server (the web, other people).
    pub open_world: bool,
}

/// A resource as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// What `resources/read` takes.
    pub uri: String,
    /// For programs.
    pub name: String,
    /// For people.
    pub title: Option<String>,
    /// For models.
    pub description: Option<String>,
    /// `text/plain` and the like.
    pub mime_type: Option<String>,
    /// In bytes, before any encoding.
    pub size: Option<u64>,
    /// `annotations.lastModified`.
    pub last_modified: Option<UnixTime>,
    /// Further members as raw JSON without braces (`"icons":[…],"_meta":{…}`); empty for none.
    pub more: String,
}

/// A resource template (RFC 6570).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceTemplate {
    /// `file:///srv/docs/{+path}`.
    pub uri_template: String,
    /// For programs.
    pub name: String,
    /// For people.
    pub title: Option<String>,
    /// For models.
    pub description: Option<String>,
    /// Where all that it makes are of one type.
    pub mime_type: Option<String>,
    /// Further members as raw JSON without braces (`"icons":[…],"_meta":{…}`); empty for none.
    pub more: String,
}

/// A prompt as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// As a tool's name.
    pub name: String,
    /// For people.
    pub title: Option<String>,
    /// For models.
    pub description: Option<String>,
    /// In the order in which people fill them in.
    pub arguments: Vec<PromptArgument>,
    /// Further members as raw JSON without braces (`"icons":[…],"_meta":{…}`); empty for none.
    pub more: String,
}

/// One argument of a prompt; its value is always a string on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PromptArgument {
    /// Its key.
    pub name: String,
    /// For people.
    pub title: Option<String>,
    /// For models.
    pub description: Option<String>,
    /// Without it there is no prompt.
    pub required: bool,
}

/// One page of a listing that may be long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// In order.
    pub items: Vec<T>,
    /// The last item's key, to be given back as `after`; none on the last page.
    pub next: Option<String>,
}

/// `completion/complete`'s result: at most 100 values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Completion {
    /// Best first.
    pub values: Vec<String>,
    /// How many there are, where it is known.
    pub total: Option<u64>,
    /// Whether there are more than these.
    pub has_more: bool,
}

impl Default for Annotations {
    fn default() -> Self {
        Self {
            read_only: false,
            destructive: true,
            idempotent: false,
            open_world: true,
        }
    }
}

impl Annotations {
    /// Reads from what this server itself holds.
    pub const READ_ONLY: Self = Self {
        read_only: true,
        destructive: false,
        idempotent: true,
        open_world: false,
    };
}

impl Tool {
    /// A tool with the annotations that assume the worst, no output schema and no further needs.
    #[must_use]
    pub fn new(name: &str, description: &str, input: Arc<Schema>) -> Self {
        Self {
            name: name.to_owned(),
            title: None,
            description: description.to_owned(),
            input,
            output: None,
            annotations: Annotations::default(),
            requires: Vec::new(),
            more: String::new(),
        }
    }

    /// Appends the element of `tools/list` under the name that the caller knows it by.
    pub fn encode(&self, name: &str, out: &mut Vec<u8>) {
        out.push(b'{');
        encode::member(out, "name", name);
        encode::optional(out, "title", self.title.as_deref());
        encode::member(out, "description", &self.description);
        encode::key(out, "inputSchema");
        encode::raw_json(out, self.input.text().as_bytes());
        if let Some(output) = &self.output {
            encode::key(out, "outputSchema");
            encode::raw_json(out, output.as_bytes());
        }
        encode::key(out, "annotations");
        self.annotations.encode(out);
        encode::members(out, &self.more);
        out.push(b'}');
    }
}

impl Annotations {
    fn encode(self, out: &mut Vec<u8>) {
        out.push(b'{');
        for (name, value) in [
            ("readOnlyHint", self.read_only),
            ("destructiveHint", self.destructive),
            ("idempotentHint", self.idempotent),
            ("openWorldHint", self.open_world),
        ] {
            encode::key(out, name);
            encode::boolean(out, value);
        }
        out.push(b'}');
    }
}

impl Resource {
    /// Appends the element of `resources/list`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(b'{');
        encode::member(out, "uri", &self.uri);
        encode::member(out, "name", &self.name);
        encode::optional(out, "title", self.title.as_deref());
        encode::optional(out, "description", self.description.as_deref());
        encode::optional(out, "mimeType", self.mime_type.as_deref());
        if let Some(size) = self.size {
            encode::key(out, "size");
            encode::number(out, size);
        }
        if let Some(modified) = self.last_modified {
            encode::key(out, "annotations");
            out.push(b'{');
            encode::member(out, "lastModified", &modified.to_string());
            out.push(b'}');
        }
        encode::members(out, &self.more);
        out.push(b'}');
    }
}

impl ResourceTemplate {
    /// Appends the element of `resources/templates/list`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(b'{');
        encode::member(out, "uriTemplate", &self.uri_template);
        encode::member(out, "name", &self.name);
        encode::optional(out, "title", self.title.as_deref());
        encode::optional(out, "description", self.description.as_deref());
        encode::optional(out, "mimeType", self.mime_type.as_deref());
        encode::members(out, &self.more);
        out.push(b'}');
    }
}

impl Prompt {
    /// Appends the element of `prompts/list` under the name that the caller knows it by.
    pub fn encode(&self, name: &str, out: &mut Vec<u8>) {
        out.push(b'{');
        encode::member(out, "name", name);
        encode::optional(out, "title", self.title.as_deref());
        encode::optional(out, "description", self.description.as_deref());
        encode::key(out, "arguments");
        out.push(b'[');
        for (index, argument) in self.arguments.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            argument.encode(out);
        }
        out.push(b']');
        encode::members(out, &self.more);
        out.push(b'}');
    }
}

impl PromptArgument {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(b'{');
        encode::member(out, "name", &self.name);
        encode::optional(out, "title", self.title.as_deref());
        encode::optional(out, "description", self.description.as_deref());
        encode::key(out, "required");
        encode::boolean(out, self.required);
        out.push(b'}');
    }
}

impl Completion {
    /// The first 100 of these values, in their order.
    #[must_use]
    pub fn of(mut values: Vec<String>) -> Self {
        let total = values.len();
        values.truncate(100);
        Self {
            has_more: total > values.len(),
            total: u64::try_from(total).ok(),
            values,
        }
    }

    /// Appends `"completion":{…}`.
    pub fn encode_members(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"\"completion\":{\"values\":[");
        for (index, value) in self.values.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            encode::json_string(out, value);
        }
        out.push(b']');
        if let Some(total) = self.total {
            encode::key(out, "total");
            encode::number(out, total);
        }
        encode::key(out, "hasMore");
        encode::boolean(out, self.has_more);
        out.push(b'}');
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn value(write: impl Fn(&mut Vec<u8>)) -> Value {
        let mut out = Vec::new();
        write(&mut out);
        serde_json::from_slice(&out).unwrap()
    }

    #[test]
    fn list_elements_are_written_as_the_schema_says() {
        let mut tool = Tool::new("t", "says \"t\"", Arc::new(Schema::empty()));
        tool.annotations = Annotations::READ_ONLY;
        tool.output = Some("{\"type\":\n\"object\"}".into());
        assert_eq!(
            value(|out| tool.encode("p__t", out)),
            json!({"name": "p__t", "description": "says \"t\"",
                "inputSchema": {"type": "object", "additionalProperties": false},
                "outputSchema": {"type": "object"},
                "annotations": {"readOnlyHint": true, "destructiveHint": false,
                    "idempotentHint": true, "openWorldHint": false}})
        );
        let resource = Resource {
            uri: "u:1".into(),
            name: "n".into(),
            title: Some("T".into()),
            description: None,
            mime_type: Some("text/plain".into()),
            size: Some(12),
            last_modified: Some(UnixTime(0)),
            more: "\"icons\":[\n]".into(),
        };
        assert_eq!(
            value(|out| resource.encode(out)),
            json!({"uri": "u:1", "name": "n", "title": "T", "mimeType": "text/plain", "size": 12,
                "annotations": {"lastModified": "1970-01-01T00:00:00Z"}, "icons": []})
        );
        let template = ResourceTemplate {
            uri_template: "u:{x}".into(),
            name: "n".into(),
            title: None,
            description: Some("d".into()),
            mime_type: None,
            more: String::new(),
        };
        assert_eq!(
            value(|out| template.encode(out)),
            json!({"uriTemplate": "u:{x}", "name": "n", "description": "d"})
        );
        let argument = |name: &str| PromptArgument {
            name: name.into(),
            title: None,
            description: None,
            required: name == "a",
        };
        let prompt = Prompt {
            name: "p".into(),
            title: None,
            description: Some("d".into()),
            arguments: vec![argument("a"), argument("b")],
            more: String::new(),
        };
        assert_eq!(
            value(|out| prompt.encode("x__p", out)),
            json!({"name": "x__p", "description": "d", "arguments": [
                {"name": "a", "required": true}, {"name": "b", "required": false}]})
        );
        let completion = Completion::of((0..101).map(|n| n.to_string()).collect());
        let written = value(|out| {
            out.push(b'{');
            completion.encode_members(out);
            out.push(b'}');
        });
        assert_eq!(
            written["completion"]["values"].as_array().unwrap().len(),
            100
        );
        assert_eq!(written["completion"]["hasMore"], json!(true));
        assert_eq!(written["completion"]["total"], json!(101));
    }
}
