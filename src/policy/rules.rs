//! The checked form of the server's policy.

use std::collections::BTreeMap;

use crate::grant::{GrantSet, Pattern, Roles};

/// How a denial looks from outside.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Default,
    serde::Serialize,
    serde::Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Denials {
    /// Exactly like a thing that does not exist.
    #[default]
    Hide,
    /// Code 4403 and the missing grant.
    Explain,
}

/// What the operator takes away from some identities, whatever their certificates say.
#[derive(Clone, Debug)]
pub struct Rule {
    /// The rule's name, for the audit log.
    pub name: String,
    /// Names it is about.
    pub who: Vec<Pattern>,
    /// What they may not use.
    pub deny: GrantSet,
}

/// The server's policy: roles, rules, how denials look. Made by [`Policy::check`].
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// What `role:<name>` stands for.
    pub roles: Roles,
    /// Rules in the order of the configuration.
    pub rules: Vec<Rule>,
    /// How a denial looks.
    pub denials: Denials,
    /// Ceilings by anchor name are layers of the chain already; kept here for `policy explain`.
    pub ceilings: BTreeMap<String, GrantSet>,
}
