//! What enrolment without moving keys asks of a CA: recording by a one-time token or in place of
//! an older certificate, and that nobody gets more than before.

use std::net::IpAddr;

use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::clock::UnixTime;
use crate::grant::{Roles, WrittenGrant, WrittenGrants};
use crate::registry::{Enrolment, Store, TokenDigest};

use super::authority::Authority;
use super::issue::{IssueError, Issued, to_record};
use super::sign::Signed;

/// Something that was wished for and was not held before.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is more than what is held")]
pub struct Outside(pub String);

/// Records a signed certificate and uses up the token, both or neither.
///
/// # Errors
/// The registry did not take it, or the token is of no use.
pub async fn issue_by_token(
    store: &dyn Store,
    signed: Signed,
    token: TokenDigest,
    by: &str,
    now: UnixTime,
) -> Result<Issued, IssueError> {
    let mut issued = to_record(signed, by, now)?;
    issued.seq = store.take_token(token, &issued.enrolment, now).await?;
    Ok(issued)
}

/// Records a signed certificate that stands as `old` stands: pinned as it is, with the pin's own
/// set where it has one. `old` lives on to its end.
///
/// # Errors
/// The registry did not take it.
pub async fn issue_in_place_of(
    store: &dyn Store,
    signed: Signed,
    old: &Enrolment,
    by: &str,
    now: UnixTime,
) -> Result<Issued, IssueError> {
    let mut issued = to_record(signed, by, now)?;
    issued.enrolment.grants.clone_from(&old.grants);
    issued.enrolment.pinned = old.pinned;
    issued.seq = store.enrol(&issued.enrolment).await?;
    Ok(issued)
}

/// What is wished for, if all of it lies within what is held.
///
/// # Errors
/// The first entry that does not.
pub fn narrow(
    held: &WrittenGrants,
    wished: &WrittenGrants,
    roles: &Roles,
) -> Result<WrittenGrants, Outside> {
    let (allowed, _) = held.resolve_known(roles);
    let within = |entry: &WrittenGrant| {
        // The same words mean the same thing wherever they are resolved, roles included.
        held.entries().contains(entry)
            || WrittenGrants::parse(&[entry.to_string()])
                .ok()
                .and_then(|one| one.resolve(roles).ok())
                .is_some_and(|asked| allowed.first_outside(&asked).is_none())
    };
    match wished.entries().iter().find(|entry| !within(entry)) {
        Some(outside) => Err(Outside(outside.to_string())),
        None => Ok(wished.clone()),
    }
}

/// What a server is dialled by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hosts {
    /// DNS names.
    pub dns: Vec<String>,
    /// Addresses.
    pub ips: Vec<IpAddr>,
}

impl Hosts {
    /// From a list as people write it: what is an address is one.
    #[must_use]
    pub fn read<S: AsRef<str>>(written: &[S]) -> Self {
        let mut hosts = Self::default();
        for host in written.iter().map(AsRef::as_ref) {
            match host.parse() {
                Ok(ip) => hosts.ips.push(ip),
                Err(_) => hosts.dns.push(host.to_owned()),
            }
        }
        hosts
    }
}

/// The hosts that a certificate (DER) is for.
#[must_use]
pub fn hosts(der: &[u8]) -> Hosts {
    let mut hosts = Hosts::default();
    let Ok((_, certificate)) = X509Certificate::from_der(der) else {
        return hosts;
    };
    let Ok(Some(names)) = certificate.subject_alternative_name() else {
        return hosts;
    };
    for name in &names.value.general_names {
        match name {
            GeneralName::DNSName(name) => hosts.dns.push((*name).to_owned()),
            GeneralName::IPAddress(bytes) => hosts.ips.extend(address(bytes)),
            _ => {}
        }
    }
    hosts
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let four: Result<[u8; 4], _> = bytes.try_into();
    let sixteen: Result<[u8; 16], _> = bytes.try_into();
    four.map(IpAddr::from)
        .or_else(|_| sixteen.map(IpAddr::from))
        .ok()
}

impl Authority {
    /// Its own certificate, those above it, and the root at the end, DER.
    #[must_use]
    pub fn path(&self) -> Vec<&[u8]> {
        let chain = self.chain.iter().chain([&self.root]);
        chain.map(Vec::as_slice).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(entries: &[&str]) -> WrittenGrants {
        WrittenGrants::parse(entries).unwrap()
    }

    #[test]
    fn a_wish_may_be_less_and_never_more() {
        let roles = Roles::default();
        let held = written(&["tools:files__*", "resources:a", "role:reader"]);
        for less in [
            &["tools:files__*", "resources:a", "role:reader"][..],
            &["tools:files__read_*"],
            &["role:reader"],
            &[],
        ] {
            let wished = written(less);
            assert_eq!(narrow(&held, &wished, &roles), Ok(wished));
        }
        for more in [
            "tools:*",
            "*",
            "admin:*",
            "prompts:a",
            "role:writer",
            "resources:*",
        ] {
            let wished = written(&["tools:files__a", more]);
            assert_eq!(
                narrow(&held, &wished, &roles),
                Err(Outside(more.to_owned()))
            );
        }
    }

    #[test]
    fn hosts_are_names_or_addresses() {
        let hosts = Hosts::read(&["localhost", "127.0.0.1", "::1", "*.example.org"]);
        assert_eq!(hosts.dns, ["localhost", "*.example.org"]);
        assert_eq!(hosts.ips.len(), 2);
    }
}
