//! Grants and sets of them, ready to decide with.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::str::FromStr;

use super::pattern::{MAX_BYTES, Pattern, PatternError};

/// What a grant is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Tools by name, with the provider's prefix.
    Tools,
    /// Resources by URI.
    Resources,
    /// Prompts by name.
    Prompts,
    /// Functions of the server itself, such as `admin:status`.
    Admin,
}

impl Kind {
    /// Every kind, in the order in which sets are sorted.
    pub const ALL: [Self; 4] = [Self::Tools, Self::Resources, Self::Prompts, Self::Admin];

    /// The word before the colon.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tools => "tools",
            Self::Resources => "resources",
            Self::Prompts => "prompts",
            Self::Admin => "admin",
        }
    }

    const fn index(self) -> usize {
        self as usize
    }
}

/// `kind:pattern`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Grant {
    /// What it is about.
    pub kind: Kind,
    /// Which ones of that kind.
    pub pattern: Pattern,
}

/// Why a text is no grant, or a list of them no list. Quoted texts are cut and escaped: they may
/// come out of somebody's certificate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GrantError {
    /// No kind, an unknown one, or a role whose name is not one.
    #[error(
        "`{0}` is not a grant: it is written `kind:pattern` with a kind of tools, resources, prompts or admin"
    )]
    Shape(String),
    /// The part behind the colon.
    #[error("grant `{grant}`: {error}")]
    Pattern {
        /// The grant as written.
        grant: String,
        /// What is wrong with its pattern.
        error: PatternError,
    },
    /// `role:` with a name that cannot be one.
    #[error("`{0}` is not a role: its name is one or more of `A-Z a-z 0-9 _ - .`")]
    Role(String),
    /// A list that is too long.
    #[error("more than 256 grants")]
    TooMany,
}

impl GrantError {
    /// At most 80 characters of a text, none of which can forge a line.
    pub(super) fn quote(text: &str) -> String {
        let short: String = text.chars().take(80).flat_map(char::escape_debug).collect();
        if text.chars().nth(80).is_some() {
            short + "…"
        } else {
            short
        }
    }

    pub(super) fn pattern(grant: &str, error: PatternError) -> Self {
        Self::Pattern {
            grant: Self::quote(grant),
            error,
        }
    }
}

/// Role names and what each stands for (a role does not name another role).
pub type Roles = BTreeMap<String, GrantSet>;

/// Grants with roles resolved, ready to decide with. Empty allows nothing.
///
/// Sorted by kind, otherwise in the order as written, each once.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct GrantSet {
    grants: Vec<Grant>,
    /// Where each kind's grants end in `grants`.
    ends: [usize; 4],
    /// Kinds of which everything is allowed.
    everything: [bool; 4],
}

impl GrantSet {
    /// Sorts by kind and drops what stands there twice.
    #[must_use]
    pub fn new(mut grants: Vec<Grant>) -> Self {
        let mut seen = HashSet::with_capacity(grants.len());
        grants.retain(|grant| seen.insert(grant.clone()));
        grants.sort_by_key(|grant| grant.kind);
        let mut ends = [0; 4];
        let mut everything = [false; 4];
        for kind in Kind::ALL {
            ends[kind.index()] = grants.partition_point(|grant| grant.kind <= kind);
        }
        for grant in &grants {
            everything[grant.kind.index()] |= grant.pattern.is_everything();
        }
        Self {
            grants,
            ends,
            everything,
        }
    }

    /// Whether it allows nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.grants.is_empty()
    }

    /// All grants, sorted by kind.
    #[must_use]
    pub fn grants(&self) -> &[Grant] {
        &self.grants
    }

    /// The grants of one kind.
    #[must_use]
    pub fn of_kind(&self, kind: Kind) -> &[Grant] {
        let start = kind
            .index()
            .checked_sub(1)
            .map_or(0, |before| self.ends[before]);
        &self.grants[start..self.ends[kind.index()]]
    }

    /// Whether some grant of `kind` matches `target`. No allocation.
    #[must_use]
    pub fn allows(&self, kind: Kind, target: &str) -> bool {
        self.everything[kind.index()]
            || self
                .of_kind(kind)
                .iter()
                .any(|grant| grant.pattern.matches(target))
    }

    /// Whether some grant of `kind` matches some text that `pattern` matches.
    #[must_use]
    pub fn could_allow(&self, kind: Kind, pattern: &Pattern) -> bool {
        self.of_kind(kind)
            .iter()
            .any(|grant| grant.pattern.overlaps(pattern))
    }

    /// Whether one grant of this set contains `grant`.
    #[must_use]
    pub fn contains(&self, grant: &Grant) -> bool {
        self.of_kind(grant.kind)
            .iter()
            .any(|own| own.pattern.contains(&grant.pattern))
    }

    /// The first grant of `other` that this set does not contain (pattern containment, one grant
    /// of this set for each of the other), or none. A grant that only several grants of this set
    /// cover together counts as outside: the answer errs towards refusing.
    #[must_use]
    pub fn first_outside<'a>(&self, other: &'a Self) -> Option<&'a Grant> {
        other.grants.iter().find(|grant| !self.contains(grant))
    }
}

