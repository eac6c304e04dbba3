//! Which certificate and key a client presents, and where they are found.
//!
//! A credentials folder holds `NAME.crt`, `NAME.key` for each identity and one `ca.pem`, the bundle
//! that the server's certificate must chain to. Nothing is read here but the folder's listing.

use std::path::{Path, PathBuf};

use crate::secret::Secret;

/// The files of one identity.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// The identity's name in its folder; none where the files were named one by one.
    pub name: Option<String>,
    /// PEM chain, leaf first.
    pub cert: PathBuf,
    /// PKCS#8 key in PEM.
    pub key: PathBuf,
    /// PEM bundle that the server's certificate must chain to.
    pub ca: PathBuf,
    /// For an encrypted key.
    pub passphrase: Option<Secret>,
}

/// There are no credentials, or it is not clear which.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// The folder cannot be listed.
    #[error("cannot read the credentials folder `{folder}`: {cause}")]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// What the operating system said.
        cause: std::io::Error,
    },
    /// A name that would leave the folder.
    #[error("`{0}` is not the name of an identity")]
    Name(String),
    /// The folder has no identity at all.
    #[error("`{folder}` holds no identity (`NAME.crt` with `NAME.key`)")]
    Empty {
        /// The folder.
        folder: PathBuf,
    },
    /// Not this one.
    #[error("`{folder}` holds no identity `{wanted}`; it holds {}", names(.present))]
    Unknown {
        /// The folder.
        folder: PathBuf,
        /// The name that was asked for.
        wanted: String,
        /// The names that are there.
        present: Vec<String>,
    },
    /// Several, and none was named.
    #[error("`{folder}` holds several identities: {}", names(.present))]
    Several {
        /// The folder.
        folder: PathBuf,
        /// The names that are there.
        present: Vec<String>,
    },
    /// The identity is there, the bundle of the server's CA is not.
    #[error("`{folder}` holds no `ca.pem`, the CA that the server's certificate must come from")]
    NoCa {
        /// The folder.
        folder: PathBuf,
    },
}

impl CredentialsError {
    /// What to do next.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Folder { .. } | Self::Empty { .. } => {
                "run `countersign up` once, or name a folder by `--pki`, or the files by `--cert`, `--key` and `--ca`"
            }
            Self::Name(_) => "a name has no `/` and does not begin with a dot",
            Self::Unknown { .. } | Self::Several { .. } => "choose one by `--as NAME`",
            Self::NoCa { .. } => "copy the CA's certificate there, or name it by `--ca FILE`",
        }
    }
}

/// A credentials folder.
#[derive(Clone, Debug)]
pub struct Folder {
    path: PathBuf,
    preferred: Option<&'static str>,
}

