//! The envelope scan: one strict pass over a message that checks all of its JSON (RFC 8259) and
//! finds `id`, `method` and `params`.
//!
//! It refuses what two readers could understand differently: duplicate keys of the envelope, also
//! when one of them is written with escapes; ids that are not strings or integers; nesting beyond
//! the limit. It allocates nothing unless a key or a method is written with escapes.

use std::borrow::Cow;

use super::id::RequestId;
use super::object::{key_bytes, string_value};
use super::outline::Outline;
use super::plain::{plain, quote, survey};

/// A message, borrowed from its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message<'a> {
    /// Has an id and a method.
    Request {
        /// The id as it was written.
        id: RequestId<'a>,
        /// The method, unescaped.
        method: Cow<'a, str>,
        /// The bytes of `params`, where there are any.
        params: Option<&'a [u8]>,
    },
    /// Has a method and no id.
    Notification {
        /// The method, unescaped.
        method: Cow<'a, str>,
        /// The bytes of `params`, where there are any.
        params: Option<&'a [u8]>,
    },
    /// Has an id and a result or an error.
    Response {
        /// The id of the request; none where the peer could not read it.
        id: Option<RequestId<'a>>,
        /// The bytes of `result`.
        result: Option<&'a [u8]>,
        /// The bytes of `error`.
        error: Option<&'a [u8]>,
    },
}

/// What is wrong with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Not JSON, or not UTF-8: -32700.
    #[error("not JSON (byte {0})")]
    NotJson(usize),
    /// Deeper than the limit: -32600.
    #[error("nested deeper than {0} levels")]
    TooDeep(usize),
    /// An array: batches left the protocol with 2025-06-18. -32600.
    #[error("batches are not part of the revisions that are served here")]
    Batch,
    /// Neither object nor array: -32600.
    #[error("a message is a JSON object")]
    NotObject,
    /// A key of the envelope stands twice: -32600.
    #[error("`{0}` stands twice in the message")]
    DuplicateKey(&'static str),
    /// `jsonrpc` is missing or is not `"2.0"`: -32600.
    #[error("`jsonrpc` must be \"2.0\"")]
    Version,
    /// Null, a fraction, an object, too long: -32600.
    #[error("`id` must be a string or an integer of at most 256 bytes")]
    Id,
    /// Not a string: -32600.
    #[error("`method` must be a string")]
    Method,
    /// Not an object: -32600 (JSON-RPC allows arrays, MCP does not).
    #[error("`params` must be an object")]
    Params,
    /// Neither a method nor a result or error: -32600.
    #[error("the message has neither `method` nor `result` nor `error`")]
    Nothing,
}

/// A fault, with the id where one could be read before or after it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{fault}")]
pub struct ScanError {
    /// What is wrong.
    pub fault: Fault,
    /// The id's raw token, for the answer.
    pub id: Option<Vec<u8>>,
}

impl ScanError {
    /// The JSON-RPC code: -32700 or -32600.
    #[must_use]
    pub fn code(&self) -> i64 {
        match self.fault {
            Fault::NotJson(_) => super::reply::code::PARSE_ERROR,
            _ => super::reply::code::INVALID_REQUEST,
        }
    }
}

/// The envelope's members, as slices, while they are gathered.
#[derive(Default)]
struct Members<'a> {
    jsonrpc: Option<&'a [u8]>,
    id: Option<&'a [u8]>,
    method: Option<&'a [u8]>,
    params: Option<&'a [u8]>,
    result: Option<&'a [u8]>,
    error: Option<&'a [u8]>,
    duplicate: Option<&'static str>,
}

/// Reads one message. `max_depth` counts the envelope itself as level 1.
///
/// # Errors
/// [`ScanError`] with the id where it is readable, so that the answer can carry it.
pub fn scan(bytes: &[u8], max_depth: usize) -> Result<Message<'_>, ScanError> {
    scan_into(bytes, max_depth, &mut Outline::default())
}

