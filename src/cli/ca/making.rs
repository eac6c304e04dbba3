//! The commands that make certificates: `issue`, `sign`, `renew`.

use std::io::Read;
use std::path::{Path, PathBuf};

use crate::ca::{
    CertificateRequest, Form, Holding, Issued, KeyPart, Output, Renewal, Request, Rules, Signer,
    end_old, find_newest, issue, issue_offline, issue_renewal, prepare_output_in, revoke,
    write_in_form, write_offline,
};
use crate::cert::{KeyKind, PrivateKey, TokenKey};
use crate::registry::{Reason, Store};
use crate::secret::Secret;

use super::actor::actor;
use super::arguments::{EndOld, IssueArguments, OutputArguments, RenewArguments, SignArguments};
use super::error::CaCommandError;
use super::keeping::subject_in_token;
use super::outcome::{CaOutcome, EndedReport, FilesReport, IssueReport};
use super::passphrase::Passphrases;
use super::run::{Bench, Outcome, crl_report, profiles, spiffe_id, written_grants};
use super::view::{CertificateView, ConfirmationView};

/// A request is at most so large; one byte more shows that it is not one.
const LARGEST_REQUEST: u64 = 64 * 1024 + 1;

/// The key that a certificate is for.
enum Subject {
    Made(Signer, PrivateKey),
    Token(TokenKey),
}

impl Subject {
    fn fresh(kind: KeyKind) -> Result<Self, CaCommandError> {
        let (signer, key) = Signer::generate(kind)?;
        Ok(Self::Made(signer, key))
    }

    fn public_key(&self) -> Vec<u8> {
        match self {
            Self::Made(signer, _) => signer.public_key(),
            Self::Token(key) => key.public_key(),
        }
    }
}

/// The output and, for PKCS#12, its passphrase.
struct Place {
    output: Output,
    passphrase: Option<Secret>,
}

impl Place {
    fn prepare(
        arguments: &OutputArguments,
        key: KeyPart,
        base: &str,
        root: &[u8],
    ) -> Result<Self, CaCommandError> {
        let OutputArguments {
            out,
            format,
            p12_passphrase_file,
            replace,
        } = arguments;
        let output = prepare_output_in(*format, key, out, base, root, *replace)?;
        let passphrase = match format {
            Form::P12 => {
                let file = out.join(format!("{base}.p12"));
                Some(Passphrases::of_export(
                    p12_passphrase_file.as_deref(),
                    "--p12-passphrase-file",
                    &file,
                )?)
            }
            Form::Pem | Form::Json => None,
        };
        Ok(Self { output, passphrase })
    }

    fn holding<'a>(&'a self, key: Option<&'a PrivateKey>) -> Holding<'a> {
        match (key, &self.passphrase) {
            (None, _) => Holding::NoKey,
            (Some(key), None) => Holding::Key(key),
            (Some(key), Some(passphrase)) => Holding::Sealed(key, passphrase),
        }
    }
}

