//! What is recorded.
//!
//! | event | says |
//! |---|---|
//! | `log_started`, `log_continued` | the first line of a file: of the first one, of every later one |
//! | `log_recovered` | a torn last line was set aside, or the log could not be written for a while |
//! | `server_started`, `server_stopped`, `reloaded` | the life of the process |
//! | `admitted`, `refused`, `closed` | connections |
//! | `registry_changed` | a pin, a revocation, an issuance that the server applied |
//! | `enrolled`, `crl_written` | what the CA's own server hands out and writes |
//! | `decision`, `outcome` | calls |

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::UnixTime;
use crate::identity::Fingerprint;
use crate::peer::{Agreed, Mode, Peer};

use super::encode::{field, int, name, number, peer_text};
use super::gather::Standing;

/// What every record of one connection says, encoded once for the connection. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ConnectionFacts {
    /// The fragment of every decision, and behind it what only the admission says.
    bytes: Arc<[u8]>,
    decision_len: usize,
    connection: u64,
}

impl ConnectionFacts {
    /// `connection`: the server's number for it; `transport`: `raw`, `websocket`, `http`.
    #[must_use]
    pub fn new(peer: &Peer, connection: u64, transport: &'static str) -> Self {
        let chain = peer.chain();
        let mut out = Vec::with_capacity(512);
        field(&mut out, "identity", chain.name.as_str());
        field(&mut out, "fingerprint", &chain.fingerprint.to_string());
        number(&mut out, "connection", connection);
        field(&mut out, "source", &peer.address().to_string());
        field(&mut out, "transport", transport);
        let decision_len = out.len();
        field(&mut out, "serial", &chain.serial);
        field(&mut out, "anchor", &chain.anchor);
        let mode = match chain.mode {
            Mode::Pinned => "pinned",
            Mode::Issued => "issued",
        };
        field(&mut out, "mode", mode);
        field(&mut out, "not_after", &chain.not_after.to_string());
        Self {
            bytes: out.into(),
            decision_len,
            connection,
        }
    }

    /// The fragment `,"identity":…,"fingerprint":…,"connection":…,"source":…,"transport":…`.
    #[must_use]
    pub fn json(&self) -> &[u8] {
        &self.bytes[..self.decision_len]
    }

    /// The server's number for the connection.
    #[must_use]
    pub const fn connection(&self) -> u64 {
        self.connection
    }
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A result.
    Ok,
    /// A result with `isError: true`.
    ToolError,
    /// A JSON-RPC error with this code.
    ProtocolError(i64),
    /// The peer cancelled it.
    Cancelled,
    /// The connection went before the answer.
    ConnectionClosed,
    /// Over a limit.
    RateLimited,
}

impl Outcome {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::ToolError => "tool_error",
            Self::ProtocolError(_) => "protocol_error",
            Self::Cancelled => "cancelled",
            Self::ConnectionClosed => "connection_closed",
            Self::RateLimited => "rate_limited",
        }
    }

    /// Appends the body of an outcome record.
    pub(super) fn write(self, out: &mut Vec<u8>, connection: u64, decision: u64, took: Duration) {
        out.extend_from_slice(b",\"event\":\"outcome\"");
        number(out, "decision", decision);
        number(out, "connection", connection);
        out.extend_from_slice(b",\"outcome\":\"");
        out.extend_from_slice(self.as_str().as_bytes());
        out.push(b'"');
        if let Self::ProtocolError(code) = self {
            name(out, "code");
            int(out, code);
        }
        number(out, "duration_us", micros(took));
    }
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

/// What is recorded besides decisions. Written before the call that it is about returns.
#[derive(Clone, Debug)]
pub enum Event<'a> {
    /// The server listens.
    ServerStarted {
        /// Of this program.
        version: &'a str,
        /// The address that it listens on.
        listen: &'a str,
    },
    /// The server is about to exit.
    ServerStopped {
        /// `signal`, an error's text.
        reason: &'a str,
    },
    /// A configuration, a certificate or a CRL was read again.
    Reloaded {
        /// Which.
        what: &'a str,
        /// Why the old state was kept.
        error: Option<&'a str>,
    },
    /// A peer was proven and admitted.
    Admitted {
        /// The connection.
        facts: &'a ConnectionFacts,
        /// What the handshake agreed on.
        agreed: Agreed,
    },
    /// A stranger was turned away. Every refusal is recorded; the bound on how many there can be
    /// is the listener's limit on handshakes.
    Refused {
        /// Where it came from.
        address: SocketAddr,
        /// The whole reason, which the stranger is not told.
        reason: &'a str,
        /// The class that the stranger was told.
        class: &'a str,
        /// The name of its certificate, if it got as far as showing one. Not proven.
        name: Option<&'a str>,
        /// The fingerprint of that certificate. Not proven.
        fingerprint: Option<Fingerprint>,
    },
    /// A certificate was issued and is in the registry; it leaves when this is written.
    Enrolled(&'a Enrolled<'a>),
    /// A CRL was written.
    CrlWritten {
        /// The file.
        path: &'a str,
        /// The CRL's number.
        number: u64,
        /// Certificates that it names.
        entries: usize,
        /// When the next is due.
        next_update: UnixTime,
    },
    /// A connection ended.
    Closed {
        /// The connection.
        facts: &'a ConnectionFacts,
        /// `end`, `revoked`, `expired`, `idle`, `drained`, an error's text.
        reason: &'a str,
        /// How long it lived.
        lasted: Duration,
    },
    /// The registry's change feed brought a change and it is in force.
    RegistryChanged {
        /// The change's number in the feed.
        seq: u64,
        /// `pinned`, `revoked` and so on.
        kind: &'a str,
        /// The certificate that it is about.
        fingerprint: Fingerprint,
        /// Of a revocation: whose it was, and who revoked it, when and why. None where the registry
        /// could not be asked.
        revocation: Option<Revoked<'a>>,
    },
}

