//! Profiles: what kinds of certificate there are, as data (`pki/profiles/*.toml`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::cert::{KeyKind, KeyKindError};
use crate::grant::WrittenGrants;

/// The profiles that the program knows without any file.
const EMBEDDED: [(&str, &str); 4] = [
    ("agent", include_str!("../../pki/profiles/agent.toml")),
    ("service", include_str!("../../pki/profiles/service.toml")),
    ("operator", include_str!("../../pki/profiles/operator.toml")),
    ("server", include_str!("../../pki/profiles/server.toml")),
];

/// What a certificate may be used for in TLS (extended key usage, RFC 5280 section 4.2.1.12).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Usage {
    /// It dials: `id-kp-clientAuth`.
    Client,
    /// It is dialled: `id-kp-serverAuth`.
    Server,
}

/// One kind of certificate.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    /// The file's name without `.toml`.
    pub name: String,
    /// One line for people.
    pub description: String,
    /// At least one.
    pub usage: Vec<Usage>,
    /// How long a certificate lives unless the command says otherwise.
    pub lifetime: Duration,
    /// The longest that the command may say.
    pub longest: Duration,
    /// The kind of key made for it.
    pub key: KeyKind,
    /// What it may do unless the command says otherwise.
    pub grants: WrittenGrants,
}

impl Profile {
    /// Whether certificates of this profile may do `usage`.
    #[must_use]
    pub fn is_for(&self, usage: Usage) -> bool {
        self.usage.contains(&usage)
    }
}

/// Why a profile cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// The folder or a file in it cannot be read.
    #[error("cannot read the profile at `{path}`: {cause}")]
    Read {
        /// Folder or file.
        path: PathBuf,
        /// What the operating system said.
        cause: std::io::Error,
    },
    /// What the file says makes no profile.
    #[error("profile `{place}`: {what}")]
    Content {
        /// The file, or the name of an embedded profile.
        place: String,
        /// What is wrong.
        what: String,
    },
    /// No such profile.
    #[error("there is no profile `{name}`; there are {known}")]
    Unknown {
        /// What was asked for.
        name: String,
        /// Those that there are.
        known: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    description: String,
    usage: Vec<Usage>,
    lifetime: String,
    longest: String,
    #[serde(default)]
    key: Option<String>,
    #[serde(default)]
    grants: Vec<String>,
}

/// All profiles, by name.
#[derive(Clone, Debug, PartialEq)]
pub struct Profiles(BTreeMap<String, Profile>);

impl Profiles {
    /// The embedded ones.
    ///
    /// # Errors
    /// Never for the files that this program was built with (a test reads them).
    pub fn embedded() -> Result<Self, ProfileError> {
        let mut profiles = BTreeMap::new();
        for (name, text) in EMBEDDED {
            profiles.insert(name.to_owned(), parse(name, name, text)?);
        }
        Ok(Self(profiles))
    }

    /// The embedded ones, and over them every `*.toml` of a folder.
    ///
    /// # Errors
    /// The folder or a file cannot be read, or a file is not a profile.
    pub fn with_folder(folder: &Path) -> Result<Self, ProfileError> {
        let mut profiles = Self::embedded()?;
        let read = |path: &Path| {
            let path = path.to_owned();
            move |cause| ProfileError::Read { path, cause }
        };
        for entry in std::fs::read_dir(folder).map_err(read(folder))? {
            let path = entry.map_err(read(folder))?.path();
            if path.extension().is_none_or(|extension| extension != "toml") {
                continue;
            }
            let text = std::fs::read_to_string(&path).map_err(read(&path))?;
            let name = path
                .file_stem()
                .map(|stem| stem.to_string_lossy())
                .unwrap_or_default();
            let profile = parse(&path.display().to_string(), &name, &text)?;
            profiles.0.insert(profile.name.clone(), profile);
        }
        Ok(profiles)
    }

