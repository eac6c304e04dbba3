//! The first proof: a peer whose certificate was proven in this handshake and admitted.
//!
//! A `Peer` has private fields and one constructor, which only `tls` calls (the architecture test
//! looks). Whoever holds one need not ask again who is calling.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::clock::UnixTime;
use crate::grant::WrittenGrants;
use crate::identity::{Fingerprint, Name};

/// Where a layer of authority was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A certificate of the verified path, by its subject as people read it (name or CN).
    Certificate(String),
    /// The ceiling of an anchor in the configuration, by the anchor's name.
    Anchor(String),
    /// The pin in the registry (the leaf's, or that of the delegate that signed it).
    Pin(Fingerprint),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Certificate(subject) => write!(f, "certificate `{subject}`"),
            Self::Anchor(name) => write!(f, "anchor `{name}`"),
            Self::Pin(print) => write!(f, "pin {}", print.short()),
        }
    }
}

/// One thing that must allow a call: a certificate's extension or an anchor's ceiling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Where it was written.
    pub source: Source,
    /// What it allows; roles are resolved against the configuration in force.
    pub grants: Arc<WrittenGrants>,
}

/// How an anchor admits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A valid chain and a fingerprint in the registry.
    Pinned,
    /// A valid chain whose leaf carries the permission extension.
    Issued,
}

/// What a verified chain says. Made once for a chain and shared by all its connections.
#[derive(Debug)]
pub struct Chain {
    /// The peer's name, from the leaf.
    pub name: Name,
    /// The leaf's fingerprint.
    pub fingerprint: Fingerprint,
    /// The leaf's serial number, lower-case hex.
    pub serial: String,
    /// Fingerprints of the certificates above the leaf, nearest first, the anchor's last.
    pub issuers: Vec<Fingerprint>,
    /// The anchor's name in the configuration.
    pub anchor: Arc<str>,
    /// How that anchor admits.
    pub mode: Mode,
    /// The latest `notBefore` of the path.
    pub not_before: UnixTime,
    /// The earliest `notAfter` of the path, the leaf's own included.
    pub not_after: UnixTime,
    /// Every extension of the path, the leaf's first, then the anchor's ceiling.
    pub layers: Vec<Layer>,
    /// Whether the leaf itself carries the extension.
    pub leaf_carries_grants: bool,
}

/// One certificate of the verified path below the anchor, as a CRL names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The issuer's name, DER.
    pub issuer: Box<[u8]>,
    /// The serial number, the DER integer's content bytes.
    pub serial: Box<[u8]>,
}

/// What was agreed in the handshake, for the audit log and `whoami`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreed {
    /// `TLSv1.3` or `TLSv1.2`.
    pub version: &'static str,
    /// The cipher suite by its IANA name.
    pub suite: &'static str,
    /// The key exchange group by its IANA name; empty on a resumption without one.
    pub group: &'static str,
    /// Whether the session was resumed.
    pub resumed: bool,
}

/// A proven and admitted peer. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Peer(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    chain: Arc<Chain>,
    links: Arc<[Link]>,
    agreed: Agreed,
    address: SocketAddr,
}

impl Peer {
    /// Only `tls` may call this, after a handshake whose chain it verified and admitted.
    pub(crate) fn admitted(chain: Arc<Chain>, agreed: Agreed, address: SocketAddr) -> Self {
        Self(Arc::new(Inner {
            chain,
            links: Arc::default(),
            agreed,
            address,
        }))
    }

    /// Adds the verified path as CRLs name it; shared by all connections of one chain.
    pub(crate) fn on_path(mut self, links: Arc<[Link]>) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.0) {
            inner.links = links;
        }
        self
    }

    /// What the verified chain says.
    #[must_use]
    pub fn chain(&self) -> &Chain {
        &self.0.chain
    }

    /// The certificates of the verified path below the anchor, the leaf first, as CRLs name them.
    #[must_use]
    pub fn links(&self) -> &[Link] {
        &self.0.links
    }

    /// The name: what sessions, limits and audit are keyed by.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.0.chain.name
    }

    /// The leaf's fingerprint: what pins and revocation are keyed by.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.0.chain.fingerprint
    }

    /// What was agreed in the handshake.
    #[must_use]
    pub fn agreed(&self) -> Agreed {
        self.0.agreed
    }

    /// The address it came from.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.0.address
    }
}
