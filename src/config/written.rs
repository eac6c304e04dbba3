//! The document as it is written. Every key says its unit, its default and what it costs; from
//! here come the JSON Schema, the example and the reference.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::audit::AuditOptions;
use crate::backend::files::FilesOptions;
use crate::backend::prompts::PromptOptions;
use crate::cert::DEFAULT_PERMISSION_OID;
use crate::policy::PolicyOptions;
use crate::session::HttpOptions;
use crate::session::limits::Limits;
use crate::tls::{AnchorOptions, Profile};

use super::amount::{Period, Size};

/// The configuration of a Countersign server. Relative paths are resolved against the folder of
/// this file. Spans of time are written like `500ms`, `10s`, `12h`; sizes are bytes or written like
/// `64KiB`, `4MiB`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Written {
    /// The object identifier of the permission extension in certificates, dotted. The default is
    /// one for documentation: an organisation sets its own. Cost: certificates that carry the
    /// extension under another identifier carry no grants for this server.
    #[serde(default = "default_permission_oid")]
    pub permission_oid: String,
    /// Where to listen, and how much is let in at once.
    #[serde(default)]
    pub listen: ListenSection,
    /// The server's own certificate.
    pub tls: TlsSection,
    /// Who signs the certificates of those who may come in. At least one: without, nobody could
    /// ever be admitted.
    pub anchor: Vec<AnchorOptions>,
    /// Where enrolments, pins and revocations are kept.
    #[serde(default)]
    pub registry: RegistrySection,
    /// What roles stand for and what is denied whatever a certificate says.
    #[serde(default)]
    pub policy: PolicyOptions,
    /// Where every decision is written down.
    #[serde(default)]
    pub audit: AuditSection,
    /// Bounds of one connection and one identity.
    #[serde(default)]
    pub limits: LimitsSection,
    /// Streamable HTTP and WebSocket on the same addresses.
    #[serde(default)]
    pub http: HttpSection,
    /// Probes for orchestrators that have no certificate.
    #[serde(default)]
    pub health: HealthSection,
    /// How the server introduces itself.
    #[serde(default)]
    pub server: ServerSection,
    /// Folders whose files are offered as tools and resources.
    #[serde(default)]
    pub files: Vec<FilesOptions>,
    /// Prompts: named templates, written here.
    #[serde(default)]
    pub prompt: Vec<PromptOptions>,
    /// Where the commands `ca …` find their CA. A serving process never reads it.
    #[serde(default)]
    pub ca: CaSection,
}

fn default_permission_oid() -> String {
    DEFAULT_PERMISSION_OID.to_owned()
}

/// `[listen]`: where to listen, and how much is let in at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ListenSection {
    /// Addresses with ports, IPv6 in brackets: `127.0.0.1:8443`, `[::1]:8443`. Port 0 takes any
    /// free one. Cost: one socket each.
    #[schemars(length(min = 1))]
    pub address: Vec<String>,
    /// How long a handshake may take, from the accepted connection to the admitted peer. Cost of a
    /// long one: strangers who send nothing hold a place among `handshakes` for so long.
    pub handshake_timeout: Period,
    /// Handshakes that run at once; more wait in the operating system's queue. Cost: about 200 µs
    /// of processor time and 40 KiB of memory each.
    #[schemars(range(min = 1, max = 65_536))]
    pub handshakes: u32,
    /// Admitted connections at once; one more is refused. Cost: about 30 KiB of memory each.
    #[schemars(range(min = 1, max = 1_048_576))]
    pub connections: u32,
    /// Connections of one identity at once; one more is refused, so that one peer cannot use up
    /// `connections`.
    #[schemars(range(min = 1, max = 1_048_576))]
    pub connections_per_identity: u32,
    /// Connections that the operating system queues before they are accepted; it may cut this to
    /// its own limit (`net.core.somaxconn`).
    #[schemars(range(min = 1, max = 65_535))]
    pub backlog: u32,
    /// How long calls in flight may still run when the server stops; then what is left is cut.
    pub drain: Period,
}

