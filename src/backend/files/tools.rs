//! What the tools are called, take, give and promise.

use std::sync::Arc;

use serde_json::{Value, json};

use super::super::{Annotations, Schema, Tool};
use super::options::FilesOptions;

/// `write_file`: replaces a file as a whole, so twice is as good as once.
const WRITES: Annotations = Annotations {
    read_only: false,
    destructive: true,
    idempotent: true,
    open_world: false,
};
/// `delete_file`: a second time is an error.
const DELETES: Annotations = Annotations {
    read_only: false,
    destructive: true,
    idempotent: false,
    open_world: false,
};

/// The tools of a folder.
///
/// # Errors
/// A schema does not compile: a mistake in this file, which the tests find.
pub fn tools(options: &FilesOptions) -> Result<Vec<Tool>, String> {
    let mut tools = vec![
        list_directory(options)?,
        read_file(options)?,
        search_files(options)?,
        file_info()?,
    ];
    if options.writable {
        tools.push(write_file(options)?);
        tools.push(delete_file()?);
    }
    Ok(tools)
}

fn tool(
    name: &str,
    title: &str,
    description: &str,
    (input, output): (Value, Value),
    annotations: Annotations,
) -> Result<Tool, String> {
    let schema = Schema::new(&input.to_string()).map_err(|e| format!("tool `{name}`: {e}"))?;
    let mut tool = Tool::new(name, description, Arc::new(schema));
    tool.title = Some(title.to_owned());
    tool.output = Some(output.to_string());
    tool.annotations = annotations;
    Ok(tool)
}

fn path(description: &str) -> Value {
    json!({"type": "string", "maxLength": 4096, "description": description})
}

fn encoding() -> Value {
    json!({"type": "string", "enum": ["text", "base64"], "default": "text",
        "description": "`text` for UTF-8, `base64` for any bytes."})
}

fn limit(options: &FilesOptions, what: &str) -> Value {
    json!({"type": "integer", "minimum": 1, "maximum": options.max_results,
        "default": options.max_results.min(200), "description": format!("The most {what}.")})
}

fn kind() -> Value {
    json!({"type": "string", "enum": ["file", "directory", "symlink", "other"]})
}

fn input(properties: Value, required: &[&str]) -> Value {
    json!({"type": "object", "properties": properties, "required": required,
        "additionalProperties": false})
}

fn output(properties: Value, required: &[&str]) -> Value {
    json!({"type": "object", "properties": properties, "required": required})
}

fn list_directory(options: &FilesOptions) -> Result<Tool, String> {
    let takes = input(
        json!({
            "path": path("The directory, relative to the folder. Default: the folder itself."),
            "limit": limit(options, "entries"),
            "after": {"type": "string", "description":
                "Go on behind this name: the `next` of the answer before."},
        }),
        &[],
    );
    let gives = output(
        json!({
            "path": {"type": "string"},
            "entries": {"type": "array", "items": output(json!({
                "name": {"type": "string"}, "type": kind(),
                "size": {"type": "integer", "description": "Bytes; files only."},
                "modified": {"type": "string", "format": "date-time"},
            }), &["name", "type"])},
            "next": {"type": "string", "description": "There is more; give this as `after`."},
        }),
        &["path", "entries"],
    );
    let text = "Lists a directory by name. Symbolic links are listed and not followed.";
    tool(
        "list_directory",
        "List directory",
        text,
        (takes, gives),
        Annotations::READ_ONLY,
    )
}

fn read_file(options: &FilesOptions) -> Result<Tool, String> {
    let most = options.max_read_bytes;
    let takes = input(
        json!({
            "path": path("The file, relative to the folder."),
            "offset": {"type": "integer", "minimum": 0, "maximum": (1_u64 << 53) - 1, "default": 0,
                "description": "First byte."},
            "length": {"type": "integer", "minimum": 1, "maximum": most, "default": most,
                "description": "The most bytes."},
            "encoding": encoding(),
        }),
        &["path"],
    );
    let gives = output(
        json!({
            "path": {"type": "string"},
            "size": {"type": "integer", "description": "Bytes of the whole file."},
            "offset": {"type": "integer"},
            "length": {"type": "integer", "description": "Bytes in this answer."},
            "truncated": {"type": "boolean", "description": "The file goes on behind them."},
            "encoding": {"type": "string", "enum": ["text", "base64"]},
            "content": {"type": "string"},
        }),
        &[
            "path",
            "size",
            "offset",
            "length",
            "truncated",
            "encoding",
            "content",
        ],
    );
    let text = format!(
        "Reads a file, or a range of its bytes, at most {most} bytes at a time. In text mode a \
         range ends before a character that it would cut; go on at `offset` + `length`."
    );
    tool(
        "read_file",
        "Read file",
        &text,
        (takes, gives),
        Annotations::READ_ONLY,
    )
}