/// The same, and notes on its way where the members of `params` stand: `outline` must be empty.
///
/// # Errors
/// As [`scan`].
pub fn scan_into<'a>(
    bytes: &'a [u8],
    max_depth: usize,
    outline: &mut Outline<'a>,
) -> Result<Message<'a>, ScanError> {
    let bare = |fault| ScanError { fault, id: None };
    // Nearly every message is plain ASCII, which is seen several times faster than UTF-8 is checked.
    let makeup = survey(bytes);
    if !makeup.ascii
        && let Err(error) = std::str::from_utf8(bytes)
    {
        return Err(bare(Fault::NotJson(error.valid_up_to())));
    }
    let mut reader = Reader {
        bytes,
        at: 0,
        max_depth,
        bare: makeup.bare,
        deep: false,
        members: Members::default(),
        outline,
    };
    let read = reader.message();
    match reader.judge(read) {
        Some(fault) => Err(bare(fault)),
        None => reader.members.judge(),
    }
}

impl<'a> Members<'a> {
    fn slot(&mut self, key: &[u8]) -> Option<(&mut Option<&'a [u8]>, &'static str)> {
        Some(match key {
            b"jsonrpc" => (&mut self.jsonrpc, "jsonrpc"),
            b"id" => (&mut self.id, "id"),
            b"method" => (&mut self.method, "method"),
            b"params" => (&mut self.params, "params"),
            b"result" => (&mut self.result, "result"),
            b"error" => (&mut self.error, "error"),
            _ => return None,
        })
    }

    fn put(&mut self, key: &[u8], value: &'a [u8]) {
        let Some((slot, name)) = self.slot(key) else {
            return;
        };
        // A doubled id is remembered above all: the answer must not choose between two.
        if slot.replace(value).is_some() && self.duplicate != Some("id") {
            self.duplicate = Some(name);
        }
    }

    /// Escapes in a key are legal, and the way to smuggle a second `method` past a reader that compares
    /// bytes. A key whose escapes stand for no character is none of ours.
    #[cold]
    fn put_escaped(&mut self, raw: &[u8], value: &'a [u8]) {
        if let Some(key) = key_bytes(raw) {
            self.put(&key, value);
        }
    }

    fn judge(self) -> Result<Message<'a>, ScanError> {
        let id = self.id.map(RequestId::read);
        // With a duplicated id nobody can say which one the answer belongs to.
        let known = match (&id, self.duplicate) {
            (Some(Some(id)), duplicate) if duplicate != Some("id") => Some(id.raw()),
            _ => None,
        };
        let fail = |fault| {
            Err(ScanError {
                fault,
                id: known.map(<[u8]>::to_vec),
            })
        };
        if let Some(name) = self.duplicate {
            return fail(Fault::DuplicateKey(name));
        }
        let version = |raw| raw == br#""2.0""# || string_value(raw).as_deref() == Some("2.0");
        if !self.jsonrpc.is_some_and(version) {
            return fail(Fault::Version);
        }
        let params = self.params;
        if let Some(method) = self.method {
            if params.is_some_and(|p| p.first() != Some(&b'{')) {
                return fail(Fault::Params);
            }
            let Some(method) = string_value(method) else {
                return fail(Fault::Method);
            };
            return match id {
                None => Ok(Message::Notification { method, params }),
                Some(Some(id)) => Ok(Message::Request { id, method, params }),
                Some(None) => fail(Fault::Id),
            };
        }
        if self.result.is_none() && self.error.is_none() {
            return fail(Fault::Nothing);
        }
        Ok(Message::Response {
            id: id.flatten(),
            result: self.result,
            error: self.error,
        })
    }
}

/// A strict reader that moves over JSON without building it. The bytes are UTF-8 already.
struct Reader<'a, 'o> {
    bytes: &'a [u8],
    at: usize,
    max_depth: usize,
    /// No control character and no backslash in any of it: a string ends at the next quote.
    bare: bool,
    /// Stopped because it is nested too deep.
    deep: bool,
    members: Members<'a>,
    outline: &'o mut Outline<'a>,
}

/// What the members of an object are to the message.
#[derive(Clone, Copy)]
enum Role {
    Envelope,
    Params,
    Meta,
    Other,
}

