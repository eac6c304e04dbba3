//! `countersign pin …`: certificates of other CAs that servers admit.

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use crate::ca::{NameFrom, NewPin, Pinned, pin, unpin};
use crate::clock::UnixTime;
use crate::registry::{self, Enrolment, Store};

use super::ca::run::{list, written_grants};
use super::ca::{
    CaCommandError, CertificateView, ConfirmationView, ListReport, Place, Settings, actor,
};

/// Pin certificates of other CAs, list and unpin them
#[derive(Debug, clap::Args)]
pub struct PinCommand {
    /// Where.
    #[command(flatten)]
    pub place: Place,
    /// What to do.
    #[command(subcommand)]
    pub action: PinAction,
}

/// What `countersign pin` can do.
#[derive(Debug, clap::Subcommand)]
pub enum PinAction {
    /// Pin a certificate; one that is pinned already gets the new grants
    Add(AddArguments),
    /// List the pinned certificates that are live
    List(ListArguments),
    /// Take a pin off: its live connections are closed
    Remove(RemoveArguments),
}

/// `pin add`
#[derive(Debug, clap::Args)]
pub struct AddArguments {
    /// PEM file; its first certificate counts
    pub file: PathBuf,
    /// Name to know it by
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Where the name stands in the certificate: uri, dns or cn
    #[arg(
        long,
        value_name = "PLACE",
        default_value = "uri",
        conflicts_with = "name"
    )]
    pub identity_from: NameFrom,
    /// What it may do [default: what the certificate carries]; may be given more than once
    #[arg(long, value_name = "GRANT")]
    pub grant: Vec<String>,
    /// A role of the configuration; may be given more than once
    #[arg(long, value_name = "ROLE")]
    pub role: Vec<String>,
    /// The pin's own end, such as `30d` [default: the certificate's]
    #[arg(long, value_name = "SPAN", value_parser = humantime::parse_duration)]
    pub ttl: Option<Duration>,
}

/// `pin list`
#[derive(Debug, clap::Args)]
pub struct ListArguments {
    /// Also those that are expired or revoked
    #[arg(long)]
    pub all: bool,
    /// At most so many, newest first
    #[arg(long, value_name = "NUMBER", default_value_t = 500)]
    pub limit: usize,
}

/// `pin remove`
#[derive(Debug, clap::Args)]
pub struct RemoveArguments {
    /// Name, fingerprint or serial number
    pub key: String,
    /// How long to wait for the live servers
    #[arg(long, value_name = "SPAN", default_value = "2s", value_parser = humantime::parse_duration)]
    pub wait: Duration,
}

/// The answer of one of the commands.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
#[expect(missing_docs, reason = "each is named for its command")]
pub enum PinOutcome {
    Changed(Box<PinReport>),
    List(ListReport),
}

/// `pin add`, `pin remove`
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PinReport {
    /// As it is now.
    #[serde(flatten)]
    pub certificate: CertificateView,
    /// It was on record before.
    pub known: bool,
    /// How far the live servers have come; absent where nothing was taken away.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub servers: Option<ConfirmationView>,
}

impl PinCommand {
    /// Runs the command.
    ///
    /// # Errors
    /// Whatever its step says; `hint` of the error tells what to do.
    pub async fn run(
        self,
        settings: &Settings,
        now: UnixTime,
    ) -> Result<PinOutcome, CaCommandError> {
        let place = self.place.registry(settings);
        let create = matches!(self.action, PinAction::Add(_));
        let store = registry::open(&place, create).await?;
        match self.action {
            PinAction::Add(arguments) => add(&*store, &arguments, settings, now).await,
            PinAction::List(ListArguments { all, limit }) => {
                let wanted = |enrolment: &Enrolment| {
                    let live = enrolment.revocation.is_none() && enrolment.not_after >= now;
                    enrolment.pinned && (all || live)
                };
                list(&*store, limit, wanted, now)
                    .await
                    .map(PinOutcome::List)
            }
            PinAction::Remove(RemoveArguments { key, wait }) => {
                Ok(report(&unpin(&*store, &key, wait, now).await?, wait, now))
            }
        }
    }
}

async fn add(
    store: &dyn Store,
    arguments: &AddArguments,
    settings: &Settings,
    now: UnixTime,
) -> Result<PinOutcome, CaCommandError> {
    let grants = written_grants(&arguments.grant, &arguments.role)?;
    let new = NewPin {
        file: &arguments.file,
        name: arguments.name.as_deref(),
        from: arguments.identity_from,
        grants: (!grants.is_empty()).then_some(grants),
        ttl: arguments.ttl,
        permission_oid: &settings.permission_oid,
    };
    Ok(report(
        &pin(store, &new, &actor(), now).await?,
        Duration::ZERO,
        now,
    ))
}

fn report(pinned: &Pinned, wait: Duration, now: UnixTime) -> PinOutcome {
    PinOutcome::Changed(Box::new(PinReport {
        certificate: CertificateView::new(&pinned.enrolment, now),
        known: pinned.known,
        servers: pinned
            .confirmation
            .as_ref()
            .map(|confirmation| ConfirmationView::new(confirmation, wait)),
    }))
}

impl PinOutcome {
    /// The servers that were waited for and have not applied the change in time.
    #[must_use]
    pub fn missing(&self) -> Vec<&str> {
        match self {
            Self::List(_) => Vec::new(),
            Self::Changed(report) => report
                .servers
                .iter()
                .flat_map(ConfirmationView::missing)
                .collect(),
        }
    }

    /// For people.
    #[must_use]
    pub fn human(&self) -> String {
        match self {
            Self::List(report) => report.human(),
            Self::Changed(report) => match &report.servers {
                Some(servers) => {
                    format!("{}\n{}.\n", report.certificate.card(), servers.sentence())
                }
                None => report.certificate.card(),
            },
        }
    }
}
