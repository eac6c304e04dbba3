//! `decide`: may this peer make this very call?

use crate::grant::{Kind, Pattern, WrittenGrants};
use crate::identity::Fingerprint;
use crate::peer::Peer;

use super::action::{Action, Ask};
use super::rights::{Explanation, Obstacle, Rights, Step};
use super::rules::{Denials, Policy};

/// Everything that decides on a peer's calls, compiled once for a connection and again when the
/// policy or the pin changes.
///
/// A thing may be used only if something grants at all (the leaf's extension, or the pin's set),
/// if *every* layer allows it (each extension of the path, the anchor's ceiling, the pin's set),
/// and if no rule of the server's policy denies it.
#[derive(Clone, Debug)]
pub struct Grounds {
    peer: Peer,
    rights: Rights,
    denials: Denials,
}

/// A call that `decide` allowed. Private field: nobody else makes one.
#[derive(Debug)]
pub struct Permitted<C>(C);

/// A call that `decide` refused, and why. The reason is for the audit log, and for the peer only
/// where the configuration says `denials = "explain"`.
#[derive(Debug)]
pub struct Denied<C> {
    /// The call, to be recorded and answered.
    pub call: C,
    /// What refused: `certificate …`, `anchor …`, `pin …`, `rule …`, `method`, or that nothing
    /// grants at all.
    pub by: String,
    /// The grant that is missing, as it would be written: `tools:files__write_file`. None where a
    /// rule or the method refuses, because no grant would help.
    pub missing: Option<String>,
}

impl Grounds {
    /// Compiles what the certificates, the anchor, the pin (`pin`: its grants where it has a set of
    /// its own) and the server's policy say of this peer.
    #[must_use]
    pub fn compile(
        policy: &Policy,
        peer: &Peer,
        pin: Option<(Fingerprint, &WrittenGrants)>,
    ) -> Self {
        let rights = Rights::compile(policy, peer.chain(), pin);
        Self {
            peer: peer.clone(),
            rights,
            denials: policy.denials,
        }
    }

    /// Whose calls these decide.
    #[must_use]
    pub const fn peer(&self) -> &Peer {
        &self.peer
    }

    /// How a denial looks to this peer.
    #[must_use]
    pub const fn denials(&self) -> Denials {
        self.denials
    }

    /// Whether this one thing may be used: the filter of lists and notifications. The same answer
    /// as `decide` gives. No allocation.
    #[must_use]
    pub fn allows(&self, kind: Kind, target: &str) -> bool {
        self.rights.obstacle(kind, target).is_none()
    }

    /// Whether some target of a URI template could be used: the filter of templates.
    #[must_use]
    pub fn could_allow(&self, kind: Kind, template: &str) -> bool {
        Pattern::of_template(template)
            .is_ok_and(|pattern| self.rights.obstacle_to_some(kind, &pattern).is_none())
    }

    /// Whether nothing of this kind could ever be allowed: a list need not be made to be filtered
    /// empty. A false answer promises nothing.
    #[must_use]
    pub fn allows_nothing_of(&self, kind: Kind) -> bool {
        self.rights.allows_nothing_of(kind)
    }

    /// Whether nothing of any kind could ever be allowed.
    #[must_use]
    pub fn allows_nothing(&self) -> bool {
        Kind::ALL
            .into_iter()
            .all(|kind| self.allows_nothing_of(kind))
    }

    /// Each layer with its grants, then each rule about this peer with what it denies, for `whoami`.
    #[must_use]
    pub fn steps(&self) -> Vec<Step> {
        let mut steps = self.rights.steps(|set| !set.is_empty());
        steps.extend(self.rights.rule_steps(|deny| !deny.is_empty()));
        steps
    }

    /// Which layers and rules take away from what the peer's own certificate grants (its pin, where
    /// the certificate carries nothing), for `whoami`. Empty: what it grants is what holds.
    #[must_use]
    pub fn limited_by(&self) -> Vec<String> {
        self.rights.limited_by()
    }
}

impl<C> Permitted<C> {
    /// The call.
    #[must_use]
    pub const fn call(&self) -> &C {
        &self.0
    }

    /// Gives the call up; the proof ends here.
    #[must_use]
    pub fn into_call(self) -> C {
        self.0
    }
}

