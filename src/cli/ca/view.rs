//! What is shown of a certificate: one shape for JSON, one table for people.

use std::time::Duration;

use comfy_table::{Table, presets};
use serde::Serialize;

use crate::ca::remaining;
use crate::cert::Parsed;
use crate::clock::UnixTime;
use crate::grant::WrittenGrants;
use crate::registry::{Confirmation, Enrolment};

/// A certificate on record. Times are RFC 3339, UTC.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CertificateView {
    /// Whole name.
    pub name: String,
    /// 64 hex digits.
    pub fingerprint: String,
    /// Hex.
    pub serial: String,
    /// `leaf`, `authority` or `external`.
    pub kind: &'static str,
    /// Empty for external ones.
    pub profile: String,
    /// `live`, `not yet valid`, `expired` or `revoked`.
    pub status: &'static str,
    /// Whether servers admit by it.
    pub pinned: bool,
    /// The pin's own set; absent where the certificate's counts alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pin_grants: Option<Vec<String>>,
    /// What the certificate carries; absent in lists, and where it carries nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grants: Option<Vec<String>>,
    /// Validity.
    pub not_before: String,
    /// Validity.
    pub not_after: String,
    /// Seconds until the end; 0 when it is over.
    pub remaining_seconds: u64,
    /// As people say it.
    pub remaining: String,
    /// Fingerprint of the issuing certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// Who revoked it, when and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revocation: Option<RevocationView>,
    /// When it was put on record.
    pub created_at: String,
    /// Who did that.
    pub created_by: String,
}

/// Who revoked it, when and why.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RevocationView {
    /// When.
    pub at: String,
    /// RFC 5280's word for it.
    pub reason: String,
    /// Who.
    pub by: String,
}

/// A CA above a certificate.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AboveView {
    /// Whole name.
    pub name: String,
    /// 64 hex digits.
    pub fingerprint: String,
    /// As of [`CertificateView::status`].
    pub status: &'static str,
    /// Who revoked it, when and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revocation: Option<RevocationView>,
}

impl AboveView {
    /// As the registry tells it.
    #[must_use]
    pub fn new(enrolment: &Enrolment, now: UnixTime) -> Self {
        Self {
            name: enrolment.name.to_string(),
            fingerprint: enrolment.fingerprint.to_string(),
            status: status(enrolment, now),
            revocation: RevocationView::of(enrolment),
        }
    }

    /// One line of a card.
    #[must_use]
    pub fn line(&self) -> String {
        let Self {
            name,
            fingerprint,
            status,
            revocation,
        } = self;
        let short = &fingerprint[..12];
        let how = match revocation {
            Some(RevocationView { at, reason, by }) => {
                format!("revoked {at} by {by}, {reason}: nobody below it is admitted")
            }
            None => (*status).to_owned(),
        };
        format!("{:<12} {name} ({short}), {how}\n", "below")
    }
}

impl RevocationView {
    fn of(enrolment: &Enrolment) -> Option<Self> {
        enrolment.revocation.as_ref().map(|revocation| Self {
            at: revocation.at.to_string(),
            reason: revocation.reason.to_string(),
            by: revocation.by.clone(),
        })
    }
}

/// How many servers know of a change.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ConfirmationView {
    /// Servers that are running.
    pub live: usize,
    /// Of these, how many have applied it.
    pub confirmed: usize,
    /// Those that have not.
    pub waiting_for: Vec<String>,
    /// Milliseconds.
    pub took_ms: f64,
    /// Whether anybody wanted to wait for them.
    #[serde(skip)]
    pub asked: bool,
}

impl CertificateView {
    /// As the registry tells it.
    #[must_use]
    pub fn new(enrolment: &Enrolment, now: UnixTime) -> Self {
        Self {
            name: enrolment.name.to_string(),
            fingerprint: enrolment.fingerprint.to_string(),
            serial: enrolment.serial.clone(),
            kind: enrolment.kind.as_str(),
            profile: enrolment.profile.clone(),
            status: status(enrolment, now),
            pinned: enrolment.pinned,
            pin_grants: enrolment.grants.as_ref().map(words),
            grants: None,
            not_before: enrolment.not_before.to_string(),
            not_after: enrolment.not_after.to_string(),
            remaining_seconds: enrolment.not_after.since(now).as_secs(),
            remaining: remaining(enrolment.not_before, enrolment.not_after, now),
            issuer: enrolment.issuer.map(|issuer| issuer.to_string()),
            revocation: RevocationView::of(enrolment),
            created_at: enrolment.created_at.to_string(),
            created_by: enrolment.created_by.clone(),
        }
    }

