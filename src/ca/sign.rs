//! Signing: what a request asks for, held against the profile, the issuer's ceiling and its
//! lifetime. What comes out is not a certificate that anybody can have: [`Signed`] shows nothing of
//! itself until it is recorded.

use std::net::IpAddr;
use std::time::Duration;

use rcgen::{SanType, SubjectPublicKeyInfo};
use rustls::pki_types::DnsName;

use crate::cert::{ParseError, Parsed};
use crate::clock::UnixTime;
use crate::grant::{Roles, UnknownRole, WrittenGrant, WrittenGrants};
use crate::identity::{Fingerprint, SpiffeId};
use crate::registry::EnrolmentKind;

use super::authority::{Authority, Ceiling};
use super::certificate::{BuildError, Contents, Role, dns, signed_by, uri};
use super::profile::{Profile, Usage};
use super::remaining::remaining;
use super::subject_key::{self, SubjectKeyError};

/// Certificates begin a minute before they are made, for peers whose clock is a little behind.
pub(super) const BACKDATE: Duration = Duration::from_secs(60);

/// RFC 5280 appendix A: `ub-common-name`.
const LONGEST_COMMON_NAME: usize = 64;

/// What somebody wants signed.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// The name that the certificate gives.
    pub name: SpiffeId,
    /// DER `SubjectPublicKeyInfo`.
    pub subject_key: &'a [u8],
    /// What it may do. Where it is empty, the profile's default counts.
    pub grants: WrittenGrants,
    /// Usage, lifetime, default grants.
    pub profile: &'a Profile,
    /// How long, where not the profile's lifetime.
    pub ttl: Option<Duration>,
    /// DNS names, for servers.
    pub dns: Vec<String>,
    /// Addresses, for servers.
    pub ips: Vec<IpAddr>,
}

/// What holds for every request.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a> {
    /// The permission extension's identifier, dotted decimal.
    pub permission_oid: &'a str,
    /// What roles stand for, where they are known here.
    pub roles: &'a Roles,
}

/// Why a request is not signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// Not put together.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// A key that gets no certificate.
    #[error(transparent)]
    Key(#[from] SubjectKeyError),
    /// A name of somebody else's trust domain.
    #[error("`{name}` is not a name of the trust domain `{domain}`")]
    TrustDomain {
        /// The name asked for.
        name: SpiffeId,
        /// The CA's domain.
        domain: String,
    },
    /// The last segment becomes the CN.
    #[error("the last segment of `{0}` is longer than 64 characters and cannot be the common name")]
    CommonName(SpiffeId),
    /// A certificate that every server would refuse.
    #[error("`{0}` would be allowed nothing: a certificate for a client needs at least one grant")]
    NoGrants(SpiffeId),
    /// Grants on a certificate that cannot call.
    #[error("the profile `{0}` is for servers: a certificate that dials nobody carries no grants")]
    ServerGrants(String),
    /// A server without a name to be dialled by.
    #[error("the profile `{0}` is for servers: it needs a DNS name or an address")]
    NoServerName(String),
    /// A DNS name or address on a certificate that is not dialled.
    #[error("the profile `{0}` is not for servers: it takes no DNS names and no addresses")]
    ServerName(String),
    /// Not a DNS name.
    #[error("`{0}` is not a DNS name")]
    Dns(String),
    /// Longer than the profile allows, or under a minute.
    #[error(
        "a lifetime of {asked} is outside what the profile `{profile}` allows: 1m to {longest}"
    )]
    Lifetime {
        /// What was asked for.
        asked: humantime::FormattedDuration,
        /// The profile's name.
        profile: String,
        /// The profile's bound.
        longest: humantime::FormattedDuration,
    },
    /// The issuer, or something above it, has ended.
    #[error("the CA `{issuer}` cannot sign: {standing}")]
    IssuerEnded {
        /// Its common name.
        issuer: String,
        /// In people's words.
        standing: String,
    },
    /// The issuer may not do that.
    #[error("`{grant}` lies outside the ceiling of `{holder}`, which is {ceiling}")]
    Ceiling {
        /// As written in the request.
        grant: String,
        /// The CA whose ceiling it is.
        holder: String,
        /// The ceiling's entries.
        ceiling: String,
    },
    /// A role under a ceiling can only be judged where it is defined.
    #[error("{role}, so that it cannot be held against the ceiling of `{holder}`")]
    Role {
        /// Which role.
        role: UnknownRole,
        /// The CA whose ceiling it is.
        holder: String,
    },
    /// A CA below this one would have no path to a root.
    #[error("`{0}` cannot make another CA: its path length is used up")]
    PathLength(String),
    /// What was signed cannot be read back.
    #[error("the certificate that was made cannot be read back: {0}")]
    ReadBack(#[from] ParseError),
}