/// A revocation as the registry has it.
#[derive(Clone, Copy, Debug)]
pub struct Revoked<'a> {
    /// The name that was enrolled.
    pub name: &'a str,
    /// Who did it: `user@host`.
    pub by: &'a str,
    /// Why, by its name in RFC 5280.
    pub reason: &'a str,
    /// When.
    pub at: UnixTime,
}

/// An enrolment through the CA's own server.
#[derive(Clone, Debug)]
pub struct Enrolled<'a> {
    /// Where the request came from.
    pub address: SocketAddr,
    /// What it was asked by: `token` or `certificate`.
    pub by: &'a str,
    /// The name in the certificate.
    pub name: &'a str,
    /// Of the new certificate.
    pub fingerprint: Fingerprint,
    /// Of the new certificate, lower-case hex.
    pub serial: &'a str,
    /// The profile it was issued with.
    pub profile: &'a str,
    /// What the certificate allows, as written.
    pub grants: &'a [String],
    /// The end of the new certificate.
    pub not_after: UnixTime,
    /// The certificate that it follows, where it is a renewal.
    pub replaces: Option<Fingerprint>,
    /// The number of the registry's change.
    pub change: u64,
}

impl Event<'_> {
    /// Whether the record may be withdrawn when it cannot be written: only where the caller then
    /// does not do the thing.
    pub(super) const fn standing(&self) -> Standing {
        match self {
            Self::ServerStarted { .. } | Self::Admitted { .. } => Standing::Claim,
            _ => Standing::Fact,
        }
    }

    /// Appends the body of the record.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::ServerStarted { version, listen } => {
                field(out, "event", "server_started");
                field(out, "version", version);
                field(out, "listen", listen);
                number(out, "pid", u64::from(std::process::id()));
            }
            Self::ServerStopped { reason } => {
                field(out, "event", "server_stopped");
                field(out, "reason", reason);
            }
            Self::Reloaded { what, error } => {
                field(out, "event", "reloaded");
                field(out, "what", what);
                optional(out, "error", *error);
            }
            Self::Admitted { facts, agreed } => admitted(out, facts, *agreed),
            Self::Refused {
                address,
                reason,
                class,
                name,
                fingerprint,
            } => {
                field(out, "event", "refused");
                field(out, "source", &address.to_string());
                field(out, "reason", reason);
                field(out, "class", class);
                if let Some(claimed) = name {
                    peer_text(out, "claimed_identity", claimed);
                }
                if let Some(print) = fingerprint {
                    field(out, "fingerprint", &print.to_string());
                }
            }
            Self::Enrolled(enrolled) => enrolled.write(out),
            Self::CrlWritten {
                path,
                number: count,
                entries,
                next_update,
            } => {
                field(out, "event", "crl_written");
                field(out, "path", path);
                number(out, "number", *count);
                number(out, "entries", *entries as u64);
                field(out, "next_update", &next_update.to_string());
            }
            Self::Closed {
                facts,
                reason,
                lasted,
            } => {
                field(out, "event", "closed");
                out.extend_from_slice(facts.json());
                field(out, "reason", reason);
                number(out, "duration_us", micros(*lasted));
            }
            Self::RegistryChanged {
                seq,
                kind,
                fingerprint,
                revocation,
            } => {
                field(out, "event", "registry_changed");
                number(out, "change", *seq);
                field(out, "kind", kind);
                field(out, "fingerprint", &fingerprint.to_string());
                if let Some(revoked) = revocation {
                    field(out, "identity", revoked.name);
                    field(out, "by", revoked.by);
                    field(out, "reason", revoked.reason);
                    field(out, "revoked_at", &revoked.at.to_string());
                }
            }
        }
    }
}

impl Enrolled<'_> {
    fn write(&self, out: &mut Vec<u8>) {
        field(out, "event", "enrolled");
        field(out, "source", &self.address.to_string());
        field(out, "by", self.by);
        field(out, "identity", self.name);
        field(out, "fingerprint", &self.fingerprint.to_string());
        field(out, "serial", self.serial);
        field(out, "profile", self.profile);
        field(out, "grants", &self.grants.join(" "));
        field(out, "not_after", &self.not_after.to_string());
        if let Some(old) = self.replaces {
            field(out, "replaces", &old.to_string());
        }
        number(out, "change", self.change);
    }
}

fn admitted(out: &mut Vec<u8>, facts: &ConnectionFacts, agreed: Agreed) {
    field(out, "event", "admitted");
    out.extend_from_slice(&facts.bytes);
    field(out, "tls", agreed.version);
    field(out, "suite", agreed.suite);
    field(out, "group", agreed.group);
    name(out, "resumed");
    out.extend_from_slice(if agreed.resumed { b"true" } else { b"false" });
}

fn optional(out: &mut Vec<u8>, key: &str, text: Option<&str>) {
    if let Some(text) = text {
        field(out, key, text);
    }
}
