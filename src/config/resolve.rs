//! The document's meaning: contradictions, names, addresses, grants.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::audit::{AuditOptions, SyncMode};
use crate::backend::files::FilesOptions;
use crate::backend::prompts::{PromptOptions, PromptsProvider};
use crate::cert::KeyUri;
use crate::grant::{Roles, WrittenGrant, WrittenGrants};
use crate::listener::ListenerOptions;
use crate::policy::{Policy, PolicyOptions};
use crate::registry::{PlaceError, RegistryPlace};
use crate::session::HttpOptions;
use crate::session::limits::Limits;
use crate::tls::{AnchorOptions, CrlMode};

use super::mistake::Problem;
use super::resolved::{CaOptions, Config, RegistryOptions, ServerInfo, TlsOptions};
use super::written::{
    AuditSection, HealthSection, HttpSection, LimitsSection, ListenSection, RegistrySection, Sync,
    Written,
};

/// A feed makes contact every two seconds; a server must not refuse calls in between.
const LEAST_STALENESS: Duration = Duration::from_secs(3);

/// Where the registry is when nobody says so.
const REGISTRY: &str = "registry.sqlite";

/// Gathers problems while the parts are made; what is made beside a problem is never used.
struct Resolver<'a> {
    folder: &'a Path,
    problems: Vec<Problem>,
}

pub(super) fn resolve(written: &Written, source: &Path) -> Result<Config, Vec<Problem>> {
    let folder = source.parent().unwrap_or(Path::new(""));
    let mut resolver = Resolver {
        folder,
        problems: Vec::new(),
    };
    let mut policy = resolver.policy(&written.policy);
    let config = Config {
        listen: resolver.listen(&written.listen),
        tls: TlsOptions {
            certificate: resolver.path("/tls/certificate", &written.tls.certificate),
            key: resolver.key("/tls/key", &written.tls.key),
            key_passphrase_file: resolver.maybe_path(
                "/tls/key_passphrase_file",
                written.tls.key_passphrase_file.as_deref(),
            ),
            profile: written.tls.profile,
        },
        anchors: resolver.anchors(&written.anchor, &mut policy),
        permission_oid: resolver.permission_oid(&written.permission_oid),
        registry: resolver.registry(&written.registry),
        policy,
        policy_options: written.policy.clone(),
        audit: resolver.audit(&written.audit),
        limits: resolver.limits(&written.limits),
        http: resolver.http(&written.http),
        health: resolver.health(&written.health),
        server: ServerInfo {
            name: written.server.name.clone(),
            title: written.server.title.clone(),
            instructions: written.server.instructions.clone(),
        },
        files: resolver.files(&written.files),
        prompts: resolver.prompts(&written.prompt),
        ca: CaOptions {
            dir: resolver.maybe_path("/ca/dir", written.ca.dir.as_deref()),
            profiles: resolver.maybe_path("/ca/profiles", written.ca.profiles.as_deref()),
        },
        source: source.to_owned(),
    };
    resolver.one_file_for_one_thing(&config);
    if resolver.problems.is_empty() {
        Ok(config)
    } else {
        Err(resolver.problems)
    }
}

