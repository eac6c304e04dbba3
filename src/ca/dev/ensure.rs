//! Making and mending the folder.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::cert::{
    DEFAULT_PERMISSION_OID, FileError, KeyKind, Parsed, pem, read_passphrase, write_atomic,
};
use crate::clock::UnixTime;
use crate::grant::{GrantError, Roles, WrittenGrants};
use crate::identity::{Fingerprint, Name, NameError, SpiffeError, SpiffeId};
use crate::registry::{SqliteStore, Store, StoreError};
use crate::secret::Secret;

use super::super::authority::{Above, Authority, AuthorityError};
use super::super::create::{CreateError, NewAuthority, create_in_locked};
use super::super::crl::{CrlError, write_crl};
use super::super::files::CaFiles;
use super::super::issue::{IssueError, issue};
use super::super::keeping::Keeping;
use super::super::lock::{FolderLock, LockError};
use super::super::output::{prepare_output, write_out};
use super::super::profile::{ProfileError, Profiles};
use super::super::rotate::rotate_issuing;
use super::super::serial::{RandomError, token};
use super::super::sign::{Request, Rules, SignError};
use super::super::signer::{Signer, SignerError};
use super::fits::{self, Misfit};
use super::member::{Member, Step, Verb, WANTED, Wanted};

const TRUST_DOMAIN: &str = "countersign.internal";

