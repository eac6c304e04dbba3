//! MCP content for a person: text as it is, everything else described.

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::exit::{Exit, Failure};
use super::render::{Out, plain, size};

/// A content block, or a resource's contents, read leniently: what is unknown is described as such.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Block {
    #[serde(rename = "type")]
    pub kind: String,
    pub text: Option<String>,
    pub data: Option<String>,
    pub blob: Option<String>,
    pub mime_type: Option<String>,
    pub uri: Option<String>,
    pub name: Option<String>,
    pub resource: Option<Box<Self>>,
}

/// `CallToolResult`, as far as it is shown.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ToolResult {
    #[serde(default)]
    pub content: Vec<Block>,
    pub structured_content: Option<Box<RawValue>>,
    #[serde(default)]
    pub is_error: bool,
}

/// Reads a result of the server.
///
/// # Errors
/// It is of another shape.
pub fn read<'a, T: Deserialize<'a>>(result: &'a RawValue) -> Result<T, Failure> {
    serde_json::from_str(result.get()).map_err(|cause| {
        Failure::new(
            Exit::Protocol,
            format!("the server's result cannot be read: {cause}"),
        )
        .with_hint("`--json` prints it as it is")
    })
}

impl Block {
    /// Prints it.
    ///
    /// # Errors
    /// stdout cannot be written.
    pub fn show(&self, out: &mut Out) -> Result<(), Failure> {
        if let Some(inner) = &self.resource {
            return inner.show(out);
        }
        match &self.text {
            Some(text) => out.foreign(text),
            None => out.line(&self.describe()),
        }
    }

    /// `image/png, 12.3 KiB`, for what cannot be printed.
    #[must_use]
    pub fn describe(&self) -> String {
        let mime = self.mime_type.as_deref().map(plain);
        let uri = self.uri.as_deref().map(plain);
        let of = uri
            .as_ref()
            .map_or_else(String::new, |uri| format!(" of {uri}"));
        if let Some(base64) = self.data.as_ref().or(self.blob.as_ref()) {
            let mime = mime.unwrap_or_else(|| "bytes of unknown type".to_owned());
            return format!("[{mime}, {}{of}]", size(decoded(base64)));
        }
        match (self.kind.as_str(), uri) {
            ("resource_link", Some(uri)) => {
                let name = self
                    .name
                    .as_deref()
                    .map_or_else(String::new, |name| format!(" ({})", plain(name)));
                format!("[link to {uri}{name}]")
            }
            (kind, _) => format!("[content of type `{}`]", plain(kind)),
        }
    }

    /// Text, or decoded bytes.
    ///
    /// # Errors
    /// Not base64.
    pub fn bytes(&self) -> Result<Vec<u8>, Failure> {
        use base64::Engine;
        match (&self.text, &self.blob) {
            (Some(text), _) => Ok(text.clone().into_bytes()),
            (None, Some(blob)) => base64::engine::general_purpose::STANDARD
                .decode(blob)
                .map_err(|cause| {
                    Failure::new(
                        Exit::Protocol,
                        format!("the server's blob is not base64: {cause}"),
                    )
                }),
            (None, None) => Ok(Vec::new()),
        }
    }
}

impl ToolResult {
    /// Prints the content, or the structured content where there is no other.
    ///
    /// # Errors
    /// stdout cannot be written.
    pub fn show(&self, out: &mut Out) -> Result<(), Failure> {
        for block in &self.content {
            block.show(out)?;
        }
        match &self.structured_content {
            Some(structured) if self.content.is_empty() => out.foreign(&pretty(structured)),
            _ => Ok(()),
        }
    }

    /// What a failed tool says: its text on one line each.
    #[must_use]
    pub fn complaint(&self) -> String {
        let lines: Vec<String> = self
            .content
            .iter()
            .filter_map(|block| block.text.as_deref().map(plain))
            .collect();
        match (lines.is_empty(), &self.structured_content) {
            (false, _) => lines.join("\n"),
            (true, Some(structured)) => plain(structured.get()),
            (true, None) => "the tool failed and says nothing".to_owned(),
        }
    }
}

/// The members of a JSON object in the order in which they were written.
#[derive(Debug, Default)]
pub struct Members(pub Vec<(String, serde_json::Value)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Members;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

fn pretty(raw: &RawValue) -> String {
    serde_json::from_str::<serde_json::Value>(raw.get())
        .and_then(|value| serde_json::to_string_pretty(&value))
        .unwrap_or_else(|_| raw.get().to_owned())
}

/// How many bytes some base64 stands for.
fn decoded(base64: &str) -> u64 {
    let padding = base64
        .bytes()
        .rev()
        .take(2)
        .take_while(|byte| *byte == b'=')
        .count();
    (base64.len() as u64 / 4 * 3).saturating_sub(padding as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn block(value: serde_json::Value) -> Block {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn describes_what_is_no_text() {
        let image = block(json!({"type": "image", "data": "AAAAAAA=", "mimeType": "image/png"}));
        assert_eq!(image.describe(), "[image/png, 5 bytes]");
        let blob = block(json!({"uri": "file:///x", "blob": "AAAA"}));
        assert_eq!(
            blob.describe(),
            "[bytes of unknown type, 3 bytes of file:///x]"
        );
        assert_eq!(blob.bytes().unwrap(), [0, 0, 0]);
        let link = block(json!({"type": "resource_link", "uri": "file:///x", "name": "x\u{1b}"}));
        assert_eq!(link.describe(), "[link to file:///x (x)]");
        assert_eq!(
            block(json!({"type": "hologram"})).describe(),
            "[content of type `hologram`]"
        );
    }

    #[test]
    fn keeps_members_in_order() {
        let Members(members) = serde_json::from_str(r#"{"z":1,"a":[2]}"#).unwrap();
        assert_eq!(
            members,
            [("z".to_owned(), json!(1)), ("a".to_owned(), json!([2]))]
        );
        assert!(serde_json::from_str::<Members>("[]").is_err());
    }
}
