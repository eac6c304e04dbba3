//! A server's life: listen, serve, follow the registry, reload, drain, stop.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinError, JoinSet};

use crate::audit::{AuditLog, Event, Revoked};
use crate::backend::Provider;
use crate::clock::UnixTime;
use crate::config::Config;
use crate::enrol::{CertFiles, EnrolError, keep};
use crate::listener::{Close, Crew, Listener, LiveIndex};
use crate::registry::{Applied, Change, ChangeKind, Enrolment, Store};

use super::assemble::{Assembled, ServerError, assemble, passphrase};
use super::door::Entrance;
use super::health::Health;
use super::reload::{Reloader, look};

/// Changes of the registry that may wait to be recorded.
const CHANGES: usize = 1024;
/// How long the record of a revocation waits for what the registry says of it.
const ASK: Duration = Duration::from_secs(2);

/// Said once the server listens.
#[derive(Debug, Clone)]
pub struct Ready {
    /// Where, with the ports that the system chose.
    pub addresses: Vec<SocketAddr>,
}

/// Reads the configuration anew; an error keeps the one in force.
pub type Again = Box<dyn Fn() -> Result<Config, String> + Send + Sync>;

/// Runs a server until SIGINT or SIGTERM, then drains and returns. SIGHUP and changes of the
/// configuration's files reload it; `again` reads the configuration anew. Each connection stays on one
/// thread of a crew, of which there are as many as processors.
///
/// # Errors
/// It does not start. What goes wrong later is logged, and the server goes on.
pub async fn run(
    config: Config,
    again: Again,
    ready: impl FnOnce(Ready) + Send,
) -> Result<(), ServerError> {
    let signals = Signals::new()?;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let crew = Crew::start(threads)?;
    serve_with(config, Vec::new(), again, signals.wait(), ready, Some(crew)).await
}

/// Serves a program's own providers with the configuration in this file, as `countersign serve`
/// would: [`serve`] with the file read again on SIGHUP and on changes, until SIGINT or SIGTERM.
///
/// # Errors
/// Mistakes in the configuration, or the server does not start.
pub async fn host(
    file: impl Into<PathBuf>,
    providers: Vec<(String, Arc<dyn Provider>)>,
) -> Result<(), ServerError> {
    let file = file.into();
    let read = move || {
        Config::load(&file, std::iter::empty()).map_err(|mistakes| {
            let lines: Vec<_> = mistakes.iter().map(ToString::to_string).collect();
            lines.join("; ")
        })
    };
    let config = read().map_err(ServerError::Configuration)?;
    let stop = Signals::new()?.wait();
    serve(config, providers, Box::new(read), stop, |_| ()).await
}

/// As [`run`], until `stop` is ready with a reason; `providers` come before the configured ones.
/// Everything runs on the caller's runtime, on which those providers may depend.
///
/// # Errors
/// It does not start.
pub async fn serve(
    config: Config,
    providers: Vec<(String, Arc<dyn Provider>)>,
    again: Again,
    stop: impl Future<Output = &'static str> + Send,
    ready: impl FnOnce(Ready) + Send,
) -> Result<(), ServerError> {
    serve_with(config, providers, again, stop, ready, None).await
}

async fn serve_with(
    config: Config,
    providers: Vec<(String, Arc<dyn Provider>)>,
    again: Again,
    stop: impl Future<Output = &'static str> + Send,
    ready: impl FnOnce(Ready) + Send,
    crew: Option<Crew>,
) -> Result<(), ServerError> {
    let crew = crew.map(Arc::new);
    let seen = look(&config);
    // The port first: who finds it taken must not have told the registry that a server is here.
    let listener = Listener::bind(config.listen.clone()).await?;
    let listener = listener.with_crew(crew.clone());
    let health = match config.health {
        None => None,
        Some(address) => Some(Health::bind(address).await?),
    };
    let parts = assemble(&config, providers).await?;
    let addresses = listener.local_addresses();
    let (stopping, stopped) = watch::channel(false);
    let audit = parts.service.audit().clone();
    let listen = addresses
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(" ");
    let version = env!("CARGO_PKG_VERSION");
    audit
        .event(Event::ServerStarted {
            version,
            listen: &listen,
        })
        .await?;
    let entrance = Arc::new(Entrance {
        service: Arc::clone(&parts.service),
        counters: Arc::clone(&parts.counters),
    });
    let files = CertFiles {
        passphrase: passphrase(&config)?,
        ..CertFiles::new(&config.tls.certificate, &config.tls.key)
    };
    let reloader = Reloader::new(&parts, config, seen, again);
    let (tls, index) = (Arc::clone(&parts.tls), Arc::clone(&parts.index));
    let service = Arc::clone(&parts.service);
    let probes = health.map(|health| tokio::spawn(health.run(service.clone(), stopped.clone())));
    let feed = tokio::spawn(follow(parts, stopped.clone()));
    let reloading = tokio::spawn(reloader.run(stopped.clone()));
    let renewing = tokio::spawn(async move {
        tokio::select! {
            () = when_stopped(stopped) => {}
            never = keep(files, renewed) => match never {},
        }
    });
    ready(Ready { addresses });
    // A task, so that a connection need not first wake the thread that waits here. Ends with this
    // function, however that ends.
    let (go_on, no_more) = oneshot::channel::<()>();
    let mut accepting = JoinSet::new();
    accepting.spawn(listener.run(tls, index, entrance, async { drop(no_more.await) }));
    let reason = tokio::select! {
        reason = stop => reason,
        Some(ended) = accepting.join_next() => {
            tell_failure(ended);
            "the accept loop has ended"
        }
    };
    tracing::info!(reason, "stopping");
    // The registry is followed until the last connection is gone: a revocation counts to the end.
    drop(go_on);
    while let Some(ended) = accepting.join_next().await {
        tell_failure(ended);
    }
    service.close().await;
    drop(crew);
    let _ = stopping.send(true);
    let _ = feed.await;
    let _ = reloading.await;
    let _ = renewing.await;
    if let Some(probes) = probes {
        let _ = probes.await;
    }
    let _ = audit.event(Event::ServerStopped { reason }).await;
    Ok(audit.close()?)
}

