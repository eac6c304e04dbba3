//! Trust anchors as configured.
use std::path::PathBuf;
use serde::{Deserialize, Serialize};

/// How a CRL's freshness is judged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CrlMode { #[default] Require, Prefer }

/// Where the name of a peer comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum NameFrom { /** The one SPIFFE URI SAN. */ #[default] Spiffe, Uri, Dns, Cn }

/// `[[anchor]]` as written. The `tls` owner completes this (docs, defaults).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AnchorOptions {
    pub name: String,
    /// PEM file with one or more CA certificates.
    pub bundle: PathBuf,
    #[serde(default)] pub mode: Option<String>,
    #[serde(default)] pub identity_from: NameFrom,
    #[serde(default)] pub crl: Option<CrlMode>,
    #[serde(default)] pub crl_file: Option<PathBuf>,
    #[serde(default)] pub ceiling: Option<Vec<String>>,
}

/// An anchor, loaded.
#[derive(Clone, Debug)]
pub struct Anchor {}
