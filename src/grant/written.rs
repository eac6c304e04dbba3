//! Grants as they are written in certificates, pins and the configuration: with roles and the bare
//! star, kept exactly as they were written.

use std::fmt;
use std::str::FromStr;

use super::pattern::{MAX_BYTES, PatternError};
use super::set::{Grant, GrantError, GrantSet, Kind, Roles};

/// The longest list.
const MAX_ENTRIES: usize = 256;

/// One entry as it is written in a certificate, a pin or a configuration: a grant, the bare `*`
/// (`tools:*`, `resources:*` and `prompts:*`, never `admin`), or `role:<name>`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum WrittenGrant {
    /// The bare `*`.
    Everything,
    /// `kind:pattern`.
    Grant(Grant),
    /// `role:<name>`, by its name; what it stands for is the configuration's business.
    Role(String),
}

/// A list of entries as written; 0 to 256 of 1 to 512 bytes each.
#[derive(Clone, Debug, PartialEq, Eq, Default, Hash)]
pub struct WrittenGrants(Vec<WrittenGrant>);

/// A role that the configuration does not define.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("role `{0}` is not defined")]
pub struct UnknownRole(pub String);

impl WrittenGrants {
    /// Checks a list.
    ///
    /// # Errors
    /// More than 256, or one that does not parse.
    pub fn parse<S: AsRef<str>>(entries: &[S]) -> Result<Self, GrantError> {
        if entries.len() > MAX_ENTRIES {
            return Err(GrantError::TooMany);
        }
        entries
            .iter()
            .map(|entry| entry.as_ref().parse())
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// The entries in the order as written.
    #[must_use]
    pub fn entries(&self) -> &[WrittenGrant] {
        &self.0
    }

    /// Whether nothing is written, which allows nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Puts roles in, for whoever writes: an unknown role is a mistake.
    ///
    /// # Errors
    /// The first role that `roles` does not define.
    pub fn resolve(&self, roles: &Roles) -> Result<GrantSet, UnknownRole> {
        let (set, unknown) = self.resolve_known(roles);
        unknown
            .into_iter()
            .next()
            .map_or(Ok(set), |role| Err(UnknownRole(role)))
    }

    /// As [`Self::resolve`], but an unknown role grants nothing: what a certificate says on a server
    /// that does not know the role. Returns the unknown ones beside the set.
    #[must_use]
    pub fn resolve_known(&self, roles: &Roles) -> (GrantSet, Vec<String>) {
        let mut grants = Vec::with_capacity(self.0.len());
        let mut unknown = Vec::new();
        for entry in &self.0 {
            match entry {
                WrittenGrant::Everything => grants.extend(everything()),
                WrittenGrant::Grant(grant) => grants.push(grant.clone()),
                WrittenGrant::Role(role) => match roles.get(role) {
                    Some(set) => grants.extend_from_slice(set.grants()),
                    None => unknown.push(role.clone()),
                },
            }
        }
        (GrantSet::new(grants), unknown)
    }
}

/// What the bare `*` stands for.
fn everything() -> impl Iterator<Item = Grant> {
    [Kind::Tools, Kind::Resources, Kind::Prompts]
        .into_iter()
        .map(|kind| Grant {
            kind,
            pattern: "*".parse().expect("a star is a pattern"),
        })
}

impl FromStr for WrittenGrant {
    type Err = GrantError;

    fn from_str(text: &str) -> Result<Self, GrantError> {
        if text == "*" {
            return Ok(Self::Everything);
        }
        let Some(role) = text.strip_prefix("role:") else {
            return text.parse().map(Self::Grant);
        };
        if text.len() > MAX_BYTES {
            return Err(GrantError::pattern(text, PatternError::TooLong));
        }
        if !is_role_name(role) {
            return Err(GrantError::Role(GrantError::quote(text)));
        }
        Ok(Self::Role(role.to_owned()))
    }
}

/// Whether `role` may be defined and named: one or more of `A-Z a-z 0-9 _ - .`.
fn is_role_name(role: &str) -> bool {
    !role.is_empty()
        && role
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
}

impl fmt::Display for WrittenGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everything => f.write_str("*"),
            Self::Grant(grant) => grant.fmt(f),
            Self::Role(role) => write!(f, "role:{role}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::chance::Chance;
    use super::*;

    fn written(entries: &[&str]) -> WrittenGrants {
        WrittenGrants::parse(entries).unwrap()
    }

    fn roles() -> Roles {
        let reader = written(&["tools:read_*"]).resolve(&Roles::new()).unwrap();
        Roles::from([("reader".into(), reader)])
    }

    #[test]
    fn the_bare_star_is_everything_but_admin() {
        let set = written(&["*"]).resolve(&Roles::new()).unwrap();
        for kind in [Kind::Tools, Kind::Resources, Kind::Prompts] {
            assert!(set.allows(kind, "anything"), "{kind:?}");
        }
        assert!(!set.allows(Kind::Admin, "status"));
    }

    #[test]
    fn a_known_role_grants_and_an_unknown_one_does_not() {
        let set = written(&["role:reader"]).resolve(&roles()).unwrap();
        assert!(set.allows(Kind::Tools, "read_file"));
        let both = written(&["prompts:x", "role:writer", "role:reader"]);
        assert_eq!(both.resolve(&roles()), Err(UnknownRole("writer".into())));
        let (set, unknown) = both.resolve_known(&roles());
        assert_eq!(unknown, ["writer"]);
        assert!(set.allows(Kind::Prompts, "x") && set.allows(Kind::Tools, "read_file"));
        assert!(!set.allows(Kind::Tools, "write_file"));
    }

    #[test]
    fn lists_and_entries_have_their_limits() {
        assert_eq!(written(&["tools:a"; 256]).entries().len(), 256);
        assert_eq!(
            WrittenGrants::parse(&["tools:a"; 257]),
            Err(GrantError::TooMany)
        );
        assert!(written(&["role:a-b_c.9"]).entries().len() == 1);
        for role in ["role:", "role:a b", "role:*", "role:\u{e9}"] {
            assert!(
                matches!(role.parse::<WrittenGrant>(), Err(GrantError::Role(_))),
                "{role}"
            );
        }
        let long = format!("role:{}", "r".repeat(508));
        assert!(long.parse::<WrittenGrant>().is_err());
        assert!(long[..512].parse::<WrittenGrant>().is_ok());
    }

    #[test]
    fn what_is_read_is_written_back_exactly() {
        let mut chance = Chance::seeded(3);
        for _ in 0..5_000 {
            let kind = Kind::ALL[chance.below(4)];
            let text = format!("{}:{}", kind.as_str(), chance.pattern(8));
            assert_eq!(text.parse::<WrittenGrant>().unwrap().to_string(), text);
        }
        for text in ["*", "role:reader", "tools:a:b*"] {
            assert_eq!(text.parse::<WrittenGrant>().unwrap().to_string(), text);
        }
    }
}
