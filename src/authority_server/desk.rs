//! Where certificates are given out: who asks is proven, what is asked is held against the token
//! or the older certificate, and what is signed is recorded before anybody can have it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use governor::Quota;
use hyper::StatusCode;

use super::rate::{Rates, Table};
use super::refusal::Refusal;
use crate::audit::{AuditLog, Enrolled, Event};
use crate::ca::{
    Authority, CertificateRequest, Hosts, Issued, Profile, Profiles, Renewal, Request, Rules,
    Signed, Usage, issue_renewal, issue_with_token, narrow,
};
use crate::cert::Parsed;
use crate::clock::{UnixTime, unix_now};
use crate::est::{from_body, write_certs_only};
use crate::grant::{Roles, WrittenGrants};
use crate::identity::{Fingerprint, SpiffeId};
use crate::registry::{Enrolment, EnrolmentKind, Store, Token, TokenDigest, TokenRefusal};
use crate::secret::Secret;

/// How a client says who it is.
pub(super) enum Proof {
    /// A one-time token; with HTTP Basic also the name that it says.
    Token {
        /// What it says its name is.
        user: Option<String>,
        /// The token's secret.
        secret: Secret,
    },
    /// The certificate of the handshake.
    Certificate(Fingerprint),
}

/// One request for a certificate.
pub(super) struct Asked<'a> {
    pub address: SocketAddr,
    pub proof: Option<Proof>,
    pub body: &'a [u8],
}

/// What a desk is made of.
pub struct DeskParts {
    /// The issuing CA, its key opened.
    pub authority: Authority,
    /// Other CAs of the folder whose keys are open too, for their CRLs.
    pub others: Vec<Authority>,
    /// The registry.
    pub store: Arc<dyn Store>,
    /// The kinds of certificate.
    pub profiles: Profiles,
    /// The permission extension's identifier.
    pub permission_oid: String,
    /// What roles stand for.
    pub roles: Roles,
    /// Its own audit log.
    pub audit: AuditLog,
    /// How much one name gets.
    pub rates: Rates,
}

impl DeskParts {
    /// The same under another CA.
    pub(super) fn succeeded_by(&self, authority: Authority, others: Vec<Authority>) -> Self {
        Self {
            authority,
            others,
            store: Arc::clone(&self.store),
            profiles: self.profiles.clone(),
            permission_oid: self.permission_oid.clone(),
            roles: self.roles.clone(),
            audit: self.audit.clone(),
            rates: self.rates,
        }
    }
}

/// The desk.
pub struct Desk {
    parts: DeskParts,
    names: Table<String>,
}

impl Desk {
    /// Opens it.
    #[must_use]
    pub fn new(parts: DeskParts) -> Self {
        let quota = Quota::per_minute(parts.rates.per_name);
        Self {
            parts,
            names: Table::new(quota),
        }
    }

    /// The CA.
    #[must_use]
    pub fn authority(&self) -> &Authority {
        &self.parts.authority
    }

