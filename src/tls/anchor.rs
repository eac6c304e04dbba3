//! Trust anchors: as configured, and loaded. A bundle's self-signed certificates, and those whose
//! issuer is not in it, are the anchors; the others only help to build paths, so that a path always
//! goes up to the top and no ceiling above is left out.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, TrustAnchor};
use serde::{Deserialize, Serialize};

use super::crl::Crls;
use super::path::weakness;
use crate::cert::{Parsed, load_chain};
use crate::grant::WrittenGrants;
use crate::identity::Fingerprint;
use crate::peer::{Layer, Mode, Source};

/// How a CRL's freshness is judged.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum CrlMode {
    /// A CRL that cannot be read or is past its next update refuses this anchor's clients.
    #[default]
    Require,
    /// The last good CRL is kept, loudly.
    Prefer,
}

/// Where the name of a peer comes from.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum NameFrom {
    /// The one URI SAN, which must be a SPIFFE ID.
    #[default]
    Spiffe,
    /// The one URI SAN, whatever its scheme.
    Uri,
    /// The one DNS SAN.
    Dns,
    /// The one CN of the subject.
    Cn,
}

/// `[[anchor]]` as written: one CA, or several that are trusted in the same way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AnchorOptions {
    /// The name, for the audit log and `whoami`.
    pub name: String,
    /// PEM file with one or more CA certificates.
    pub bundle: PathBuf,
    /// How it admits: `pinned` (the default: a valid chain and a fingerprint in the registry) or
    /// `issued` (a valid chain whose leaf carries the permission extension).
    #[serde(default)]
    pub mode: Option<String>,
    /// Where a peer's name comes from.
    #[serde(default)]
    pub identity_from: NameFrom,
    /// How fresh the CRL must be; `require` once `crl_file` is set.
    #[serde(default)]
    pub crl: Option<CrlMode>,
    /// PEM (one or more CRLs) or DER (one).
    #[serde(default)]
    pub crl_file: Option<PathBuf>,
    /// Grants beyond which nobody of this anchor gets, whatever a certificate or pin says.
    #[serde(default)]
    pub ceiling: Option<Vec<String>>,
}

/// An anchor, loaded.
#[derive(Clone, Debug)]
pub struct Anchor {
    pub(super) name: Arc<str>,
    pub(super) mode: Mode,
    pub(super) name_from: NameFrom,
    pub(super) ceiling: Option<Layer>,
    /// Parallel to `trusted`.
    pub(super) roots: Vec<Parsed>,
    pub(super) trusted: Vec<TrustAnchor<'static>>,
    /// CA certificates of the bundle below its anchors.
    pub(super) between: Vec<CertificateDer<'static>>,
    pub(super) crl_mode: Option<CrlMode>,
    pub(super) crls: Arc<Crls>,
    /// Why the required CRL could not be read: nobody is admitted meanwhile.
    pub(super) crl_problem: Option<String>,
}

impl Anchor {
    /// The anchor's name in the configuration.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How it admits.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Reads the bundle and the CRL. `before`: the same anchor as it is in force, if it is.
    pub(super) fn load(
        options: &AnchorOptions,
        permission_oid: &str,
        before: Option<&Self>,
    ) -> Result<Self, String> {
        let mut anchor = Self {
            name: options.name.as_str().into(),
            mode: mode(options.mode.as_deref())?,
            name_from: options.identity_from,
            ceiling: ceiling(options)?,
            roots: Vec::new(),
            trusted: Vec::new(),
            between: Vec::new(),
            crl_mode: crl_mode(options)?,
            crls: Arc::default(),
            crl_problem: None,
        };
        anchor.read_bundle(options, permission_oid)?;
        anchor.read_crl(options, before)?;
        Ok(anchor)
    }

    fn read_bundle(&mut self, options: &AnchorOptions, oid: &str) -> Result<(), String> {
        let path = options.bundle.display();
        let mut found: Vec<(Parsed, CertificateDer<'static>)> = Vec::new();
        for der in load_chain(&options.bundle).map_err(|e| e.to_string())? {
            let parsed = Parsed::from_der(&der, oid).map_err(|e| format!("`{path}`: {e}"))?;
            if !parsed.is_ca {
                return Err(format!("`{path}`: `{}` is not a CA", parsed.subject));
            }
            if let Some(reason) = weakness(&parsed) {
                return Err(format!("`{path}`: {reason}"));
            }
            if found
                .iter()
                .all(|(other, _)| other.fingerprint != parsed.fingerprint)
            {
                found.push((parsed, der.into()));
            }
        }
        let subjects: HashSet<Vec<u8>> = found.iter().map(|(p, _)| p.subject_der.clone()).collect();
        for (parsed, der) in found {
            let self_issued = parsed.issuer_der == parsed.subject_der;
            if !self_issued && subjects.contains(&parsed.issuer_der) {
                self.between.push(der);
                continue;
            }
            let trusted = webpki::anchor_from_trusted_cert(&der)
                .map_err(|e| format!("`{path}`: `{}`: {e}", parsed.subject))?;
            self.trusted.push(trusted.to_owned());
            self.roots.push(parsed);
        }
        if self.roots.is_empty() {
            return Err(format!(
                "`{path}`: each certificate is issued by another one of the file"
            ));
        }
        Ok(())
    }

    fn read_crl(&mut self, options: &AnchorOptions, before: Option<&Self>) -> Result<(), String> {
        let Some(path) = &options.crl_file else {
            return Ok(());
        };
        match (
            Crls::load(path),
            self.crl_mode,
            before.filter(|b| !b.crls.is_empty()),
        ) {
            (Ok(crls), ..) => self.crls = Arc::new(crls),
            // The reload fails and the old state, with a CRL that was good, stays.
            (Err(cause), Some(CrlMode::Require), Some(_)) => return Err(cause),
            (Err(cause), Some(CrlMode::Require), None) => {
                tracing::error!(anchor = %self.name, "{cause}; its clients are refused");
                self.crl_problem = Some(cause);
            }
            (Err(cause), _, before) => {
                tracing::error!(anchor = %self.name, "{cause}; going on with the last good one");
                self.crls = before.map(|b| b.crls.clone()).unwrap_or_default();
            }
        }
        Ok(())
    }

    /// Whether this certificate is one of the anchors.
    pub(super) fn holds(&self, fingerprint: &Fingerprint) -> bool {
        self.roots
            .iter()
            .any(|root| root.fingerprint == *fingerprint)
    }
}

fn mode(written: Option<&str>) -> Result<Mode, String> {
    match written {
        None | Some("pinned") => Ok(Mode::Pinned),
        Some("issued") => Ok(Mode::Issued),
        Some(other) => Err(format!("`{other}` is no mode: it is `pinned` or `issued`")),
    }
}

fn crl_mode(options: &AnchorOptions) -> Result<Option<CrlMode>, String> {
    match (&options.crl_file, options.crl) {
        (None, Some(_)) => Err(String::from(
            "`crl` says how fresh, and `crl_file` is not set",
        )),
        (None, None) => Ok(None),
        (Some(_), mode) => Ok(Some(mode.unwrap_or_default())),
    }
}

fn ceiling(options: &AnchorOptions) -> Result<Option<Layer>, String> {
    let Some(written) = &options.ceiling else {
        return Ok(None);
    };
    let grants = WrittenGrants::parse(written).map_err(|e| format!("ceiling: {e}"))?;
    let source = Source::Anchor(options.name.clone());
    Ok(Some(Layer {
        source,
        grants: Arc::new(grants),
    }))
}
