//! What the tests of this folder share: a peer, calls, and a disk that can run full.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::clock::UnixTime;
use crate::grant::{Kind, WrittenGrants};
use crate::identity::{Fingerprint, Name};
use crate::peer::{Agreed, Chain, Layer, Mode, Peer, Source};
use crate::policy::{Action, Ask, Denied, Grounds, Permitted, Policy, decide};

use super::event::ConnectionFacts;
use super::verify::{Report, verify_files};
use super::writer::{Sink, Syncer};

pub(super) fn agreed() -> Agreed {
    Agreed {
        version: "TLSv1.3",
        suite: "TLS13_AES_128_GCM_SHA256",
        group: "x25519",
        resumed: false,
    }
}

/// A peer that may use every tool, and nothing else.
pub(super) fn peer() -> Peer {
    let fingerprint = Fingerprint::of_der(b"reader");
    let grants = WrittenGrants::parse(&["tools:*"]).unwrap();
    let chain = Chain {
        name: Name::new("spiffe://countersign.internal/reader").unwrap(),
        fingerprint,
        serial: String::from("00ff"),
        issuers: Vec::new(),
        anchor: "own".into(),
        mode: Mode::Pinned,
        not_before: UnixTime(0),
        not_after: UnixTime::MAX,
        layers: vec![Layer {
            source: Source::Certificate(String::from("reader")),
            grants: Arc::new(grants),
        }],
        leaf_carries_grants: true,
    };
    Peer::admitted(Arc::new(chain), agreed(), "127.0.0.1:4433".parse().unwrap())
}

pub(super) fn facts(connection: u64) -> ConnectionFacts {
    ConnectionFacts::new(&peer(), connection, "raw")
}

#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) kind: Kind,
    pub(super) target: String,
    pub(super) id: String,
    pub(super) arguments: Option<Vec<u8>>,
}

impl Call {
    pub(super) fn tool(target: &str, id: u64) -> Self {
        let arguments = Some(b"{\"path\":\"a\"}".to_vec());
        Self {
            kind: Kind::Tools,
            target: target.to_owned(),
            id: id.to_string(),
            arguments,
        }
    }
}

impl Ask for Call {
    fn action(&self) -> Action<'_> {
        Action::Use(self.kind, &self.target)
    }
    fn method(&self) -> &str {
        "tools/call"
    }
    fn target(&self) -> &str {
        &self.target
    }
    fn request_id(&self) -> &[u8] {
        self.id.as_bytes()
    }
    fn arguments(&self) -> Option<&[u8]> {
        self.arguments.as_deref()
    }
    fn revision(&self) -> &'static str {
        "2026-07-28"
    }
}

pub(super) fn permit(call: Call) -> Permitted<Call> {
    decide(&Grounds::compile(&Policy::default(), &peer(), None), call).unwrap()
}

pub(super) fn permit_tool(id: u64) -> Permitted<Call> {
    permit(Call::tool("files__read_file", id))
}

pub(super) fn deny(target: &str, id: u64) -> Box<Denied<Call>> {
    let call = Call {
        kind: Kind::Prompts,
        ..Call::tool(target, id)
    };
    decide(&Grounds::compile(&Policy::default(), &peer(), None), call).unwrap_err()
}

/// The records of a file as JSON.
pub(super) fn records(path: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Whatever the records of these files say, the chain must hold.
#[track_caller]
pub(super) fn assert_intact<P: AsRef<Path>>(files: &[P]) -> Report {
    let report = verify_files(files).unwrap();
    assert!(report.intact(), "{report:#?}");
    report
}

/// A disk in memory.
#[derive(Clone, Default)]
pub(super) struct Disk(Arc<Mutex<DiskState>>);

#[derive(Default)]
pub(super) struct DiskState {
    pub(super) file: Vec<u8>,
    pub(super) rotated: Vec<Vec<u8>>,
    /// Bytes that still fit; none: endless.
    pub(super) room: Option<usize>,
    pub(super) cut_fails: bool,
    pub(super) rotate_fails: bool,
    pub(super) attempts: usize,
}

impl Disk {
    pub(super) fn state(&self) -> MutexGuard<'_, DiskState> {
        self.0.lock().unwrap()
    }

    /// Checks the chain of everything that is written, and returns it as JSON.
    #[track_caller]
    pub(super) fn intact(&self) -> Vec<serde_json::Value> {
        let dir = tempfile::tempdir().unwrap();
        let state = self.state();
        let mut files = Vec::new();
        let mut all = Vec::new();
        for (n, bytes) in state.rotated.iter().chain([&state.file]).enumerate() {
            let path = dir.path().join(n.to_string());
            std::fs::write(&path, bytes).unwrap();
            all.extend(records(&path));
            files.push(path);
        }
        drop(state);
        assert_intact(&files);
        all
    }
}

impl Sink for Disk {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        state.attempts += 1;
        match state.room {
            Some(room) if room < bytes.len() => {
                state.file.extend_from_slice(&bytes[..room]);
                state.room = Some(0);
                Err(io::ErrorKind::StorageFull.into())
            }
            room => {
                state.room = room.map(|room| room - bytes.len());
                state.file.extend_from_slice(bytes);
                Ok(())
            }
        }
    }

    fn cut_back(&mut self, len: u64) -> io::Result<()> {
        let mut state = self.state();
        if state.cut_fails {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        state.file.truncate(usize::try_from(len).unwrap());
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        let mut state = self.state();
        if state.rotate_fails {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let file = std::mem::take(&mut state.file);
        state.rotated.push(file);
        Ok(())
    }

    fn syncer(&self) -> io::Result<Syncer> {
        Ok(Box::new(|| Ok(())))
    }
}