/// A certificate that was signed and is not recorded yet. It cannot be looked at, let alone handed
/// out: only `issue` takes it, and records it first.
#[derive(Debug)]
pub struct Signed {
    pub(super) der: Vec<u8>,
    pub(super) parsed: Parsed,
    pub(super) kind: EnrolmentKind,
    pub(super) pinned: bool,
    pub(super) name: SpiffeId,
    pub(super) profile: String,
    pub(super) issuer: Fingerprint,
    /// Its pin covers what it signs, so that what it signs need not be recorded.
    pub(super) by_delegate: bool,
    /// The pin's own set.
    pub(super) pin: Option<WrittenGrants>,
    pub(super) chain: Vec<Vec<u8>>,
    /// Trusted at the top: the root that leads here first.
    pub(super) root: Vec<Vec<u8>>,
    pub(super) notes: Vec<String>,
}

impl Authority {
    /// Signs a leaf certificate.
    ///
    /// # Errors
    /// What the profile, the ceilings of the path or the issuer's lifetime do not allow.
    pub fn sign(
        &self,
        request: &Request<'_>,
        rules: Rules<'_>,
        now: UnixTime,
    ) -> Result<Signed, SignError> {
        let mut notes = Vec::new();
        let profile = request.profile;
        let grants = wanted_grants(request)?;
        subject_key::check(request.subject_key)?;
        self.check_name(&request.name)?;
        self.check_ceilings(grants, rules.roles)?;
        notes.extend(unknown_roles(grants, rules.roles));
        let names = alternative_names(request)?;
        let (not_before, not_after) = self.validity(request, now, &mut notes)?;
        let contents = Contents {
            common_name: request.name.last_segment(),
            organization: None,
            names,
            not_before,
            not_after,
            role: Role::Leaf(&profile.usage),
            permissions: (!grants.is_empty()).then_some((rules.permission_oid, grants)),
        };
        let key = SubjectPublicKeyInfo::from_der(request.subject_key).map_err(BuildError::from)?;
        let issuer = self.issuer().map_err(BuildError::from)?;
        let der = signed_by(&contents, &key, &issuer)?.der().to_vec();
        Ok(Signed {
            parsed: Parsed::from_der(&der, rules.permission_oid)?,
            der,
            kind: EnrolmentKind::Leaf,
            pinned: profile.is_for(Usage::Client),
            name: request.name.clone(),
            profile: profile.name.clone(),
            issuer: self.fingerprint(),
            by_delegate: self.is_delegate(),
            pin: None,
            chain: self.presented(),
            root: self.roots.clone(),
            notes,
        })
    }

    pub(super) fn check_name(&self, name: &SpiffeId) -> Result<(), SignError> {
        if name.trust_domain() != self.trust_domain {
            let domain = self.trust_domain.clone();
            return Err(SignError::TrustDomain {
                name: name.clone(),
                domain,
            });
        }
        if name.last_segment().len() > LONGEST_COMMON_NAME {
            return Err(SignError::CommonName(name.clone()));
        }
        Ok(())
    }

    pub(super) fn check_ceilings(
        &self,
        grants: &WrittenGrants,
        roles: &Roles,
    ) -> Result<(), SignError> {
        for ceiling in &self.ceilings {
            for entry in grants.entries() {
                check_ceiling(entry, ceiling, roles)?;
            }
        }
        Ok(())
    }

    fn validity(
        &self,
        request: &Request<'_>,
        now: UnixTime,
        notes: &mut Vec<String>,
    ) -> Result<(UnixTime, UnixTime), SignError> {
        let profile = request.profile;
        let ttl = request.ttl.unwrap_or(profile.lifetime);
        self.span(&profile.name, ttl, profile.longest, now, notes)
    }

