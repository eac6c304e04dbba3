//! Refusals that hyper writes by itself, where a request's head cannot be read: they never reach the
//! handler, so the security headers are put into them on their way out.

use super::answer::security_lines;

/// How such an answer begins; one of ours has the headers already.
const BEGINS: &[u8] = b"HTTP/1.1 4";

/// The answer with the headers, if these bytes are one that hyper made.
pub fn completed(bytes: &[u8]) -> Option<Vec<u8>> {
    if !bytes.starts_with(BEGINS) {
        return None;
    }
    let text = std::str::from_utf8(bytes).ok()?;
    let (status, fields) = text.split_once("\r\n")?;
    let whole = text.ends_with("\r\n\r\n") && text.matches("\r\n\r\n").count() == 1;
    if !whole || fields.contains("x-content-type-options") {
        return None;
    }
    Some(format!("{status}\r\n{}{fields}", security_lines()).into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_has_no_headers_of_ours_is_completed() {
        let bare = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n";
        let text = String::from_utf8(completed(bare).unwrap()).unwrap();
        assert!(text.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{text}");
        assert!(text.ends_with("\r\ncontent-length: 0\r\n\r\n"), "{text}");
        assert_eq!(
            text.matches("x-content-type-options: nosniff\r\n").count(),
            1
        );
        assert!(completed(text.as_bytes()).is_none());
        for other in [
            &b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"[..],
            b"HTTP/1.1 400 Bad Request\r\ncontent-le",
            b"HTTP/1.1 400 Bad Request\r\ncontent-length: 2\r\n\r\n{}",
            b"{\"HTTP/1.1 4\":1}",
        ] {
            assert!(completed(other).is_none());
        }
    }
}
