//! Enrolling for the first time: the CA is known by its fingerprint, the client by its token.

use std::fs;
use std::path::{Path, PathBuf};

use super::error::EnrolError;
use super::exchange::{ALPN, Exchange};
use super::files::{CertFiles, Note};
use super::install::{Pair, rewrite};
use super::key::Asking;
use super::verify::{self, Expected, check, vouched_for};
use crate::cert::{TokenKey, load_chain, write_atomic};
use crate::clock::UnixTime;
use crate::est::Invitation;
use crate::identity::{Fingerprint, SpiffeId};
use crate::tls::ClientTls;

/// What was enrolled.
#[derive(Clone, Debug)]
pub struct Joined {
    /// The files.
    pub files: CertFiles,
    /// The name in the certificate.
    pub name: String,
    /// Of the certificate.
    pub fingerprint: Fingerprint,
    /// Its end.
    pub not_after: UnixTime,
}

/// Makes a key, enrols it, and writes `NAME.crt`, `NAME.key`, `ca.pem` and the note of where to
/// renew into `dir`. `token`: the key stays in it, none is made here, and `NAME.key` holds its URI.
/// `replace`: over files of that name.
///
/// # Errors
/// As [`EnrolError`] says. Whatever can be found out before the token is used up is.
pub async fn join(
    invitation: &Invitation,
    dir: &Path,
    token: Option<&TokenKey>,
    replace: bool,
    now: UnixTime,
) -> Result<Joined, EnrolError> {
    let id: SpiffeId = invitation
        .name
        .parse()
        .map_err(|_| EnrolError::Request(String::from("the name in the token is no SPIFFE ID")))?;
    let files = files(dir, id.last_segment());
    let address = &invitation.address;
    prepare(dir, &files, replace)?;
    let asking = match token {
        Some(key) => Asking::of_token(id.as_str(), key)?,
        None => Asking::fresh(id.as_str(), None)?,
    };
    let tls =
        ClientTls::below(invitation.root, ALPN).map_err(|e| EnrolError::Tls(e.to_string()))?;
    let mut exchange = Exchange::open(&tls, address).await?;
    let authorities = exchange.authorities().await?;
    let root = authorities
        .iter()
        .find(|der| Fingerprint::of_der(der) == invitation.root)
        .cloned()
        .ok_or_else(|| {
            EnrolError::protocol(address, "its certificates lack the CA of the token")
        })?;
    let bundle = bundle(&files, &root, &authorities, replace, now)?;
    let leaf = exchange.enrol(&asking.request, invitation).await?;
    let roots = [root];
    let expected = Expected {
        public: &asking.public,
        name: id.as_str(),
        roots: &roots,
        now,
    };
    let answer = |what| EnrolError::Answer {
        address: address.clone(),
        what,
    };
    let (parsed, chain) = check(&leaf, &authorities, &expected).map_err(answer)?;
    let pair = Pair {
        chain: &chain,
        key: asking.key.as_ref(),
    };
    pair.try_out(&files)?;
    if let Some(bundle) = bundle {
        rewrite(&files.ca, &bundle)?;
    }
    files.write_note(&Note {
        address: address.clone(),
    })?;
    if let Some(key) = token {
        write_atomic(&files.key, format!("{}\n", key.uri()).as_bytes(), 0o600)?;
    }
    pair.install(&files)?;
    Ok(Joined {
        files,
        name: id.as_str().to_owned(),
        fingerprint: parsed.fingerprint,
        not_after: parsed.not_after,
    })
}

fn files(dir: &Path, base: &str) -> CertFiles {
    let path = |kind: &str| -> PathBuf { dir.join(format!("{base}.{kind}")) };
    CertFiles {
        cert: path("crt"),
        key: path("key"),
        ca: dir.join("ca.pem"),
        passphrase: None,
    }
}

/// Makes the folder, looks for what is in the way, and sees that it can be written to.
fn prepare(dir: &Path, files: &CertFiles, replace: bool) -> Result<(), EnrolError> {
    let folder = |cause| EnrolError::Folder {
        path: dir.to_owned(),
        cause,
    };
    fs::create_dir_all(dir).map_err(folder)?;
    if !replace && let Some(path) = [&files.cert, &files.key].into_iter().find(|p| p.exists()) {
        return Err(EnrolError::InTheWay(path.clone()));
    }
    let probe = dir.join(".join");
    write_atomic(&probe, b"", 0o600)?;
    // It is empty; if it stays, it harms nobody.
    let _ = fs::remove_file(probe);
    Ok(())
}

/// What `ca.pem` must hold, where that is not what it holds. The root that the CA was known by comes first,
/// then what the CA itself says that it is trusted by: while a root takes the place of another, servers have
/// certificates of either. A bundle that others use gets nothing but a root that it vouches for.
fn bundle(
    files: &CertFiles,
    root: &Vec<u8>,
    authorities: &[Vec<u8>],
    replace: bool,
    now: UnixTime,
) -> Result<Option<Vec<Vec<u8>>>, EnrolError> {
    if replace || !files.ca.exists() {
        let others = verify::roots(authorities, now).filter(|other| *other != root);
        return Ok(Some([root].into_iter().chain(others).cloned().collect()));
    }
    let mut there = load_chain(&files.ca)?;
    if there.contains(root) {
        return Ok(None);
    }
    let new = vouched_for(authorities, &there, now);
    if !new.contains(root) {
        return Err(EnrolError::OtherRoot(files.ca.clone()));
    }
    there.extend(new);
    Ok(Some(there))
}
