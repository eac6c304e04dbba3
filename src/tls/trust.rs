//! The trust state: anchors, CRLs, and the chains that were verified under it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::pki_types::CertificateDer;

use super::admission::{self, Sources};
use super::anchor::{Anchor, AnchorOptions, CrlMode};
use super::cache::{self, ChainCache, Key, Verified};
use super::path::{self, Presented, Rules};
use super::profile::Profile;
use super::refusal::{Class, Refusal};
use crate::clock::{self, UnixTime};
use crate::peer::{Chain, Link, Peer};
use crate::registry::{Pin, View};

/// Why a configuration cannot be trusted by.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// An empty list would refuse everybody; it is more likely a mistake.
    #[error("no trust anchor is configured: nobody could ever be admitted")]
    NoAnchor,
    /// One anchor is unusable.
    #[error("anchor `{anchor}`: {cause}")]
    Anchor {
        /// Its name.
        anchor: String,
        /// What is wrong with it.
        cause: String,
    },
}

/// Who is trusted, and who of them stands how in the registry.
///
/// Anchors, CRLs and the verified chains are one state, swapped as a whole by a reload; a failed
/// reload keeps the old one. The registry's picture is shared and always looked at afresh.
pub struct Trust {
    state: ArcSwap<State>,
    view: Arc<View>,
    profile: Profile,
    /// In milliseconds; `u64::MAX`: no limit.
    max_staleness: AtomicU64,
}

struct State {
    anchors: Vec<Anchor>,
    permission_oid: String,
    verified: ChainCache,
}

impl Trust {
    /// Loads every anchor. `permission_oid`: dotted decimal. `profile`: what signatures are believed
    /// in chains and CRLs.
    ///
    /// # Errors
    /// As [`TrustError`] says, all anchors looked at.
    pub fn load(
        anchors: &[AnchorOptions],
        permission_oid: &str,
        view: Arc<View>,
        profile: Profile,
    ) -> Result<Self, Vec<TrustError>> {
        let state = State::load(anchors, permission_oid, &[])?;
        Ok(Self {
            state: ArcSwap::from_pointee(state),
            view,
            profile,
            max_staleness: AtomicU64::new(u64::MAX),
        })
    }

    /// Loads everything again in place. Chains that were verified before are forgotten, so tickets
    /// given out before lead to full handshakes. Live connections are the caller's to re-check, by
    /// [`Self::recheck`].
    ///
    /// # Errors
    /// The old state stays in force.
    pub fn reload(
        &self,
        anchors: &[AnchorOptions],
        permission_oid: &str,
    ) -> Result<(), Vec<TrustError>> {
        let state = State::load(anchors, permission_oid, &self.state.load().anchors)?;
        self.state.store(Arc::new(state));
        Ok(())
    }

    /// How long the registry may go unheard of before nobody is admitted by what it last said
    /// (`registry.max_staleness`). There is no limit until this is called.
    pub fn limit_staleness(&self, most: Duration) {
        let most = u64::try_from(most.as_millis()).unwrap_or(u64::MAX);
        self.max_staleness.store(most, Ordering::Relaxed);
    }

    /// The pin that is in force for a peer now: the leaf's, or that of the nearest delegate above
    /// it. Pure look-ups, no path building.
    ///
    /// # Errors
    /// The refusal: the chain has ended, a certificate of it is revoked or no longer pinned, or
    /// nothing is left that it could be allowed.
    pub fn standing(&self, chain: &Chain, now: UnixTime) -> Result<Option<Pin>, Refusal> {
        self.standing_on(&[], chain, now)
    }

    /// As [`Self::standing`], and whether the anchors and CRLs of the present state still lead to
    /// this peer: for live connections after a reload. No signature is verified again. A registry
    /// that is not heard of closes nobody: a live connection's calls are refused until it is back.
    ///
    /// # Errors
    /// The refusal.
    pub fn recheck(&self, peer: &Peer, now: UnixTime) -> Result<Option<Pin>, Refusal> {
        self.state.load().still_leads_to(peer)?;
        self.look_up(peer.links(), peer.chain(), now, Duration::MAX)
    }

    fn standing_on(
        &self,
        links: &[Link],
        chain: &Chain,
        now: UnixTime,
    ) -> Result<Option<Pin>, Refusal> {
        let max_staleness = match self.max_staleness.load(Ordering::Relaxed) {
            u64::MAX => Duration::MAX,
            most => Duration::from_millis(most),
        };
        self.look_up(links, chain, now, max_staleness)
    }

    fn look_up(
        &self,
        links: &[Link],
        chain: &Chain,
        now: UnixTime,
        max_staleness: Duration,
    ) -> Result<Option<Pin>, Refusal> {
        admission::standing(
            &Sources {
                view: &self.view,
                max_staleness,
                links,
            },
            chain,
            now,
        )
    }

    /// What a server would make of these certificates (DER, leaf first), if their keys were proven:
    /// the verified chain, not yet how it stands in the registry. For `policy explain`; a peer is
    /// made only after a handshake.
    ///
    /// # Errors
    /// The refusal.
    pub fn chain_of(&self, presented: &[Vec<u8>], now: UnixTime) -> Result<Arc<Chain>, Refusal> {
        let all: Vec<_> = presented
            .iter()
            .map(|der| CertificateDer::from(der.as_slice()))
            .collect();
        let Some((leaf, others)) = all.split_first() else {
            return Err(Refusal::new(Class::NoCertificate, "no certificate"));
        };
        let (_, verified) = self.state.load().verify(leaf, others, self.profile, now)?;
        Ok(Arc::clone(&verified.chain))
    }