impl Role {
    /// Of an object that is the value of this key, as it was written.
    fn of_member(self, key: &[u8]) -> Self {
        match (self, key) {
            (Self::Envelope, br#""params""#) => Self::Params,
            (Self::Params, br#""_meta""#) => Self::Meta,
            _ => Self::Other,
        }
    }
}

/// Something is wrong at the place where the reader stands ([`Reader::judge`]). Without a word of its own:
/// what is handed up from each token must fit into a register.
#[derive(Debug)]
struct Stop;

/// What a message is by its first byte.
enum Kind {
    Object,
    Array,
    Other,
}

impl<'a> Reader<'a, '_> {
    /// All of it.
    fn message(&mut self) -> Result<Kind, Stop> {
        let kind = match self.next() {
            Some(b'{') => Kind::Object,
            Some(b'[') => Kind::Array,
            _ => Kind::Other,
        };
        if let Kind::Object = kind {
            self.object(1, Role::Envelope)?;
        } else {
            self.value(1)?;
        }
        match self.next() {
            None => Ok(kind),
            Some(_) => Err(Stop),
        }
    }

    /// What is wrong with what was read, by its form.
    fn judge(&self, read: Result<Kind, Stop>) -> Option<Fault> {
        match read {
            Ok(Kind::Object) => None,
            Ok(Kind::Array) => Some(Fault::Batch),
            Ok(Kind::Other) => Some(Fault::NotObject),
            Err(Stop) if self.deep => Some(Fault::TooDeep(self.max_depth)),
            Err(Stop) => Some(Fault::NotJson(self.at)),
        }
    }

    fn descend(&mut self, depth: usize) -> Result<(), Stop> {
        if depth > self.max_depth {
            self.deep = true;
            return Err(Stop);
        }
        Ok(())
    }

    #[inline]
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    /// The next byte that is not white space.
    #[inline]
    fn next(&mut self) -> Option<u8> {
        match self.peek() {
            Some(byte) if byte > b' ' => Some(byte),
            _ => self.behind_white(),
        }
    }

    #[cold]
    #[inline(never)]
    fn behind_white(&mut self) -> Option<u8> {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
        self.peek()
    }

    /// One object at `depth`, of which the brace was seen. One function for all of them, however deep: the
    /// code that is run for a message is what its reading costs.
    fn object(&mut self, depth: usize, role: Role) -> Result<(), Stop> {
        self.descend(depth)?;
        self.at += 1;
        let mut first = self.next();
        if first == Some(b'}') {
            self.at += 1;
            return Ok(());
        }
        loop {
            if first != Some(b'"') {
                return Err(Stop);
            }
            let from = self.at;
            let escaped = self.string()?;
            let raw = &self.bytes[from..self.at];
            if self.next() != Some(b':') {
                return Err(Stop);
            }
            self.at += 1;
            let first_of_value = self.next();
            let from = self.at;
            match first_of_value {
                Some(b'"') => drop(self.string()?),
                Some(b'{') => {
                    let inner = role.of_member(raw);
                    self.begin(inner);
                    self.object(depth + 1, inner)?;
                    self.end(inner, &self.bytes[from..self.at]);
                }
                _ => self.value(depth + 1)?,
            }
            self.put(role, Key { raw, escaped }, &self.bytes[from..self.at]);
            match self.next() {
                Some(b',') => {
                    self.at += 1;
                    first = self.next();
                }
                Some(b'}') => {
                    self.at += 1;
                    return Ok(());
                }
                _ => return Err(Stop),
            }
        }
    }

    /// An object is entered.
    fn begin(&mut self, role: Role) {
        match role {
            Role::Params => self.outline.params.begin(),
            Role::Meta => self.outline.meta.begin(),
            Role::Envelope | Role::Other => (),
        }
    }

    /// A member of an object was read.
    fn put(&mut self, role: Role, key: Key<'a>, value: &'a [u8]) {
        match role {
            Role::Envelope => match key.inner() {
                Some(text) => self.members.put(text, value),
                None => self.members.put_escaped(key.raw, value),
            },
            Role::Params => self.outline.params.put(key.inner(), value),
            Role::Meta => self.outline.meta.put(key.inner(), value),
            Role::Other => (),
        }
    }

    /// An object was read to its end.
    fn end(&mut self, role: Role, whole: &'a [u8]) {
        match role {
            Role::Params => self.outline.params.end(whole),
            Role::Meta => self.outline.meta.end(whole),
            Role::Envelope | Role::Other => (),
        }
    }

    fn array(&mut self, depth: usize) -> Result<(), Stop> {
        self.descend(depth)?;
        self.at += 1;
        if self.next() == Some(b']') {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.next();
            self.value(depth + 1)?;
            match self.next() {
                Some(b',') => self.at += 1,
                Some(b']') => {
                    self.at += 1;
                    return Ok(());
                }
                _ => return Err(Stop),
            }
        }
    }

    /// One value. The recursion is bounded by `max_depth`.
    fn value(&mut self, depth: usize) -> Result<(), Stop> {
        match self.peek() {
            Some(b'"') => self.string().map(drop),
            Some(b'{') => self.object(depth, Role::Other),
            Some(b'[') => self.array(depth),
            Some(b't') => self.literal(b"true"),
            Some(b'f') => self.literal(b"false"),
            Some(b'n') => self.literal(b"null"),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => Err(Stop),
        }
    }

    fn literal(&mut self, word: &[u8]) -> Result<(), Stop> {
        if !self.bytes[self.at..].starts_with(word) {
            return Err(Stop);
        }
        self.at += word.len();
        Ok(())
    }

    fn digits(&mut self) -> Result<(), Stop> {
        let from = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        if self.at == from { Err(Stop) } else { Ok(()) }
    }

    fn number(&mut self) -> Result<(), Stop> {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    /// One string, of which the first quote was seen; whether there is an escape in it.
    #[inline]
    fn string(&mut self) -> Result<bool, Stop> {
        self.at += 1;
        if !self.bare {
            return self.any_string();
        }
        match quote(self.bytes, self.at) {
            Some(end) => {
                self.at = end + 1;
                Ok(false)
            }
            None => {
                self.at = self.bytes.len();
                Err(Stop)
            }
        }
    }

    #[inline(never)]
    fn any_string(&mut self) -> Result<bool, Stop> {
        let mut escaped = false;
        loop {
            self.at += plain(&self.bytes[self.at..]);
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(escaped);
                }
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                _ => return Err(Stop),
            }
        }
    }

