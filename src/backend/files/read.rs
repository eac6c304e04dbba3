//! `list_directory`, `read_file`, `file_info`, and what `resources/read` reads.

use std::io::{Read as _, Seek as _, SeekFrom};

use bytes::Bytes;
use serde_json::json;

use super::super::{Body, ReadResult, ToolResult, encode};
use super::arguments::{Encoding, List, One, Read};
use super::entries;
use super::mime;
use super::options::FilesOptions;
use super::path::RelPath;
use super::root::{Facts, Kind, Refused, Root, refused};
use super::work::Halt;

pub fn list_directory(
    root: &Root,
    options: &FilesOptions,
    arguments: &List,
    halt: &Halt,
) -> Result<ToolResult, Refused> {
    let path = RelPath::parse(&arguments.path)?;
    let dir = root.directory(&path)?;
    let most = u64::from(options.max_results);
    let limit = arguments.limit.unwrap_or(200).min(most);
    let limit = usize::try_from(limit).unwrap_or(usize::MAX).max(1);
    let after = arguments.after.as_deref();
    let batch = entries::smallest(root, &dir, &path, limit, halt, |name, _| {
        after
            .is_none_or(|after| name > after)
            .then(|| name.to_owned())
    })?;
    let next = batch
        .more
        .then(|| batch.entries.last().map(|(key, ..)| key.clone()))
        .flatten();
    let mut out = Vec::with_capacity(64 + batch.entries.len() * 96);
    out.push(b'{');
    encode::member(&mut out, "path", &path.to_string());
    encode::key(&mut out, "entries");
    out.push(b'[');
    for (index, (name, _, kind)) in batch.entries.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        let facts = dir.symlink_metadata(name).ok().map(|meta| Facts::of(&meta));
        entry(&mut out, name, *kind, facts);
    }
    out.push(b']');
    encode::optional(&mut out, "next", next.as_deref());
    out.push(b'}');
    structured(&out)
}

fn entry(out: &mut Vec<u8>, name: &str, kind: Kind, facts: Option<Facts>) {
    out.push(b'{');
    encode::member(out, "name", name);
    encode::member(out, "type", kind.as_str());
    if let Some(facts) = facts.filter(|facts| facts.kind == Kind::File) {
        encode::key(out, "size");
        encode::number(out, facts.size);
    }
    let modified = facts
        .and_then(|facts| facts.modified)
        .map(|time| time.to_string());
    encode::optional(out, "modified", modified.as_deref());
    out.push(b'}');
}

pub fn file_info(root: &Root, arguments: &One) -> Result<ToolResult, Refused> {
    let path = RelPath::parse(&arguments.path)?;
    let facts = root.facts(&path)?;
    let mut out = vec![b'{'];
    encode::member(&mut out, "path", &path.to_string());
    encode::member(&mut out, "type", facts.kind.as_str());
    let modified = facts.modified.map(|time| time.to_string());
    encode::optional(&mut out, "modified", modified.as_deref());
    if facts.kind == Kind::File {
        encode::key(&mut out, "size");
        encode::number(&mut out, facts.size);
        encode::optional(&mut out, "mime_type", mime::by_name(path.name()));
        encode::member(&mut out, "uri", &root.uri(&path));
    }
    out.push(b'}');
    structured(&out)
}

fn structured(json: &[u8]) -> Result<ToolResult, Refused> {
    let text = std::str::from_utf8(json).map_err(|e| Refused::Other(e.to_string()))?;
    Ok(ToolResult::structured(text))
}

pub fn read_file(
    root: &Root,
    options: &FilesOptions,
    arguments: &Read,
) -> Result<ToolResult, Refused> {
    let path = RelPath::parse(&arguments.path)?;
    let offset = arguments.offset.unwrap_or(0);
    let most = options.max_read_bytes;
    let length = arguments.length.unwrap_or(most).min(most);
    let (bytes, size) = read_range(root, &path, offset, length)?;
    let got = bytes.len();
    let at_end = offset.saturating_add(got as u64) >= size;
    let mut content = Vec::with_capacity(got + got / 8 + 2);
    let used = match arguments.encoding {
        Encoding::Base64 => {
            encode::base64_string(&mut content, &bytes);
            got
        }
        Encoding::Text => {
            let text = text_of(&bytes, at_end).map_err(|why| why.told(&path, offset))?;
            encode::json_string(&mut content, text);
            text.len()
        }
    };
    let facts = json!({
        "path": path.to_string(), "size": size, "offset": offset, "length": used,
        "truncated": offset.saturating_add(used as u64) < size,
        "encoding": arguments.encoding.as_str(),
    });
    Ok(ToolResult::Encoded(written(&facts.to_string(), &content)))
}