/// Why the folder is not in order.
#[derive(Debug, thiserror::Error)]
pub enum DevError {
    /// The folder, or one in it, cannot be made or moved.
    #[error("cannot write in the folder `{path}`: {cause}")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the operating system said.
        cause: std::io::Error,
    },
    /// Two at once.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The registry.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Making the CA.
    #[error(transparent)]
    Create(#[from] CreateError),
    /// Opening the CA, right after it was made.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// Signing a member.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// Recording and writing a member.
    #[error(transparent)]
    Issue(#[from] IssueError),
    /// Making a member's key.
    #[error(transparent)]
    Signer(#[from] SignerError),
    /// The CRL.
    #[error(transparent)]
    Crl(#[from] CrlError),
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The built-in profiles.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// The built-in grants.
    #[error(transparent)]
    Grant(#[from] GrantError),
    /// The built-in names.
    #[error(transparent)]
    Spiffe(#[from] SpiffeError),
    /// The built-in names.
    #[error(transparent)]
    Name(#[from] NameError),
    /// No random numbers.
    #[error(transparent)]
    Random(#[from] RandomError),
}

/// The folder in order.
#[derive(Clone, Debug, PartialEq)]
pub struct Dev {
    /// The folder.
    pub dir: PathBuf,
    /// The CA's folder in it.
    pub ca: CaFiles,
    /// The root, PEM.
    pub ca_pem: PathBuf,
    /// The root's fingerprint.
    pub ca_fingerprint: Fingerprint,
    /// The issuing CA's CRL.
    pub crl: PathBuf,
    /// The SQLite registry.
    pub registry: PathBuf,
    /// The certificate to serve with.
    pub server: Member,
    /// May do everything.
    pub operator: Member,
    /// May list and read.
    pub reader: Member,
    /// What was done to get there; empty when everything was in order.
    pub steps: Vec<Step>,
}

/// Makes the folder once, and after that mends what does not fit together and renews what has run
/// out or has less than a third of its life left.
///
/// # Errors
/// The folder cannot be written, or its registry cannot be read: that one is never thrown away.
pub async fn ensure(dir: &Path, now: UnixTime) -> Result<Dev, DevError> {
    let folder = |cause| DevError::Folder {
        path: dir.to_owned(),
        cause,
    };
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(folder)?;
    // Held throughout on purpose: of two at the same time, the second finds everything in order.
    let _lock = FolderLock::take(dir)?;
    let registry = dir.join("registry.db");
    let store = SqliteStore::open(&registry, true).await?;
    let mut work = Work {
        dir,
        files: CaFiles::new(&dir.join("ca")),
        passphrase: dir.join("ca").join("passphrase"),
        store: &store,
        now,
        steps: Vec::new(),
        open: None,
    };
    let ca = work.authority().await?;
    let mut members = Vec::with_capacity(WANTED.len());
    for wanted in &WANTED {
        members.push(work.member(wanted, &ca).await?);
    }
    work.crl(&ca).await?;
    let ca_pem = work.root_file(&ca)?;
    let [server, operator, reader] =
        <[Member; 3]>::try_from(members).expect("three are wanted, and each is pushed or an error");
    Ok(Dev {
        dir: dir.to_owned(),
        ca_pem,
        ca_fingerprint: Fingerprint::of_der(&ca.root),
        crl: work.files.issuing_crl(),
        ca: work.files,
        registry,
        server,
        operator,
        reader,
        steps: work.steps,
    })
}

struct Work<'a> {
    dir: &'a Path,
    files: CaFiles,
    passphrase: PathBuf,
    store: &'a dyn Store,
    now: UnixTime,
    steps: Vec<Step>,
    /// The issuing CA, once something had to be signed.
    open: Option<Authority>,
}

impl Work<'_> {
    fn did(&mut self, what: &str, misfit: Misfit) {
        self.steps.push(Step {
            verb: misfit.verb,
            what: what.to_owned(),
            why: misfit.why,
        });
    }

    /// The CA, made or mended where it must be.
    async fn authority(&mut self) -> Result<Above, DevError> {
        let found = match fits::authority(&self.files, &self.passphrase) {
            Ok(found) => found,
            Err(misfit) => return self.new_authority(misfit).await,
        };
        let (from, until) = (found.parsed.not_before, found.parsed.not_after);
        let root =
            Parsed::from_der(&found.root, DEFAULT_PERMISSION_OID).map_err(CreateError::from)?;
        if fits::is_ending(root.not_before, root.not_after, self.now) {
            let why = Some(String::from("the root was about to run out"));
            return self
                .new_authority(Misfit {
                    verb: Verb::Renewed,
                    why,
                })
                .await;
        }
        if fits::is_ending(from, until, self.now) {
            return self
                .new_issuing(Misfit {
                    verb: Verb::Renewed,
                    why: None,
                })
                .await;
        }
        // Whatever must be signed needs the key. Finding out now that it does not open is better
        // than after half of the members were judged by a CA that cannot be used.
        if self.something_is_due(&found).await? {
            match self.open_issuing() {
                Ok(authority) => self.open = Some(authority),
                Err(error @ AuthorityError::Mismatch { .. }) => {
                    let why = Some(error.to_string());
                    return self
                        .new_issuing(Misfit {
                            verb: Verb::Repaired,
                            why,
                        })
                        .await;
                }
                Err(error) => {
                    let why = Some(error.to_string());
                    return self
                        .new_authority(Misfit {
                            verb: Verb::Repaired,
                            why,
                        })
                        .await;
                }
            }
        }
        Ok(found)
    }

    async fn something_is_due(&self, ca: &Above) -> Result<bool, DevError> {
        for wanted in &WANTED {
            let name = spiffe(wanted)?;
            let found =
                fits::member(self.dir, wanted, ca, name.as_str(), self.store, self.now).await?;
            if found.is_err() {
                return Ok(true);
            }
        }
        Ok(fits::crl_is_ending(&self.files, ca.der(), self.now).is_some())
    }

    fn open_issuing(&self) -> Result<Authority, AuthorityError> {
        let unlock = |_: &Path| read_passphrase(&self.passphrase);
        Authority::issuing(&self.files, &unlock, DEFAULT_PERMISSION_OID)
    }

    /// A CA from nothing; what was there is set aside, not deleted.
    async fn new_authority(&mut self, misfit: Misfit) -> Result<Above, DevError> {
        if self.files.dir().exists() {
            self.set_aside()?;
        }
        let secret = token(24)?;
        let passphrase = Secret::from(secret.clone());
        let new = new_authority(&passphrase, Some(("passphrase", secret.as_bytes())));
        let by = actor();
        let created = create_in_locked(&self.files, new, self.store, &by, self.now).await?;
        self.did("the CA", misfit);
        self.opened(created.issuing)
    }

    /// A new issuing CA below the root; where the root does not open either, a new CA.
    async fn new_issuing(&mut self, misfit: Misfit) -> Result<Above, DevError> {
        let unlock = |_: &Path| read_passphrase(&self.passphrase);
        let root = Authority::root(&self.files, &unlock, DEFAULT_PERMISSION_OID);
        let (Ok(root), Ok(passphrase)) = (root, read_passphrase(&self.passphrase)) else {
            return self.new_authority(misfit).await;
        };
        let new = new_authority(&passphrase, None);
        let (store, by) = (self.store, actor());
        let rotated = rotate_issuing(&self.files, &root, new, store, &by, self.now).await?;
        self.did("the issuing CA", misfit);
        self.opened(rotated.issuing)
    }

    fn opened(&mut self, issuing: Authority) -> Result<Above, DevError> {
        self.open = Some(issuing);
        let (certificate, root) = (
            self.files.issuing_certificate(),
            self.files.root_certificate(),
        );
        Ok(Above::load(&certificate, &root, DEFAULT_PERMISSION_OID)?)
    }

    fn set_aside(&self) -> Result<(), DevError> {
        let aside = self.dir.join("ca.old");
        let error = |cause| DevError::Folder {
            path: aside.clone(),
            cause,
        };
        if aside.exists() {
            fs::remove_dir_all(&aside).map_err(error)?;
        }
        fs::rename(self.files.dir(), &aside).map_err(error)
    }

    async fn member(&mut self, wanted: &Wanted, ca: &Above) -> Result<Member, DevError> {
        let name = spiffe(wanted)?;
        let found = fits::member(self.dir, wanted, ca, name.as_str(), self.store, self.now).await?;
        let misfit = match found {
            Ok(member) => return Ok(member),
            Err(misfit) => misfit,
        };
        let member = self.make_member(wanted, name).await?;
        self.did(&format!("the certificate of `{}`", wanted.role), misfit);
        Ok(member)
    }

    async fn make_member(&mut self, wanted: &Wanted, name: SpiffeId) -> Result<Member, DevError> {
        let profiles = Profiles::embedded()?;
        let profile = profiles.get(wanted.profile)?;
        let (signer, key) = Signer::generate(profile.key)?;
        let request = Request {
            name,
            subject_key: &signer.public_key(),
            grants: WrittenGrants::parse(wanted.grants)?,
            profile,
            ttl: Some(wanted.ttl),
            dns: wanted.dns.iter().map(ToString::to_string).collect(),
            ips: wanted.ips.iter().filter_map(|ip| ip.parse().ok()).collect(),
        };
        let (store, now) = (self.store, self.now);
        let authority = self.open()?;
        let rules = Rules {
            permission_oid: DEFAULT_PERMISSION_OID,
            roles: &Roles::new(),
        };
        let signed = authority.sign(&request, rules, now)?;
        let root = authority.root_der().to_vec();
        let output = prepare_output(self.dir, wanted.role, &root, true)?;
        let issued = issue(store, signed, &actor(), now).await?;
        let written = write_out(store, &output, &issued, &key, now).await?;
        Ok(Member {
            role: wanted.role,
            name: Name::new(request.name.as_str())?,
            certificate: written.certificate,
            key: written.key,
            fingerprint: issued.enrolment.fingerprint,
            not_before: issued.enrolment.not_before,
            not_after: issued.enrolment.not_after,
            grants: request.grants,
        })
    }

    fn open(&mut self) -> Result<&Authority, DevError> {
        let authority = match self.open.take() {
            Some(authority) => authority,
            None => self.open_issuing()?,
        };
        Ok(self.open.insert(authority))
    }

    async fn crl(&mut self, ca: &Above) -> Result<(), DevError> {
        let path = self.files.issuing_crl();
        let Some(misfit) = fits::crl_is_ending(&self.files, ca.der(), self.now) else {
            return Ok(());
        };
        if misfit.verb == Verb::Repaired {
            fs::remove_file(&path).map_err(|cause| DevError::Folder {
                path: path.clone(),
                cause,
            })?;
        }
        let (store, now) = (self.store, self.now);
        write_crl(self.open()?, &path, store, now).await?;
        self.did("the CRL", misfit);
        Ok(())
    }

    fn root_file(&mut self, ca: &Above) -> Result<PathBuf, DevError> {
        let path = self.dir.join("ca.pem");
        let wanted = pem::block("CERTIFICATE", &ca.root);
        if fs::read(&path).is_ok_and(|there| there == wanted.as_bytes()) {
            return Ok(path);
        }
        write_atomic(&path, wanted.as_bytes(), 0o644)?;
        self.did(
            "`ca.pem`",
            Misfit {
                verb: Verb::Made,
                why: None,
            },
        );
        Ok(path)
    }
}

fn new_authority<'a>(
    passphrase: &'a Secret,
    beside: Option<(&'a str, &'a [u8])>,
) -> NewAuthority<'a> {
    NewAuthority {
        trust_domain: TRUST_DOMAIN,
        key: KeyKind::P256,
        root: Keeping::Sealed(passphrase),
        issuing: Keeping::Sealed(passphrase),
        permission_oid: DEFAULT_PERMISSION_OID,
        ceiling: None,
        beside,
    }
}

fn spiffe(wanted: &Wanted) -> Result<SpiffeId, SpiffeError> {
    SpiffeId::new(TRUST_DOMAIN, wanted.role)
}

/// The environment is not this module's to read, so the user stays out.
fn actor() -> String {
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("up@{}", host.trim())
}
