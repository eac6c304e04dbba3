//! Grants, sets of them, and roles.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use super::pattern::{Pattern, PatternError};

/// What a grant is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind { Tools, Resources, Prompts, Admin }

impl Kind {
    #[must_use]
    pub const fn as_str(self) -> &'static str { match self { Self::Tools => "tools", Self::Resources => "resources", Self::Prompts => "prompts", Self::Admin => "admin" } }
}

/// `kind:pattern`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Grant { pub kind: Kind, pub pattern: Pattern }

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GrantError {
    #[error("`{0}` is not a grant: it is written `kind:pattern` with a kind of tools, resources, prompts or admin")]
    Shape(String),
    #[error("grant `{grant}`: {error}")]
    Pattern { grant: String, error: PatternError },
    #[error("more than 256 grants")]
    TooMany,
}

/// One entry as it is written in a certificate, a pin or a configuration: a grant, the bare `*`
/// (`tools:*`, `resources:*` and `prompts:*`, never `admin`), or `role:<name>`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum WrittenGrant { Everything, Grant(Grant), Role(String) }

/// A list of entries as written; 0 to 256 of 1 to 512 bytes each.
#[derive(Clone, Debug, PartialEq, Eq, Default, Hash)]
pub struct WrittenGrants(Vec<WrittenGrant>);

/// Role names and what each stands for (a role does not name another role).
pub type Roles = BTreeMap<String, GrantSet>;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("role `{0}` is not defined")]
pub struct UnknownRole(pub String);

/// Grants with roles resolved, ready to decide with. Empty allows nothing.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct GrantSet { grants: Vec<Grant> }

impl GrantSet {
    #[must_use] pub fn new(grants: Vec<Grant>) -> Self { Self { grants } }
    #[must_use] pub fn is_empty(&self) -> bool { self.grants.is_empty() }
    #[must_use] pub fn grants(&self) -> &[Grant] { &self.grants }
    /// Whether some grant of `kind` matches `target`.
    #[must_use] pub fn allows(&self, kind: Kind, target: &str) -> bool { todo!("{kind:?}{target}") }
    /// The first grant of `other` that this set does not contain (pattern containment, one grant
    /// of this set for each of the other), or none.
    #[must_use] pub fn first_outside<'a>(&self, other: &'a Self) -> Option<&'a Grant> { todo!("{other:?}") }
}

impl WrittenGrants {
    /// # Errors
    /// More than 256, or one that does not parse.
    pub fn parse<S: AsRef<str>>(entries: &[S]) -> Result<Self, GrantError> { todo!("{}", entries.len()) }
    #[must_use] pub fn entries(&self) -> &[WrittenGrant] { &self.0 }
    #[must_use] pub fn is_empty(&self) -> bool { self.0.is_empty() }
    /// # Errors
    /// The first role that `roles` does not define.
    pub fn resolve(&self, roles: &Roles) -> Result<GrantSet, UnknownRole> { todo!("{}", roles.len()) }
    /// As [`Self::resolve`], but an unknown role grants nothing: what a certificate says on a server
    /// that does not know the role. Returns the unknown ones beside the set.
    #[must_use] pub fn resolve_known(&self, roles: &Roles) -> (GrantSet, Vec<String>) { todo!("{}", roles.len()) }
}

impl FromStr for Grant { type Err = GrantError; fn from_str(text: &str) -> Result<Self, GrantError> { todo!("{text}") } }
impl FromStr for WrittenGrant { type Err = GrantError; fn from_str(text: &str) -> Result<Self, GrantError> { todo!("{text}") } }
impl fmt::Display for Grant { fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { write!(f, "{}:{}", self.kind.as_str(), self.pattern) } }
impl fmt::Display for WrittenGrant { fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { match self { Self::Everything => f.write_str("*"), Self::Grant(g) => g.fmt(f), Self::Role(r) => write!(f, "role:{r}") } } }
