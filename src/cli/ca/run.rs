//! The commands of `countersign ca`, one function each.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::ca::{
    Authority, CaFiles, CreateError, CrlError, NewAuthority, Profiles, Revoked, WrittenCrl, create,
    refresh_crls, revoke, revoke_all, write_bundle, write_crl, write_crl_at,
};
use crate::cert::{FileError, Parsed};
use crate::clock::{UnixTime, unix_now};
use crate::grant::WrittenGrants;
use crate::identity::{Fingerprint, SpiffeId};
use crate::registry::{Enrolment, EnrolmentKind, RegistryPlace, Store};

use super::actor::actor;
use super::arguments::{
    CaAction, CaCommand, CrlArguments, InitArguments, ListArguments, RevokeArguments,
};
use super::error::CaCommandError;
use super::keeping::Kept;
use super::outcome::{CaOutcome, CrlReport, InitReport, ListReport, RevokeReport, ShowReport};
use super::passphrase::Passphrases;
use super::place::Settings;
use super::view::{AboveView, CertificateView, ConfirmationView};

/// Enrolments read at once.
const PAGE: u32 = 500;

pub(super) type Outcome = Result<CaOutcome, CaCommandError>;

impl CaCommand {
    /// Runs the command.
    ///
    /// # Errors
    /// Whatever its step says; `hint` of the error tells what to do.
    pub async fn run(self, settings: &Settings, now: UnixTime) -> Outcome {
        let bench = Bench {
            registry: self.place.registry(settings),
            files: CaFiles::new(&self.place.ca()),
            passphrase_file: self.passphrase_file,
            settings,
            now,
        };
        match self.action {
            CaAction::Init(arguments) => bench.init(arguments).await,
            CaAction::Issue(arguments) => bench.issue(arguments).await,
            CaAction::Sign(arguments) => bench.sign(arguments).await,
            CaAction::Renew(arguments) => bench.renew(arguments).await,
            CaAction::Delegate(arguments) => bench.delegate(arguments).await,
            CaAction::Rotate(arguments) => bench.rotate(arguments).await,
            CaAction::List(arguments) => bench.list(&arguments).await,
            CaAction::Show(arguments) => bench.show(&arguments.key).await,
            CaAction::Revoke(arguments) => bench.revoke(&arguments).await,
            CaAction::Crl(arguments) if arguments.watch => bench.watch(arguments.every).await,
            CaAction::Crl(arguments) => bench.crl(arguments).await,
            CaAction::Invite(arguments) => bench.invite(arguments).await,
            // It takes a runtime of its own: see `Serve`.
            CaAction::Serve(_) => unreachable!("`ca serve` is not run as a command"),
        }
    }
}

/// After another CA in the folder that did not open.
const AGAIN: Duration = Duration::from_secs(30);

/// What every command works with.
pub(super) struct Bench<'a> {
    pub registry: RegistryPlace,
    pub files: CaFiles,
    pub passphrase_file: Option<PathBuf>,
    pub settings: &'a Settings,
    pub now: UnixTime,
}