impl Bench<'_> {
    pub(super) fn rules(&self) -> Rules<'_> {
        Rules {
            permission_oid: &self.settings.permission_oid,
            roles: &self.settings.roles,
        }
    }

    pub(super) async fn issue(&self, arguments: IssueArguments) -> Outcome {
        let profiles = profiles(arguments.profiles.as_deref())?;
        let profile = profiles.get(&arguments.profile)?;
        let grants = written_grants(&arguments.grant, &arguments.role)?;
        let authority = self.authority(false)?;
        let name = spiffe_id(&arguments.name, authority.trust_domain())?;
        let base = name.last_segment().to_owned();
        let subject = match &arguments.key {
            Some(_) if arguments.output.format == Form::P12 => {
                return Err(CaCommandError::NoKeyForP12);
            }
            Some(uri) => Subject::Token(subject_in_token(uri, None)?),
            None => Subject::fresh(profile.key)?,
        };
        let request = Request {
            name,
            subject_key: &subject.public_key(),
            grants,
            profile,
            ttl: arguments.ttl,
            dns: arguments.dns,
            ips: arguments.ip,
        };
        let signed = authority.sign(&request, self.rules(), self.now)?;
        let place = Place::prepare(
            &arguments.output,
            KeyPart::Written,
            &base,
            authority.root_der(),
        )?;
        let holding = match &subject {
            Subject::Made(_, key) => place.holding(Some(key)),
            Subject::Token(key) => Holding::Token(key.uri()),
        };
        if arguments.offline {
            let issued = issue_offline(signed, &actor(), self.now)?;
            return self.hand_out_offline(&place, &issued, holding);
        }
        let store = self.store(false).await?;
        let issued = issue(&*store, signed, &actor(), self.now).await?;
        self.hand_out(&*store, &place, &issued, holding).await
    }

    pub(super) async fn sign(&self, arguments: SignArguments) -> Outcome {
        refuse_p12(&arguments.output)?;
        let csr = read_request(&arguments.request)?;
        let profiles = profiles(arguments.profiles.as_deref())?;
        let profile = profiles.get(&arguments.profile)?;
        let grants = written_grants(&arguments.grant, &arguments.role)?;
        let authority = self.authority(false)?;
        let name = spiffe_id(&arguments.name, authority.trust_domain())?;
        let base = name.last_segment().to_owned();
        let unheard = csr.unheard(name.as_str());
        let request = Request {
            name,
            subject_key: csr.subject_key(),
            grants,
            profile,
            ttl: arguments.ttl,
            dns: arguments.dns,
            ips: arguments.ip,
        };
        let signed = authority.sign(&request, self.rules(), self.now)?;
        let place = Place::prepare(
            &arguments.output,
            KeyPart::Theirs,
            &base,
            authority.root_der(),
        )?;
        if arguments.offline {
            let mut issued = issue_offline(signed, &actor(), self.now)?;
            issued.notes.extend(unheard);
            return self.hand_out_offline(&place, &issued, Holding::NoKey);
        }
        let store = self.store(false).await?;
        let mut issued = issue(&*store, signed, &actor(), self.now).await?;
        issued.notes.extend(unheard);
        self.hand_out(&*store, &place, &issued, Holding::NoKey)
            .await
    }

    pub(super) async fn renew(&self, arguments: RenewArguments) -> Outcome {
        if arguments.csr.is_some() {
            refuse_p12(&arguments.output)?;
        }
        let store = self.store(false).await?;
        let old = find_newest(&*store, &arguments.key, self.now).await?;
        let profiles = profiles(arguments.profiles.as_deref())?;
        let profile = profiles.get(&old.profile)?;
        let pinned_end = matches!(arguments.end_old, Some(EndOld::After(_)));
        if pinned_end && !old.pinned {
            return Err(CaCommandError::EndWithoutPin(old.name.to_string()));
        }
        let grants = written_grants(&arguments.grant, &arguments.role)?;
        let (subject_key, key) = match &arguments.csr {
            Some(file) => (read_request(file)?.subject_key().to_vec(), None),
            None => {
                let (signer, key) = Signer::generate(profile.key)?;
                (signer.public_key(), Some(key))
            }
        };
        let authority = self.authority(false)?;
        let renewal = Renewal {
            old: &old,
            subject_key: &subject_key,
            grants: (!grants.is_empty()).then_some(grants),
            profile,
            ttl: arguments.ttl,
        };
        let signed = authority.renew(&renewal, self.rules(), self.now)?;
        let base = old.name.short().to_owned();
        let part = key.as_ref().map_or(KeyPart::Theirs, |_| KeyPart::Written);
        let place = Place::prepare(&arguments.output, part, &base, authority.root_der())?;
        let issued = issue_renewal(&*store, signed, &old, &actor(), self.now).await?;
        let outcome = self
            .hand_out(&*store, &place, &issued, place.holding(key.as_ref()))
            .await?;
        let CaOutcome::Issue(mut report) = outcome else {
            return Ok(outcome);
        };
        // Only after the new one is in its holder's hands.
        report.old = Some(self.end(&*store, &old, &arguments).await?);
        Ok(CaOutcome::Issue(report))
    }

    async fn end(
        &self,
        store: &dyn Store,
        old: &crate::registry::Enrolment,
        arguments: &RenewArguments,
    ) -> Result<EndedReport, CaCommandError> {
        let key = old.fingerprint.to_string();
        let (servers, crl) = match arguments.end_old {
            None => (None, None),
            Some(EndOld::After(span)) => {
                let end = self.now.plus(span);
                let confirmation = end_old(store, old.fingerprint, end, arguments.wait).await?;
                (
                    Some(ConfirmationView::new(&confirmation, arguments.wait)),
                    None,
                )
            }
            Some(EndOld::Now) => {
                let reason = Reason::Superseded;
                let by = actor();
                let revoked = revoke(store, &key, reason, &by, arguments.wait, self.now).await?;
                let crl = self
                    .crl_after(&revoked.enrolment, store)
                    .await
                    .ok()
                    .flatten();
                (
                    Some(ConfirmationView::new(&revoked.confirmation, arguments.wait)),
                    crl.map(crl_report),
                )
            }
        };
        let old = store
            .get(old.fingerprint)
            .await?
            .unwrap_or_else(|| old.clone());
        Ok(EndedReport {
            certificate: CertificateView::new(&old, self.now),
            servers,
            crl,
        })
    }

    async fn hand_out(
        &self,
        store: &dyn Store,
        place: &Place,
        issued: &Issued,
        holding: Holding<'_>,
    ) -> Outcome {
        let files = write_in_form(store, &place.output, issued, holding, self.now).await?;
        Ok(CaOutcome::Issue(Box::new(self.issue_report(issued, files))))
    }

    fn hand_out_offline(&self, place: &Place, issued: &Issued, holding: Holding<'_>) -> Outcome {
        let files = write_offline(&place.output, issued, holding)?;
        Ok(CaOutcome::Issue(Box::new(self.issue_report(issued, files))))
    }

    fn issue_report(&self, issued: &Issued, files: Vec<PathBuf>) -> IssueReport {
        IssueReport {
            certificate: CertificateView::new(&issued.enrolment, self.now).with(&issued.parsed),
            files: FilesReport::of(files),
            notes: issued.notes.clone(),
            old: None,
        }
    }
}

fn refuse_p12(output: &OutputArguments) -> Result<(), CaCommandError> {
    match output.format {
        Form::P12 => Err(CaCommandError::NoKeyForP12),
        Form::Pem | Form::Json => Ok(()),
    }
}

pub(super) fn read_request(path: &Path) -> Result<CertificateRequest, CaCommandError> {
    let unreadable = |cause| CaCommandError::ReadRequest {
        path: path.to_owned(),
        cause,
    };
    let mut content = Vec::new();
    if path == Path::new("-") {
        let mut stdin = std::io::stdin().lock().take(LARGEST_REQUEST);
        stdin.read_to_end(&mut content).map_err(unreadable)?;
    } else {
        let file = std::fs::File::open(path).map_err(unreadable)?;
        file.take(LARGEST_REQUEST)
            .read_to_end(&mut content)
            .map_err(unreadable)?;
    }
    CertificateRequest::parse(&content).map_err(|error| CaCommandError::Request {
        path: path.to_owned(),
        error,
    })
}
