//! Whether what is in the folder fits together: key with certificate, certificate with issuer and
//! registry, and all of it with the clock. Opens no encrypted key.

use std::net::IpAddr;
use std::path::Path;

use crate::cert::{DEFAULT_PERMISSION_OID, Parsed, check_private, load_chain, load_key};
use crate::clock::UnixTime;
use crate::grant::WrittenGrants;
use crate::identity::Name;
use crate::registry::{Store, StoreError};

use super::super::authority::{Above, is_signed_by, public_key};
use super::super::crl;
use super::super::files::{CaFiles, State};
use super::super::signer::Signer;
use super::member::{Member, Verb, Wanted};

/// What must be done, and why.
pub(super) struct Misfit {
    pub verb: Verb,
    pub why: Option<String>,
}

impl Misfit {
    fn absent() -> Self {
        Self {
            verb: Verb::Made,
            why: None,
        }
    }

    fn broken(why: impl Into<String>) -> Self {
        Self {
            verb: Verb::Repaired,
            why: Some(why.into()),
        }
    }

    fn ending(not_before: UnixTime, not_after: UnixTime, now: UnixTime) -> Self {
        let why = super::super::remaining::remaining(not_before, not_after, now);
        Self {
            verb: Verb::Renewed,
            why: Some(format!("it had {why}").replace("had expired", "has expired")),
        }
    }
}

/// The CA of the folder, or what is wrong with it.
pub(super) fn authority(files: &CaFiles, passphrase: &Path) -> Result<Above, Misfit> {
    match files.state() {
        Ok(State::Complete) => {}
        Ok(State::Absent) => return Err(Misfit::absent()),
        Ok(State::Partial { missing }) => {
            return Err(Misfit::broken(format!(
                "`{}` was missing",
                missing.join("`, `")
            )));
        }
        Ok(State::Foreign) => return Err(Misfit::broken("its folder held something else")),
        Err(error) => return Err(Misfit::broken(error.to_string())),
    }
    for secret in [passphrase, &files.root_key(), &files.issuing_key()] {
        check_private(secret).map_err(|error| Misfit::broken(error.to_string()))?;
    }
    let (certificate, root) = (files.issuing_certificate(), files.root_certificate());
    Above::load(&certificate, &root, DEFAULT_PERMISSION_OID)
        .map_err(|error| Misfit::broken(error.to_string()))
}

/// Whether less than a third of a lifetime is left, or it has not begun.
pub(super) fn is_ending(not_before: UnixTime, not_after: UnixTime, now: UnixTime) -> bool {
    now < not_before || not_after.0 - now.0 < (not_after.0 - not_before.0) / 3
}

/// Whether the issuing CA's CRL has to be written again.
pub(super) fn crl_is_ending(files: &CaFiles, issuing: &[u8], now: UnixTime) -> Option<Misfit> {
    let third = crl::FRESH.as_secs().cast_signed() / 3;
    match crl::read(&files.issuing_crl(), issuing) {
        Ok(Some(crl)) if crl.next_update.0 - now.0 >= third => None,
        Ok(Some(_)) => Some(Misfit {
            verb: Verb::Renewed,
            why: None,
        }),
        Ok(None) => Some(Misfit::absent()),
        Err(error) => Some(Misfit::broken(error.to_string())),
    }
}

/// The member as it is, or why it must be made.
pub(super) async fn member(
    dir: &Path,
    wanted: &Wanted,
    ca: &Above,
    domain_name: &str,
    store: &dyn Store,
    now: UnixTime,
) -> Result<Result<Member, Misfit>, StoreError> {
    let (member, der) = match on_disk(dir, wanted, ca, domain_name, now) {
        Ok(found) => found,
        Err(misfit) => return Ok(Err(misfit)),
    };
    let Some(record) = store.get(member.fingerprint).await? else {
        return Ok(Err(Misfit::broken("the registry did not know it")));
    };
    if record.revocation.is_some() {
        return Ok(Err(Misfit::broken("the one before is revoked")));
    }
    if record.der != der || record.pinned == wanted.grants.is_empty() {
        return Ok(Err(Misfit::broken("the registry had it differently")));
    }
    Ok(Ok(member))
}

fn on_disk(
    dir: &Path,
    wanted: &Wanted,
    ca: &Above,
    name: &str,
    now: UnixTime,
) -> Result<(Member, Vec<u8>), Misfit> {
    let broken = |error: &dyn std::fmt::Display| Misfit::broken(error.to_string());
    let certificate = dir.join(format!("{}.crt", wanted.role));
    let key = dir.join(format!("{}.key", wanted.role));
    if !certificate.exists() && !key.exists() {
        return Err(Misfit::absent());
    }
    let private = load_key(&key, None).map_err(|error| broken(&error))?;
    let signer = Signer::from_pkcs8(&private).map_err(|error| broken(&error))?;
    let mut chain = load_chain(&certificate).map_err(|error| broken(&error))?;
    let leaf = chain.remove(0);
    let parsed = Parsed::from_der(&leaf, DEFAULT_PERMISSION_OID).map_err(|error| broken(&error))?;
    if public_key(&leaf) != Some(signer.public_key()) {
        return Err(Misfit::broken("its key belonged to another certificate"));
    }
    if chain != [ca.der()] || !is_signed_by(&leaf, ca.der()) {
        return Err(Misfit::broken("another CA had signed it"));
    }
    if !says_what_is_wanted(&parsed, &leaf, wanted, name) {
        return Err(Misfit::broken("it said something else"));
    }
    if is_ending(parsed.not_before, parsed.not_after, now) {
        return Err(Misfit::ending(parsed.not_before, parsed.not_after, now));
    }
    let member = Member {
        role: wanted.role,
        name: Name::new(name).map_err(|error| broken(&error))?,
        certificate,
        key,
        fingerprint: parsed.fingerprint,
        not_before: parsed.not_before,
        not_after: parsed.not_after,
        grants: parsed.permissions.unwrap_or_default(),
    };
    Ok((member, leaf))
}

fn says_what_is_wanted(parsed: &Parsed, leaf: &[u8], wanted: &Wanted, name: &str) -> bool {
    let grants = WrittenGrants::parse(wanted.grants).ok();
    parsed.uris == [name]
        && parsed.dns == wanted.dns
        && addresses(leaf)
            == wanted
                .ips
                .iter()
                .filter_map(|ip| ip.parse().ok())
                .collect::<Vec<IpAddr>>()
        && parsed.permissions.clone().unwrap_or_default() == grants.unwrap_or_default()
}

/// The IP addresses among the subject alternative names.
fn addresses(der: &[u8]) -> Vec<IpAddr> {
    use x509_parser::extensions::GeneralName;
    let Ok((_, certificate)) = x509_parser::parse_x509_certificate(der) else {
        return Vec::new();
    };
    let Ok(Some(names)) = certificate.subject_alternative_name() else {
        return Vec::new();
    };
    let address = |name: &GeneralName<'_>| match name {
        GeneralName::IPAddress(bytes) => <[u8; 4]>::try_from(*bytes)
            .map(IpAddr::from)
            .or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from))
            .ok(),
        _ => None,
    };
    names
        .value
        .general_names
        .iter()
        .filter_map(address)
        .collect()
}