/// The content is escaped once and copied twice: as the text block and into the structured
/// content, behind the other members.
fn written(facts: &str, content: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(content.len() * 2 + facts.len() + 96);
    out.extend_from_slice(b"\"content\":[{\"type\":\"text\",\"text\":");
    out.extend_from_slice(content);
    out.extend_from_slice(b"}],\"structuredContent\":");
    out.extend_from_slice(facts.trim_end_matches('}').as_bytes());
    out.extend_from_slice(b",\"content\":");
    out.extend_from_slice(content);
    out.push(b'}');
    out.into()
}

/// A whole file as a resource: text where it is UTF-8, else bytes.
pub fn resource(
    root: &Root,
    options: &FilesOptions,
    uri: &str,
    path: &RelPath,
) -> Result<ReadResult, Refused> {
    let most = options.max_read_bytes;
    let (bytes, size) = read_range(root, path, 0, most.saturating_add(1))?;
    if bytes.len() as u64 > most {
        return Err(Refused::Other(format!(
            "`{uri}` has {size} bytes, and a resource is read whole up to {most}: the tool \
             `read_file` reads ranges"
        )));
    }
    let known = mime::by_name(path.name());
    let (body, guess) = match String::from_utf8(bytes) {
        Ok(text) => (Body::Text(text), "text/plain"),
        Err(not_text) => (
            Body::Blob(Bytes::from(not_text.into_bytes())),
            "application/octet-stream",
        ),
    };
    Ok(ReadResult::one(
        uri,
        Some(known.unwrap_or(guess).to_owned()),
        body,
    ))
}

/// Bytes of a file, and the file's size.
fn read_range(
    root: &Root,
    path: &RelPath,
    offset: u64,
    length: u64,
) -> Result<(Vec<u8>, u64), Refused> {
    let (file, facts) = root.file(path)?;
    let mut file = file.into_std();
    let io = |cause| refused(path, cause);
    if offset > 0 {
        file.seek(SeekFrom::Start(offset)).map_err(io)?;
    }
    let expected = facts.size.saturating_sub(offset).min(length);
    let mut bytes = Vec::with_capacity(usize::try_from(expected).unwrap_or(0));
    file.take(length).read_to_end(&mut bytes).map_err(io)?;
    // A file that grows while it is read is larger than it was said to be.
    let size = facts.size.max(offset.saturating_add(bytes.len() as u64));
    let size = if offset > facts.size && bytes.is_empty() {
        facts.size
    } else {
        size
    };
    Ok((bytes, size))
}

/// Why bytes are no text.
#[derive(Debug, PartialEq, Eq)]
enum NotText {
    /// Not UTF-8, at this byte of the range.
    Invalid(usize),
    /// The range begins inside a character.
    Begins,
    /// The range is shorter than its first character.
    Short,
}

impl NotText {
    fn told(self, path: &RelPath, offset: u64) -> Refused {
        Refused::Other(match self {
            Self::Invalid(at) => format!(
                "`{path}` is not UTF-8 at byte {}: read it with `\"encoding\":\"base64\"`",
                offset.saturating_add(at as u64)
            ),
            Self::Begins => format!(
                "`offset` {offset} of `{path}` is inside a character: begin a byte or more \
                 earlier, or read it with `\"encoding\":\"base64\"`"
            ),
            Self::Short => format!(
                "`length` is less than the character at `offset` {offset} of `{path}`: give 4 or \
                 more"
            ),
        })
    }
}

/// The text of a range, less a character that its end cuts (unless the file itself ends there).
fn text_of(bytes: &[u8], at_end: bool) -> Result<&str, NotText> {
    let error = match std::str::from_utf8(bytes) {
        Ok(text) => return Ok(text),
        Err(error) => error,
    };
    let valid = error.valid_up_to();
    if error.error_len().is_some() || at_end {
        let continues = bytes.first().is_some_and(|byte| byte & 0xc0 == 0x80);
        return Err(if valid == 0 && continues {
            NotText::Begins
        } else {
            NotText::Invalid(valid)
        });
    }
    if valid == 0 {
        return Err(NotText::Short);
    }
    std::str::from_utf8(&bytes[..valid]).map_err(|_| NotText::Invalid(valid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_of_text_ends_at_a_character() {
        let text = "aé€🎉z";
        let bytes = text.as_bytes();
        for end in 0..=bytes.len() {
            let expected = (0..=end)
                .rev()
                .find(|at| text.is_char_boundary(*at))
                .unwrap();
            assert_eq!(
                text_of(&bytes[..end], false),
                Ok(&text[..expected]),
                "{end}"
            );
        }
        assert_eq!(text_of(&bytes[..2], true), Err(NotText::Invalid(1)));
        assert_eq!(text_of(&bytes[2..], false), Err(NotText::Begins));
        assert_eq!(text_of(&"🎉".as_bytes()[..3], false), Err(NotText::Short));
        assert_eq!(text_of(b"a\xffb", false), Err(NotText::Invalid(1)));
        assert_eq!(text_of(b"a\xff", false), Err(NotText::Invalid(1)));
    }
}
