//! The policy as it is written in `countersign.toml`, and the way from there to the checked form.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::grant::{GrantError, Pattern, PatternError, Roles, WrittenGrant, WrittenGrants};

use super::rules::{Denials, Policy, Rule};

/// `[policy]`: roles, rules and how a denial looks. Certificates and pins grant; this section says
/// what roles stand for and takes away.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PolicyOptions {
    /// How a call that is not allowed is answered: `hide`, exactly like a thing that does not
    /// exist, or `explain`, with code 4403 and the missing grant. The audit log has the truth
    /// either way. Cost of `explain`: an admitted peer can find out what exists.
    pub denials: Denials,
    /// Named lists of grants, which certificates and pins name as `role:<name>`. A role does not
    /// name another role. A role that a certificate names and this table does not grants nothing.
    pub roles: BTreeMap<String, Vec<String>>,
    /// What is denied to some identities whatever their certificates say.
    pub rule: Vec<RuleOptions>,
}

/// `[[policy.rule]]`: denies. Rules are looked through for every call of a peer whom they name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RuleOptions {
    /// The rule's name, for the audit log and `policy explain`.
    pub name: String,
    /// Patterns of whole names that it is about: `spiffe://countersign.internal/team/*`.
    pub who: Vec<String>,
    /// What they may not use, written like grants: `tools:files__write_*`, `*`, `role:<name>`.
    pub deny: Vec<String>,
}

/// One mistake of the policy and the place of it: keys and indexes below `[policy]`, joined by `/`
/// as in a JSON pointer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct PolicyError {
    /// `/roles/reader/0`, say.
    pub at: String,
    /// What is wrong there.
    pub what: PolicyMistake,
}

/// What can be wrong in a policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyMistake {
    /// An entry that is no grant.
    #[error("{0}")]
    Grant(#[from] GrantError),
    /// A name pattern that is none.
    #[error("`{text}`: {error}")]
    Who {
        /// As written.
        text: String,
        /// What is wrong with it.
        error: PatternError,
    },
    /// A role's name has a character that cannot stand behind `role:`.
    #[error("`{0}` cannot be the name of a role: it is one or more of `A-Z a-z 0-9 _ - .`")]
    RoleName(String),
    /// A role inside a role.
    #[error("a role does not name another role")]
    RoleInRole,
    /// A rule denies a role that is not there; it would deny nothing.
    #[error("role `{0}` is not defined")]
    UnknownRole(String),
    /// Two rules of one name, which the audit log could not tell apart.
    #[error("two rules are called `{0}`")]
    Twice(String),
    /// A rule that is about nobody.
    #[error("the rule `{0}` is about nobody: `who` is empty")]
    Nobody(String),
    /// A rule that denies nothing.
    #[error("the rule `{0}` denies nothing: `deny` is empty")]
    Nothing(String),
}

impl Policy {
    /// Checks everything and resolves roles; `ceilings` stays empty.
    ///
    /// # Errors
    /// Every mistake, not only the first.
    pub fn check(options: &PolicyOptions) -> Result<Self, Vec<PolicyError>> {
        let mut mistakes = Vec::new();
        let mut roles = Roles::new();
        for (name, entries) in &options.roles {
            let at = format!("/roles/{}", pointer_token(name));
            if !matches!(format!("role:{name}").parse(), Ok(WrittenGrant::Role(_))) {
                mistakes.push(mistake(at.clone(), PolicyMistake::RoleName(name.clone())));
            }
            let written = check_entries(&at, entries, None, &mut mistakes);
            roles.insert(name.clone(), written.resolve_known(&Roles::new()).0);
        }
        let mut rules: Vec<Rule> = Vec::with_capacity(options.rule.len());
        for (index, rule) in options.rule.iter().enumerate() {
            let at = format!("/rule/{index}");
            if rules.iter().any(|earlier| earlier.name == rule.name) {
                let twice = PolicyMistake::Twice(rule.name.clone());
                mistakes.push(mistake(format!("{at}/name"), twice));
            }
            rules.push(check_rule(&at, rule, &roles, &mut mistakes));
        }
        if mistakes.is_empty() {
            let denials = options.denials;
            Ok(Self {
                roles,
                rules,
                denials,
                ceilings: BTreeMap::new(),
            })
        } else {
            Err(mistakes)
        }
    }
}

fn check_rule(
    at: &str,
    rule: &RuleOptions,
    roles: &Roles,
    mistakes: &mut Vec<PolicyError>,
) -> Rule {
    if rule.who.is_empty() {
        mistakes.push(mistake(
            format!("{at}/who"),
            PolicyMistake::Nobody(rule.name.clone()),
        ));
    }
    if rule.deny.is_empty() {
        mistakes.push(mistake(
            format!("{at}/deny"),
            PolicyMistake::Nothing(rule.name.clone()),
        ));
    }
    let mut who = Vec::with_capacity(rule.who.len());
    for (index, text) in rule.who.iter().enumerate() {
        match text.parse::<Pattern>() {
            Ok(pattern) => who.push(pattern),
            Err(error) => {
                let what = PolicyMistake::Who {
                    text: text.escape_debug().to_string(),
                    error,
                };
                mistakes.push(mistake(format!("{at}/who/{index}"), what));
            }
        }
    }
    let deny = check_entries(&format!("{at}/deny"), &rule.deny, Some(roles), mistakes);
    Rule {
        name: rule.name.clone(),
        who,
        deny: deny.resolve_known(roles).0,
    }
}