    /// The profile of this name.
    ///
    /// # Errors
    /// There is none.
    pub fn get(&self, name: &str) -> Result<&Profile, ProfileError> {
        self.0.get(name).ok_or_else(|| ProfileError::Unknown {
            name: name.to_owned(),
            known: self
                .0
                .keys()
                .map(|known| format!("`{known}`"))
                .collect::<Vec<_>>()
                .join(", "),
        })
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Profile> {
        self.0.values()
    }
}

fn parse(place: &str, name: &str, text: &str) -> Result<Profile, ProfileError> {
    let wrong = |what: String| ProfileError::Content {
        place: place.to_owned(),
        what,
    };
    let written: Document = toml_edit::de::from_str(text)
        .map_err(|error| wrong(error.to_string().trim_end().to_owned()))?;
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if name.is_empty() || !name.bytes().all(word) {
        return Err(wrong(String::from(
            "the name of a profile is one or more of `a-z 0-9 -`",
        )));
    }
    let span = |key: &str, text: &str| {
        humantime::parse_duration(text)
            .map_err(|error| wrong(format!("`{key}` is no duration such as `12h`: {error}")))
    };
    let (lifetime, longest) = (
        span("lifetime", &written.lifetime)?,
        span("longest", &written.longest)?,
    );
    if lifetime < Duration::from_secs(60) || lifetime > longest {
        return Err(wrong(String::from(
            "`lifetime` is at least one minute and at most `longest`",
        )));
    }
    if written.usage.is_empty() {
        return Err(wrong(String::from("`usage` names client, server, or both")));
    }
    let key = written.key.as_deref().unwrap_or("p256");
    Ok(Profile {
        name: name.to_owned(),
        description: written.description,
        usage: written.usage,
        lifetime,
        longest,
        key: key
            .parse()
            .map_err(|error: KeyKindError| wrong(error.to_string()))?,
        grants: WrittenGrants::parse(&written.grants).map_err(|error| wrong(error.to_string()))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_profiles_are_those_of_the_contract() {
        let profiles = Profiles::embedded().unwrap();
        let hours = |name: &str| profiles.get(name).unwrap().lifetime.as_secs() / 3600;
        assert_eq!(hours("agent"), 24);
        assert_eq!(hours("service"), 7 * 24);
        assert_eq!(hours("operator"), 12);
        assert_eq!(hours("server"), 30 * 24);
        assert_eq!(profiles.get("server").unwrap().usage, [Usage::Server]);
        assert_eq!(profiles.get("agent").unwrap().usage, [Usage::Client]);
        let error = profiles.get("agnet").unwrap_err().to_string();
        assert_eq!(
            error,
            "there is no profile `agnet`; there are `agent`, `operator`, `server`, `service`"
        );
    }

    #[test]
    fn a_folder_overrides_and_adds() {
        let dir = tempfile::tempdir().unwrap();
        let text = "description = \"x\"\nusage = [\"client\"]\nlifetime = \"1h\"\nlongest = \"2h\"\n\
                    grants = [\"tools:a\"]\n";
        std::fs::write(dir.path().join("agent.toml"), text).unwrap();
        std::fs::write(dir.path().join("batch.toml"), text).unwrap();
        std::fs::write(dir.path().join("README.md"), "not a profile").unwrap();
        let profiles = Profiles::with_folder(dir.path()).unwrap();
        assert_eq!(
            profiles.get("agent").unwrap().lifetime,
            Duration::from_secs(3600)
        );
        assert_eq!(profiles.get("batch").unwrap().grants.entries().len(), 1);
        assert_eq!(profiles.iter().count(), 5);
    }

    #[test]
    fn what_is_no_profile_is_refused_with_its_place() {
        let good =
            "description = \"x\"\nusage = [\"client\"]\nlifetime = \"1h\"\nlongest = \"2h\"\n";
        assert!(parse("p", "p", good).is_ok());
        for (from, to) in [
            ("\"client\"", ""),
            ("\"client\"", "\"signer\""),
            ("\"1h\"", "\"soon\""),
            ("\"1h\"", "\"3h\""),
            ("\"1h\"", "\"1s\""),
            ("description", "describtion"),
            ("usage", "key = \"rsa\"\nusage"),
            ("usage", "grants = [\"tool:x\"]\nusage"),
        ] {
            let error = parse("p.toml", "p", &good.replace(from, to)).unwrap_err();
            assert!(
                error.to_string().starts_with("profile `p.toml`: "),
                "{error}"
            );
        }
        assert!(parse("P", "P", good).is_err());
    }
}