/// Decides on one call. Pure, and without allocation where the answer is yes.
///
/// # Errors
/// [`Denied`] with the call and the reason.
pub fn decide<C: Ask>(grounds: &Grounds, call: C) -> Result<Permitted<C>, Box<Denied<C>>> {
    let mut also = call.also().iter();
    let refused = refusal(grounds, call.action())
        .or_else(|| also.find_map(|(kind, target)| use_refusal(grounds, *kind, target)));
    match refused {
        None => Ok(Permitted(call)),
        Some((by, missing)) => Err(Box::new(Denied { call, by, missing })),
    }
}

/// What refuses, and the grant that is missing.
fn refusal(grounds: &Grounds, action: Action<'_>) -> Option<(String, Option<String>)> {
    match action {
        Action::Admitted => None,
        Action::Refused => Some((String::from("method"), None)),
        Action::Use(kind, target) => use_refusal(grounds, kind, target),
        Action::UseSome(kind, template) => some_refusal(grounds, kind, template),
    }
}

fn some_refusal(grounds: &Grounds, kind: Kind, template: &str) -> Option<(String, Option<String>)> {
    let missing = Some(format!("{}:{template}", kind.as_str()));
    let Ok(pattern) = Pattern::of_template(template) else {
        return Some((String::from("a template that is no pattern"), missing));
    };
    let obstacle = grounds.rights.obstacle_to_some(kind, &pattern)?;
    Some((obstacle.describe(), missing))
}

fn use_refusal(grounds: &Grounds, kind: Kind, target: &str) -> Option<(String, Option<String>)> {
    let obstacle = grounds.rights.obstacle(kind, target)?;
    let missing = match obstacle {
        Obstacle::Rule(_) => None,
        Obstacle::Nothing | Obstacle::Layer(_) => Some(grant_for(kind, target)),
    };
    Some((obstacle.describe(), missing))
}

/// The narrowest grant for a target, as it would be written. What no pattern can name (a target
/// that is empty, very long or with control characters) is only within `kind:*`.
fn grant_for(kind: Kind, target: &str) -> String {
    match Pattern::literal(target) {
        Ok(pattern) => format!("{}:{pattern}", kind.as_str()),
        Err(_) => format!("{}:*", kind.as_str()),
    }
}

