//! Where the CA and the registry are.

use std::path::{Path, PathBuf};

use crate::grant::Roles;
use crate::registry::RegistryPlace;

/// What the configuration says, before the command's own arguments.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The registry of the configuration, or `pki/registry.db`.
    pub registry: RegistryPlace,
    /// The permission extension's identifier.
    pub permission_oid: String,
    /// What roles stand for.
    pub roles: Roles,
}

/// Arguments that every command on certificates takes.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Place {
    /// Registry: a file, or the URL of a PostgreSQL database [default: the configuration's, else
    /// pki/registry.db]
    #[arg(long, value_name = "PATH|URL", global = true)]
    pub registry: Option<RegistryPlace>,
    /// Folder of the CA [default: pki/ca, else pki/dev/ca where only that exists]
    #[arg(long, value_name = "DIR", global = true)]
    pub ca: Option<PathBuf>,
}

impl Place {
    /// Where the registry is.
    #[must_use]
    pub fn registry(&self, settings: &Settings) -> RegistryPlace {
        self.registry
            .clone()
            .unwrap_or_else(|| settings.registry.clone())
    }

    /// The CA's folder.
    #[must_use]
    pub fn ca(&self) -> PathBuf {
        if let Some(ca) = &self.ca {
            return ca.clone();
        }
        let [own, dev] = ["pki/ca", "pki/dev/ca"].map(Path::new);
        if !own.exists() && dev.exists() {
            dev.to_owned()
        } else {
            own.to_owned()
        }
    }
}