fn search_files(options: &FilesOptions) -> Result<Tool, String> {
    let takes = input(
        json!({
            "path": path("Where to begin, relative to the folder. Default: the folder itself."),
            "glob": {"type": "string", "minLength": 1, "maxLength": 256, "description":
                "`*.md` is matched with names, `docs/**/*.md` with paths below the folder."},
            "content": {"type": "string", "minLength": 1, "maxLength": 1024, "pattern": "^[^\\n\\r]*$",
                "description": "Plain text to look for in the lines of each file."},
            "limit": limit(options, "matches"),
            "case_sensitive": {"type": "boolean", "default": true,
                "description": "For both, glob and content."},
        }),
        &[],
    );
    let gives = output(
        json!({
            "matches": {"type": "array", "items": output(json!({
                "path": {"type": "string"},
                "line": {"type": "integer", "description": "From 1; with `content` only."},
                "text": {"type": "string", "description": "The line, cut to 200 characters."},
            }), &["path"])},
            "files_searched": {"type": "integer"},
            "files_skipped": {"type": "integer",
                "description": "Too large, binary, or not readable."},
            "truncated": {"type": "boolean", "description": "There are more matches."},
        }),
        &["matches", "files_searched", "files_skipped", "truncated"],
    );
    let text = format!(
        "Finds regular files below a directory by a glob over names, by plain text in their \
         lines, or both. Files over {} bytes and binary ones are not looked into.",
        options.max_search_bytes
    );
    tool(
        "search_files",
        "Search files",
        &text,
        (takes, gives),
        Annotations::READ_ONLY,
    )
}

fn file_info() -> Result<Tool, String> {
    let takes = input(json!({"path": path("Relative to the folder.")}), &["path"]);
    let gives = output(
        json!({
            "path": {"type": "string"}, "type": kind(),
            "size": {"type": "integer", "description": "Bytes; files only."},
            "modified": {"type": "string", "format": "date-time"},
            "mime_type": {"type": "string"},
            "uri": {"type": "string", "description": "What `resources/read` takes; files only."},
        }),
        &["path", "type"],
    );
    let text = "Tells type, size, time of change and resource URI of a file or directory.";
    tool(
        "file_info",
        "File info",
        text,
        (takes, gives),
        Annotations::READ_ONLY,
    )
}

fn write_file(options: &FilesOptions) -> Result<Tool, String> {
    let takes = input(
        json!({
            "path": path("The file, relative to the folder."),
            "content": {"type": "string", "description": "The whole new content."},
            "encoding": encoding(),
            "create_directories": {"type": "boolean", "default": false,
                "description": "Make the directories that are missing."},
        }),
        &["path", "content"],
    );
    let gives = output(
        json!({
            "path": {"type": "string"},
            "bytes": {"type": "integer"},
            "created": {"type": "boolean", "description": "There was no such file before."},
            "uri": {"type": "string"},
        }),
        &["path", "bytes", "created", "uri"],
    );
    let text = format!(
        "Writes a whole file of at most {} bytes, atomically: readers see the old content or the \
         new. Replaces what is there.",
        options.max_write_bytes
    );
    tool("write_file", "Write file", &text, (takes, gives), WRITES)
}

fn delete_file() -> Result<Tool, String> {
    let takes = input(
        json!({"path": path("The file, relative to the folder.")}),
        &["path"],
    );
    let gives = output(
        json!({"path": {"type": "string"}, "deleted": {"type": "boolean"}}),
        &["path", "deleted"],
    );
    tool(
        "delete_file",
        "Delete file",
        "Deletes a regular file.",
        (takes, gives),
        DELETES,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tools_that_write_are_there_only_where_writing_is() {
        let names = |options: &FilesOptions| {
            tools(options)
                .unwrap()
                .into_iter()
                .map(|tool| tool.name)
                .collect::<Vec<_>>()
        };
        let mut options = FilesOptions::new("/srv/docs");
        let reading = ["list_directory", "read_file", "search_files", "file_info"];
        assert_eq!(names(&options), reading);
        options.writable = true;
        assert_eq!(
            names(&options),
            [&reading[..], &["write_file", "delete_file"]].concat()
        );
    }

    #[test]
    fn output_schemas_compile_and_annotations_are_honest() {
        let mut options = FilesOptions::new("/srv/docs");
        options.writable = true;
        for tool in tools(&options).unwrap() {
            Schema::new(tool.output.as_deref().unwrap()).unwrap();
            let writes = ["write_file", "delete_file"].contains(&tool.name.as_str());
            assert_eq!(tool.annotations.read_only, !writes, "{}", tool.name);
            assert_eq!(tool.annotations.destructive, writes, "{}", tool.name);
        }
    }
}