impl Bench<'_> {
    async fn init(&self, arguments: InitArguments) -> Outcome {
        let files = arguments
            .dir
            .map_or_else(|| self.files.clone(), |dir| CaFiles::new(&dir));
        let passphrases = Passphrases::new(self.passphrase_file.clone());
        let (in_token, root_in_token) = (&arguments.issuing_key, &arguments.root_key);
        let issuing = Kept::of(in_token.as_deref(), &passphrases, &files.issuing_key())?;
        let root = match (arguments.root_passphrase_file, &issuing) {
            (Some(file), _) => Kept::of(
                root_in_token.as_deref(),
                &Passphrases::new(Some(file)),
                &files.root_key(),
            )?,
            // One passphrase for both is asked for once.
            (None, Kept::Sealed(passphrase)) if root_in_token.is_none() => {
                Kept::Sealed(passphrase.clone())
            }
            (None, _) => Kept::of(root_in_token.as_deref(), &passphrases, &files.root_key())?,
        };
        let ceiling = written_grants(&arguments.ceiling, &[])?;
        let new = NewAuthority {
            trust_domain: &arguments.trust_domain,
            key: arguments.key,
            root: root.keeping(),
            issuing: issuing.keeping(),
            permission_oid: &self.settings.permission_oid,
            ceiling: (!ceiling.is_empty()).then_some(&ceiling),
            beside: None,
        };
        if let Some(file) = self.registry.file() {
            make_folder_of(file)?;
        }
        let store = self.store(true).await?;
        let created = create(&files, new, &*store, &actor(), self.now).await?;
        Ok(CaOutcome::Init(InitReport {
            dir: files.dir().to_owned(),
            trust_domain: created.issuing.trust_domain().to_owned(),
            root_fingerprint: created.root.fingerprint.to_string(),
            root_not_after: created.root.not_after.to_string(),
            issuing_fingerprint: created.issuing.fingerprint().to_string(),
            issuing_not_after: created.issuing.certificate().not_after.to_string(),
            registry: self.registry.to_string(),
        }))
    }

    async fn list(&self, arguments: &ListArguments) -> Outcome {
        let store = self.store(false).await?;
        let wanted = |enrolment: &Enrolment| {
            arguments.all || (enrolment.revocation.is_none() && enrolment.not_after >= self.now)
        };
        list(&*store, arguments.limit, wanted, self.now)
            .await
            .map(CaOutcome::List)
    }

    async fn show(&self, key: &str) -> Outcome {
        let store = self.store(false).await?;
        let enrolment = store.find(key, self.now).await?;
        let enrolment = store.get(enrolment.fingerprint).await?.unwrap_or(enrolment);
        let parsed = Parsed::from_der(&enrolment.der, &self.settings.permission_oid)?;
        Ok(CaOutcome::Show(ShowReport {
            above: self.above(&enrolment, &*store).await?,
            certificate: CertificateView::new(&enrolment, self.now).with(&parsed),
            pem: crate::cert::pem::certificate(&enrolment.der),
        }))
    }

    /// The certificates above one that are on record, the nearest first: a revoked one takes all
    /// below it.
    async fn above(
        &self,
        enrolment: &Enrolment,
        store: &dyn Store,
    ) -> Result<Vec<AboveView>, CaCommandError> {
        let mut above = Vec::new();
        let mut next = enrolment.issuer;
        // Root, issuing CA, delegate: a record that says more is not believed for ever.
        while let Some(issuer) = next.filter(|_| above.len() < 8) {
            let Some(found) = store.get(issuer).await? else {
                break;
            };
            next = found.issuer.filter(|above| *above != issuer);
            above.push(AboveView::new(&found, self.now));
        }
        Ok(above)
    }

    async fn revoke(&self, arguments: &RevokeArguments) -> Outcome {
        let store = self.store(false).await?;
        let RevokeArguments {
            key,
            all,
            reason,
            wait,
        } = arguments;
        if *all {
            let all = revoke_all(&*store, key, *reason, &actor(), *wait, self.now).await?;
            let mut reports = Vec::with_capacity(all.len());
            for (at, revoked) in all.iter().enumerate() {
                // One CRL names them all.
                let last = at + 1 == all.len();
                reports.push(
                    self.revoke_report(revoked, last.then_some(&*store), *wait)
                        .await,
                );
            }
            return Ok(CaOutcome::RevokeAll(reports));
        }
        let revoked = revoke(&*store, key, *reason, &actor(), *wait, self.now).await?;
        Ok(CaOutcome::Revoke(
            self.revoke_report(&revoked, Some(&*store), *wait).await,
        ))
    }

    async fn revoke_report(
        &self,
        revoked: &Revoked,
        store: Option<&dyn Store>,
        wait: Duration,
    ) -> RevokeReport {
        let crl = match store {
            Some(store) => self.crl_after(&revoked.enrolment, store).await,
            None => Ok(None),
        };
        let (crl, no_crl) = match crl {
            Ok(crl) => (crl.map(crl_report), None),
            Err(error) => (None, Some(error.to_string())),
        };
        RevokeReport {
            certificate: CertificateView::new(&revoked.enrolment, self.now),
            already: revoked.already,
            servers: ConfirmationView::new(&revoked.confirmation, wait),
            crl,
            no_crl,
        }
    }

    /// The CRL of whoever issued it, where that is the CA of this folder and its key opens without
    /// asking anybody. The revocation holds without it.
    pub(super) async fn crl_after(
        &self,
        revoked: &Enrolment,
        store: &dyn Store,
    ) -> Result<Option<WrittenCrl>, CaCommandError> {
        if revoked.kind == EnrolmentKind::External {
            return Ok(None);
        }
        let Some((holder, root)) = revoked
            .issuer
            .and_then(|issuer| self.files.holder_of(issuer))
        else {
            return Err(CrlError::Foreign {
                path: self.files.issuing_crl(),
            }
            .into());
        };
        let passphrases = Passphrases::new(self.passphrase_file.clone()).without_terminal();
        let authority = self.open_in(&holder, root, &passphrases)?;
        let path = if root {
            holder.root_crl()
        } else {
            holder.issuing_crl()
        };
        let written = write_crl(&authority, &path, store, self.now).await?;
        write_bundle(&self.files, &self.settings.permission_oid, self.now)?;
        Ok(Some(written))
    }

    async fn crl(&self, arguments: CrlArguments) -> Outcome {
        let store = self.store(false).await?;
        let authority = self.authority(arguments.root)?;
        let path = arguments
            .out
            .unwrap_or_else(|| self.crl_path(arguments.root));
        let written = match &arguments.distribution_point {
            Some(url) => write_crl_at(&authority, &path, &*store, url, self.now).await?,
            None => write_crl(&authority, &path, &*store, self.now).await?,
        };
        write_bundle(&self.files, &self.settings.permission_oid, self.now)?;
        Ok(CaOutcome::Crl(crl_report(written)))
    }

    /// Until the process is ended; what cannot be done now is tried again.
    async fn watch(&self, every: Duration) -> Outcome {
        let store = self.store(false).await?;
        // The issuing CA comes first.
        let mut open = self.open_all()?;
        let say = |text: String| {
            // Nobody may be listening.
            let _ = writeln!(std::io::stderr(), "{}", text.trim_end());
        };
        let (mut known, mut behind) = (0, false);
        loop {
            let oid = &self.settings.permission_oid;
            match refresh_crls(&self.files, &open, &*store, oid, unix_now()).await {
                Ok(written) => {
                    written
                        .into_iter()
                        .for_each(|crl| say(crl_report(crl).human()));
                }
                Err(error) => say(format!("the CRLs were not written: {error}")),
            }
            let changed = tokio::select! {
                changed = store.changed(known, every) => changed,
                () = open[0].replaced(&self.files), if !behind => Ok(known),
                () = tokio::time::sleep(AGAIN), if behind => Ok(known),
            };
            match changed {
                Ok(newest) => known = newest,
                Err(error) => {
                    say(error.to_string());
                    tokio::time::sleep(every.min(Duration::from_secs(5))).await;
                }
            }
            behind = false;
            if open[0].is_replaced(&self.files) {
                match self.open_all_unasked() {
                    Ok(all) => open = all,
                    Err(error) => {
                        behind = true;
                        say(format!(
                            "another CA is in the folder, and its CRL is not kept fresh: {error}"
                        ));
                    }
                }
            }
        }
    }

    /// The issuing CA, which must open; those before it and the roots where they open unasked.
    pub(super) fn open_all(&self) -> Result<Vec<Authority>, CaCommandError> {
        self.open_all_by(&Passphrases::new(self.passphrase_file.clone()))
    }

    /// The same, and nobody is asked.
    pub(super) fn open_all_unasked(&self) -> Result<Vec<Authority>, CaCommandError> {
        self.open_all_by(&Passphrases::new(self.passphrase_file.clone()).without_terminal())
    }

    fn open_all_by(&self, passphrases: &Passphrases) -> Result<Vec<Authority>, CaCommandError> {
        let mut open = vec![self.open(false, passphrases)?];
        let unasked = Passphrases::new(self.passphrase_file.clone()).without_terminal();
        for holder in self.files.generations().map_err(|cause| FileError::Read {
            path: self.files.retired(),
            cause,
        })? {
            for root in [false, true] {
                let opened = self.open_in(&holder, root, &unasked);
                let new = |authority: &Authority| {
                    open.iter()
                        .all(|other| other.fingerprint() != authority.fingerprint())
                };
                open.extend(opened.ok().filter(new));
            }
        }
        Ok(open)
    }

    fn crl_path(&self, root: bool) -> PathBuf {
        if root {
            self.files.root_crl()
        } else {
            self.files.issuing_crl()
        }
    }

    pub(super) fn authority(&self, root: bool) -> Result<Authority, CaCommandError> {
        self.open(root, &Passphrases::new(self.passphrase_file.clone()))
    }

    fn open(&self, root: bool, passphrases: &Passphrases) -> Result<Authority, CaCommandError> {
        self.open_in(&self.files, root, passphrases)
    }

    pub(super) fn open_in(
        &self,
        files: &CaFiles,
        root: bool,
        passphrases: &Passphrases,
    ) -> Result<Authority, CaCommandError> {
        let unlock = |key: &Path| passphrases.of(key);
        let oid = &self.settings.permission_oid;
        let open = if root {
            Authority::root
        } else {
            Authority::issuing
        };
        Ok(open(files, &unlock, oid)?)
    }

    pub(super) async fn store(&self, create: bool) -> Result<Arc<dyn Store>, CaCommandError> {
        Ok(crate::registry::open(&self.registry, create).await?)
    }
}

