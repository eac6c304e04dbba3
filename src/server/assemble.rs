//! From a checked configuration to the parts of a server, in the order in which they need each
//! other. Nothing listens yet, and nothing was admitted.

use std::sync::Arc;

use crate::audit::{AuditError, AuditLog};
use crate::backend::files::{FilesProvider, OpenError};
use crate::backend::own::{self, OwnProvider};
use crate::backend::prompts::{self, PromptsProvider};
use crate::backend::{Catalogue, CatalogueError, Provider};
use crate::cert::{PassphraseError, read_passphrase};
use crate::clock;
use crate::config::Config;
use crate::dispatch::{Cursors, Router, RouterOptions};
use crate::listener::{ListenError, LiveIndex};
use crate::mcp::ServerInfo;
use crate::registry::{self, Feed, Store, StoreError, View};
use crate::secret::Secret;
use crate::session::{Service, ServiceParts};
use crate::tls::{
    Identity, IdentityError, ServerTls, ServerTlsError, ServerTlsOptions, Trust, TrustError,
    own_revocations,
};

use crate::transport::choose;

use super::status::Counters;

/// Why a server does not start. Every message names the file, the address or the key.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Every mistake in the configuration.
    #[error("{0}")]
    Configuration(String),
    /// The registry.
    #[error(transparent)]
    Registry(#[from] StoreError),
    /// Every mistake in every anchor.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Trust(Vec<TrustError>),
    /// The CA's own CRL, which was asked for.
    #[error("{0}")]
    OwnCrl(String),
    /// The server's certificate or key.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The passphrase of the key.
    #[error(transparent)]
    Passphrase(#[from] PassphraseError),
    /// TLS.
    #[error(transparent)]
    Tls(#[from] ServerTlsError),
    /// The audit log.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// A folder of the `files` provider.
    #[error(transparent)]
    Files(#[from] OpenError),
    /// Every mistake in every prompt.
    #[error("{0}")]
    Prompts(String),
    /// Names that clash.
    #[error(transparent)]
    Catalogue(#[from] CatalogueError),
    /// No random bytes.
    #[error(transparent)]
    Random(#[from] crate::dispatch::NoRandom),
    /// The address.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// A signal handler or another service of the system.
    #[error("the operating system refuses: {0}")]
    System(#[from] std::io::Error),
}

/// Everything but the listener.
pub struct Assembled {
    /// What sessions share.
    pub service: Arc<Service>,
    /// Handshakes.
    pub tls: Arc<ServerTls>,
    /// Live connections.
    pub index: Arc<LiveIndex>,
    /// Keeps the view in step; to be run.
    pub feed: Feed,
    /// What has been counted.
    pub counters: Arc<Counters>,
    pub(super) trust: Arc<Trust>,
    pub(super) view: Arc<View>,
    pub(super) store: Arc<dyn Store>,
}

/// Puts the parts together. `extra` providers come before the built-in ones, by their names.
///
/// # Errors
/// As [`ServerError`] says; the registry may have been created by then, nothing else.
pub async fn assemble(
    config: &Config,
    extra: Vec<(String, Arc<dyn Provider>)>,
) -> Result<Assembled, ServerError> {
    // What may be taken or unreadable comes before the registry: with the first heartbeat,
    // revocations wait for this server.
    let identity = load_identity(config)?;
    let (audit, _) = AuditLog::open(config.audit.clone())?;
    let store = registry::open(&config.registry.place, true).await?;
    let (feed, view) = Feed::load(Arc::clone(&store), server_name()).await?;
    load_own_crl(config, &view).map_err(ServerError::OwnCrl)?;
    let profile = config.tls.profile;
    let trust = Trust::load(
        &config.anchors,
        &config.permission_oid,
        Arc::clone(&view),
        profile,
    );
    let trust = Arc::new(trust.map_err(ServerError::Trust)?);
    trust.limit_staleness(config.registry.max_staleness);
    let options = ServerTlsOptions {
        alpn: alpn(config.http.enabled),
        profile,
    };
    let tls = Arc::new(ServerTls::new(&identity, Arc::clone(&trust), &options)?);
    let index = Arc::new(LiveIndex::default());
    let counters = Arc::new(Counters::new(
        Arc::clone(&index),
        audit.clone(),
        Arc::clone(&view),
        config.registry.max_staleness,
    ));
    let catalogue = Catalogue::new(providers(config, extra, &counters)?)?;
    counters.name_providers(&catalogue);
    let info = &config.server;
    let info = ServerInfo::new(
        &info.name,
        info.title.as_deref(),
        env!("CARGO_PKG_VERSION"),
        info.instructions.as_deref(),
    );
    let options = RouterOptions {
        page_size: config.limits.page_size,
        max_uris: config.limits.subscriptions_per_connection,
        ..RouterOptions::default()
    };
    let service = Service::new(ServiceParts {
        router: Arc::new(Router::new(catalogue, Cursors::new()?, info, options)),
        audit,
        trust: Arc::clone(&trust),
        view: Arc::clone(&view),
        policy: config.policy.clone(),
        limits: config.limits.clone(),
        http: config.http.clone(),
        max_staleness: config.registry.max_staleness,
    });
    counters.watch(&service);
    Ok(Assembled {
        service,
        tls,
        index,
        feed,
        counters,
        trust,
        view,
        store,
    })
}

/// What the server agrees to speak, best first.
fn alpn(http: bool) -> Vec<Vec<u8>> {
    let all = [choose::ALPN_RAW, choose::ALPN_HTTP2, choose::ALPN_HTTP1];
    all[..if http { 3 } else { 1 }]
        .iter()
        .map(|name| name.to_vec())
        .collect()
}

/// What the CA's own CRL names stays revoked while this process lives, whatever the registry says.
pub(super) fn load_own_crl(config: &Config, view: &View) -> Result<(), String> {
    let Some(path) = &config.registry.crl_file else {
        return Ok(());
    };
    for (issuer, serials) in own_revocations(path)? {
        view.insert_revoked_serials(issuer, serials.iter().map(Vec::as_slice));
    }
    Ok(())
}

/// The server's certificate and key.
pub(super) fn load_identity(config: &Config) -> Result<Identity, ServerError> {
    let passphrase = passphrase(config)?;
    Ok(Identity::load(
        &config.tls.certificate,
        &config.tls.key,
        passphrase.as_ref(),
    )?)
}

/// What opens the server's key.
pub(super) fn passphrase(config: &Config) -> Result<Option<Secret>, ServerError> {
    let file = config.tls.key_passphrase_file.as_deref();
    Ok(file.map(read_passphrase).transpose()?)
}

/// Providers by their names.
type Named = Vec<(String, Arc<dyn Provider>)>;

fn providers(
    config: &Config,
    extra: Named,
    counters: &Arc<Counters>,
) -> Result<Named, ServerError> {
    let mut all = extra;
    for options in &config.files {
        let name = options.name.clone();
        all.push((name, Arc::new(FilesProvider::open(options.clone())?)));
    }
    let status = Arc::clone(counters) as Arc<dyn own::StatusSource>;
    all.push((own::NAME.to_owned(), Arc::new(OwnProvider::new(status))));
    if !config.prompts.is_empty() {
        let prompts = PromptsProvider::new(config.prompts.clone()).map_err(|errors| {
            let lines: Vec<_> = errors.iter().map(ToString::to_string).collect();
            ServerError::Prompts(lines.join("; "))
        })?;
        all.push((prompts::NAME.to_owned(), Arc::new(prompts)));
    }
    Ok(all)
}

/// This process among the servers of the registry: the host, and what no other process of it has.
fn server_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = host.trim();
    let host = if host.is_empty() { "localhost" } else { host };
    format!(
        "{host}/{}/{}",
        std::process::id(),
        clock::since_epoch().as_micros() % 1_000_000
    )
}
