//! What the commands answer: serialized as it is for `--json`, `human` for people.

use std::path::PathBuf;

use serde::Serialize;

use super::view::{AboveView, CertificateView, ConfirmationView, table};

/// The answer of one of the commands.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
#[expect(missing_docs, reason = "each is named for its command")]
pub enum CaOutcome {
    Init(InitReport),
    Issue(Box<IssueReport>),
    Delegate(DelegateReport),
    Rotate(RotateReport),
    List(ListReport),
    Show(ShowReport),
    Revoke(RevokeReport),
    RevokeAll(Vec<RevokeReport>),
    Crl(CrlReport),
    Invite(InviteReport),
}

/// `ca init`
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct InitReport {
    /// The CA's folder.
    pub dir: PathBuf,
    /// Whose names it gives out.
    pub trust_domain: String,
    /// Fingerprint of the root: what others compare.
    pub root_fingerprint: String,
    /// RFC 3339.
    pub root_not_after: String,
    /// Fingerprint of the issuing CA.
    pub issuing_fingerprint: String,
    /// RFC 3339.
    pub issuing_not_after: String,
    /// The registry that goes with it.
    pub registry: String,
}

/// `ca issue`
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct IssueReport {
    /// As recorded.
    #[serde(flatten)]
    pub certificate: CertificateView,
    /// Files.
    pub files: FilesReport,
    /// What a person should know.
    pub notes: Vec<String>,
    /// `ca renew`: the certificate before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old: Option<EndedReport>,
}

/// `ca renew`: how the certificate before ends.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EndedReport {
    /// As recorded now.
    #[serde(flatten)]
    pub certificate: CertificateView,
    /// How far the live servers have come; absent where nothing was changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub servers: Option<ConfirmationView>,
    /// The CRL that was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crl: Option<CrlReport>,
}

/// Files that were written.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FilesReport {
    /// Chain, PEM; or the one file of another form.
    pub certificate: PathBuf,
    /// Key, PEM; absent where the key was not made here, or is in the one file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// Root, PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
}

impl FilesReport {
    /// From the files in the order in which they are reported.
    #[must_use]
    pub fn of(files: Vec<PathBuf>) -> Self {
        let ends = |ending: &str| {
            files
                .iter()
                .find(|file| file.extension().is_some_and(|found| found == ending))
                .cloned()
        };
        Self {
            key: ends("key"),
            ca: ends("pem"),
            certificate: files.into_iter().next().unwrap_or_default(),
        }
    }
}

/// `ca delegate`
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DelegateReport {
    /// As recorded; its grants are the ceiling.
    #[serde(flatten)]
    pub certificate: CertificateView,
    /// Its folder.
    pub dir: PathBuf,
    /// What a person should know.
    pub notes: Vec<String>,
}

/// `ca rotate`
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RotateReport {
    /// Fingerprint of the new root, where it was replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root: Option<String>,
    /// Fingerprint of the new issuing CA.
    pub issuing: String,
    /// RFC 3339.
    pub issuing_not_after: String,
    /// The folder with the CA before.
    pub retired: PathBuf,
    /// Certificates and CRLs for a server's anchor.
    pub bundle: PathBuf,
}

/// `ca list`, `pin list`
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ListReport {
    /// Newest first.
    pub certificates: Vec<CertificateView>,
    /// There are more than the limit.
    pub more: bool,
}

/// `ca show`
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ShowReport {
    /// With what the certificate carries.
    #[serde(flatten)]
    pub certificate: CertificateView,
    /// The CAs above it that are on record, the nearest first.
    pub above: Vec<AboveView>,
    /// PEM.
    pub pem: String,
}

/// `ca revoke`
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RevokeReport {
    /// With its revocation.
    #[serde(flatten)]
    pub certificate: CertificateView,
    /// It was revoked before.
    pub already: bool,
    /// How far the live servers have come.
    pub servers: ConfirmationView,
    /// The CRL that was written; absent where the key could not be opened unasked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crl: Option<CrlReport>,
    /// Why there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_crl: Option<String>,
}

/// `ca crl`
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CrlReport {
    /// The file.
    pub path: PathBuf,
    /// Its number.
    pub number: u64,
    /// Certificates that it names.
    pub entries: usize,
    /// RFC 3339.
    pub next_update: String,
}

/// `ca invite`
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct InviteReport {
    /// Lets its holder enrol, once.
    pub token: String,
    /// What to run where the key is to be.
    pub command: String,
    /// The name that will be enrolled.
    pub name: String,
    /// The kind of certificate.
    pub profile: String,
    /// What it will allow; empty: the profile's default.
    pub grants: Vec<String>,
    /// Where it enrols.
    pub server: String,
    /// The CA's root, which the token carries too.
    pub root_fingerprint: String,
    /// RFC 3339.
    pub expires: String,
}

impl CaOutcome {
    /// The servers that were waited for and have not applied a revocation in time.
    #[must_use]
    pub fn missing(&self) -> Vec<&str> {
        let all: Vec<&ConfirmationView> = match self {
            Self::Revoke(report) => vec![&report.servers],
            Self::RevokeAll(all) => all.iter().take(1).map(|one| &one.servers).collect(),
            Self::Issue(report) => {
                let old = report.old.iter();
                old.filter_map(|old| old.servers.as_ref()).collect()
            }
            _ => Vec::new(),
        };
        all.into_iter()
            .flat_map(ConfirmationView::missing)
            .collect()
    }