/// A panic of the accept loop; it has no other way to fail.
fn tell_failure(ended: Result<(), JoinError>) {
    if let Err(cause) = ended {
        tracing::error!("the accept loop has failed: {cause}");
    }
}

/// The files are watched: what was renewed is taken up like any other change of them.
fn renewed(outcome: Result<UnixTime, &EnrolError>) {
    match outcome {
        Ok(end) => tracing::info!(%end, "the server's certificate was renewed"),
        Err(error) => tracing::error!(%error, "the server's certificate was not renewed"),
    }
}

/// The signals that end a server.
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> Result<Self, ServerError> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn wait(mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}

/// Ready when the server stops.
pub(super) async fn when_stopped(mut stopped: watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

/// Follows the registry: each change closes exactly the connections that it touches, before the
/// feed confirms it, and is then recorded.
async fn follow(parts: Assembled, stopped: watch::Receiver<bool>) {
    let Assembled {
        service,
        index,
        feed,
        counters,
        trust,
        store,
        ..
    } = parts;
    let (sender, receiver) = mpsc::channel(CHANGES);
    let recording = tokio::spawn(record_changes(service.audit().clone(), store, receiver));
    let on_applied = move |applied: &Applied| {
        if applied.reloaded {
            recheck_all(&index, &trust);
        }
        for change in &applied.changes {
            if let Some(why) = closes(change.kind) {
                let closed = index.close(&change.fingerprint, why);
                tracing::info!(fingerprint = %change.fingerprint, closed, ?why, "applied");
            }
            // The feed must not wait for the log: what does not fit is in the registry itself.
            if sender.try_send(change.clone()).is_err() {
                tracing::warn!(
                    seq = change.seq,
                    "a change of the registry is not in the audit log"
                );
            }
        }
        counters.applied.store(applied.upto, Ordering::Relaxed);
        service.announce();
    };
    feed.run_until(when_stopped(stopped), on_applied).await;
    let _ = recording.await;
}

/// After everything may have changed: every live connection is looked at again.
pub(super) fn recheck_all(index: &LiveIndex, trust: &crate::tls::Trust) {
    let now = crate::clock::unix_now();
    let closed = index.recheck(|peer| match trust.recheck(peer, now) {
        Ok(_) => None,
        Err(refusal) if refusal.class == crate::tls::Class::Revoked => Some(Close::Revoked),
        Err(_) => Some(Close::Unpinned),
    });
    if closed > 0 {
        tracing::info!(closed, "connections that may no longer stay were closed");
    }
}

const fn closes(kind: ChangeKind) -> Option<Close> {
    match kind {
        ChangeKind::Revoked => Some(Close::Revoked),
        ChangeKind::Unpinned => Some(Close::Unpinned),
        ChangeKind::Enrolled
        | ChangeKind::Pinned
        | ChangeKind::Regranted
        | ChangeKind::Shortened => None,
    }
}

async fn record_changes(
    audit: AuditLog,
    store: Arc<dyn Store>,
    mut changes: mpsc::Receiver<Change>,
) {
    while let Some(change) = changes.recv().await {
        let revoked = match change.kind {
            ChangeKind::Revoked => about(&*store, &change).await,
            _ => None,
        };
        let revocation = revoked.as_ref().and_then(|of| {
            let revocation = of.revocation.as_ref()?;
            Some(Revoked {
                name: of.name.as_str(),
                by: &revocation.by,
                reason: revocation.reason.as_str(),
                at: revocation.at,
            })
        });
        let event = Event::RegistryChanged {
            seq: change.seq,
            kind: change.kind.as_str(),
            fingerprint: change.fingerprint,
            revocation,
        };
        let _ = audit.event(event).await;
    }
}

/// Who revoked it, when and why is in the registry; that it was is in force already.
async fn about(store: &dyn Store, change: &Change) -> Option<Enrolment> {
    match tokio::time::timeout(ASK, store.get(change.fingerprint)).await {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => {
            tracing::warn!(%error, seq = change.seq, "a revocation is recorded without its reason");
            None
        }
        Err(_) => None,
    }
}
