//! One CA's time at the desk, and who comes after it. `ca rotate` puts another issuing CA into the folder,
//! perhaps because the key of the one before is no longer trusted, so nothing is signed by that key any
//! more once this server has seen it. Connections that are there come to their end.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::crl::{CrlOptions, Crls, refresh};
use super::desk::{Desk, DeskParts};
use super::http::Est;
use super::listen;
use super::own::{Own, OwnError};
use crate::audit::Event;
use crate::ca::{Authority, CaFiles};
use crate::tls::{OpenTls, ServerTlsError};

/// After a CA that could not take over.
const AGAIN: Duration = Duration::from_secs(30);

/// Opens the CAs of the folder as they are now, the issuing CA first, without asking anybody.
pub type Reopen = Arc<dyn Fn() -> Result<Vec<Authority>, String> + Send + Sync>;

/// Why a CA cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// Its own certificate.
    #[error("no certificate for the CA's server: {0}")]
    Own(#[from] OwnError),
    /// TLS.
    #[error(transparent)]
    Tls(#[from] ServerTlsError),
}

/// What every shift works with.
pub(super) struct House {
    pub files: CaFiles,
    pub own: Own,
    pub crls: Arc<Crls>,
    pub crl: CrlOptions,
    pub socket: Arc<TcpListener>,
}

/// A desk and the certificate that it is reached by.
pub(super) struct Shift {
    desk: Arc<Desk>,
    tls: Arc<OpenTls>,
}

/// The tasks of a shift.
pub(super) struct Running {
    stopping: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

impl Running {
    /// Nobody else is served; ready when those who are have their answers.
    pub async fn stop(mut self) {
        let _ = self.stopping.send(true);
        while self.tasks.join_next().await.is_some() {}
    }
}

impl Shift {
    /// Everything that can fail, before anybody is served.
    pub async fn prepare(desk: DeskParts, own: &Own) -> Result<Self, PrepareError> {
        let desk = Arc::new(Desk::new(desk));
        let identity = own.identity(&desk).await?;
        let authority = desk.authority();
        let alpn: &[&[u8]] = &[b"http/1.1"];
        let tls = OpenTls::new(&identity, authority.roots(), &authority.path(), alpn)?;
        let tls = Arc::new(tls);
        Ok(Self { desk, tls })
    }

    /// Enrols, keeps the CRLs and its own certificate fresh.
    pub fn start(&self, house: &House) -> Running {
        let (stopping, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        let own = house.own.clone();
        tasks.spawn(own.keep(
            Arc::clone(&self.desk),
            Arc::clone(&self.tls),
            stopped.clone(),
        ));
        tasks.spawn(refresh(
            Arc::clone(&self.desk),
            house.files.clone(),
            Arc::clone(&house.crls),
            house.crl,
            stopped.clone(),
        ));
        let est = Arc::new(Est::new(Arc::clone(&self.desk)));
        let (tls, log) = (Arc::clone(&self.tls), self.desk.audit().clone());
        let socket = Arc::clone(&house.socket);
        tasks.spawn(listen::accept(
            socket,
            stopped,
            move |tcp, address, stopped| {
                let (est, tls, log) = (Arc::clone(&est), Arc::clone(&tls), log.clone());
                listen::est(est, tls, log, tcp, address, stopped)
            },
        ));
        Running { stopping, tasks }
    }

    /// Ready when another CA is in the folder and can take over. One that cannot is told of, and this one
    /// goes on.
    pub async fn successor(&self, house: &House, reopen: &Reopen) -> Self {
        let (mut failed, mut said) = (false, None);
        loop {
            self.desk.authority().replaced(&house.files).await;
            let next = match self.opened(reopen).await {
                Ok(open) => self.follow(open, house).await,
                Err(what) => Err(what),
            };
            match next {
                Ok(next) => {
                    tracing::info!("another issuing CA has taken over");
                    self.told(None).await;
                    return next;
                }
                // It may be half there.
                Err(_) if !failed => failed = true,
                Err(what) => {
                    if said.as_ref() != Some(&what) {
                        tracing::error!(
                            "the issuing CA was replaced, and the new one cannot take over: {what}"
                        );
                        self.told(Some(&what)).await;
                    }
                    said = Some(what);
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    }

    async fn told(&self, error: Option<&str>) {
        let what = "issuing CA";
        // Kept and tried again by the log itself.
        let _ = self
            .desk
            .audit()
            .event(Event::Reloaded { what, error })
            .await;
    }

    async fn opened(&self, reopen: &Reopen) -> Result<Vec<Authority>, String> {
        let reopen = Arc::clone(reopen);
        // A key under a passphrase takes a moment to open.
        let opened = tokio::task::spawn_blocking(move || reopen()).await;
        opened.map_err(|error| error.to_string())?
    }

    async fn follow(&self, mut open: Vec<Authority>, house: &House) -> Result<Self, String> {
        if open.is_empty() {
            return Err(String::from("no CA is in the folder"));
        }
        let authority = open.remove(0);
        let desk = self.desk.parts().succeeded_by(authority, open);
        Self::prepare(desk, &house.own)
            .await
            .map_err(|error| error.to_string())
    }
}
