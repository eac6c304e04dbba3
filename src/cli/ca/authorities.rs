//! The commands that make CAs below the root: `delegate`, `rotate`.

use crate::ca::{
    Delegation, NewAuthority, Signer, issue, prepare_delegate, rotate_issuing, rotate_root,
    write_delegate,
};
use crate::cert::{Parsed, PrivateKey, TokenKey, encrypt_pkcs8};

use super::actor::actor;
use super::arguments::{DelegateArguments, RotateArguments, RotateWhat};
use super::keeping::{Kept, subject_in_token};
use super::making::read_request;
use super::outcome::{CaOutcome, DelegateReport, RotateReport};
use super::passphrase::Passphrases;
use super::run::{Bench, Outcome, spiffe_id, written_grants};
use super::view::CertificateView;

/// The key of a delegate, where it does not come with a request.
enum DelegateKey {
    Made(PrivateKey),
    Token(Box<TokenKey>),
}

impl Bench<'_> {
    pub(super) async fn delegate(&self, arguments: DelegateArguments) -> Outcome {
        let ceiling = written_grants(&arguments.grant, &arguments.role)?;
        let authority = self.authority(false)?;
        let name = spiffe_id(&arguments.name, authority.trust_domain())?;
        let (subject_key, key) = match (&arguments.csr, &arguments.issuing_key) {
            (Some(file), _) => (read_request(file)?.subject_key().to_vec(), None),
            (None, Some(uri)) => {
                let key = Box::new(subject_in_token(uri, Some(arguments.key))?);
                (key.public_key(), Some(DelegateKey::Token(key)))
            }
            (None, None) => {
                let (signer, key) = Signer::generate(arguments.key)?;
                (signer.public_key(), Some(DelegateKey::Made(key)))
            }
        };
        let delegation = Delegation {
            name,
            subject_key: &subject_key,
            ceiling,
            ttl: arguments.ttl,
        };
        let signed = authority.delegate(&delegation, self.rules(), self.now)?;
        let files = prepare_delegate(&arguments.out)?;
        let key_file = match &key {
            Some(DelegateKey::Made(key)) => {
                let file = arguments.key_passphrase_file.as_deref();
                let option = "--key-passphrase-file";
                let passphrase = Passphrases::of_export(file, option, &files.issuing_key())?;
                Some(encrypt_pkcs8(key, &passphrase)?)
            }
            Some(DelegateKey::Token(key)) => Some(format!("{}\n", key.uri())),
            None => None,
        };
        let store = self.store(false).await?;
        let issued = issue(&*store, signed, &actor(), self.now).await?;
        write_delegate(&*store, &files, &issued, key_file.as_deref(), self.now).await?;
        Ok(CaOutcome::Delegate(DelegateReport {
            certificate: CertificateView::new(&issued.enrolment, self.now).with(&issued.parsed),
            dir: arguments.out,
            notes: issued.notes,
        }))
    }

    pub(super) async fn rotate(&self, arguments: RotateArguments) -> Outcome {
        let files = &self.files;
        let passphrases = Passphrases::new(self.passphrase_file.clone());
        let of_root = match arguments.root_passphrase_file {
            Some(file) => Passphrases::new(Some(file)),
            None => Passphrases::new(self.passphrase_file.clone()),
        };
        let root = self.open_in(files, true, &of_root)?;
        let issuing = Kept::instead_of(
            arguments.issuing_key.as_deref(),
            &passphrases,
            &files.issuing_key(),
            "--issuing-key",
        )?;
        let new_root = match arguments.what {
            // It stays as it is: this is not used.
            RotateWhat::Issuing => None,
            RotateWhat::Root => Some(Kept::instead_of(
                arguments.root_key.as_deref(),
                &of_root,
                &files.root_key(),
                "--root-key",
            )?),
        };
        let ceiling = written_grants(&arguments.ceiling, &[])?;
        let new = NewAuthority {
            trust_domain: root.trust_domain(),
            key: arguments.key,
            root: new_root.as_ref().unwrap_or(&issuing).keeping(),
            issuing: issuing.keeping(),
            permission_oid: &self.settings.permission_oid,
            ceiling: (!ceiling.is_empty()).then_some(&ceiling),
            beside: None,
        };
        let store = self.store(false).await?;
        let by = actor();
        let rotated = match arguments.what {
            RotateWhat::Issuing => {
                rotate_issuing(files, &root, new, &*store, &by, self.now).await?
            }
            RotateWhat::Root => rotate_root(files, &root, new, &*store, &by, self.now).await?,
        };
        let issuing = &rotated.issuing;
        let new_root = match arguments.what {
            RotateWhat::Issuing => None,
            RotateWhat::Root => {
                let oid = &self.settings.permission_oid;
                Some(
                    Parsed::from_der(issuing.root_der(), oid)?
                        .fingerprint
                        .to_string(),
                )
            }
        };
        Ok(CaOutcome::Rotate(RotateReport {
            root: new_root,
            issuing: issuing.fingerprint().to_string(),
            issuing_not_after: issuing.certificate().not_after.to_string(),
            retired: rotated.retired.dir().to_owned(),
            bundle: files.bundle(),
        }))
    }
}
