//! The body of a decision record.

use crate::policy::{Ask, Denied};

use super::encode::{digest, field, name, peer_text, raw};
use super::event::ConnectionFacts;

/// What was decided on a call.
#[derive(Clone, Copy)]
pub(super) enum Verdict<'a> {
    Allowed,
    Denied {
        by: &'a str,
        missing: Option<&'a str>,
    },
}

impl<'a> Verdict<'a> {
    pub(super) fn of<C>(denied: &'a Denied<C>) -> Self {
        Self::Denied {
            by: &denied.by,
            missing: denied.missing.as_deref(),
        }
    }
}

/// The digest of `{}`.
const EMPTY: &[u8; 64] = b"44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";

/// What is kept of the arguments.
pub(super) enum Arguments<'a> {
    None,
    Digest([u8; 64]),
    Whole(&'a [u8]),
}

impl<'a> Arguments<'a> {
    /// Hashes or borrows: the arguments are never copied before they are written.
    pub(super) fn of(bytes: Option<&'a [u8]>, whole: bool) -> Self {
        match bytes {
            None => Self::None,
            Some(bytes) if whole => Self::Whole(bytes),
            // What a tool without arguments is given, call after call.
            Some(b"{}") => Self::Digest(*EMPTY),
            Some(bytes) => Self::Digest(super::chain::link(bytes)),
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::None => {}
            Self::Digest(hex) => {
                out.extend_from_slice(b",\"arguments_sha256\":\"");
                out.extend_from_slice(hex);
                out.push(b'"');
            }
            // Kept in step with the digest: whoever has the log can check either.
            Self::Whole(bytes) => {
                out.extend_from_slice(b",\"arguments\":");
                raw(out, bytes);
                name(out, "arguments_sha256");
                digest(out, bytes);
            }
        }
    }
}

/// Appends the body of a decision record.
pub(super) fn write<C: Ask>(
    out: &mut Vec<u8>,
    facts: &ConnectionFacts,
    call: &C,
    verdict: Verdict<'_>,
    arguments: &Arguments<'_>,
) {
    out.extend_from_slice(b",\"event\":\"decision\"");
    out.extend_from_slice(facts.json());
    peer_text(out, "method", call.method());
    let target = call.target();
    if !target.is_empty() {
        peer_text(out, "target", target);
    }
    match verdict {
        Verdict::Allowed => out.extend_from_slice(b",\"allowed\":true"),
        Verdict::Denied { by, missing } => {
            out.extend_from_slice(b",\"allowed\":false");
            field(out, "by", by);
            if let Some(missing) = missing {
                peer_text(out, "missing", missing);
            }
        }
    }
    field(out, "revision", call.revision());
    let id = call.request_id();
    if !id.is_empty() {
        out.extend_from_slice(b",\"request\":");
        raw(out, id);
    }
    arguments.write(out);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_of_nothing_is_right() {
        assert_eq!(*EMPTY, super::super::chain::link(b"{}"));
    }
}