    /// What was presented, judged: a path to an anchor (remembered or built), and how it stands in
    /// the registry now.
    pub(super) fn judge(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(Key, Arc<Verified>), Refusal> {
        let (key, verified) = self.state.load().verify(leaf, others, self.profile, now)?;
        self.standing_on(&verified.links, &verified.chain, now)?;
        Ok((key, verified))
    }

    /// Whether a session of this chain may be resumed: known under the present state, valid and
    /// standing now.
    pub(super) fn resumable(&self, key: &Key, now: UnixTime) -> bool {
        let found = self
            .state
            .load()
            .verified
            .get(key)
            .filter(|verified| verified.holds(now));
        found.is_some_and(|found| self.standing_on(&found.links, &found.chain, now).is_ok())
    }

    /// The anchors in force, by name, and until when a CRL that they require is fresh: for
    /// `doctor`, metrics and warnings.
    #[must_use]
    pub fn crl_deadlines(&self) -> Vec<(String, UnixTime)> {
        let state = self.state.load();
        let required = state
            .anchors
            .iter()
            .filter(|a| a.crl_mode == Some(CrlMode::Require));
        required
            .map(|a| (a.name.to_string(), a.crls.next_update()))
            .collect()
    }
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.load();
        let names: Vec<&str> = state.anchors.iter().map(Anchor::name).collect();
        f.debug_struct("Trust")
            .field("anchors", &names)
            .finish_non_exhaustive()
    }
}

impl State {
    fn load(
        options: &[AnchorOptions],
        permission_oid: &str,
        before: &[Anchor],
    ) -> Result<Self, Vec<TrustError>> {
        let mut errors = Vec::new();
        let mut anchors: Vec<Anchor> = Vec::with_capacity(options.len());
        for written in options {
            let same = before.iter().find(|anchor| *anchor.name == *written.name);
            let loaded = Anchor::load(written, permission_oid, same)
                .and_then(|anchor| check_apart(&anchors, &anchor).map(|()| anchor));
            match loaded {
                Ok(anchor) => anchors.push(anchor),
                Err(cause) => {
                    errors.push(TrustError::Anchor {
                        anchor: written.name.clone(),
                        cause,
                    });
                }
            }
        }
        if options.is_empty() {
            errors.push(TrustError::NoAnchor);
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        warn_of_ends(&anchors, clock::unix_now());
        let permission_oid = permission_oid.to_owned();
        Ok(Self {
            anchors,
            permission_oid,
            verified: ChainCache::default(),
        })
    }

    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        profile: Profile,
        now: UnixTime,
    ) -> Result<(Key, Arc<Verified>), Refusal> {
        let key = cache::key(leaf, others);
        if let Some(verified) = self
            .verified
            .get(&key)
            .filter(|verified| verified.holds(now))
        {
            return Ok((key, verified));
        }
        let rules = Rules {
            profile,
            permission_oid: &self.permission_oid,
        };
        let found = path::find(&self.anchors, &Presented { leaf, others, now }, &rules)?;
        let verified = Arc::new(found.verified);
        if found.nothing_besides && verified.holds(now) {
            self.verified.put(key, verified.clone());
        }
        Ok((key, verified))
    }

    fn still_leads_to(&self, peer: &Peer) -> Result<(), Refusal> {
        let chain = peer.chain();
        let refuse = |class, reason: String| {
            Err(Refusal::new(class, reason)
                .of(chain.fingerprint)
                .named(chain.name.as_str()))
        };
        let anchor = self
            .anchors
            .iter()
            .find(|anchor| anchor.name == chain.anchor);
        let root = chain.issuers.last();
        let Some(anchor) = anchor.filter(|a| root.is_some_and(|root| a.holds(root))) else {
            return refuse(
                Class::UnknownCa,
                format!("anchor `{}` is gone", chain.anchor),
            );
        };
        let ceiling = anchor.ceiling.as_ref();
        if anchor.mode != chain.mode || ceiling.is_some_and(|c| chain.layers.last() != Some(c)) {
            return refuse(
                Class::AccessDenied,
                format!("anchor `{}` has changed", anchor.name),
            );
        }
        let revoked = |link: &Link| anchor.crls.revoke(&link.issuer, &link.serial);
        if peer.links().iter().any(revoked) {
            let reason = String::from("a CRL names the certificate or an issuer above it");
            return refuse(Class::Revoked, reason);
        }
        Ok(())
    }
}

/// One certificate under two anchors would have two modes and two ceilings.
fn check_apart(others: &[Anchor], anchor: &Anchor) -> Result<(), String> {
    for other in others {
        if other.name == anchor.name {
            return Err(String::from("another anchor has this name"));
        }
        if let Some(root) = anchor
            .roots
            .iter()
            .find(|root| other.holds(&root.fingerprint))
        {
            return Err(format!(
                "`{}` is a certificate of anchor `{}` too",
                root.subject, other.name
            ));
        }
    }
    Ok(())
}

fn warn_of_ends(anchors: &[Anchor], now: UnixTime) {
    for anchor in anchors {
        for root in anchor.roots.iter().filter(|root| root.not_after < now) {
            tracing::warn!(anchor = %anchor.name, "`{}` ended at {}", root.subject, root.not_after);
        }
        if anchor.crl_mode.is_some() && anchor.crls.next_update() <= now {
            let due = anchor.crls.next_update();
            tracing::error!(anchor = %anchor.name, "its CRL should have been renewed by {due}");
        }
    }
}
