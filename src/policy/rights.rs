//! What one peer may use: every layer that must allow it, and every rule that forbids.

use crate::grant::{Grant, GrantSet, Kind, Pattern, WrittenGrants};
use crate::identity::Fingerprint;
use crate::peer::{Chain, Source};

use super::rules::Policy;

/// A layer or rule with roles resolved.
#[derive(Clone, Debug)]
struct Part<S> {
    source: S,
    set: GrantSet,
    /// Roles that it names and this server does not define; they grant nothing.
    unknown_roles: Vec<String>,
}

/// The compiled form of all that decides on one chain.
#[derive(Clone, Debug)]
pub(super) struct Rights {
    layers: Vec<Part<Source>>,
    /// The layer that grants: the leaf's own, else the pin's. The others only narrow, so without
    /// it a ceiling alone would turn into a grant.
    granting: Option<usize>,
    /// The rules that are about this peer, by name.
    rules: Vec<(String, GrantSet)>,
}

/// One layer's verdict, for `policy explain` and `whoami`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// `certificate …`, `anchor …`, `pin …`, `rule …`, or what is missing altogether.
    pub source: String,
    /// Whether it lets the thing pass; in a list without a thing asked for, whether it lets anything pass.
    pub allows: bool,
    /// What it allows, roles resolved; what it denies, where it is a rule.
    pub grants: Vec<String>,
    /// Roles that it names and that this server does not define: they grant nothing.
    pub unknown_roles: Vec<String>,
}

/// What `policy explain` prints; never a permit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The same answer as `decide` gives.
    pub allowed: bool,
    /// Every layer, then every rule that is about this peer.
    pub steps: Vec<Step>,
}

/// What stands in the way of one use.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Obstacle<'a> {
    /// Nothing grants at all: no extension in the leaf, no set in the pin.
    Nothing,
    /// This layer does not allow it.
    Layer(&'a Source),
    /// This rule forbids it.
    Rule(&'a str),
}

impl Obstacle<'_> {
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Nothing => String::from(NOTHING_GRANTS),
            Self::Layer(source) => source.to_string(),
            Self::Rule(name) => rule(name),
        }
    }
}

const NOTHING_GRANTS: &str = "neither the certificate nor a pin grants anything";

fn rule(name: &str) -> String {
    format!("rule `{name}`")
}

impl Rights {
    pub(super) fn compile(
        policy: &Policy,
        chain: &Chain,
        pin: Option<(Fingerprint, &WrittenGrants)>,
    ) -> Self {
        let part = |source: Source, grants: &WrittenGrants| {
            let (set, unknown_roles) = grants.resolve_known(&policy.roles);
            Part {
                source,
                set,
                unknown_roles,
            }
        };
        let mut layers: Vec<_> = chain
            .layers
            .iter()
            .map(|layer| part(layer.source.clone(), &layer.grants))
            .collect();
        layers.extend(pin.map(|(print, grants)| part(Source::Pin(print), grants)));
        let granting = if layers.is_empty() {
            None
        } else if chain.leaf_carries_grants {
            Some(0)
        } else {
            pin.map(|_| layers.len() - 1)
        };
        let name = chain.name.as_str();
        let concerns = |who: &[Pattern]| who.iter().any(|pattern| pattern.matches(name));
        let rules = policy.rules.iter().filter(|rule| concerns(&rule.who));
        Self {
            layers,
            granting,
            rules: rules.map(|r| (r.name.clone(), r.deny.clone())).collect(),
        }
    }

