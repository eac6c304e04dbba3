//! The CA's own server certificate, issued by itself like any other: recorded, kept in the CA's
//! folder as `serve.crt` and `serve.key`, and renewed at two thirds of its life.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::desk::Desk;
use crate::ca::{
    CaFiles, Hosts, IssueError, ProfileError, Request, Rules, SignError, Signer, SignerError,
    hosts, issue, prepare_output, write_out,
};
use crate::cert::{Parsed, load_chain};
use crate::clock::{UnixTime, unix_now};
use crate::grant::WrittenGrants;
use crate::identity::{SpiffeError, SpiffeId};
use crate::tls::{Identity, IdentityError, OpenTls};

/// The base of the files, and the last segment of the name.
const BASE: &str = "serve";
const NAME: &str = "authority/serve";
/// The profile.
const PROFILE: &str = "server";
/// How often it is looked at.
const LOOK: Duration = Duration::from_secs(600);

/// Why there is no certificate for the CA's server.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each passes on the error of its step")]
pub enum OwnError {
    #[error(transparent)]
    Profile(#[from] ProfileError),
    #[error(transparent)]
    Name(#[from] SpiffeError),
    #[error(transparent)]
    Signer(#[from] SignerError),
    #[error(transparent)]
    Sign(#[from] SignError),
    #[error(transparent)]
    Issue(#[from] IssueError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// Where it is kept, and what it is for.
#[derive(Clone, Debug)]
pub struct Own {
    /// The CA's folder.
    pub files: CaFiles,
    /// DNS names and addresses that the server is dialled by.
    pub hosts: Vec<String>,
}

impl Own {
    fn paths(&self) -> (PathBuf, PathBuf) {
        let beside = |kind| self.files.dir().join(format!("{BASE}.{kind}"));
        (beside("crt"), beside("key"))
    }

    /// The certificate of the folder, or a new one where it would not do for long.
    ///
    /// # Errors
    /// It cannot be issued or written.
    pub async fn identity(&self, desk: &Desk) -> Result<Identity, OwnError> {
        let now = unix_now();
        if let Some(identity) = self.standing(desk, now).await {
            return Ok(identity);
        }
        self.issue(desk, now).await
    }

    /// The one of the folder, if it is of this CA, for these hosts, on record, and young enough.
    async fn standing(&self, desk: &Desk, now: UnixTime) -> Option<Identity> {
        let (certificate, key) = self.paths();
        let chain = load_chain(&certificate).ok()?;
        let leaf = chain.first()?;
        let parsed = Parsed::from_der(leaf, &desk.parts().permission_oid).ok()?;
        let life = parsed.not_after.since(parsed.not_before);
        let young = parsed.not_after.since(now) > life / 3;
        let ours = chain
            .get(1)
            .is_some_and(|issuer| issuer == desk.authority().der());
        let fits = hosts(leaf) == Hosts::read(&self.hosts);
        if !young || !ours || !fits {
            return None;
        }
        let known = desk.store().get(parsed.fingerprint).await.ok()??;
        known.is_live(now).then_some(())?;
        Identity::load(&certificate, &key, None).ok()
    }

    async fn issue(&self, desk: &Desk, now: UnixTime) -> Result<Identity, OwnError> {
        let parts = desk.parts();
        let profile = parts.profiles.get(PROFILE)?;
        let (signer, key) = Signer::generate(profile.key)?;
        let Hosts { dns, ips } = Hosts::read(&self.hosts);
        let request = Request {
            name: SpiffeId::new(desk.authority().trust_domain(), NAME)?,
            subject_key: &signer.public_key(),
            grants: WrittenGrants::default(),
            profile,
            ttl: None,
            dns,
            ips,
        };
        let rules = Rules {
            permission_oid: &parts.permission_oid,
            roles: &parts.roles,
        };
        let signed = desk.authority().sign(&request, rules, now)?;
        let output = prepare_output(self.files.dir(), BASE, desk.authority().root_der(), true)?;
        let store = &**desk.store();
        let issued = issue(store, signed, "ca serve", now).await?;
        write_out(store, &output, &issued, &key, now).await?;
        let (certificate, key) = self.paths();
        Ok(Identity::load(&certificate, &key, None)?)
    }

    /// Renews it until stopped.
    pub(super) async fn keep(
        self,
        desk: Arc<Desk>,
        tls: Arc<OpenTls>,
        mut stopped: watch::Receiver<bool>,
    ) {
        loop {
            tokio::select! {
                _ = stopped.wait_for(|stopped| *stopped) => return,
                () = tokio::time::sleep(LOOK) => {}
            }
            if self.standing(&desk, unix_now()).await.is_some() {
                continue;
            }
            match self.issue(&desk, unix_now()).await {
                Ok(identity) => {
                    tracing::info!(fingerprint = %identity.fingerprint().short(),
                        "the CA's server has a new certificate");
                    tls.reload(&identity);
                }
                Err(error) => tracing::error!(%error, "no new certificate for the CA's server"),
            }
        }
    }
}