impl FromStr for Grant {
    type Err = GrantError;

    fn from_str(text: &str) -> Result<Self, GrantError> {
        let shape = || GrantError::Shape(GrantError::quote(text));
        let (word, pattern) = text.split_once(':').ok_or_else(shape)?;
        let kind = Kind::ALL
            .into_iter()
            .find(|kind| kind.as_str() == word)
            .ok_or_else(shape)?;
        if text.len() > MAX_BYTES {
            return Err(GrantError::pattern(text, PatternError::TooLong));
        }
        match pattern.parse() {
            Ok(pattern) => Ok(Self { kind, pattern }),
            Err(error) => Err(GrantError::pattern(text, error)),
        }
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind.as_str(), self.pattern)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(grants: &[&str]) -> GrantSet {
        GrantSet::new(grants.iter().map(|grant| grant.parse().unwrap()).collect())
    }

    #[test]
    fn a_grant_allows_its_own_kind_only() {
        let reader = set(&["tools:files__read_*", "resources:file:///srv/docs/*"]);
        assert!(reader.allows(Kind::Tools, "files__read_file"));
        assert!(!reader.allows(Kind::Tools, "files__write_file"));
        assert!(reader.allows(Kind::Resources, "file:///srv/docs/a.md"));
        assert!(!reader.allows(Kind::Resources, "files__read_file"));
        assert!(!reader.allows(Kind::Prompts, "files__read_file"));
        assert!(!reader.allows(Kind::Admin, "status"));
    }

    #[test]
    fn everything_of_one_kind_is_nothing_of_another() {
        let tools = set(&["tools:*"]);
        assert!(tools.allows(Kind::Tools, ""));
        for kind in [Kind::Resources, Kind::Prompts, Kind::Admin] {
            assert!(!tools.allows(kind, "x"), "{kind:?}");
        }
    }

    #[test]
    fn the_empty_set_allows_nothing() {
        assert!(set(&["tools:*"]).allows(Kind::Tools, "x"));
        for kind in Kind::ALL {
            assert!(!GrantSet::default().allows(kind, "x"));
            assert!(!GrantSet::new(Vec::new()).allows(kind, ""));
        }
    }

    #[test]
    fn sets_are_sorted_and_say_each_thing_once() {
        let mixed = set(&[
            "prompts:a",
            "tools:b",
            "prompts:a",
            "admin:status",
            "tools:a",
        ]);
        let shown: Vec<String> = mixed.grants().iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["tools:b", "tools:a", "prompts:a", "admin:status"]);
        assert_eq!(mixed.of_kind(Kind::Resources), []);
        assert_eq!(mixed.of_kind(Kind::Admin).len(), 1);
    }

    #[test]
    fn the_first_grant_outside_is_named() {
        let ceiling = set(&["tools:files__*", "resources:file:///srv/*"]);
        assert_eq!(
            ceiling.first_outside(&set(&["tools:files__read_*", "tools:files__x"])),
            None
        );
        let wide = set(&["tools:files__a", "tools:*"]);
        assert_eq!(ceiling.first_outside(&wide).unwrap().to_string(), "tools:*");
        let other = set(&["prompts:a"]);
        assert_eq!(
            ceiling.first_outside(&other).unwrap().to_string(),
            "prompts:a"
        );
    }

    #[test]
    fn what_is_no_grant_is_refused_with_its_text() {
        assert_eq!("tools:a".parse::<Grant>().unwrap().to_string(), "tools:a");
        for text in [
            "tools", "Tools:a", "", ":a", "tool:a", " tools:a", "role:x", "*",
        ] {
            assert_eq!(
                text.parse::<Grant>(),
                Err(GrantError::Shape(text.into())),
                "{text}"
            );
        }
        let empty = GrantError::Pattern {
            grant: "tools:".into(),
            error: PatternError::Empty,
        };
        assert_eq!("tools:".parse::<Grant>(), Err(empty));
        let long = format!("tools:{}", "a".repeat(507));
        assert!(matches!(
            long.parse::<Grant>(),
            Err(GrantError::Pattern {
                error: PatternError::TooLong,
                ..
            })
        ));
        assert!(long[..512].parse::<Grant>().is_ok());
    }

    #[test]
    fn a_quoted_text_forges_no_line() {
        let error = "tools:a\nfake".parse::<Grant>().unwrap_err().to_string();
        assert!(!error.contains('\n'), "{error}");
        let error = "x".repeat(10_000).parse::<Grant>().unwrap_err().to_string();
        assert!(error.len() < 300, "{error}");
    }
}
