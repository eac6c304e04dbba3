//! `countersign ca invite`: a one-time token for somebody who makes the key where it is used.

use super::arguments::InviteArguments;
use super::error::CaCommandError;
use super::outcome::{CaOutcome, InviteReport};
use super::run::{Bench, profiles, spiffe_id, written_grants};
use super::serve::last_address;
use crate::ca::{Facts, SignError, Usage};
use crate::est::Invitation;
use crate::identity::Name;
use crate::registry::{Token, TokenDigest};

impl Bench<'_> {
    /// Keeps a token's digest in the registry, and tells the token.
    pub(super) async fn invite(
        &self,
        arguments: InviteArguments,
    ) -> Result<CaOutcome, CaCommandError> {
        let facts = Facts::of(&self.files, &self.settings.permission_oid)?;
        let profiles = profiles(arguments.profiles.as_deref())?;
        let profile = profiles.get(&arguments.profile)?;
        let grants = written_grants(&arguments.grant, &arguments.role)?;
        let name = spiffe_id(&arguments.name, &facts.trust_domain)?;
        let hosts: Vec<String> = arguments
            .dns
            .into_iter()
            .chain(arguments.ip.iter().map(ToString::to_string))
            .collect();
        // What signing would refuse is said now, not to whoever was invited.
        let client = profile.is_for(Usage::Client);
        if client && grants.is_empty() && profile.grants.is_empty() {
            return Err(SignError::NoGrants(name).into());
        }
        if !client && !grants.is_empty() {
            return Err(SignError::ServerGrants(profile.name.clone()).into());
        }
        if !profile.is_for(Usage::Server) && !hosts.is_empty() {
            return Err(SignError::ServerName(profile.name.clone()).into());
        }
        if !client && hosts.is_empty() {
            return Err(SignError::NoServerName(profile.name.clone()).into());
        }
        if let Some(asked) = arguments.lifetime.filter(|asked| *asked > profile.longest) {
            return Err(SignError::Lifetime {
                asked: humantime::format_duration(asked),
                profile: profile.name.clone(),
                longest: humantime::format_duration(profile.longest),
            }
            .into());
        }
        let address = match arguments.server {
            Some(address) => address,
            None => last_address(&self.files).ok_or(CaCommandError::NoAddress)?,
        };
        let invitation = Invitation::new(address, facts.root, name.to_string())?;
        let token = Token {
            digest: TokenDigest::of(invitation.secret.expose()),
            name: Name::new(name.as_str())?,
            grants,
            profile: profile.name.clone(),
            hosts,
            lifetime: arguments.lifetime,
            expires_at: self.now.plus(arguments.ttl),
            created_at: self.now,
            created_by: super::actor(),
            used_at: None,
        };
        self.store(false).await?.put_token(&token).await?;
        let text = invitation.reveal();
        Ok(CaOutcome::Invite(InviteReport {
            command: format!("countersign join {}", *text),
            token: text.to_string(),
            name: name.to_string(),
            profile: token.profile,
            grants: token
                .grants
                .entries()
                .iter()
                .map(ToString::to_string)
                .collect(),
            server: invitation.address.clone(),
            root_fingerprint: facts.root.to_string(),
            expires: token.expires_at.to_string(),
        }))
    }
}
