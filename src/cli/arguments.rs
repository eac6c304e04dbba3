//! `key=value` and `key:=json` on the command line.
//!
//! A value is a string unless it is written with `:=`. The tool's schema is not asked: that would
//! cost another round trip, and would make one command line mean different things on two servers.

use std::collections::HashSet;
use std::io::Read;

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use super::exit::Failure;

/// The most that is read from stdin, in bytes: what a message may be.
const LARGEST: u64 = 16 * 1024 * 1024;

/// Arguments in the order in which they were typed.
#[derive(Debug, Default)]
pub struct Given {
    entries: Vec<(String, Box<RawValue>)>,
    /// Keys whose value was written with `=`.
    strings: Vec<String>,
}

impl Given {
    /// # Errors
    /// No key, no `=`, a key twice, or no JSON after `:=`.
    pub fn parse(words: &[String]) -> Result<Self, Failure> {
        let mut given = Self::default();
        let mut seen = HashSet::new();
        for word in words {
            let (key, value) = word.split_once('=').ok_or_else(|| {
                Failure::usage(format!("`{word}` is not an argument"))
                    .with_hint("write `key=text`, or `key:=json` for a number, a boolean, an array or an object")
            })?;
            let (key, raw) = match key.strip_suffix(':') {
                Some(key) => (key, json(key, value)?),
                None => {
                    given.strings.push(key.to_owned());
                    (key, string(value))
                }
            };
            if key.is_empty() {
                return Err(Failure::usage(format!("`{word}` has no key")));
            }
            if !seen.insert(key.to_owned()) {
                return Err(
                    Failure::usage(format!("the argument `{key}` is given twice"))
                        .with_hint("for a list write it once, as `key:=[…]`"),
                );
            }
            given.entries.push((key.to_owned(), raw));
        }
        Ok(given)
    }

    /// As one JSON object, each value as it was written.
    #[must_use]
    pub fn object(&self) -> Box<RawValue> {
        serde_json::value::to_raw_value(self).expect("keys are strings and values are JSON")
    }

    /// Whether there is no argument at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The hint for a tool's complaint about types, where a string may be the reason.
    #[must_use]
    pub fn hint(&self, complaint: &str) -> Option<String> {
        const TYPES: [&str; 6] = ["integer", "number", "boolean", "array", "object", "null"];
        let typed = TYPES.iter().any(|kind| complaint.contains(kind));
        let key = self
            .strings
            .iter()
            .find(|key| complaint.contains(key.as_str()))?;
        typed.then(|| {
            format!("`{key}=…` sends a string; write `{key}:=…` for a number, a boolean, an array or an object")
        })
    }
}

impl Serialize for Given {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.entries.iter().map(|(key, value)| (key, value)))
    }
}

/// The whole arguments from `--args-json`: JSON, or `-` for stdin.
///
/// # Errors
/// Not a JSON object, or more than 16 MiB.
pub fn whole(text: &str) -> Result<Box<RawValue>, Failure> {
    let mut read = String::new();
    let text = if text == "-" {
        let taken = std::io::stdin().take(LARGEST + 1).read_to_string(&mut read);
        taken.map_err(|cause| {
            Failure::usage(format!("cannot read the arguments from stdin: {cause}"))
        })?;
        if read.len() as u64 > LARGEST {
            return Err(Failure::usage(
                "the arguments on stdin are longer than 16 MiB",
            ));
        }
        read.trim()
    } else {
        text.trim()
    };
    let raw = RawValue::from_string(text.to_owned())
        .map_err(|cause| Failure::usage(format!("`--args-json` is not JSON: {cause}")))?;
    if raw.get().starts_with('{') {
        Ok(raw)
    } else {
        Err(Failure::usage("`--args-json` is not a JSON object")
            .with_hint("write `{\"key\": value}`"))
    }
}

fn string(value: &str) -> Box<RawValue> {
    serde_json::value::to_raw_value(value).expect("a string can always be written as JSON")
}

fn json(key: &str, value: &str) -> Result<Box<RawValue>, Failure> {
    RawValue::from_string(value.trim().to_owned()).map_err(|cause| {
        Failure::usage(format!("the value of `{key}` is not JSON: {cause}"))
            .with_hint(format!("write `{key}=…` for a string; `:=` takes JSON"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(words: &[&str]) -> Result<String, Failure> {
        let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
        Given::parse(&words).map(|given| given.object().get().to_owned())
    }

    #[test]
    fn a_value_is_a_string_unless_it_is_written_as_json() {
        assert_eq!(object(&[]).unwrap(), "{}");
        assert_eq!(
            object(&[
                "path=a=b",
                "n:=1.50",
                "on:=true",
                "s=5",
                "q=say \"hi\"",
                "list:=[1, 2]",
                "empty="
            ])
            .unwrap(),
            r#"{"path":"a=b","n":1.50,"on":true,"s":"5","q":"say \"hi\"","list":[1, 2],"empty":""}"#
        );
    }

    #[test]
    fn says_what_is_wrong_with_an_argument() {
        for (words, part) in [
            (&["path"][..], "`path` is not an argument"),
            (&["=x"], "has no key"),
            (&[":=1"], "has no key"),
            (&["a=1", "a:=2"], "given twice"),
            (&["n:=abc"], "the value of `n` is not JSON"),
        ] {
            let message = object(words).unwrap_err().message().unwrap().to_owned();
            assert!(message.contains(part), "{message}");
        }
        assert!(whole("{\"a\": 1}").is_ok());
        for text in ["[1]", "1", "{", "{} {}"] {
            assert_eq!(
                whole(text).unwrap_err().exit(),
                super::super::exit::Exit::Usage,
                "{text}"
            );
        }
    }

    #[test]
    fn hints_only_at_an_argument_that_was_sent_as_a_string() {
        let words = ["limit=5".to_owned(), "deep:=1".to_owned()];
        let given = Given::parse(&words).unwrap();
        assert!(
            given
                .hint("`/limit`: \"5\" is not of type \"integer\"")
                .unwrap()
                .contains("`limit:=…`")
        );
        assert_eq!(given.hint("`/deep`: 1 is not of type \"boolean\""), None);
        assert_eq!(given.hint("`/limit` is too long"), None);
    }
}
