//! What enrolment without moving keys asks of a CA: that nobody gets more than is held, and what a
//! server's certificate is for.

use std::net::IpAddr;

use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::grant::{Roles, WrittenGrant, WrittenGrants};

use super::authority::Authority;
use super::sign::is_within;

/// Something that was wished for and was not held before.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is more than what is held")]
pub struct Outside(pub String);

/// What is wished for, if all of it lies within what is held.
///
/// # Errors
/// The first entry that does not.
pub fn narrow(
    held: &WrittenGrants,
    wished: &WrittenGrants,
    roles: &Roles,
) -> Result<WrittenGrants, Outside> {
    // A role that is not known here cannot be compared, so it counts as more.
    let within = |entry: &WrittenGrant| is_within(entry, held, roles).unwrap_or(false);
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
    /// All that are trusted at the top, its own root first, DER.
    #[must_use]
    pub fn roots(&self) -> &[Vec<u8>] {
        &self.roots
    }

    /// Everything that anybody needs to check what it signs, DER: its own certificate, those above
    /// it, the root as the one before it signed it, and the roots.
    #[must_use]
    pub fn path(&self) -> Vec<&[u8]> {
        let path = self.chain.iter().chain(&self.cross).chain(&self.roots);
        path.map(Vec::as_slice).collect()
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