/// `roles`: those that may be named, or none where naming one is a mistake.
fn check_entries(
    at: &str,
    entries: &[String],
    roles: Option<&Roles>,
    mistakes: &mut Vec<PolicyError>,
) -> WrittenGrants {
    let before = mistakes.len();
    for (index, entry) in entries.iter().enumerate() {
        let what = match (entry.parse::<WrittenGrant>(), roles) {
            (Err(error), _) => PolicyMistake::Grant(error),
            (Ok(WrittenGrant::Role(_)), None) => PolicyMistake::RoleInRole,
            (Ok(WrittenGrant::Role(role)), Some(roles)) if !roles.contains_key(&role) => {
                PolicyMistake::UnknownRole(role)
            }
            (Ok(_), _) => continue,
        };
        mistakes.push(mistake(format!("{at}/{index}"), what));
    }
    if mistakes.len() > before {
        return WrittenGrants::default();
    }
    WrittenGrants::parse(entries).unwrap_or_else(|error| {
        mistakes.push(mistake(at.to_owned(), error.into()));
        WrittenGrants::default()
    })
}

const fn mistake(at: String, what: PolicyMistake) -> PolicyError {
    PolicyError { at, what }
}

/// RFC 6901: `~` and `/` of a key are escaped in a pointer.
fn pointer_token(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grant::Kind;

    fn rule(name: &str, who: &[&str], deny: &[&str]) -> RuleOptions {
        let own = |texts: &[&str]| texts.iter().map(ToString::to_string).collect();
        RuleOptions {
            name: name.into(),
            who: own(who),
            deny: own(deny),
        }
    }

    fn options(roles: &[(&str, &[&str])], rule: Vec<RuleOptions>) -> PolicyOptions {
        let own = |texts: &[&str]| texts.iter().map(ToString::to_string).collect();
        let roles = roles
            .iter()
            .map(|(name, grants)| ((*name).to_owned(), own(grants)))
            .collect();
        PolicyOptions {
            denials: Denials::Explain,
            roles,
            rule,
        }
    }

    #[test]
    fn a_good_policy_is_taken_whole() {
        let rules = vec![rule("freeze", &["*/agents/*"], &["role:writer", "admin:*"])];
        let policy = Policy::check(&options(&[("writer", &["tools:write_*"])], rules)).unwrap();
        assert_eq!(policy.denials, Denials::Explain);
        assert!(policy.roles["writer"].allows(Kind::Tools, "write_file"));
        assert!(policy.rules[0].deny.allows(Kind::Tools, "write_file"));
        assert!(policy.rules[0].deny.allows(Kind::Admin, "status"));
        assert!(policy.rules[0].who[0].matches("spiffe://x/agents/a"));
    }

    #[test]
    fn every_mistake_is_told_with_its_place() {
        let wrong = options(
            &[("a/b", &["tools:a"]), ("r", &["tools:", "role:r"])],
            vec![
                rule("x", &["a", "\\"], &["role:none"]),
                rule("x", &[], &["tools"]),
                rule("y", &["a"], &[]),
            ],
        );
        let told: Vec<String> = Policy::check(&wrong)
            .unwrap_err()
            .into_iter()
            .map(|e| format!("{} {e}", e.at))
            .collect();
        let expected = [
            "/roles/a~1b `a/b` cannot be",
            "/roles/r/0 grant `tools:`: a pattern is empty",
            "/roles/r/1 a role does not name another role",
            "/rule/0/who/1 `\\\\`: a backslash",
            "/rule/0/deny/0 role `none` is not defined",
            "/rule/1/name two rules are called `x`",
            "/rule/1/who the rule `x` is about nobody",
            "/rule/1/deny/0 `tools` is not a grant",
            "/rule/2/deny the rule `y` denies nothing",
        ];
        assert_eq!(told.len(), expected.len(), "{told:#?}");
        for (told, expected) in told.iter().zip(expected) {
            assert!(told.starts_with(expected), "{told} is not {expected}");
        }
    }

    #[test]
    fn a_list_that_is_too_long_is_a_mistake() {
        let many = vec!["tools:a"; 257];
        assert!(Policy::check(&options(&[("r", &many[..256])], Vec::new())).is_ok());
        let told = Policy::check(&options(&[("r", &many)], Vec::new())).unwrap_err();
        assert_eq!((told[0].at.as_str(), told.len()), ("/roles/r", 1));
    }
}
