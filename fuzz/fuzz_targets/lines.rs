//! The line codec: the same lines however the bytes are cut, and a bounded buffer.
//!
//! The first byte says how to cut the rest, the second how long a line may be.
#![no_main]
#![allow(
    dead_code,
    unused_imports,
    reason = "a whole module is included for a part of it"
)]

use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;

#[path = "../../src/framing/mod.rs"]
mod framing;

use framing::Lines;

/// The lines before the end or before the first that is too long, and whether there was one.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    lines: Vec<Vec<u8>>,
    too_long: bool,
}

fn decoded<'a>(chunks: impl Iterator<Item = &'a [u8]>, max: usize) -> Outcome {
    let mut codec = Lines::new(max);
    let mut buffer = BytesMut::new();
    let mut lines: Vec<Bytes> = Vec::new();
    let mut too_long = false;
    'feed: for chunk in chunks {
        buffer.extend_from_slice(chunk);
        loop {
            match codec.next(&mut buffer) {
                Ok(Some(line)) => lines.push(line),
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(error.max, max);
                    too_long = true;
                    break 'feed;
                }
            }
        }
        // A byte-order mark and the carriage return before a line feed that has yet to come.
        assert!(
            buffer.len() <= max + 4,
            "{} bytes are kept for a line of at most {max}",
            buffer.len()
        );
    }
    if !too_long {
        match codec.last(&mut buffer) {
            Ok(line) => lines.extend(line),
            Err(_) => too_long = true,
        }
    }
    Outcome {
        lines: lines.iter().map(|line| line.to_vec()).collect(),
        too_long,
    }
}

/// The framing as the words of the contract say it.
fn by_the_book(text: &[u8], max: usize) -> Outcome {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let mut lines = Vec::new();
    for line in text.split(|byte| *byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.len() > max {
            return Outcome {
                lines,
                too_long: true,
            };
        }
        if line.iter().any(|byte| !b" \t".contains(byte)) {
            lines.push(line.to_vec());
        }
    }
    Outcome {
        lines,
        too_long: false,
    }
}

fuzz_target!(|input: &[u8]| {
    let [cut, max, text @ ..] = input else { return };
    let max = usize::from(*max).max(1);
    let expected = by_the_book(text, max);
    assert_eq!(
        decoded(std::iter::once(text), max),
        expected,
        "in one piece"
    );
    let size = usize::from(*cut % 16) + 1;
    assert_eq!(
        decoded(text.chunks(size), max),
        expected,
        "in pieces of {size}"
    );
    for line in &expected.lines {
        assert!(!line.contains(&b'\n') && line.len() <= max);
    }
});
