//! The envelope scan against serde_json: the same JSON is valid, and the same members are found.
#![no_main]
#![allow(
    dead_code,
    unused_imports,
    reason = "a whole module is included for a part of it"
)]

use libfuzzer_sys::fuzz_target;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

#[path = "../../src/jsonrpc/mod.rs"]
mod jsonrpc;

use jsonrpc::{
    Fault, Message, Outline, fields, scan_into, slots, string_value, write_string,
};

const MAX_DEPTH: usize = 12;

/// The members of an object as another parser sees them, duplicates included.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de> serde::Deserialize<'de> for Members<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Walk;
        impl<'de> Visitor<'de> for Walk {
            type Value = Members<'de>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut all = Vec::new();
                while let Some(member) = map.next_entry()? {
                    all.push(member);
                }
                Ok(Members(all))
            }
        }
        deserializer.deserialize_map(Walk)
    }
}

fn is_json(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok_and(|text| serde_json::from_str::<IgnoredAny>(text).is_ok())
}

/// The deepest nesting of brackets outside strings.
fn depth(bytes: &[u8]) -> usize {
    let (mut depth, mut most, mut string, mut escaped) = (0usize, 0, false, false);
    for byte in bytes {
        match (string, byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (true, b'"') => string = false,
            (true, _) => {}
            (false, b'"') => string = true,
            (false, b'{' | b'[') => {
                depth += 1;
                most = most.max(depth);
            }
            (false, b'}' | b']') => depth = depth.saturating_sub(1),
            (false, _) => {}
        }
    }
    most
}

fn same_members(raw: &[u8], expected: &[(String, &RawValue)]) {
    let seen: Vec<_> = fields(raw)
        .expect("the scan said that this is an object")
        .collect();
    assert_eq!(seen.len(), expected.len(), "as many members");
    for (seen, (key, value)) in seen.into_iter().zip(expected) {
        let (seen_key, seen_value) = seen.expect("serde_json could read the key");
        assert_eq!(seen_key, *key);
        assert_eq!(seen_value, value.get().as_bytes(), "value of `{key}`");
    }
}

/// What the scan noted on its way is what a walk finds.
fn same_slots(outline: &Outline<'_>, params: &[u8]) {
    let names = ["_meta", "name", "arguments", "uri"];
    let walked = slots(params, &names);
    assert_eq!(outline.slots(params, &names), walked);
    if let Ok([Some(meta), ..]) = walked {
        let names = ["io.modelcontextprotocol/protocolVersion", "progressToken", "a"];
        assert_eq!(outline.slots(meta, &names), slots(meta, &names));
    }
}

fn judge(bytes: &[u8]) {
    let mut outline = Outline::default();
    let scanned = scan_into(bytes, MAX_DEPTH, &mut outline);
    match &scanned {
        Ok(_) => {
            assert!(is_json(bytes), "accepted what is no JSON");
            assert!(depth(bytes) <= MAX_DEPTH, "accepted what is too deep");
        }
        Err(error) => match error.fault {
            Fault::NotJson(at) => {
                assert!(at <= bytes.len());
                assert!(!is_json(bytes), "JSON was taken for none");
            }
            Fault::TooDeep(limit) => {
                assert_eq!(limit, MAX_DEPTH);
                assert!(depth(bytes) > MAX_DEPTH, "not too deep at all");
            }
            _ => assert!(is_json(bytes), "{:?} about what is no JSON", error.fault),
        },
    }

    let text = std::str::from_utf8(bytes).ok();
    let Some(Members(members)) = text.and_then(|text| serde_json::from_str(text).ok()) else {
        return;
    };
    let all = |name: &str| {
        members
            .iter()
            .filter(|(key, _)| key == name)
            .map(|(_, value)| value.get())
            .collect::<Vec<_>>()
    };
    let one = |name: &str| -> Option<&str> {
        let found = all(name);
        assert!(
            found.len() <= 1,
            "`{name}` stands {} times and was accepted",
            found.len()
        );
        found.first().copied()
    };
    let raw = |slice: Option<&[u8]>, name: &str| {
        assert_eq!(slice, one(name).map(str::as_bytes), "`{name}`");
    };
    match scanned {
        Ok(Message::Request { id, method, params }) => {
            raw(Some(id.raw()), "id");
            raw(params, "params");
            assert_eq!(
                serde_json::from_str::<String>(one("method").expect("has a method"))
                    .ok()
                    .as_deref(),
                Some(&*method)
            );
            if let Some(params) = params {
                let text = std::str::from_utf8(params).expect("was checked");
                if let Ok(Members(inner)) = serde_json::from_str(text) {
                    same_members(params, &inner);
                }
                same_slots(&outline, params);
            }
        }
        Ok(Message::Notification { method, params }) => {
            assert_eq!(one("id"), None, "a request was taken for a notification");
            raw(params, "params");
            assert_eq!(
                serde_json::from_str::<String>(one("method").expect("has a method"))
                    .ok()
                    .as_deref(),
                Some(&*method)
            );
        }
        Ok(Message::Response { id, result, error }) => {
            assert_eq!(one("method"), None, "a request was taken for a response");
            raw(result, "result");
            raw(error, "error");
            if let Some(id) = id {
                raw(Some(id.raw()), "id");
            }
        }
        Err(error) => {
            // The id of a refusal is the id of the message, and never a guess between two.
            if let Some(id) = error.id {
                let found = all("id");
                assert_eq!(found.len(), 1, "an id was chosen among {}", found.len());
                assert_eq!(id, found[0].as_bytes());
            }
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    judge(bytes);
    if let Ok(text) = std::str::from_utf8(bytes) {
        let mut written = Vec::new();
        write_string(&mut written, text);
        assert_eq!(
            string_value(&written).as_deref(),
            Some(text),
            "a string is written as it is read"
        );
        assert_eq!(
            serde_json::from_slice::<String>(&written).ok().as_deref(),
            Some(text)
        );
        assert!(!written.contains(&b'\n'), "a line feed would cut the line");
    }
});