    /// For people.
    #[must_use]
    pub fn human(&self) -> String {
        match self {
            Self::Init(report) => report.human(),
            Self::Issue(report) => report.human(),
            Self::Delegate(report) => report.human(),
            Self::Rotate(report) => report.human(),
            Self::List(report) => report.human(),
            Self::Show(report) => report.human(),
            Self::Revoke(report) => report.human(),
            Self::RevokeAll(all) => all.iter().map(RevokeReport::human).collect(),
            Self::Crl(report) => report.human(),
            Self::Invite(report) => report.human(),
        }
    }
}

impl InitReport {
    fn human(&self) -> String {
        format!(
            "A CA for {} is in {}.\n\nroot         {}  until {}\nissuing CA   {}  until {}\n\
             registry     {}\n\nKeep root.key somewhere else: only new issuing CAs need it.\n",
            self.trust_domain,
            self.dir.display(),
            self.root_fingerprint,
            self.root_not_after,
            self.issuing_fingerprint,
            self.issuing_not_after,
            self.registry,
        )
    }
}

impl IssueReport {
    fn human(&self) -> String {
        let FilesReport {
            certificate,
            key,
            ca,
        } = &self.files;
        let mut text = self.certificate.card();
        let files = [
            ("certificate", Some(certificate)),
            ("key", key.as_ref()),
            ("ca", ca.as_ref()),
        ];
        for (label, path) in files {
            if let Some(path) = path {
                text.push_str(&format!("{label:<12} {}\n", path.display()));
            }
        }
        if let Some(old) = &self.old {
            text.push_str(&old.human());
        }
        for note in &self.notes {
            text.push_str(&format!("note: {note}\n"));
        }
        text
    }
}

impl InviteReport {
    fn human(&self) -> String {
        let grants = if self.grants.is_empty() {
            format!("the default of the profile `{}`", self.profile)
        } else {
            self.grants.join(" ")
        };
        format!(
            "name         {}\ngrants       {grants}\nserver       {}\nroot         {}\n\
             usable until {}, once\n\nRun this where the key is to be:\n\n{}\n",
            self.name, self.server, self.root_fingerprint, self.expires, self.command,
        )
    }
}

impl EndedReport {
    fn human(&self) -> String {
        let CertificateView {
            fingerprint,
            not_after,
            status,
            ..
        } = &self.certificate;
        let print = &fingerprint[..12];
        let mut text = match &self.servers {
            None => format!("The one before, {print}, is {status} until {not_after}.\n"),
            Some(servers) if *status == "revoked" => {
                format!(
                    "The one before, {print}, is revoked: {}.\n",
                    servers.sentence()
                )
            }
            Some(servers) => format!(
                "The one before, {print}, ends at {not_after}: {}.\n",
                servers.sentence()
            ),
        };
        if let Some(crl) = &self.crl {
            text.push_str(&crl.human());
        }
        text
    }
}

impl ListReport {
    /// A table.
    #[must_use]
    pub fn human(&self) -> String {
        if self.certificates.is_empty() {
            return String::from("There is none.\n");
        }
        let more = if self.more {
            "There are more: see --limit.\n"
        } else {
            ""
        };
        format!("{}\n{more}", table(&self.certificates))
    }
}

impl RevokeReport {
    fn human(&self) -> String {
        let certificate = &self.certificate;
        let mut text = if self.already {
            format!(
                "{} ({}) was revoked before: {}.\n",
                certificate.name,
                &certificate.fingerprint[..12],
                self.servers.sentence()
            )
        } else {
            format!(
                "{} ({}) is revoked: {}.\n",
                certificate.name,
                &certificate.fingerprint[..12],
                self.servers.sentence()
            )
        };
        if let Some(crl) = &self.crl {
            text.push_str(&crl.human());
        }
        if let Some(why) = &self.no_crl {
            text.push_str(&format!(
                "note: the CRL was not written ({why}); `countersign ca crl` writes it\n"
            ));
        }
        text
    }
}

impl ShowReport {
    fn human(&self) -> String {
        let above: String = self.above.iter().map(AboveView::line).collect();
        self.certificate.card() + &above
    }
}

impl DelegateReport {
    fn human(&self) -> String {
        let dir = self.dir.display();
        let mut text = self.certificate.card();
        for note in &self.notes {
            text.push_str(&format!("note: {note}\n"));
        }
        text.push_str(&format!(
            "\nIt signs with `countersign ca issue NAME --ca {dir} --offline`.\n"
        ));
        text
    }
}

impl RotateReport {
    fn human(&self) -> String {
        let mut text = String::new();
        if let Some(root) = &self.root {
            text.push_str(&format!(
                "root         {root}  (signed by the one before)\n"
            ));
        }
        text.push_str(&format!(
            "issuing CA   {}  until {}\nbefore       {}\nbundle       {}\n\nThe CA before keeps \
             its CRL, and what it signed stays good.\n",
            self.issuing,
            self.issuing_not_after,
            self.retired.display(),
            self.bundle.display(),
        ));
        if self.root.is_some() {
            text.push_str(
                "Give servers and clients the new ca.pem (root.crt of the CA's folder) while the \
                 old root is still trusted.\n",
            );
        }
        text
    }
}

impl CrlReport {
    pub(super) fn human(&self) -> String {
        let names = if self.entries == 1 {
            "certificate"
        } else {
            "certificates"
        };
        format!(
            "{} names {} {names}, number {}, next due {}.\n",
            self.path.display(),
            self.entries,
            self.number,
            self.next_update
        )
    }
}