/// Why a thing is or is not allowed, layer by layer.
#[must_use]
pub fn explain(grounds: &Grounds, kind: Kind, target: &str) -> Explanation {
    grounds.rights.explain(kind, target)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock::UnixTime;
    use crate::grant::Roles;
    use crate::identity::Name;
    use crate::peer::{Agreed, Chain, Layer, Mode, Source};
    use crate::policy::{PolicyOptions, RuleOptions};

    /// A call that asks for what it is told to.
    #[derive(Debug)]
    struct Call<'a>(Action<'a>);

    impl Ask for Call<'_> {
        fn action(&self) -> Action<'_> {
            self.0
        }
        fn method(&self) -> &str {
            "test"
        }
        fn target(&self) -> &str {
            ""
        }
        fn request_id(&self) -> &[u8] {
            b"1"
        }
        fn arguments(&self) -> Option<&[u8]> {
            None
        }
        fn revision(&self) -> &'static str {
            "2026-07-28"
        }
    }

    const PRINT: Fingerprint = Fingerprint::from_bytes([7; 32]);

    fn written(grants: &str) -> WrittenGrants {
        WrittenGrants::parse(&grants.split_whitespace().collect::<Vec<_>>()).unwrap()
    }

    fn layer(source: Source, grants: &str) -> Layer {
        Layer {
            source,
            grants: Arc::new(written(grants)),
        }
    }

    fn chain(leaf: Option<&str>, ca: Option<&str>, anchor: Option<&str>) -> Chain {
        let certificate = |name: &str| Source::Certificate(name.into());
        let layers = [
            leaf.map(|grants| layer(certificate("reader"), grants)),
            ca.map(|grants| layer(certificate("issuing"), grants)),
            anchor.map(|grants| layer(Source::Anchor("own".into()), grants)),
        ];
        Chain {
            name: Name::new("spiffe://countersign.internal/team/reader").unwrap(),
            fingerprint: PRINT,
            serial: "01".into(),
            issuers: Vec::new(),
            anchor: "own".into(),
            mode: Mode::Pinned,
            not_before: UnixTime(0),
            not_after: UnixTime::MAX,
            layers: layers.into_iter().flatten().collect(),
            leaf_carries_grants: leaf.is_some(),
        }
    }

    fn peer(chain: Chain) -> Peer {
        let agreed = Agreed {
            version: "TLSv1.3",
            suite: "",
            group: "",
            resumed: false,
        };
        Peer::admitted(Arc::new(chain), agreed, ([127, 0, 0, 1], 1).into())
    }

    fn policy() -> Policy {
        let rule = |name: &str, who: &str, deny: &str| RuleOptions {
            name: name.into(),
            who: vec![who.into()],
            deny: vec![deny.into()],
        };
        Policy::check(&PolicyOptions {
            roles: [(
                "viewer".into(),
                vec!["tools:read_*".into(), "prompts:*".into()],
            )]
            .into(),
            rule: vec![
                rule("no secrets", "*/team/*", "tools:read_secret*"),
                rule("others", "*/other/*", "*"),
            ],
            ..PolicyOptions::default()
        })
        .unwrap()
    }

    fn grounds(
        leaf: Option<&str>,
        ca: Option<&str>,
        anchor: Option<&str>,
        pin: Option<&str>,
    ) -> Grounds {
        let pin = pin.map(written);
        let pin = pin.as_ref().map(|grants| (PRINT, grants));
        Grounds::compile(&policy(), &peer(chain(leaf, ca, anchor)), pin)
    }

    const NOTHING: &str = "neither the certificate nor a pin grants anything";
    const CERTIFICATE: &str = "certificate `reader`";
    const ISSUING: &str = "certificate `issuing`";
    const ANCHOR: &str = "anchor `own`";
    const PIN: &str = "pin 070707070707";

    /// Leaf's extension, issuing CA's, anchor's ceiling, pin's set (`-`: none), the tool that is
    /// asked for, and who refuses (`yes`: nobody).
    const TABLE: &[(&str, &str, &str, &str, &str, &str)] = &[
        ("tools:read_*", "-", "-", "-", "read_file", "yes"),
        ("tools:read_*", "-", "-", "-", "write_file", CERTIFICATE),
        ("*", "-", "-", "-", "write_file", "yes"),
        ("", "-", "-", "-", "read_file", CERTIFICATE),
        ("prompts:*", "-", "-", "-", "read_file", CERTIFICATE),
        // A ceiling narrows, whoever signs.
        ("*", "tools:read_*", "-", "-", "read_file", "yes"),
        ("*", "tools:read_*", "-", "-", "write_file", ISSUING),
        ("*", "", "-", "-", "read_file", ISSUING),
        ("*", "*", "tools:read_*", "-", "read_file", "yes"),
        ("*", "*", "tools:read_*", "-", "write_file", ANCHOR),
        ("tools:a", "tools:b", "tools:c", "-", "b", CERTIFICATE),
        // Pinned with an extension: both must allow.
        ("tools:*", "-", "-", "tools:read_*", "read_file", "yes"),
        ("tools:*", "-", "-", "tools:read_*", "write_file", PIN),
        (
            "tools:read_*",
            "-",
            "-",
            "tools:*",
            "write_file",
            CERTIFICATE,
        ),
        ("*", "-", "-", "", "read_file", PIN),
        // Pinned without an extension: the pin's set.
        ("-", "-", "-", "tools:read_*", "read_file", "yes"),
        ("-", "-", "-", "tools:read_*", "write_file", PIN),
        ("-", "tools:*", "-", "*", "read_file", "yes"),
        ("-", "tools:x", "-", "*", "read_file", ISSUING),
        // No layer at all, or ceilings alone, grant nothing.
        ("-", "-", "-", "-", "read_file", NOTHING),
        ("-", "*", "-", "-", "read_file", NOTHING),
        ("-", "-", "*", "-", "read_file", NOTHING),
        ("-", "*", "*", "-", "read_file", NOTHING),
        // Roles are this server's; an unknown one grants nothing.
        ("role:viewer", "-", "-", "-", "read_file", "yes"),
        ("role:viewer", "-", "-", "-", "write_file", CERTIFICATE),
        ("role:root", "-", "-", "-", "read_file", CERTIFICATE),
        // The policy's rules deny whatever the certificates say.
        ("*", "-", "-", "*", "read_file", "yes"),
        ("*", "-", "-", "*", "read_secret", "rule `no secrets`"),
    ];

    #[test]
    fn the_table_holds() {
        let given = |grants: &'static str| (grants != "-").then_some(grants);
        for row @ &(leaf, ca, anchor, pin, tool, expected) in TABLE {
            let grounds = grounds(given(leaf), given(ca), given(anchor), given(pin));
            let by = match decide(&grounds, Call(Action::Use(Kind::Tools, tool))) {
                Ok(_) => String::from("yes"),
                Err(denied) => denied.by,
            };
            assert_eq!(by, expected, "{row:?}");
            assert_eq!(
                grounds.allows(Kind::Tools, tool),
                expected == "yes",
                "{row:?}"
            );
            let explained = explain(&grounds, Kind::Tools, tool);
            assert_eq!(explained.allowed, expected == "yes", "{row:?}");
            let against: Vec<_> = explained.steps.iter().filter(|step| !step.allows).collect();
            assert_eq!(against.is_empty(), expected == "yes", "{row:?}");
            assert!(
                expected == "yes" || against.iter().any(|s| s.source == expected),
                "{row:?}"
            );
        }
    }

    #[test]
    fn kinds_and_admin() {
        let everything = grounds(Some("*"), None, None, None);
        for kind in [Kind::Tools, Kind::Resources, Kind::Prompts] {
            assert!(everything.allows(kind, "status"), "{kind:?}");
        }
        assert!(!everything.allows(Kind::Admin, "status"));
        assert!(grounds(Some("admin:status"), None, None, None).allows(Kind::Admin, "status"));
    }

    #[test]
    fn being_admitted_is_enough_for_some_methods_and_nothing_is_for_unknown_ones() {
        let none = grounds(None, None, None, None);
        assert!(decide(&none, Call(Action::Admitted)).is_ok());
        let all = grounds(Some("* admin:*"), None, None, None);
        let denied = decide(&all, Call(Action::Refused)).unwrap_err();
        assert_eq!((denied.by.as_str(), &denied.missing), ("method", &None));
    }

    #[test]
    fn a_template_needs_some_target_of_it() {
        let grounds = grounds(Some("resources:file:///a/docs/*"), None, None, None);
        let some = |template| decide(&grounds, Call(Action::UseSome(Kind::Resources, template)));
        assert!(some("file:///a/{+path}").is_ok());
        assert!(some("file:///a/docs/x").is_ok());
        let denied = some("file:///b/{+path}").unwrap_err();
        assert_eq!(denied.by, CERTIFICATE);
    }

    #[test]
    fn the_missing_grant_is_one_that_would_do() {
        let grounds = grounds(Some("tools:a"), None, None, None);
        for target in ["write_file", r"odd*\name", "", "line\nbreak"] {
            let denied = decide(&grounds, Call(Action::Use(Kind::Tools, target))).unwrap_err();
            let missing = denied.missing.unwrap();
            let set = written(&missing).resolve(&Roles::new()).unwrap();
            assert!(set.allows(Kind::Tools, target), "{missing} for {target:?}");
        }
    }

    #[test]
    fn a_rule_is_about_those_it_names() {
        let mut other = chain(Some("*"), None, None);
        other.name = Name::new("spiffe://countersign.internal/ops/root").unwrap();
        let other = Grounds::compile(&policy(), &peer(other), None);
        assert!(other.allows(Kind::Tools, "read_secret"));
        assert!(!grounds(Some("*"), None, None, None).allows(Kind::Tools, "read_secret"));
    }

    #[test]
    fn whoami_is_told_what_limits() {
        assert_eq!(
            grounds(Some("tools:a"), Some("*"), None, None).limited_by(),
            ["rule `no secrets`"]
        );
        let narrow = grounds(
            Some("tools:*"),
            Some("tools:a*"),
            Some("*"),
            Some("tools:b"),
        );
        assert_eq!(narrow.limited_by(), [ISSUING, PIN, "rule `no secrets`"]);
        let steps = narrow.steps();
        assert_eq!(steps[0].source, CERTIFICATE);
        assert_eq!(steps[0].grants, ["tools:*"]);
        assert!(steps[0].allows);
        let unknown = grounds(Some("role:root tools:a"), None, None, None).steps();
        assert_eq!(unknown[0].unknown_roles, ["root"]);
    }

    #[test]
    fn nothing_at_all_is_noticed() {
        assert!(!grounds(Some("prompts:a"), None, None, None).allows_nothing());
        assert!(grounds(Some(""), None, None, None).allows_nothing());
        assert!(grounds(None, Some("*"), None, None).allows_nothing());
        assert!(grounds(Some("tools:a"), Some("prompts:a"), None, None).allows_nothing());
    }
}
