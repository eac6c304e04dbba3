//! A CA in a temporary folder, at a chosen time.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::ca::{
    Authority, CaFiles, IssueError, Issued, Keeping, NewAuthority, Profiles, Request, Rules,
    SignError, Signed, Signer, create, issue,
};
use crate::cert::{DEFAULT_PERMISSION_OID, KeyKind, PrivateKey};
use crate::clock::UnixTime;
use crate::grant::{Roles, WrittenGrants};
use crate::identity::SpiffeId;
use crate::registry::SqliteStore;
use crate::secret::Secret;

/// 2027-01-15T08:00:00Z
pub const NOW: UnixTime = UnixTime(1_800_000_000);
pub const HOUR: i64 = 3600;
pub const DAY: i64 = 86_400;
pub const DOMAIN: &str = "countersign.internal";

pub struct Bench {
    pub dir: TempDir,
    pub files: CaFiles,
    pub store: SqliteStore,
    issuing: Option<Authority>,
}

pub fn secret() -> Secret {
    Secret::from(String::from("correct horse"))
}

pub fn new_authority(passphrase: &Secret, key: KeyKind) -> NewAuthority<'_> {
    NewAuthority {
        trust_domain: DOMAIN,
        key,
        root: Keeping::Sealed(passphrase),
        issuing: Keeping::Sealed(passphrase),
        permission_oid: DEFAULT_PERMISSION_OID,
        ceiling: None,
        beside: None,
    }
}

impl Bench {
    pub async fn new() -> Self {
        Self::with_key(KeyKind::P256).await
    }

    pub async fn with_key(key: KeyKind) -> Self {
        let mut bench = Self::empty().await;
        let secret = secret();
        let new = new_authority(&secret, key);
        let created = create(&bench.files, new, &bench.store, "me@here", NOW)
            .await
            .unwrap();
        bench.issuing = Some(created.issuing);
        bench
    }

    pub async fn empty() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let files = CaFiles::new(&dir.path().join("ca"));
        let store = SqliteStore::open(&dir.path().join("registry.db"), true)
            .await
            .unwrap();
        Self {
            dir,
            files,
            store,
            issuing: None,
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// As it was made: opening it from its file would cost a fifth of a second each time.
    pub fn issuing(&self) -> &Authority {
        self.issuing.as_ref().expect("a bench with a CA")
    }

    pub fn root(&self) -> Authority {
        Authority::root(&self.files, &|_| Ok(secret()), DEFAULT_PERMISSION_OID).unwrap()
    }

    /// Writes `<name>.crt` into the folder.
    pub fn write(&self, name: &str, issued: &Issued) -> PathBuf {
        let path = self.path(&format!("{name}.crt"));
        std::fs::write(&path, issued.chain_pem()).unwrap();
        path
    }
}

/// With one role, `reader`.
pub fn rules() -> Rules<'static> {
    static ROLES: std::sync::LazyLock<Roles> = std::sync::LazyLock::new(|| {
        let reader = WrittenGrants::parse(&["tools:files__read_*"]).unwrap();
        [(
            String::from("reader"),
            reader.resolve(&Roles::new()).unwrap(),
        )]
        .into()
    });
    Rules {
        permission_oid: DEFAULT_PERMISSION_OID,
        roles: &ROLES,
    }
}

/// What a test asks for, with a fresh key.
pub struct Ask {
    pub name: &'static str,
    pub grants: &'static [&'static str],
    pub profile: &'static str,
    pub ttl: Option<i64>,
    pub dns: &'static [&'static str],
    pub ips: &'static [&'static str],
    pub now: UnixTime,
}

impl Ask {
    pub fn agent(name: &'static str, grants: &'static [&'static str]) -> Self {
        Self {
            name,
            grants,
            profile: "agent",
            ttl: None,
            dns: &[],
            ips: &[],
            now: NOW,
        }
    }

    pub fn server(dns: &'static [&'static str], ips: &'static [&'static str]) -> Self {
        Self {
            name: "server",
            grants: &[],
            profile: "server",
            ttl: None,
            dns,
            ips,
            now: NOW,
        }
    }

    pub fn sign(&self, authority: &Authority) -> Result<Signed, SignError> {
        self.sign_with_key(authority).map(|(signed, _)| signed)
    }

    pub fn sign_with_key(&self, authority: &Authority) -> Result<(Signed, PrivateKey), SignError> {
        let profiles = Profiles::embedded().unwrap();
        let profile = profiles.get(self.profile).unwrap();
        let (signer, key) = Signer::generate(profile.key).unwrap();
        let request = Request {
            name: SpiffeId::new(DOMAIN, self.name).unwrap(),
            subject_key: &signer.public_key(),
            grants: WrittenGrants::parse(self.grants).unwrap(),
            profile,
            ttl: self
                .ttl
                .map(|seconds| std::time::Duration::from_secs(seconds.unsigned_abs())),
            dns: self.dns.iter().map(ToString::to_string).collect(),
            ips: self.ips.iter().map(|ip| ip.parse().unwrap()).collect(),
        };
        authority
            .sign(&request, rules(), self.now)
            .map(|signed| (signed, key))
    }

    pub async fn issue(&self, bench: &Bench) -> Result<Issued, IssueError> {
        let signed = self.sign(bench.issuing()).unwrap();
        issue(&bench.store, signed, "me@here", self.now).await
    }
}

/// Whether OpenSSL was content, and all that it said.
pub fn openssl(arguments: &[&str]) -> (bool, String) {
    let output = Command::new("openssl")
        .args(arguments)
        .output()
        .expect("openssl is installed");
    let said = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

/// `openssl verify` of a chain file against the bench's root at a time, with further arguments.
pub fn openssl_verify(bench: &Bench, chain: &Path, at: UnixTime, more: &[&str]) -> (bool, String) {
    let (root, at) = (bench.files.root_certificate(), at.0.to_string());
    let (root, chain) = (root.to_str().unwrap(), chain.to_str().unwrap());
    let mut arguments = vec![
        "verify",
        "-x509_strict",
        "-attime",
        &at,
        "-CAfile",
        root,
        "-untrusted",
        chain,
    ];
    arguments.extend_from_slice(more);
    arguments.push(chain);
    openssl(&arguments)
}