impl Default for ListenSection {
    fn default() -> Self {
        Self {
            address: vec![String::from("127.0.0.1:8443")],
            handshake_timeout: seconds(5),
            handshakes: 256,
            connections: 16_384,
            connections_per_identity: 1_024,
            backlog: 1_024,
            drain: seconds(10),
        }
    }
}

/// `[tls]`: the server's own certificate. Clients must always present one of their own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TlsSection {
    /// PEM file with the server's certificate first and then those above it, without the root.
    pub certificate: PathBuf,
    /// PEM file with the private key (PKCS#8, plain or encrypted). Refused when group or world can
    /// read it. Or a key that stays in a token, as a PKCS#11 URI (RFC 7512) such as
    /// `pkcs11:token=gateway;object=server?pin-source=/run/secrets/pin`.
    pub key: PathBuf,
    /// File whose only line opens an encrypted key, or is the PIN of the key's token. Refused when
    /// group or world can read it. Cost: about a tenth of a second when the key
    /// is loaded.
    #[serde(default)]
    pub key_passphrase_file: Option<PathBuf>,
    /// What is agreed to in handshakes, and what signatures are believed: `modern`, TLS 1.3 only, or
    /// `compatible`, TLS 1.2 too, with ECDHE and AEAD suites, P-384 for the key exchange, and what older
    /// CAs sign by (RSA PKCS#1 v1.5). SHA-1 and RSA keys below 2048 bits are refused by both;
    /// docs/operate.md has the table. Cost of `compatible`: in TLS 1.2 certificates of peers travel in
    /// the clear, nothing is post-quantum and a handshake takes one round trip more.
    #[serde(default)]
    pub profile: Profile,
}

/// `[registry]`: where enrolments, pins and revocations are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RegistrySection {
    /// SQLite file, for the servers and commands of one machine; made when it is not there. Default:
    /// `registry.sqlite`, unless `url` is there. Cost: about 200 bytes of memory for each enrolled
    /// certificate, because a server decides from memory.
    pub path: Option<PathBuf>,
    /// PostgreSQL database, for a fleet, in place of `path`: `postgres://user@host/database`. A
    /// connection to another machine is by TLS and verified against the CA whose file `sslrootcert` names,
    /// and no other, unless `sslmode=disable` says that the way is safe. Never with a password in it.
    /// Cost: about four connections of the database for each server.
    pub url: Option<String>,
    /// File whose first line is the password for `url`; others than its owner must not be able to
    /// read it. Without it, `PGPASSWORD` and `PGPASSFILE` count as they do for every client of
    /// PostgreSQL.
    pub password_file: Option<PathBuf>,
    /// The CA's own CRLs beside the registry, in PEM together with the certificates that signed them
    /// (`bundle.pem` of the CA's folder). What they name stays revoked even if the registry was
    /// lost. Not set: the registry alone counts.
    pub crl_file: Option<PathBuf>,
    /// How long a server goes on deciding from memory when the registry cannot be read; then it
    /// refuses new connections and calls (code 4503). At least 3 seconds. Cost of a long one: a revocation that was made meanwhile holds only
    /// once the registry can be read again.
    pub max_staleness: Period,
}

impl Default for RegistrySection {
    fn default() -> Self {
        Self {
            path: None,
            url: None,
            password_file: None,
            crl_file: None,
            max_staleness: seconds(300),
        }
    }
}

/// `[audit]`: where every decision is written down, before the call that it is about runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AuditSection {
    /// The file, one JSON object a line. Rotated files get a number behind. A log that cannot be
    /// written refuses calls. Cost: about 500 bytes a call.
    pub path: PathBuf,
    /// Size after which a new file is begun; 0 never begins one.
    pub rotate_bytes: Size,
    /// Rotated files that are kept; 0 keeps all. Cost of another number: what was deleted can no
    /// longer be verified.
    pub keep: u32,
    /// Whether the arguments of calls are written out. Without, a SHA-256 digest stands for them.
    /// Cost: they may hold secrets, and the log grows by their size.
    pub arguments: bool,
    /// When the log is flushed to the disk itself: `never`, when the operating system sees fit, or
    /// `every-second`. A killed process loses nothing either way. Cost of `never`: a power cut can
    /// lose the last half minute; of `every-second`: one `fdatasync` a second.
    pub sync: Sync,
}