    /// With what the certificate itself carries.
    #[must_use]
    pub fn with(mut self, parsed: &Parsed) -> Self {
        self.grants = parsed.permissions.as_ref().map(words);
        self
    }

    /// Every field on a line of its own.
    #[must_use]
    pub fn card(&self) -> String {
        let mut rows: Vec<(&str, String)> = vec![
            ("name", self.name.clone()),
            ("status", format!("{}, {}", self.status, self.remaining)),
            (
                "valid",
                format!("{} to {}", self.not_before, self.not_after),
            ),
            ("fingerprint", self.fingerprint.clone()),
            ("serial", self.serial.clone()),
            ("kind", self.kind_and_profile()),
            ("pinned", if self.pinned { "yes" } else { "no" }.to_owned()),
        ];
        if let Some(grants) = &self.grants {
            rows.push(("may", grants.join("  ")));
        }
        if let Some(grants) = &self.pin_grants {
            rows.push(("pin allows", grants.join("  ")));
        }
        if let Some(issuer) = &self.issuer {
            rows.push(("issuer", issuer.clone()));
        }
        rows.push((
            "on record",
            format!("{} by {}", self.created_at, self.created_by),
        ));
        if let Some(revocation) = &self.revocation {
            let RevocationView { at, reason, by } = revocation;
            rows.push(("revoked", format!("{at} by {by}, {reason}")));
        }
        rows.iter()
            .map(|(label, value)| format!("{label:<12} {value}\n"))
            .collect()
    }

    fn kind_and_profile(&self) -> String {
        if self.profile.is_empty() {
            self.kind.to_owned()
        } else {
            format!("{}, profile {}", self.kind, self.profile)
        }
    }
}

impl ConfirmationView {
    /// From the registry's answer; `wait` is how long it could take.
    #[must_use]
    pub fn new(confirmation: &Confirmation, wait: Duration) -> Self {
        let late = |server: &&String| !confirmation.confirmed.contains(server);
        Self {
            live: confirmation.live.len(),
            confirmed: confirmation.confirmed.len(),
            waiting_for: confirmation.live.iter().filter(late).cloned().collect(),
            took_ms: (confirmation.took.as_secs_f64() * 1e5).round() / 100.0,
            asked: !wait.is_zero(),
        }
    }

    /// The servers that were waited for and did not come forward in time.
    pub fn missing(&self) -> impl Iterator<Item = &str> {
        let all = self.waiting_for.iter().map(String::as_str);
        all.filter(|_| self.asked)
    }

    /// One sentence.
    #[must_use]
    pub fn sentence(&self) -> String {
        let Self {
            live,
            confirmed,
            took_ms,
            ..
        } = self;
        match (live, live - confirmed.min(live)) {
            (0, _) => String::from("no server is running; it holds for every one that starts"),
            (1, 0) => format!("the live server applied it in {took_ms:.0} ms"),
            (_, 0) => format!("all {live} live servers applied it in {took_ms:.0} ms"),
            (_, _) => format!(
                "{confirmed} of {live} live servers applied it in {took_ms:.0} ms; still waiting \
                 for {}",
                self.waiting_for.join(", ")
            ),
        }
    }
}

/// A table without lines or colours: it reads as well in a pipe as on a terminal.
#[must_use]
pub fn table(certificates: &[CertificateView]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header([
        "NAME",
        "PROFILE",
        "STATUS",
        "VALID",
        "PINNED",
        "FINGERPRINT",
    ]);
    for view in certificates {
        let profile = if view.profile.is_empty() {
            view.kind
        } else {
            view.profile.as_str()
        };
        table.add_row([
            view.name.as_str(),
            profile,
            view.status,
            view.remaining.as_str(),
            if view.pinned { "yes" } else { "no" },
            &view.fingerprint[..12],
        ]);
    }
    table.trim_fmt()
}

fn status(enrolment: &Enrolment, now: UnixTime) -> &'static str {
    if enrolment.revocation.is_some() {
        "revoked"
    } else if enrolment.not_after < now {
        "expired"
    } else if enrolment.not_before > now {
        "not yet valid"
    } else {
        "live"
    }
}

fn words(grants: &WrittenGrants) -> Vec<String> {
    grants.entries().iter().map(ToString::to_string).collect()
}