    fn escape(&mut self) -> Result<(), Stop> {
        self.at += 1;
        match self.peek() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 1,
            Some(b'u') => {
                self.at += 1;
                for _ in 0..4 {
                    if !self.peek().is_some_and(|byte| byte.is_ascii_hexdigit()) {
                        return Err(Stop);
                    }
                    self.at += 1;
                }
            }
            _ => return Err(Stop),
        }
        Ok(())
    }
}

/// A key as it was written, quotes included.
#[derive(Clone, Copy)]
struct Key<'a> {
    raw: &'a [u8],
    escaped: bool,
}

impl<'a> Key<'a> {
    /// What it says, where that is what stands there.
    fn inner(self) -> Option<&'a [u8]> {
        (!self.escaped).then(|| &self.raw[1..self.raw.len() - 1])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &str) -> Fault {
        scan(text.as_bytes(), 16).unwrap_err().fault
    }

    #[test]
    fn a_request_is_taken_apart() {
        let text = br#" {"jsonrpc":"2.0","id":"a-1","method":"tools\/call","params":{"name":"x"},"x":[1.5e-3]} "#;
        let Message::Request { id, method, params } = scan(text, 16).unwrap() else {
            panic!("not a request")
        };
        assert_eq!(id.raw(), br#""a-1""#);
        assert_eq!(method, "tools/call");
        assert_eq!(params, Some(&br#"{"name":"x"}"#[..]));
    }

    #[test]
    fn notifications_and_responses_are_told_apart() {
        let note = br#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
        assert!(matches!(
            scan(note, 16),
            Ok(Message::Notification { params: None, .. })
        ));
        let response = br#"{"jsonrpc":"2.0","id":3,"result":{}}"#;
        assert!(matches!(
            scan(response, 16),
            Ok(Message::Response { id: Some(_), .. })
        ));
    }

    #[test]
    fn a_key_that_stands_twice_is_refused_also_in_disguise() {
        let once = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
        assert!(scan(once.as_bytes(), 16).is_ok());
        let twice = r#"{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/call"}"#;
        assert_eq!(fault(twice), Fault::DuplicateKey("method"));
        let disguised = r#"{"jsonrpc":"2.0","id":1,"method":"ping","m\u0065thod":"tools/call"}"#;
        let error = scan(disguised.as_bytes(), 16).unwrap_err();
        assert_eq!(error.fault, Fault::DuplicateKey("method"));
        assert_eq!(error.id.as_deref(), Some(&b"1"[..]));
        let ids = r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}"#;
        assert_eq!(scan(ids.as_bytes(), 16).unwrap_err().id, None);
    }

    #[test]
    fn faults_are_named() {
        assert_eq!(fault("[]"), Fault::Batch);
        assert_eq!(fault("12"), Fault::NotObject);
        assert_eq!(fault(r#"{"id":1,"method":"a"}"#), Fault::Version);
        assert_eq!(
            fault(r#"{"jsonrpc":"2.0","id":null,"method":"a"}"#),
            Fault::Id
        );
        assert_eq!(
            fault(r#"{"jsonrpc":"2.0","id":1.5,"method":"a"}"#),
            Fault::Id
        );
        assert_eq!(
            fault(r#"{"jsonrpc":"2.0","id":1,"method":7}"#),
            Fault::Method
        );
        assert_eq!(
            fault(r#"{"jsonrpc":"2.0","id":1,"method":"a","params":[1]}"#),
            Fault::Params
        );
        assert_eq!(fault(r#"{"jsonrpc":"2.0","id":1}"#), Fault::Nothing);
        // The same limit wherever it is reached, also where the members are noted.
        for (before, after, arrays) in [
            (r#""params":{"a":"#, "}", 14),
            (r#""params":{"_meta":{"a":"#, "}}", 13),
            (r#""result":"#, "", 15),
        ] {
            let deep = format!(
                r#"{{"jsonrpc":"2.0","id":1,{}{before}{}1{}{after}}}"#,
                if before.contains("params") {
                    r#""method":"a","#
                } else {
                    ""
                },
                "[".repeat(arrays),
                "]".repeat(arrays)
            );
            assert!(scan(deep.as_bytes(), 16).is_ok(), "{deep}");
            assert_eq!(
                scan(deep.as_bytes(), 15).unwrap_err().fault,
                Fault::TooDeep(15)
            );
        }
    }

    /// The scan agrees with serde_json on what is JSON, for texts made by mutating a good one.
    #[test]
    fn agrees_with_serde_json_about_validity() {
        agrees(
            r#"{"jsonrpc":"2.0","id":12,"method":"tools/call","params":{"name":"a\n\u00e9\"b","n":[-0.5e+7,true,false,null,{}],"é":"ü€😀"}}"#,
        );
        // No backslash: another way of reading, unless a change brings one in.
        agrees(
            r#"{"jsonrpc":"2.0","id":12,"method":"ping","params":{"name":"a bc","n":[{"q":""}],"_meta":{"x":1}}}"#,
        );
    }

    fn agrees(seed: &str) {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        for _ in 0..20_000 {
            let mut bytes = seed.as_bytes().to_vec();
            for _ in 0..=next() % 3 {
                let at = usize::try_from(next()).unwrap() % bytes.len();
                match next() % 3 {
                    0 => bytes[at] = u8::try_from(next() % 256).unwrap(),
                    1 => drop(bytes.remove(at)),
                    _ => bytes.insert(
                        at,
                        br#"{}[],:"\e0-.u"#[usize::try_from(next() % 13).unwrap()],
                    ),
                }
            }
            // serde_json refuses lone surrogates and huge numbers in its own way only when it
            // decodes; as a raw value it checks the grammar alone, as the scan does.
            let theirs = serde_json::from_slice::<&serde_json::value::RawValue>(&bytes).is_ok();
            let ours = !matches!(
                scan(&bytes, 64),
                Err(ScanError {
                    fault: Fault::NotJson(_),
                    ..
                })
            );
            assert_eq!(ours, theirs, "{}", String::from_utf8_lossy(&bytes));
        }
    }
}