/// When the audit log is flushed to the disk itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Sync {
    /// When the operating system sees fit.
    #[default]
    Never,
    /// Once a second in which something was written.
    EverySecond,
}

impl Default for AuditSection {
    fn default() -> Self {
        let own = AuditOptions::new("audit.jsonl");
        Self {
            path: own.path,
            rotate_bytes: Size(own.rotate_bytes),
            keep: own.keep,
            arguments: own.arguments,
            sync: Sync::default(),
        }
    }
}

/// `[limits]`: bounds of one connection and one identity. An identity is counted by name, over all
/// its certificates, connections and transports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsSection {
    /// The longest message, in bytes. A longer one is refused and the connection closed. Cost: each
    /// connection may hold one such message in memory.
    pub max_message_bytes: Size,
    /// The deepest nesting of arrays and objects in a message, counted in levels.
    #[schemars(range(min = 4, max = 128))]
    pub max_depth: u32,
    /// Requests of one connection that are served at once; further ones are not read until one is
    /// answered. Cost: the memory of the calls.
    #[schemars(range(min = 1, max = 65_536))]
    pub in_flight_per_connection: u32,
    /// Requests of one identity that are served at once, over all its connections.
    #[schemars(range(min = 1, max = 1_048_576))]
    pub in_flight_per_identity: u32,
    /// Resource subscriptions of one connection. Cost: about 200 bytes each and one comparison for
    /// each change of a resource.
    #[schemars(range(min = 1, max = 65_536))]
    pub subscriptions_per_connection: u32,
    /// Resource subscriptions of one identity, over all its connections.
    #[schemars(range(min = 1, max = 1_048_576))]
    pub subscriptions_per_identity: u32,
    /// Elements of one page of a list.
    #[schemars(range(min = 1, max = 10_000))]
    pub page_size: u32,
    /// Calls of one identity each second, on average. Without it the rate is not limited. Cost: one
    /// look at a table a call.
    #[schemars(range(min = 1))]
    pub calls_per_second: Option<u32>,
    /// Calls of one identity that may come at once before `calls_per_second` counts; only with it.
    #[schemars(range(min = 1))]
    pub call_burst: Option<u32>,
    /// How long the first byte may take after the handshake; then the connection is closed.
    pub first_byte_timeout: Period,
    /// How long a connection without a call in flight or a subscription stays open. Without it, for
    /// as long as its certificate is valid. Cost of a short one: clients connect again and again.
    pub idle_timeout: Option<Period>,
    /// How long a write may wait for a peer that does not read; then the connection is closed.
    pub write_timeout: Period,
}

impl Default for LimitsSection {
    fn default() -> Self {
        let own = Limits::default();
        // The defaults of `Limits` are small constants.
        let small = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        Self {
            max_message_bytes: Size(u64::from(small(own.max_message_bytes))),
            max_depth: small(own.max_depth),
            in_flight_per_connection: small(own.in_flight_per_connection),
            in_flight_per_identity: small(own.in_flight_per_identity),
            subscriptions_per_connection: small(own.subscriptions_per_connection),
            subscriptions_per_identity: small(own.subscriptions_per_identity),
            page_size: small(own.page_size),
            calls_per_second: None,
            call_burst: None,
            first_byte_timeout: Period(own.first_byte_timeout),
            idle_timeout: own.idle_timeout.map(Period),
            write_timeout: Period(own.write_timeout),
        }
    }
}