    /// The registry.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.parts.store
    }

    /// The log.
    #[must_use]
    pub fn audit(&self) -> &AuditLog {
        &self.parts.audit
    }

    pub(super) fn parts(&self) -> &DeskParts {
        &self.parts
    }

    /// The CA's certificates, up to the root: the answer of `cacerts`.
    pub(super) fn authorities(&self) -> Vec<u8> {
        write_certs_only(self.parts.authority.path())
    }

    /// Signs, records, and answers with the certificate. A refusal is recorded too.
    pub(super) async fn enrol(&self, asked: Asked<'_>) -> Result<Vec<u8>, Refusal> {
        let mut claimed = Claimed::default();
        let outcome = self.decide(&asked, &mut claimed).await;
        if let Err(refusal) = &outcome {
            let refused = Event::Refused {
                address: asked.address,
                reason: &refusal.detail,
                class: refusal.reason,
                name: claimed.name.as_deref(),
                fingerprint: claimed.fingerprint,
            };
            tracing::info!(address = %asked.address, reason = %refusal.detail, "refused");
            // A refusal that cannot be written yet is kept and tried again by the log itself.
            let _ = self.parts.audit.event(refused).await;
        }
        outcome
    }

    async fn decide(&self, asked: &Asked<'_>, claimed: &mut Claimed) -> Result<Vec<u8>, Refusal> {
        // Before anything is issued: what cannot be written down is not done.
        if !self.parts.audit.healthy() {
            return Err(Refusal::unavailable(
                "audit_unavailable",
                "the audit log cannot be written now",
            ));
        }
        match asked.proof.as_ref().ok_or_else(Refusal::unauthenticated)? {
            Proof::Token { user, secret } => {
                claimed.name.clone_from(user);
                self.by_token(asked, user.as_deref(), secret, claimed).await
            }
            Proof::Certificate(fingerprint) => {
                claimed.fingerprint = Some(*fingerprint);
                self.by_certificate(asked, *fingerprint, claimed).await
            }
        }
    }

    async fn by_token(
        &self,
        asked: &Asked<'_>,
        user: Option<&str>,
        secret: &Secret,
        claimed: &mut Claimed,
    ) -> Result<Vec<u8>, Refusal> {
        let now = unix_now();
        let digest = TokenDigest::of(secret.expose());
        let token = self.parts.store.token(digest).await?;
        let token = token.ok_or(TokenRefusal::Unknown)?;
        claimed.name = Some(token.name.to_string());
        token.check(now)?;
        check_user(&token, user)?;
        self.check_rate(token.name.as_str())?;
        let request = CertificateRequest::parse(&from_body(asked.body)?)?;
        check_names(&request, token.name.as_str())?;
        let profile = self.parts.profiles.get(&token.profile)?;
        let held = if token.grants.is_empty() {
            &profile.grants
        } else {
            &token.grants
        };
        let grants = self.grants(profile, held, &request)?;
        let signed = self.sign(&token, profile, grants, &request, now)?;
        let by = format!("token from {}", asked.address.ip());
        let issued = issue_with_token(&*self.parts.store, signed, digest, &by, now).await?;
        self.hand_out(asked, "token", &issued, None).await
    }

    async fn by_certificate(
        &self,
        asked: &Asked<'_>,
        fingerprint: Fingerprint,
        claimed: &mut Claimed,
    ) -> Result<Vec<u8>, Refusal> {
        let now = unix_now();
        let old = self.parts.store.get(fingerprint).await?;
        let old = old.ok_or_else(|| {
            Refusal::forbidden("not_enrolled", "this certificate is not enrolled here")
        })?;
        claimed.name = Some(old.name.to_string());
        let profile = self.parts.profiles.get(&old.profile)?;
        check_standing(&old, profile, now)?;
        self.check_rate(old.name.as_str())?;
        let request = CertificateRequest::parse(&from_body(asked.body)?)?;
        check_names(&request, old.name.as_str())?;
        let parsed = Parsed::from_der(&old.der, &self.parts.permission_oid)
            .map_err(|error| Refusal::forbidden("not_enrolled", error))?;
        let held = parsed.permissions.unwrap_or_default();
        let lived = old.not_after.since(old.created_at);
        let renewal = Renewal {
            old: &old,
            subject_key: request.subject_key(),
            grants: Some(self.grants(profile, &held, &request)?),
            profile,
            ttl: Some(lived.clamp(Duration::from_secs(60), profile.longest)),
        };
        let signed = self.parts.authority.renew(&renewal, self.rules(), now)?;
        let by = format!("renewal from {}", asked.address.ip());
        let issued = issue_renewal(&*self.parts.store, signed, &old, &by, now).await?;
        self.hand_out(asked, "certificate", &issued, Some(fingerprint))
            .await
    }

    fn rules(&self) -> Rules<'_> {
        Rules {
            permission_oid: &self.parts.permission_oid,
            roles: &self.parts.roles,
        }
    }

    /// What is held, or less where the request wishes for less.
    fn grants(
        &self,
        profile: &Profile,
        held: &WrittenGrants,
        request: &CertificateRequest,
    ) -> Result<WrittenGrants, Refusal> {
        let grants = match &request.permissions(&self.parts.permission_oid)? {
            Some(wished) => narrow(held, wished, &self.parts.roles)?,
            None => held.clone(),
        };
        // An empty list would be read as "the profile's", which may be more than what is held.
        if profile.is_for(Usage::Client) && grants.is_empty() {
            let detail = "a certificate for a client needs at least one grant";
            return Err(Refusal::forbidden("not_allowed", detail));
        }
        Ok(grants)
    }

    fn sign(
        &self,
        token: &Token,
        profile: &Profile,
        grants: WrittenGrants,
        request: &CertificateRequest,
        now: UnixTime,
    ) -> Result<Signed, Refusal> {
        let name: SpiffeId = token
            .name
            .as_str()
            .parse()
            .map_err(|error| Refusal::forbidden("not_allowed", error))?;
        let Hosts { dns, ips } = Hosts::read(&token.hosts);
        let wanted = Request {
            name,
            subject_key: request.subject_key(),
            grants,
            profile,
            ttl: token.lifetime,
            dns,
            ips,
        };
        Ok(self.parts.authority.sign(&wanted, self.rules(), now)?)
    }

    /// It is in the registry, on disk. What the audit log cannot take does not leave.
    async fn hand_out(
        &self,
        asked: &Asked<'_>,
        by: &str,
        issued: &Issued,
        replaces: Option<Fingerprint>,
    ) -> Result<Vec<u8>, Refusal> {
        let enrolment = &issued.enrolment;
        let grants: Vec<String> = issued
            .parsed
            .permissions
            .iter()
            .flat_map(|grants| grants.entries().iter().map(ToString::to_string))
            .collect();
        let enrolled = Enrolled {
            address: asked.address,
            by,
            name: enrolment.name.as_str(),
            fingerprint: enrolment.fingerprint,
            serial: &enrolment.serial,
            profile: &enrolment.profile,
            grants: &grants,
            not_after: enrolment.not_after,
            replaces,
            change: issued.seq,
        };
        let recorded = self.parts.audit.event(Event::Enrolled(&enrolled)).await;
        if let Err(error) = recorded {
            tracing::error!(%error, fingerprint = %enrolment.fingerprint,
                "a certificate was issued and did not leave");
            let detail = "the audit log cannot be written now";
            return Err(Refusal::unavailable("audit_unavailable", detail));
        }
        tracing::info!(name = %enrolment.name, fingerprint = %enrolment.fingerprint.short(), by,
            "enrolled");
        Ok(write_certs_only([enrolment.der.as_slice()]))
    }

    fn check_rate(&self, name: &str) -> Result<(), Refusal> {
        self.names.check(&name.to_owned()).map_err(|seconds| {
            let detail = format!("too many certificates of this name: wait {seconds} s");
            Refusal::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", detail)
        })
    }
}