    /// From a minute ago, for as long as asked, and never beyond any certificate above.
    pub(super) fn span(
        &self,
        profile: &str,
        ttl: Duration,
        longest: Duration,
        now: UnixTime,
        notes: &mut Vec<String>,
    ) -> Result<(UnixTime, UnixTime), SignError> {
        if ttl < Duration::from_secs(60) || ttl > longest {
            return Err(SignError::Lifetime {
                asked: humantime::format_duration(ttl),
                profile: profile.to_owned(),
                longest: humantime::format_duration(longest),
            });
        }
        let starts = self.parsed.not_before;
        if now < starts || now >= self.not_after {
            let standing = remaining(starts, self.not_after, now);
            return Err(SignError::IssuerEnded {
                issuer: self.common_name(),
                standing,
            });
        }
        if now.plus(ttl) > self.not_after {
            notes.push(format!(
                "it ends with the CA above it, at {}",
                self.not_after
            ));
        }
        let backdated = UnixTime(now.0.saturating_sub(BACKDATE.as_secs().cast_signed()));
        Ok((backdated.max(starts), now.plus(ttl).min(self.not_after)))
    }
}

fn wanted_grants<'a>(request: &'a Request<'_>) -> Result<&'a WrittenGrants, SignError> {
    let profile = request.profile;
    let grants = if request.grants.is_empty() {
        &profile.grants
    } else {
        &request.grants
    };
    if !profile.is_for(Usage::Client) && !grants.is_empty() {
        return Err(SignError::ServerGrants(profile.name.clone()));
    }
    if profile.is_for(Usage::Client) && grants.is_empty() {
        return Err(SignError::NoGrants(request.name.clone()));
    }
    Ok(grants)
}

fn check_ceiling(entry: &WrittenGrant, ceiling: &Ceiling, roles: &Roles) -> Result<(), SignError> {
    let within = is_within(entry, &ceiling.grants, roles).map_err(|role| SignError::Role {
        role,
        holder: ceiling.holder.clone(),
    })?;
    if within {
        return Ok(());
    }
    let entries: Vec<String> = ceiling
        .grants
        .entries()
        .iter()
        .map(|allowed| format!("`{allowed}`"))
        .collect();
    Err(SignError::Ceiling {
        grant: entry.to_string(),
        holder: ceiling.holder.clone(),
        ceiling: if entries.is_empty() {
            String::from("empty")
        } else {
            entries.join(", ")
        },
    })
}

/// Whether everything that `entry` allows is allowed by one entry of `allowed`.
///
/// # Errors
/// A role that is not known here and does not stand in `allowed` in the same words.
pub(super) fn is_within(
    entry: &WrittenGrant,
    allowed: &WrittenGrants,
    roles: &Roles,
) -> Result<bool, UnknownRole> {
    // The same words mean the same thing wherever they are resolved, roles included.
    if allowed.entries().contains(entry) {
        return Ok(true);
    }
    let asked = WrittenGrants::parse(&[entry.to_string()])
        .ok()
        .map(|written| written.resolve(roles))
        .transpose()?;
    let (allowed, _) = allowed.resolve_known(roles);
    Ok(asked.is_some_and(|asked| allowed.first_outside(&asked).is_none()))
}

pub(super) fn unknown_roles(grants: &WrittenGrants, roles: &Roles) -> Vec<String> {
    let (_, unknown) = grants.resolve_known(roles);
    let note =
        |role| format!("the role `{role}` is not defined here: where it is not, it grants nothing");
    unknown.into_iter().map(note).collect()
}

fn alternative_names(request: &Request<'_>) -> Result<Vec<SanType>, SignError> {
    let profile = request.profile;
    let named = !request.dns.is_empty() || !request.ips.is_empty();
    match profile.is_for(Usage::Server) {
        false if named => return Err(SignError::ServerName(profile.name.clone())),
        true if !named && !profile.is_for(Usage::Client) => {
            return Err(SignError::NoServerName(profile.name.clone()));
        }
        _ => {}
    }
    let mut names = vec![uri(request.name.as_str())?];
    for name in &request.dns {
        let host = name.strip_prefix("*.").unwrap_or(name);
        DnsName::try_from(host).map_err(|_| SignError::Dns(name.clone()))?;
        names.push(dns(name)?);
    }
    names.extend(request.ips.iter().map(|ip| SanType::IpAddress(*ip)));
    Ok(names)
}