impl Resolver<'_> {
    fn wrong(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    /// Against the folder of the configuration.
    fn path(&mut self, pointer: &str, path: &Path) -> PathBuf {
        if path.as_os_str().is_empty() {
            self.wrong(Problem::at(pointer, "is empty"));
        }
        self.folder.join(path)
    }

    /// A path, or the URI of a key in a token, which stays as it is.
    fn key(&mut self, pointer: &str, path: &Path) -> PathBuf {
        if !KeyUri::is_one(path) {
            return self.path(pointer, path);
        }
        // No part of the URI is told: a mistake may have put the PIN into it.
        if let Some(Err(error)) = path.to_str().map(KeyUri::parse) {
            self.wrong(Problem::at(pointer, error.to_string()));
        }
        path.to_owned()
    }

    fn maybe_path(&mut self, pointer: &str, path: Option<&Path>) -> Option<PathBuf> {
        path.map(|path| self.path(pointer, path))
    }

    /// A span that must not be nothing.
    fn some_time(&mut self, pointer: &str, span: Duration) -> Duration {
        if span.is_zero() {
            self.wrong(Problem::at(pointer, "must be longer than nothing"));
        }
        span
    }

    /// Tells the second of two equal names.
    fn unique<'n>(&mut self, what: &str, names: impl Iterator<Item = (String, &'n str)>) {
        let mut seen = HashMap::new();
        for (pointer, name) in names {
            if name.is_empty() {
                self.wrong(Problem::at(&pointer, "is empty"));
            } else if seen.insert(name, ()).is_some() {
                self.wrong(Problem::at(
                    &pointer,
                    format!("two {what} are called `{name}`"),
                ));
            }
        }
    }

    fn listen(&mut self, written: &ListenSection) -> ListenerOptions {
        let mut address: Vec<SocketAddr> = Vec::with_capacity(written.address.len());
        for (index, text) in written.address.iter().enumerate() {
            let pointer = format!("/listen/address/{index}");
            match text.parse::<SocketAddr>() {
                Ok(parsed) if parsed.port() != 0 && address.contains(&parsed) => {
                    self.wrong(Problem::at(pointer, format!("`{text}` is there twice")));
                }
                Ok(parsed) => address.push(parsed),
                Err(_) => self.wrong(
                    Problem::at(
                        pointer,
                        format!("`{}` is not an address", text.escape_debug()),
                    )
                    .hint("write an IP address and a port: `127.0.0.1:8443`, `[::1]:8443`"),
                ),
            }
        }
        if written.connections_per_identity > written.connections {
            let message = format!(
                "{} connections of one identity are more than `listen.connections`, {}, lets in",
                written.connections_per_identity, written.connections
            );
            self.wrong(Problem::at("/listen/connections_per_identity", message));
        }
        ListenerOptions {
            address,
            handshake_timeout: self
                .some_time("/listen/handshake_timeout", written.handshake_timeout.0),
            handshakes: to_usize(written.handshakes),
            connections: to_usize(written.connections),
            connections_per_identity: to_usize(written.connections_per_identity),
            backlog: written.backlog,
            drain: written.drain.0,
        }
    }

    fn registry(&mut self, written: &RegistrySection) -> RegistryOptions {
        let file = written.path.as_deref().unwrap_or(Path::new(REGISTRY));
        let mut place = RegistryPlace::File(self.path("/registry/path", file));
        if let Some(url) = &written.url {
            if written.path.is_some() {
                let message =
                    "the registry is either a file or a database, and `registry.path` names a file";
                self.wrong(Problem::at("/registry/url", message).hint("leave one of them out"));
            }
            let password_file =
                self.maybe_path("/registry/password_file", written.password_file.as_deref());
            match RegistryPlace::database(url, password_file) {
                Ok(database) => place = database,
                Err(error) => self.wrong(registry_url(&error)),
            }
        } else if written.password_file.is_some() {
            let message = "only the database of `registry.url` has a password";
            self.wrong(Problem::at("/registry/password_file", message));
        }
        let max_staleness = written.max_staleness.0;
        if max_staleness < LEAST_STALENESS {
            let message = "must be at least 3s: a registry in good health is heard of every 2s";
            self.wrong(Problem::at("/registry/max_staleness", message));
        }
        RegistryOptions {
            place,
            crl_file: self.maybe_path("/registry/crl_file", written.crl_file.as_deref()),
            max_staleness,
        }
    }

    fn permission_oid(&mut self, text: &str) -> String {
        let arcs: Option<Vec<u64>> = text
            .split('.')
            .map(|arc| {
                arc.parse()
                    .ok()
                    .filter(|_| arc == "0" || !arc.starts_with(['0', '+']))
            })
            .collect();
        let valid = arcs.is_some_and(|arcs| match arcs[..] {
            [first, second, _, ..] => first <= 2 && (first == 2 || second < 40),
            _ => false,
        });
        if !valid {
            let message = format!("`{}` is not an object identifier", text.escape_debug());
            self.wrong(
                Problem::at("/permission_oid", message)
                    .hint("it is written as numbers with dots: `1.3.6.1.4.1.32473.8.1`"),
            );
        }
        text.to_owned()
    }

    fn policy(&mut self, written: &PolicyOptions) -> Policy {
        Policy::check(written).unwrap_or_else(|errors| {
            for error in errors {
                self.wrong(Problem::at(
                    format!("/policy{}", error.at),
                    error.to_string(),
                ));
            }
            // Roles that are wrong are still names, so that naming them is no second mistake.
            let roles = written
                .roles
                .keys()
                .map(|name| (name.clone(), Default::default()));
            Policy {
                roles: roles.collect(),
                ..Policy::default()
            }
        })
    }

    fn anchors(&mut self, written: &[AnchorOptions], policy: &mut Policy) -> Vec<AnchorOptions> {
        if written.is_empty() {
            self.wrong(
                Problem::at("/anchor", "no trust anchor: nobody could ever be admitted")
                    .hint("add an `[[anchor]]` with a `name` and a `bundle` of CA certificates"),
            );
        }
        let names = written.iter().enumerate();
        self.unique(
            "anchors",
            names.map(|(i, a)| (format!("/anchor/{i}/name"), a.name.as_str())),
        );
        let mut anchors = Vec::with_capacity(written.len());
        for (index, anchor) in written.iter().enumerate() {
            let at = format!("/anchor/{index}");
            let mut anchor = anchor.clone();
            anchor.bundle = self.path(&format!("{at}/bundle"), &anchor.bundle);
            anchor.crl_file =
                self.maybe_path(&format!("{at}/crl_file"), anchor.crl_file.as_deref());
            self.anchor_mode(&at, &anchor);
            if let Some(ceiling) = &anchor.ceiling
                && let Some(set) = self.grants(&format!("{at}/ceiling"), ceiling, &policy.roles)
            {
                let resolved = set.resolve_known(&policy.roles).0;
                policy.ceilings.insert(anchor.name.clone(), resolved);
            }
            anchors.push(anchor);
        }
        anchors
    }

    fn anchor_mode(&mut self, at: &str, anchor: &AnchorOptions) {
        if let Some(mode) = anchor
            .mode
            .as_deref()
            .filter(|mode| !["pinned", "issued"].contains(mode))
        {
            let message = format!("`{}` is not a mode", mode.escape_debug());
            self.wrong(
                Problem::at(format!("{at}/mode"), message).hint("write `pinned` or `issued`"),
            );
        }
        if anchor.crl_file.is_none() && anchor.crl == Some(CrlMode::Require) {
            let message = "a CRL is required and `crl_file` names none";
            self.wrong(Problem::at(format!("{at}/crl"), message).hint("add `crl_file`"));
        }
    }

    /// Grants of a list that may name roles; an empty one is a mistake, because it allows nothing.
    fn grants(&mut self, at: &str, entries: &[String], roles: &Roles) -> Option<WrittenGrants> {
        let before = self.problems.len();
        if entries.is_empty() {
            let problem = Problem::at(at, "an empty list lets nothing pass");
            self.wrong(problem.hint("leave the key out, or name grants"));
        }
        for (index, entry) in entries.iter().enumerate() {
            let said = match entry.parse::<WrittenGrant>() {
                Ok(WrittenGrant::Role(role)) if !roles.contains_key(&role) => {
                    format!("role `{role}` is not defined")
                }
                Ok(_) => continue,
                Err(error) => error.to_string(),
            };
            self.wrong(Problem::at(format!("{at}/{index}"), said));
        }
        if self.problems.len() > before {
            return None;
        }
        WrittenGrants::parse(entries)
            .map_err(|error| self.wrong(Problem::at(at, error.to_string())))
            .ok()
    }

    fn audit(&mut self, written: &AuditSection) -> AuditOptions {
        if (1..64 << 10).contains(&written.rotate_bytes.0) {
            self.wrong(Problem::at(
                "/audit/rotate_bytes",
                "must be 0 or at least 64KiB",
            ));
        }
        AuditOptions {
            path: self.path("/audit/path", &written.path),
            rotate_bytes: written.rotate_bytes.0,
            keep: written.keep,
            arguments: written.arguments,
            sync: match written.sync {
                Sync::Never => SyncMode::Never,
                Sync::EverySecond => SyncMode::EverySecond,
            },
        }
    }

    fn http(&mut self, written: &HttpSection) -> HttpOptions {
        let own_paths = ["/healthz", "/readyz"];
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte);
        let path = written.path.as_str();
        if !path.starts_with('/') || !path.bytes().all(plain) || own_paths.contains(&path) {
            let message = format!("`{}` cannot be the endpoint", path.escape_debug());
            self.wrong(
                Problem::at("/http/path", message)
                    .hint("write a path of letters, digits and `/-._~`: `/mcp`"),
            );
        }
        for (index, origin) in written.allowed_origins.iter().enumerate() {
            let host = origin
                .strip_prefix("https://")
                .or_else(|| origin.strip_prefix("http://"));
            if !host.is_some_and(|host| !host.is_empty() && !host.contains(['/', '?', '#', '*'])) {
                let message = format!("`{}` is not an origin", origin.escape_debug());
                self.wrong(
                    Problem::at(format!("/http/allowed_origins/{index}"), message)
                        .hint("write scheme and host, without a path: `https://app.example.com`"),
                );
            }
        }
        for (index, host) in written.allowed_hosts.iter().enumerate() {
            if host.is_empty() || host.contains(['/', ' ', '*', '@']) {
                let message = format!("`{}` is not a host", host.escape_debug());
                self.wrong(Problem::at(format!("/http/allowed_hosts/{index}"), message));
            }
        }
        let bytes = written.event_store_bytes.0;
        if bytes > 1 << 30 {
            self.wrong(Problem::at(
                "/http/event_store_bytes",
                "must be at most 1GiB",
            ));
        }
        let lower = |all: &[String]| all.iter().map(|one| one.to_ascii_lowercase()).collect();
        HttpOptions {
            enabled: written.enabled,
            path: path.to_owned(),
            allowed_origins: lower(&written.allowed_origins),
            allowed_hosts: lower(&written.allowed_hosts),
            session_idle: self.some_time("/http/session_idle", written.session_idle.0),
            sessions_per_identity: to_usize(written.sessions_per_identity),
            event_store_bytes: usize::try_from(bytes).unwrap_or(usize::MAX),
            keep_alive: self.some_time("/http/keep_alive", written.keep_alive.0),
            head_timeout: self.some_time("/http/head_timeout", written.head_timeout.0),
            body_timeout: self.some_time("/http/body_timeout", written.body_timeout.0),
            ..HttpOptions::default()
        }
    }

    fn health(&mut self, written: &HealthSection) -> Option<SocketAddr> {
        let text = written.listen.as_deref()?;
        match text.parse::<SocketAddr>() {
            Ok(address) if address.ip().is_loopback() => return Some(address),
            Ok(_) => {
                let message = format!("`{text}` is no loopback address");
                self.wrong(
                    Problem::at("/health/listen", message)
                        .hint("it answers without a certificate: write `127.0.0.1:8081`"),
                );
            }
            Err(_) => {
                let message = format!("`{}` is not an address", text.escape_debug());
                self.wrong(Problem::at("/health/listen", message));
            }
        }
        None
    }

    fn limits(&mut self, written: &LimitsSection) -> Limits {
        let default = Limits::default();
        let bytes = written.max_message_bytes.0;
        if !(1 << 10..=1 << 30).contains(&bytes) {
            self.wrong(Problem::at(
                "/limits/max_message_bytes",
                "must be between 1KiB and 1GiB",
            ));
        }
        self.not_more(
            "in_flight",
            written.in_flight_per_connection,
            written.in_flight_per_identity,
        );
        self.not_more(
            "subscriptions",
            written.subscriptions_per_connection,
            written.subscriptions_per_identity,
        );
        if written.call_burst.is_some() && written.calls_per_second.is_none() {
            let message = "a burst means nothing without `limits.calls_per_second`";
            self.wrong(Problem::at("/limits/call_burst", message));
        }
        let idle = written
            .idle_timeout
            .map(|t| self.some_time("/limits/idle_timeout", t.0));
        Limits {
            max_message_bytes: usize::try_from(bytes).unwrap_or(usize::MAX),
            max_depth: to_usize(written.max_depth),
            in_flight_per_connection: to_usize(written.in_flight_per_connection),
            in_flight_per_identity: to_usize(written.in_flight_per_identity),
            subscriptions_per_connection: to_usize(written.subscriptions_per_connection),
            subscriptions_per_identity: to_usize(written.subscriptions_per_identity),
            page_size: to_usize(written.page_size),
            calls_per_second: written.calls_per_second,
            burst: written.call_burst.unwrap_or(default.burst),
            first_byte_timeout: self
                .some_time("/limits/first_byte_timeout", written.first_byte_timeout.0),
            idle_timeout: idle,
            write_timeout: self.some_time("/limits/write_timeout", written.write_timeout.0),
        }
    }

    fn not_more(&mut self, what: &str, connection: u32, identity: u32) {
        if connection > identity {
            let pointer = format!("/limits/{what}_per_connection");
            let message = format!(
                "{connection} is more than `limits.{what}_per_identity`, {identity}, allows"
            );
            self.wrong(Problem::at(pointer, message));
        }
    }

    fn files(&mut self, written: &[FilesOptions]) -> Vec<FilesOptions> {
        let names = written.iter().enumerate();
        self.unique(
            "providers",
            names.map(|(i, f)| (format!("/files/{i}/name"), f.name.as_str())),
        );
        let mut all = Vec::with_capacity(written.len());
        for (index, files) in written.iter().enumerate() {
            self.provider_name(&format!("/files/{index}/name"), &files.name);
            let mut files = files.clone();
            files.root = self.path(&format!("/files/{index}/root"), &files.root);
            all.push(files);
        }
        all
    }

    fn provider_name(&mut self, pointer: &str, name: &str) {
        let fits = |b: u8| b.is_ascii_alphanumeric() || b"_-.".contains(&b);
        if ["self", "prompts"].contains(&name) {
            self.wrong(Problem::at(
                pointer,
                format!("`{name}` is a provider of the server's own"),
            ));
        } else if name.len() > 64 || name.contains("__") || !name.bytes().all(fits) {
            let message = format!("`{}` cannot be the name of a provider", name.escape_debug());
            self.wrong(
                Problem::at(pointer, message)
                    .hint("it is 1 to 64 of `A-Z a-z 0-9 _ - .`, without `__`"),
            );
        }
    }

    fn prompts(&mut self, written: &[PromptOptions]) -> Vec<PromptOptions> {
        let names = written.iter().enumerate();
        self.unique(
            "prompts",
            names.map(|(i, p)| (format!("/prompt/{i}/name"), p.name.as_str())),
        );
        for (index, prompt) in written.iter().enumerate() {
            for error in PromptsProvider::new(vec![prompt.clone()])
                .err()
                .into_iter()
                .flatten()
            {
                self.wrong(Problem::at(format!("/prompt/{index}"), error.to_string()));
            }
        }
        written.to_vec()
    }

    /// Files that a process writes must not be each other.
    fn one_file_for_one_thing(&mut self, config: &Config) {
        if config.registry.place.file() == Some(config.audit.path.as_path()) {
            let message = "the audit log and the registry cannot be one file";
            self.wrong(Problem::at("/audit/path", message));
        }
    }
}

fn registry_url(error: &PlaceError) -> Problem {
    let problem = Problem::at("/registry/url", error.to_string());
    problem.hint(match error {
        PlaceError::Password => {
            "name a file with it by `registry.password_file`, or set PGPASSWORD or PGPASSFILE"
        }
        _ => "it is written like `postgres://user@host/database?sslmode=verify-full&sslrootcert=FILE`",
    })
}

/// Every platform that this runs on has pointers of 32 bits or more.
fn to_usize(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
