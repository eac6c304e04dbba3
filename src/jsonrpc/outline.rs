//! Where the members of `params` and of its `_meta` stand: noted by the scan on its way, so that
//! nobody walks over a request a second time to find the few members that it is judged by.

use super::object::{ObjectError, put, slots};

/// Members of one object that are noted. Requests have fewer; one that has more is walked over.
const MOST: usize = 8;

/// Filled by [`scan_into`](super::scan_into) for one message.
#[derive(Debug, Default)]
pub struct Outline<'a> {
    pub(super) params: Noted<'a>,
    pub(super) meta: Noted<'a>,
}

impl<'a> Outline<'a> {
    /// As [`slots`], of an object that may or may not have been noted.
    ///
    /// # Errors
    /// As there.
    pub fn slots<const N: usize>(
        &self,
        raw: &'a [u8],
        names: &[&str; N],
    ) -> Result<[Option<&'a [u8]>; N], ObjectError> {
        for noted in [&self.params, &self.meta] {
            // The same bytes in the same place, not bytes that are equal: of two `_meta` the last
            // one is noted.
            if noted.usable && std::ptr::eq(noted.whole, raw) {
                return noted.slots(names);
            }
        }
        slots(raw, names)
    }
}

/// The members of one object.
#[derive(Debug, Default)]
pub(super) struct Noted<'a> {
    whole: &'a [u8],
    members: [(&'a [u8], &'a [u8]); MOST],
    count: usize,
    /// It was read to its end, there was room for all, and each key says what stands there.
    usable: bool,
}

impl<'a> Noted<'a> {
    /// Another object begins, in place of what was noted before.
    pub(super) fn begin(&mut self) {
        self.count = 0;
        self.usable = true;
    }

    /// One member; no key where it is written with escapes.
    pub(super) fn put(&mut self, key: Option<&'a [u8]>, value: &'a [u8]) {
        match (key, self.members.get_mut(self.count)) {
            (Some(key), Some(place)) => {
                *place = (key, value);
                self.count += 1;
            }
            _ => self.usable = false,
        }
    }

    /// All of it was `whole`.
    pub(super) fn end(&mut self, whole: &'a [u8]) {
        self.whole = whole;
    }

    fn slots<const N: usize>(
        &self,
        names: &[&str; N],
    ) -> Result<[Option<&'a [u8]>; N], ObjectError> {
        let mut slots = [None; N];
        for (key, value) in &self.members[..self.count] {
            put(&mut slots, names, key, value)?;
        }
        Ok(slots)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Message, scan_into};
    use super::*;

    const PARAMS: [&str; 4] = ["name", "arguments", "_meta", "cursor"];
    const META: [&str; 3] = ["io.modelcontextprotocol/protocolVersion", "a", "b"];

    fn noted(outline: &Outline<'_>, raw: &[u8]) -> bool {
        [&outline.params, &outline.meta]
            .iter()
            .any(|noted| noted.usable && std::ptr::eq(noted.whole, raw))
    }

    /// Whether the outline says of `params` and `_meta` what a walk says; and whether both were noted.
    fn agree(message: &str) -> (bool, bool) {
        let mut outline = Outline::default();
        let Ok(Message::Request { params, .. }) = scan_into(message.as_bytes(), 16, &mut outline)
        else {
            panic!("{message}")
        };
        let Some(params) = params else {
            return (true, false);
        };
        let (here, walked) = (outline.slots(params, &PARAMS), slots(params, &PARAMS));
        let Ok([.., Some(meta), _]) = here else {
            return (here == walked, false);
        };
        let same = here == walked && outline.slots(meta, &META) == slots(meta, &META);
        (same, noted(&outline, params) && noted(&outline, meta))
    }

    fn request(params: &str) -> String {
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call",{params}}}"#)
    }

    #[test]
    fn says_what_a_walk_says() {
        let usual = r#""params": { "name":"x","arguments":{"a":"}"}, "_meta":{"a":1,"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}"#;
        assert_eq!(agree(&request(usual)), (true, true));
        for (params, both) in [
            (r#""params":{}"#, false),
            (r#""params":{"_meta":{}}"#, true),
            (r#""params":{"_meta":[],"name":7}"#, false),
            // Twice, also in disguise.
            (r#""params":{"name":"x","name":"y","_meta":{}}"#, false),
            (r#""params":{"_meta":{"a":1},"_meta":{"a":2}}"#, false),
            (r#""params":{"_meta":{"a":1},"\u005fmeta":{"a":2}}"#, false),
            (r#""params":{"\u005fmeta":{"a":1}}"#, false),
            (r#""params":{"n\u0061me":"x","_meta":{"a":1}}"#, false),
            (r#""params":{"name":"x","_meta":{"\u0061":1,"b":2}}"#, false),
            (r#""params":{"name":"x","_meta":{"a":1,"a":2}}"#, true),
            (r#""p\u0061rams":{"name":"x","_meta":{"a":1}}"#, false),
            (r#""params":{"name":"x\n","_meta":{"a":"\ud83d"}}"#, true),
            (r#""params":{"\ud83d":1,"_meta":{}}"#, false),
        ] {
            assert_eq!(agree(&request(params)), (true, both), "{params}");
        }
        // More than are noted.
        for count in [MOST, MOST + 1] {
            let many: Vec<_> = (0..count).map(|n| format!(r#""k{n}":{n}"#)).collect();
            let meta = format!(r#""params":{{"_meta":{{{}}}}}"#, many.join(","));
            assert_eq!(agree(&request(&meta)), (true, count == MOST));
            let params = format!(r#""params":{{{},"_meta":{{}}}}"#, many[1..].join(","));
            assert_eq!(agree(&request(&params)), (true, count == MOST));
        }
    }

    #[test]
    fn what_another_message_says_is_not_taken_for_it() {
        let mut outline = Outline::default();
        let one = request(r#""params":{"name":"x"}"#);
        scan_into(one.as_bytes(), 16, &mut outline).unwrap();
        let equal = br#"{"name":"x"}"#.to_vec();
        assert!(!noted(&outline, &equal));
        assert_eq!(outline.slots(&equal, &["name"]), Ok([Some(&br#""x""#[..])]));
    }
}
