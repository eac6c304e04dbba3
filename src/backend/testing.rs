//! What the tests of the providers share: a caller, and results read back.

use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::clock::UnixTime;
use crate::grant::WrittenGrants;
use crate::identity::{Fingerprint, Name};
use crate::peer::{Agreed, Chain, Layer, Mode, Peer, Source};
use crate::policy::{Grounds, Policy};

use super::provider::{Caller, Context, Note, Notes};

/// A context of a peer whose certificate grants this.
pub fn context(grants: &[&str]) -> Context {
    let name = "spiffe://countersign.internal/reader";
    let layer = Layer {
        source: Source::Certificate(name.to_owned()),
        grants: Arc::new(WrittenGrants::parse(grants).unwrap()),
    };
    let chain = Chain {
        name: Name::new(name).unwrap(),
        fingerprint: Fingerprint::of_der(b"reader"),
        serial: "0badcafe".to_owned(),
        issuers: vec![
            Fingerprint::of_der(b"issuing"),
            Fingerprint::of_der(b"root"),
        ],
        anchor: "own".into(),
        mode: Mode::Issued,
        not_before: UnixTime(0),
        not_after: UnixTime(2_000_000_000),
        layers: vec![layer],
        leaf_carries_grants: true,
    };
    let agreed = Agreed {
        version: "TLSv1.3",
        suite: "TLS13_AES_128_GCM_SHA256",
        group: "X25519",
        resumed: false,
    };
    let peer = Peer::admitted(Arc::new(chain), agreed, ([127, 0, 0, 1], 1).into());
    let grounds = Grounds::compile(&Policy::default(), &peer, None);
    Context::new(Arc::new(Caller::new(Arc::new(grounds))))
}

/// What `write` appends, as the members of an object.
pub fn members(write: impl Fn(&mut Vec<u8>)) -> Value {
    let mut out = b"{".to_vec();
    write(&mut out);
    out.push(b'}');
    assert!(!out.contains(&b'\n'), "a message is one line");
    serde_json::from_slice(&out).unwrap()
}

/// Notes as they came.
#[derive(Default)]
pub struct Heard(pub Mutex<Vec<Note>>);

impl Notes for Heard {
    fn note(&self, note: Note) {
        self.0.lock().unwrap().push(note);
    }
}
