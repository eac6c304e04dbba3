//! The checked configuration as plain data.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::audit::AuditOptions;
use crate::backend::files::FilesOptions;
use crate::backend::prompts::PromptOptions;
use crate::listener::ListenerOptions;
use crate::policy::{Policy, PolicyOptions};
use crate::registry::RegistryPlace;
use crate::session::HttpOptions;
use crate::session::limits::Limits;
use crate::tls::{AnchorOptions, Profile};

/// A checked configuration: every path absolute or relative to the working directory, every number
/// in its type, every grant parsed once.
#[derive(Clone, Debug)]
pub struct Config {
    /// `[listen]`.
    pub listen: ListenerOptions,
    /// `[tls]`.
    pub tls: TlsOptions,
    /// `[[anchor]]`.
    pub anchors: Vec<AnchorOptions>,
    /// Dotted.
    pub permission_oid: String,
    /// `[registry]`.
    pub registry: RegistryOptions,
    /// `[policy]`, ready to decide with; `ceilings` are those of the anchors.
    pub policy: Policy,
    /// `[policy]` as it was written.
    pub policy_options: PolicyOptions,
    /// `[audit]`.
    pub audit: AuditOptions,
    /// `[limits]`.
    pub limits: Limits,
    /// `[http]`.
    pub http: HttpOptions,
    /// `[health]`: a plain loopback listener for probes.
    pub health: Option<SocketAddr>,
    /// `[server]`.
    pub server: ServerInfo,
    /// `[[files]]`.
    pub files: Vec<FilesOptions>,
    /// `[[prompt]]`.
    pub prompts: Vec<PromptOptions>,
    /// `[ca]`.
    pub ca: CaOptions,
    /// The file that all this was read from.
    pub source: PathBuf,
}

/// `[tls]`, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsOptions {
    /// PEM, leaf first.
    pub certificate: PathBuf,
    /// PKCS#8 in PEM, or the PKCS#11 URI of a key in a token.
    pub key: PathBuf,
    /// Opens the key, where it is encrypted or in a token.
    pub key_passphrase_file: Option<PathBuf>,
    /// What is agreed to in handshakes.
    pub profile: Profile,
}

/// `[registry]`, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryOptions {
    /// A file, or a database.
    pub place: RegistryPlace,
    /// The CA's own CRLs, with the certificates that signed them.
    pub crl_file: Option<PathBuf>,
    /// How long to decide from memory when the store cannot be read.
    pub max_staleness: Duration,
}

/// `[server]`, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerInfo {
    /// For programs.
    pub name: String,
    /// For people.
    pub title: Option<String>,
    /// For models.
    pub instructions: Option<String>,
}

/// `[ca]`, checked. For the commands `ca …`; a server does not look at it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CaOptions {
    /// The CA's folder.
    pub dir: Option<PathBuf>,
    /// The folder of the profiles.
    pub profiles: Option<PathBuf>,
}