impl Folder {
    /// `preferred`: the identity that is taken when none is named and this one is there.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>, preferred: Option<&'static str>) -> Self {
        Self {
            path: path.into(),
            preferred,
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The identities in it, sorted: every `NAME.crt` that has a `NAME.key`, but not the server's own.
    ///
    /// # Errors
    /// The folder cannot be listed.
    pub fn identities(&self) -> Result<Vec<String>, CredentialsError> {
        let fail = |cause| CredentialsError::Folder {
            folder: self.path.clone(),
            cause,
        };
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&self.path).map_err(fail)? {
            let path = entry.map_err(fail)?.path();
            if path.extension().is_none_or(|e| e != "crt") || !path.with_extension("key").is_file()
            {
                continue;
            }
            match path.file_stem().and_then(|stem| stem.to_str()) {
                None | Some("server" | "root" | "issuing" | "ca") => {}
                Some(name) => found.push(name.to_owned()),
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    /// The identity by this name; without a name the preferred one, or the only one.
    ///
    /// # Errors
    /// None, several, or not this one.
    pub fn choose(&self, wanted: Option<&str>) -> Result<Credentials, CredentialsError> {
        let name = match wanted {
            Some(name) => self.named(name)?,
            None => self.unnamed()?,
        };
        let ca = self.path.join("ca.pem");
        if !ca.is_file() {
            return Err(CredentialsError::NoCa {
                folder: self.path.clone(),
            });
        }
        Ok(Credentials {
            cert: self.path.join(format!("{name}.crt")),
            key: self.path.join(format!("{name}.key")),
            ca,
            name: Some(name),
            passphrase: None,
        })
    }

    fn named(&self, name: &str) -> Result<String, CredentialsError> {
        if name.is_empty() || name.starts_with('.') || name.contains(['/', '\\', '\0']) {
            return Err(CredentialsError::Name(name.to_owned()));
        }
        // Two looks instead of a listing: this is on the way of every call.
        let there = |kind: &str| self.path.join(format!("{name}.{kind}")).is_file();
        if there("crt") && there("key") {
            return Ok(name.to_owned());
        }
        let folder = self.path.clone();
        match self.identities()? {
            present if present.is_empty() => Err(CredentialsError::Empty { folder }),
            present => Err(CredentialsError::Unknown {
                folder,
                wanted: name.to_owned(),
                present,
            }),
        }
    }

    fn unnamed(&self) -> Result<String, CredentialsError> {
        if let Some(Ok(name)) = self.preferred.map(|name| self.named(name)) {
            return Ok(name);
        }
        let folder = self.path.clone();
        let mut present = self.identities()?;
        match present.len() {
            0 => Err(CredentialsError::Empty { folder }),
            1 => Ok(present.remove(0)),
            _ => Err(CredentialsError::Several { folder, present }),
        }
    }
}

fn names(present: &[String]) -> String {
    let quoted: Vec<String> = present
        .iter()
        .take(12)
        .map(|name| format!("`{name}`"))
        .collect();
    let more = if present.len() > quoted.len() {
        " and more"
    } else {
        ""
    };
    format!("{}{more}", quoted.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for file in files {
            std::fs::write(dir.path().join(file), "").unwrap();
        }
        dir
    }

    #[test]
    fn takes_the_named_the_preferred_or_the_only_identity() {
        let dir = folder(&[
            "ca.pem",
            "a.crt",
            "a.key",
            "operator.crt",
            "operator.key",
            "server.crt",
            "server.key",
        ]);
        let plain = Folder::new(dir.path(), None);
        assert_eq!(plain.identities().unwrap(), ["a", "operator"]);
        assert_eq!(
            plain.choose(Some("a")).unwrap().key,
            dir.path().join("a.key")
        );
        let preferring = Folder::new(dir.path(), Some("operator"));
        assert_eq!(
            preferring.choose(None).unwrap().name.as_deref(),
            Some("operator")
        );
        let one = folder(&["ca.pem", "me.crt", "me.key", "half.crt"]);
        let chosen = Folder::new(one.path(), Some("operator"))
            .choose(None)
            .unwrap();
        assert_eq!(chosen.name.as_deref(), Some("me"));
    }

    #[test]
    fn says_what_is_there_instead() {
        let dir = folder(&["ca.pem", "a.crt", "a.key", "b.crt", "b.key"]);
        let folder = Folder::new(dir.path(), None);
        let text = folder.choose(Some("c")).unwrap_err().to_string();
        assert!(
            text.contains("no identity `c`; it holds `a`, `b`"),
            "{text}"
        );
        assert!(matches!(
            folder.choose(None),
            Err(CredentialsError::Several { .. })
        ));
        for name in ["../a", "", ".a", "x/a"] {
            assert!(
                matches!(folder.choose(Some(name)), Err(CredentialsError::Name(_))),
                "{name}"
            );
        }
        std::fs::remove_file(dir.path().join("ca.pem")).unwrap();
        assert!(matches!(
            folder.choose(Some("a")),
            Err(CredentialsError::NoCa { .. })
        ));
    }
}