/// The first registry is made with its folder; any other command looks for one that is there.
fn make_folder_of(registry: &Path) -> Result<(), CreateError> {
    let folder = registry.parent().unwrap_or(registry);
    std::fs::create_dir_all(folder).map_err(|cause| CreateError::Folder {
        path: folder.to_owned(),
        cause,
    })
}

/// Newest first, those that are wanted, at most `limit`.
pub(in crate::cli) async fn list(
    store: &dyn Store,
    limit: usize,
    wanted: impl Fn(&Enrolment) -> bool,
    now: UnixTime,
) -> Result<ListReport, CaCommandError> {
    let mut certificates = Vec::new();
    let mut after: Option<Fingerprint> = None;
    loop {
        let page = store.list(after, PAGE).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.fingerprint);
        for enrolment in page.iter().filter(|enrolment| wanted(enrolment)) {
            if certificates.len() == limit {
                return Ok(ListReport {
                    certificates,
                    more: true,
                });
            }
            certificates.push(CertificateView::new(enrolment, now));
        }
    }
    Ok(ListReport {
        certificates,
        more: false,
    })
}

/// `--grant` and `--role` together.
pub(in crate::cli) fn written_grants(
    grants: &[String],
    roles: &[String],
) -> Result<WrittenGrants, CaCommandError> {
    let roles = roles.iter().map(|role| format!("role:{role}"));
    Ok(WrittenGrants::parse(
        &grants.iter().cloned().chain(roles).collect::<Vec<_>>(),
    )?)
}

pub(super) fn spiffe_id(name: &str, domain: &str) -> Result<SpiffeId, CaCommandError> {
    let id = if name.contains("://") {
        name.parse()
    } else {
        SpiffeId::new(domain, name)
    };
    id.map_err(|error| CaCommandError::Name {
        name: name.to_owned(),
        error,
    })
}

pub(super) fn profiles(folder: Option<&Path>) -> Result<Profiles, CaCommandError> {
    let usual = Path::new("pki/profiles");
    Ok(match folder {
        Some(folder) => Profiles::with_folder(folder)?,
        None if usual.is_dir() => Profiles::with_folder(usual)?,
        None => Profiles::embedded()?,
    })
}

pub(super) fn crl_report(crl: WrittenCrl) -> CrlReport {
    CrlReport {
        path: crl.path,
        number: crl.number,
        entries: crl.entries,
        next_update: crl.next_update.to_string(),
    }
}