    /// Allowed is: something grants, every layer allows, no rule denies. No allocation.
    pub(super) fn obstacle(&self, kind: Kind, target: &str) -> Option<Obstacle<'_>> {
        if self.granting.is_none() {
            return Some(Obstacle::Nothing);
        }
        let narrow = self
            .layers
            .iter()
            .find(|layer| !layer.set.allows(kind, target));
        if let Some(layer) = narrow {
            return Some(Obstacle::Layer(&layer.source));
        }
        let rule = self
            .rules
            .iter()
            .find(|(_, deny)| deny.allows(kind, target));
        rule.map(|(name, _)| Obstacle::Rule(name))
    }

    /// As [`Self::obstacle`] for some text of a pattern: every layer has a grant that shares a text
    /// with it, and no rule denies all of it. What passes may still be nothing where two layers
    /// share different texts with it.
    pub(super) fn obstacle_to_some(&self, kind: Kind, pattern: &Pattern) -> Option<Obstacle<'_>> {
        if self.granting.is_none() {
            return Some(Obstacle::Nothing);
        }
        let narrow = self
            .layers
            .iter()
            .find(|layer| !layer.set.could_allow(kind, pattern));
        if let Some(layer) = narrow {
            return Some(Obstacle::Layer(&layer.source));
        }
        let denies_all = |set: &GrantSet| {
            set.of_kind(kind)
                .iter()
                .any(|grant| grant.pattern.contains(pattern))
        };
        let rule = self.rules.iter().find(|(_, deny)| denies_all(deny));
        rule.map(|(name, _)| Obstacle::Rule(name))
    }

    /// Whether it is certain that nothing of this kind could ever be allowed.
    pub(super) fn allows_nothing_of(&self, kind: Kind) -> bool {
        self.granting.is_none()
            || self
                .layers
                .iter()
                .any(|layer| layer.set.of_kind(kind).is_empty())
            || self.rules.iter().any(|(_, deny)| {
                deny.of_kind(kind)
                    .iter()
                    .any(|grant| grant.pattern.is_everything())
            })
    }

    pub(super) fn steps(&self, passes: impl Fn(&GrantSet) -> bool) -> Vec<Step> {
        let missing = self.granting.is_none().then(|| Step {
            source: NOTHING_GRANTS.to_owned(),
            allows: false,
            grants: Vec::new(),
            unknown_roles: Vec::new(),
        });
        let layers = self.layers.iter().map(|layer| Step {
            source: layer.source.to_string(),
            allows: passes(&layer.set),
            grants: shown(&layer.set),
            unknown_roles: layer.unknown_roles.clone(),
        });
        missing.into_iter().chain(layers).collect()
    }

    pub(super) fn rule_steps(&self, denies: impl Fn(&GrantSet) -> bool) -> Vec<Step> {
        let steps = self.rules.iter().map(|(name, deny)| Step {
            source: rule(name),
            allows: !denies(deny),
            grants: shown(deny),
            unknown_roles: Vec::new(),
        });
        steps.collect()
    }

    pub(super) fn explain(&self, kind: Kind, target: &str) -> Explanation {
        let mut steps = self.steps(|set| set.allows(kind, target));
        steps.extend(self.rule_steps(|deny| deny.allows(kind, target)));
        Explanation {
            allowed: self.obstacle(kind, target).is_none(),
            steps,
        }
    }

    pub(super) fn limited_by(&self) -> Vec<String> {
        let Some(own) = self.granting.and_then(|at| self.layers.get(at)) else {
            return vec![NOTHING_GRANTS.to_owned()];
        };
        let narrows = |layer: &&Part<Source>| layer.set.first_outside(&own.set).is_some();
        let layers = self
            .layers
            .iter()
            .filter(narrows)
            .map(|layer| layer.source.to_string());
        layers
            .chain(self.rules.iter().map(|(name, _)| rule(name)))
            .collect()
    }
}

fn shown(set: &GrantSet) -> Vec<String> {
    set.grants().iter().map(Grant::to_string).collect()
}

/// Why a peer with this chain would or would not be allowed a thing, without a connection: for
/// `policy explain` on the command line. Whether the chain verifies is not asked.
#[must_use]
pub fn explain_chain(
    policy: &Policy,
    chain: &Chain,
    pin: Option<(Fingerprint, &WrittenGrants)>,
    kind: Kind,
    target: &str,
) -> Explanation {
    Rights::compile(policy, chain, pin).explain(kind, target)
}
