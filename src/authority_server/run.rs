//! Its life: listen, enrol, keep the CRL fresh, stop.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;

use super::crl::{CrlOptions, Crls};
use super::desk::DeskParts;
use super::listen;
use super::own::Own;
use super::shift::{House, PrepareError, Reopen, Shift};
use crate::audit::{AuditError, Event};
use crate::ca::CaFiles;
use crate::clock::{UnixTime, unix_now};
use crate::registry::Store;

/// Tokens are kept for so long after they expired, so that whoever comes late is told so.
const REMEMBER: Duration = Duration::from_secs(24 * 3600);
/// How often they are looked through.
const PURGE: Duration = Duration::from_secs(3600);

/// Where it listens, and for whom.
#[derive(Clone, Debug)]
pub struct AuthorityServerOptions {
    /// EST over TLS.
    pub listen: SocketAddr,
    /// CRLs over HTTP, if they are to be served.
    pub crl_listen: Option<SocketAddr>,
    /// What EST is dialled by: DNS names and addresses, for its certificate.
    pub hosts: Vec<String>,
    /// The CRL's timer.
    pub crl: CrlOptions,
}

/// Everything that it is made of.
pub struct AuthorityServer {
    /// The CA's folder.
    pub files: CaFiles,
    /// The desk's parts.
    pub desk: DeskParts,
    /// For when another CA is in the folder.
    pub reopen: Reopen,
    /// Where and for whom.
    pub options: AuthorityServerOptions,
}

/// Where it listens, with the ports that the system chose.
#[derive(Clone, Copy, Debug)]
pub struct Listening {
    /// EST.
    pub est: SocketAddr,
    /// CRLs.
    pub crl: Option<SocketAddr>,
}

/// Why it does not start.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityServerError {
    /// An address.
    #[error("cannot listen on {address}: {cause}")]
    Listen {
        /// The address that was asked for.
        address: SocketAddr,
        /// What the system says.
        cause: std::io::Error,
    },
    /// What it is reached by.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    /// The audit log.
    #[error(transparent)]
    Audit(#[from] AuditError),
}

/// Runs until `stop` is ready with a reason. When another CA is in the folder, it takes over.
///
/// # Errors
/// It does not start. What goes wrong later is logged, and the server goes on.
pub async fn run(
    server: AuthorityServer,
    stop: impl Future<Output = &'static str> + Send,
    ready: impl FnOnce(Listening) + Send,
) -> Result<(), AuthorityServerError> {
    let AuthorityServer {
        files,
        desk,
        reopen,
        options,
    } = server;
    let (est_socket, est_address) = bind(options.listen).await?;
    let crl_socket = match options.crl_listen {
        Some(address) => Some(bind(address).await?),
        None => None,
    };
    let (audit, store) = (desk.audit.clone(), Arc::clone(&desk.store));
    let house = House {
        own: Own {
            files: files.clone(),
            hosts: options.hosts,
        },
        crls: Arc::new(Crls::new(files.clone())),
        crl: options.crl,
        socket: Arc::new(est_socket),
        files,
    };
    let mut shift = Shift::prepare(desk, &house.own).await?;
    let listen = est_address.to_string();
    let version = env!("CARGO_PKG_VERSION");
    audit
        .event(Event::ServerStarted {
            version,
            listen: &listen,
        })
        .await?;
    let (stopping, stopped) = watch::channel(false);
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(Arc::clone(&house.crls).follow(stopped.clone()));
    tasks.spawn(purge(store, stopped.clone()));
    let crl_address = crl_socket.as_ref().map(|(_, address)| *address);
    if let Some((socket, _)) = crl_socket {
        let crls = Arc::clone(&house.crls);
        tasks.spawn(listen::accept(
            Arc::new(socket),
            stopped,
            move |tcp, _, stopped| listen::crls(Arc::clone(&crls), tcp, stopped),
        ));
    }
    let mut running = shift.start(&house);
    ready(Listening {
        est: est_address,
        crl: crl_address,
    });
    let mut stop = std::pin::pin!(stop);
    let reason = loop {
        tokio::select! {
            reason = &mut stop => break reason,
            next = shift.successor(&house, &reopen) => {
                // First, so that nobody finds the door shut.
                let before = std::mem::replace(&mut running, next.start(&house));
                tasks.spawn(before.stop());
                shift = next;
            }
        }
    };
    tracing::info!(reason, "stopping");
    let _ = stopping.send(true);
    // From here on the system refuses whoever knocks.
    drop(house);
    running.stop().await;
    while tasks.join_next().await.is_some() {}
    let _ = audit.event(Event::ServerStopped { reason }).await;
    Ok(audit.close()?)
}

async fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), AuthorityServerError> {
    let failed = |cause| AuthorityServerError::Listen { address, cause };
    let socket = TcpListener::bind(address).await.map_err(failed)?;
    let bound = socket.local_addr().map_err(failed)?;
    Ok((socket, bound))
}

/// Old tokens, and old changes: also where no server runs that would forget them.
async fn purge(store: Arc<dyn Store>, mut stopped: watch::Receiver<bool>) {
    loop {
        let remember = REMEMBER.as_secs().cast_signed();
        let before = UnixTime(unix_now().0.saturating_sub(remember));
        if let Err(error) = store.purge_tokens(before).await {
            tracing::warn!(%error, "old tokens could not be forgotten");
        }
        loop {
            match store.prune(before).await {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(%error, "old changes could not be forgotten");
                    break;
                }
            }
        }
        tokio::select! {
            _ = stopped.wait_for(|stopped| *stopped) => return,
            () = tokio::time::sleep(PURGE) => {}
        }
    }
}
