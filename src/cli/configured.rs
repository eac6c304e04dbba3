//! Where the configuration is, and the environment that may override it.

use std::path::{Path, PathBuf};

use clap::Args;

use super::config::show_mistakes;
use super::exit::{Exit, Failure};
use crate::ca::CaFiles;
use crate::cert::DEFAULT_PERMISSION_OID;
use crate::config::{Config, Mistake};
use crate::grant::Roles;
use crate::registry::RegistryPlace;

/// Variables of the command line. `COUNTERSIGN_SERVER` would otherwise be taken for the table
/// `[server]`.
const OURS: [&str; 7] = [
    "COUNTERSIGN_SERVER",
    "COUNTERSIGN_AS",
    "COUNTERSIGN_HOME",
    "COUNTERSIGN_LOG",
    "COUNTERSIGN_CONFIG",
    "COUNTERSIGN_CA_PASSPHRASE",
    "COUNTERSIGN_DEBUG",
];

/// The variable that stands in for `listen.address`.
const LISTEN: &str = "COUNTERSIGN_LISTEN__ADDRESS";

/// Which configuration.
#[derive(Clone, Debug, Args)]
pub struct ConfigFile {
    /// The configuration [default: `countersign.toml`, else `pki/dev/countersign.toml`]
    #[arg(long, env = "COUNTERSIGN_CONFIG", value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
}

impl ConfigFile {
    /// Its path, whether it is there or not.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        let [own, dev] = ["countersign.toml", "pki/dev/countersign.toml"].map(Path::new);
        match &self.config {
            Some(path) => path.clone(),
            None if !own.exists() && dev.exists() => dev.to_owned(),
            None => own.to_owned(),
        }
    }

    /// Read and checked.
    ///
    /// # Errors
    /// Every mistake was printed.
    pub fn load(&self) -> Result<Config, Failure> {
        load(&self.path(), None)
    }

    /// As [`Self::load`]; none when nobody named a file and there is none.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_if_there(&self) -> Result<Option<Config>, Failure> {
        if self.config.is_none() && !self.path().exists() {
            return Ok(None);
        }
        self.load().map(Some)
    }

    /// What commands on certificates take from the configuration.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn settings(&self) -> Result<Settings, Failure> {
        let config = self.load_if_there()?;
        Ok(match config {
            Some(config) => Settings {
                certificates: super::ca::Settings {
                    registry: config.registry.place,
                    permission_oid: config.permission_oid,
                    roles: config.policy.roles,
                },
                ca: config.ca.dir,
                profiles: config.ca.profiles,
            },
            None => Settings {
                certificates: super::ca::Settings {
                    registry: RegistryPlace::File("pki/registry.db".into()),
                    permission_oid: DEFAULT_PERMISSION_OID.to_owned(),
                    roles: Roles::default(),
                },
                ca: None,
                profiles: None,
            },
        })
    }
}

/// For `ca` and `pin`.
pub struct Settings {
    /// What they take themselves.
    pub certificates: super::ca::Settings,
    /// The CA's folder, where the configuration names one and a CA is in it.
    pub ca: Option<PathBuf>,
    /// The folder of the profiles.
    pub profiles: Option<PathBuf>,
}

impl Settings {
    /// The CA's folder of the configuration for a command that takes an existing CA.
    #[must_use]
    pub fn existing_ca(&self) -> Option<PathBuf> {
        self.ca
            .clone()
            .filter(|dir| CaFiles::new(dir).issuing_certificate().exists())
    }
}

/// Reads and checks a configuration; `address` stands in for `listen.address`.
///
/// # Errors
/// Every mistake was printed.
pub fn load(path: &Path, address: Option<&str>) -> Result<Config, Failure> {
    read(path, address).map_err(|mistakes| {
        // Without a stderr there is nobody to tell.
        let _ = show_mistakes(&mistakes, &mut std::io::stderr().lock());
        Failure::silent(Exit::Setup)
    })
}

/// As [`load`], for a running server, which logs instead.
///
/// # Errors
/// Every mistake in one line.
pub fn load_again(path: &Path, address: Option<&str>) -> Result<Config, String> {
    read(path, address).map_err(|mistakes| {
        mistakes
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("; ")
    })
}

fn read(path: &Path, address: Option<&str>) -> Result<Config, Vec<Mistake>> {
    let over = address.map(|address| (LISTEN.to_owned(), address.to_owned()));
    let others = environment().filter(|(name, _)| over.is_none() || name != LISTEN);
    Config::load(path, others.chain(over.clone()))
}

/// The variables that may stand in for keys. One that is not UTF-8 cannot.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    #[expect(
        clippy::disallowed_methods,
        reason = "the command line reads the environment"
    )]
    let all = std::env::vars_os();
    all.filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| !OURS.contains(&name.as_str()))
}
