//! Reloading: on SIGHUP, and when a file that the configuration names has changed. What can be
//! swapped under live connections is swapped, each part as a whole; a part that fails keeps what it
//! had, says so, and is recorded.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::audit::Event;
use crate::config::Config;
use crate::listener::LiveIndex;
use crate::registry::View;
use crate::session::Service;
use crate::tls::{ServerTls, Trust};

use super::assemble::{Assembled, load_identity, load_own_crl};
use super::run::{Again, recheck_all, when_stopped};

/// How often the files are looked at. A look is one `stat` a file.
const LOOK: Duration = Duration::from_secs(2);

/// Reloads one server.
pub struct Reloader {
    service: Arc<Service>,
    tls: Arc<ServerTls>,
    trust: Arc<Trust>,
    view: Arc<View>,
    index: Arc<LiveIndex>,
    config: Config,
    again: Again,
    seen: Seen,
}

/// Modification time and size of every file that a configuration names, and of itself.
type Seen = BTreeMap<PathBuf, Option<(SystemTime, u64)>>;

/// What the files are like; taken before they are read, so that no change is missed.
pub fn look(config: &Config) -> Seen {
    let mut files = vec![&config.source, &config.tls.certificate, &config.tls.key];
    for anchor in &config.anchors {
        files.push(&anchor.bundle);
        files.extend(&anchor.crl_file);
    }
    files.extend(&config.registry.crl_file);
    let about = |path: &PathBuf| {
        let meta = std::fs::metadata(path).ok()?;
        Some((meta.modified().ok()?, meta.len()))
    };
    files
        .into_iter()
        .map(|path| (path.clone(), about(path)))
        .collect()
}

impl Reloader {
    /// `config`: what is in force; `seen`: what its files were like before anything was read of them;
    /// `again`: reads it anew.
    pub fn new(parts: &Assembled, config: Config, seen: Seen, again: Again) -> Self {
        Self {
            service: Arc::clone(&parts.service),
            tls: Arc::clone(&parts.tls),
            trust: Arc::clone(&parts.trust),
            view: Arc::clone(&parts.view),
            index: Arc::clone(&parts.index),
            config,
            again,
            seen,
        }
    }

    /// Runs until the server stops.
    pub async fn run(mut self, stopped: watch::Receiver<bool>) {
        let mut hangup = match signal(SignalKind::hangup()) {
            Ok(hangup) => hangup,
            Err(error) => {
                tracing::error!(%error, "SIGHUP cannot be heard: files are watched, signals are not");
                return;
            }
        };
        let mut stop = std::pin::pin!(when_stopped(stopped));
        loop {
            tokio::select! {
                () = &mut stop => return,
                _ = hangup.recv() => self.reload("SIGHUP").await,
                () = tokio::time::sleep(LOOK) => self.reload_if_changed().await,
            }
        }
    }

    async fn reload_if_changed(&mut self) {
        let now = look(&self.config);
        if now == self.seen {
            return;
        }
        // Whoever writes may not be done: what still changes is left for the next look.
        tokio::time::sleep(Duration::from_millis(100)).await;
        if look(&self.config) == now {
            self.reload("a changed file").await;
        }
    }

    async fn reload(&mut self, why: &str) {
        tracing::info!(why, "reloading");
        let before = look(&self.config);
        match (self.again)() {
            Err(error) => self.tell("configuration", Err(error)).await,
            Ok(config) => self.put_in_force(config).await,
        }
        self.seen = look(&self.config);
        // What changed while it was read is looked at again.
        for (path, about) in before {
            if let Some(seen) = self.seen.get_mut(&path) {
                *seen = about;
            }
        }
    }

    async fn put_in_force(&mut self, config: Config) {
        let stays = self.needs_restart(&config);
        if !stays.is_empty() {
            tracing::warn!(
                "changed, but in force only after a restart: {}",
                stays.join(", ")
            );
        }
        let trust = self.trust.reload(&config.anchors, &config.permission_oid);
        let trusted = trust.map_err(|errors| {
            errors
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join("; ")
        });
        let anchors_hold = trusted.is_ok();
        self.tell("anchors", trusted).await;
        let own_crl = load_own_crl(&config, &self.view);
        if config.registry.crl_file.is_some() {
            self.tell("the CA's CRL", own_crl).await;
        }
        let identity = load_identity(&config).map_err(|error| error.to_string());
        let identity = identity.and_then(|identity| {
            self.tls
                .reload(&identity)
                .map_err(|error| error.to_string())
        });
        self.tell("certificate", identity).await;
        let (policy, limits) = (config.policy.clone(), config.limits.clone());
        self.service.reload(policy, limits, config.http.clone());
        self.tell("policy and limits", Ok(())).await;
        let anchors = std::mem::take(&mut self.config.anchors);
        let oid = std::mem::take(&mut self.config.permission_oid);
        self.config = config;
        if !anchors_hold {
            self.config.anchors = anchors;
            self.config.permission_oid = oid;
        }
        // Also where the anchors are as they were: a CRL may name somebody who is connected.
        recheck_all(&self.index, &self.trust);
    }

    /// The parts that cannot be swapped under live connections and are not what they were.
    fn needs_restart(&self, new: &Config) -> Vec<&'static str> {
        let old = &self.config;
        let registry = old.registry.place != new.registry.place
            || old.registry.max_staleness != new.registry.max_staleness;
        let offers = old.files != new.files || old.prompts != new.prompts;
        let all = [
            ("listen", old.listen != new.listen),
            ("tls.profile", old.tls.profile != new.tls.profile),
            ("registry", registry),
            ("audit", old.audit != new.audit),
            ("server", old.server != new.server),
            ("files, prompt", offers),
            ("http.enabled", old.http.enabled != new.http.enabled),
            ("health.listen", old.health != new.health),
        ];
        let changed = all.into_iter().filter(|(_, changed)| *changed);
        changed.map(|(name, _)| name).collect()
    }

    async fn tell(&self, what: &str, result: Result<(), String>) {
        let error = result.err();
        match &error {
            None => tracing::info!(what, "reloaded"),
            Some(error) => {
                tracing::error!(what, %error, "not reloaded: the old state stays in force")
            }
        }
        let event = Event::Reloaded {
            what,
            error: error.as_deref(),
        };
        let _ = self.service.audit().event(event).await;
    }
}