/// `[http]`: Streamable HTTP and WebSocket, on the same addresses and behind the same certificates as
/// the raw stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HttpSection {
    /// Whether HTTP is spoken at all. Without, only the raw stream is.
    pub enabled: bool,
    /// The path of the MCP endpoint. It also answers WebSocket.
    #[schemars(length(min = 1, max = 256))]
    pub path: String,
    /// Web pages that may call, by their origin: `https://app.example.com`. A request with any
    /// other `Origin` is refused with 403; programs send none. Cost: scripts of these pages act
    /// with the certificate of whoever opens them.
    pub allowed_origins: Vec<String>,
    /// Hosts that a request may name, with or without a port; another one is refused with 421.
    /// Empty, every host is fine: the certificate says already whom clients reached.
    pub allowed_hosts: Vec<String>,
    /// How long a session of an older revision lives without a request or an open stream. Cost of a
    /// long one: clients that left without a word keep a place among `sessions_per_identity`.
    pub session_idle: Period,
    /// Sessions of one identity at once. One more ends the one that rested longest, and is refused
    /// with 429 when none rests. Cost: about 1 KiB of memory each, and `event_store_bytes`.
    #[schemars(range(min = 1, max = 65_536))]
    pub sessions_per_identity: u32,
    /// Bytes of events that one session keeps for a client that lost its connection and comes back
    /// with `Last-Event-ID`. Cost: so much memory for each session that uses it, and as much again
    /// for each of its calls in flight.
    pub event_store_bytes: Size,
    /// How long a stream of events is quiet before a comment keeps it open; also how long an answer
    /// may be under way before its stream begins. Cost of a short one: traffic on quiet streams.
    pub keep_alive: Period,
    /// How long the head of a request may take; then the connection is closed.
    pub head_timeout: Period,
    /// How long the body of a request may take; then it is answered with 408. Cost of a long one:
    /// clients that send a byte at a time hold the memory of what they have sent.
    pub body_timeout: Period,
}

impl Default for HttpSection {
    fn default() -> Self {
        let own = HttpOptions::default();
        // The defaults are small constants.
        let small = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        Self {
            enabled: own.enabled,
            path: own.path,
            allowed_origins: own.allowed_origins,
            allowed_hosts: own.allowed_hosts,
            session_idle: Period(own.session_idle),
            sessions_per_identity: small(own.sessions_per_identity),
            event_store_bytes: Size(u64::from(small(own.event_store_bytes))),
            keep_alive: Period(own.keep_alive),
            head_timeout: Period(own.head_timeout),
            body_timeout: Period(own.body_timeout),
        }
    }
}

/// `[health]`: `/healthz` and `/readyz` without TLS, for orchestrators on the same machine. To
/// admitted peers the server answers them on its own addresses anyway.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HealthSection {
    /// A loopback address with a port: `127.0.0.1:8081`. Without it there is no such listener.
    /// Cost: everybody on this machine can ask whether the server is well, and nothing else.
    pub listen: Option<String>,
}

/// `[server]`: how the server introduces itself to clients. Costs nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ServerSection {
    /// The name in `serverInfo`, for programs.
    #[schemars(length(min = 1, max = 128))]
    pub name: String,
    /// The name for people. Without it clients show `name`.
    pub title: Option<String>,
    /// What a model should know about this server before it calls anything. Cost: every client adds
    /// it to its model's context.
    pub instructions: Option<String>,
}

impl Default for ServerSection {
    fn default() -> Self {
        Self {
            name: String::from("countersign"),
            title: None,
            instructions: None,
        }
    }
}

/// `[ca]`: where the commands `ca …` find their CA.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CaSection {
    /// The CA's folder, with its certificates and encrypted keys.
    pub dir: Option<PathBuf>,
    /// The folder with the profiles that certificates are issued by. Without it, those that come
    /// with the program.
    pub profiles: Option<PathBuf>,
}

const fn seconds(seconds: u64) -> Period {
    Period(Duration::from_secs(seconds))
}

/// Roles as the written policy holds them.
pub(super) type WrittenRoles = BTreeMap<String, Vec<String>>;
