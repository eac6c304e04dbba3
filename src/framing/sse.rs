//! Server-sent events on their way out (WHATWG HTML, section 9.2), as MCP uses them: one message, one
//! `data:` line. The messages themselves hold no line breaks.

/// A comment that keeps a quiet stream open; readers ignore it.
pub const KEEP_ALIVE: &[u8] = b": keep-alive\n\n";

/// Appends one message as an event, with an id where it can be asked for again.
pub fn write_event(out: &mut Vec<u8>, id: Option<&str>, message: &[u8]) {
    out.reserve(message.len() + 48);
    write_id(out, id);
    out.extend_from_slice(b"data: ");
    out.extend_from_slice(message);
    out.extend_from_slice(b"\n\n");
}

/// Appends the event without a message that gives a reader an id to resume by and the time to wait
/// before it does, milliseconds.
pub fn write_priming(out: &mut Vec<u8>, id: &str, retry_ms: u64) {
    write_id(out, Some(id));
    out.extend_from_slice(format!("retry: {retry_ms}\ndata: \n\n").as_bytes());
}

fn write_id(out: &mut Vec<u8>, id: Option<&str>) {
    if let Some(id) = id {
        out.extend_from_slice(b"id: ");
        out.extend_from_slice(id.as_bytes());
        out.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_written_as_readers_split_them() {
        let mut out = Vec::new();
        write_priming(&mut out, "1-0", 500);
        write_event(&mut out, Some("1-1"), b"{}");
        write_event(&mut out, None, b"[]");
        let text = "id: 1-0\nretry: 500\ndata: \n\nid: 1-1\ndata: {}\n\ndata: []\n\n";
        assert_eq!(String::from_utf8(out).unwrap(), text);
        assert!(KEEP_ALIVE.starts_with(b":") && KEEP_ALIVE.ends_with(b"\n\n"));
    }
}