/// Who it is about, as far as that is known when it is refused.
#[derive(Default)]
struct Claimed {
    name: Option<String>,
    fingerprint: Option<Fingerprint>,
}

/// The name of HTTP Basic must be the token's: whole, its path, or its last segment.
fn check_user(token: &Token, user: Option<&str>) -> Result<(), Refusal> {
    let Some(user) = user else { return Ok(()) };
    if is_name(user, token.name.as_str()) {
        return Ok(());
    }
    let detail = "this token is for another name";
    Err(Refusal::forbidden("wrong_name", detail))
}

/// What the request is for must be what may be had: a request for somebody else is a mistake, not a
/// wish to be passed over. It may say nothing at all.
fn check_names(request: &CertificateRequest, name: &str) -> Result<(), Refusal> {
    let stranger = request.uris().iter().find(|uri| *uri != name);
    let stranger = stranger.or_else(|| {
        let other = |common: &&String| !common.is_empty() && !is_name(common, name);
        request.common_names().iter().find(other)
    });
    match stranger {
        None => Ok(()),
        Some(other) => {
            let detail = format!(
                "the request is for `{}`, and not for `{name}`",
                plain(other)
            );
            Err(Refusal::forbidden("wrong_name", detail))
        }
    }
}

fn is_name(text: &str, name: &str) -> bool {
    let Ok(id) = name.parse::<SpiffeId>() else {
        return text == name;
    };
    [id.as_str(), id.path(), id.last_segment()].contains(&text)
}

/// A stranger's text, fit for a line.
fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}

fn check_standing(old: &Enrolment, profile: &Profile, now: UnixTime) -> Result<(), Refusal> {
    let refuse = |reason, detail: &str| Err(Refusal::forbidden(reason, detail));
    if old.revocation.is_some() {
        return refuse("revoked", "this certificate was revoked");
    }
    if !old.is_live(now) {
        return refuse("expired", "this certificate has expired");
    }
    if old.kind != EnrolmentKind::Leaf {
        return refuse(
            "not_allowed",
            "this is not the certificate of a client or server",
        );
    }
    // Whoever took the pin off did not mean it to come back by itself.
    if profile.is_for(Usage::Client) && !old.pinned {
        return refuse("unpinned", "the pin of this certificate was taken off");
    }
    Ok(())
}
