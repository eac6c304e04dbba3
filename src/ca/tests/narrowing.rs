//! Authority only narrows on the way down, whoever signs: chains of random sets, signed without any
//! check, judged by the real verifier and the real decision, against a matcher of this file's own.

use std::path::Path;
use std::sync::Arc;

use super::bench::{NOW, rules};
use crate::ca::authority::{Above, Authority};
use crate::ca::certificate::{Contents, Role, self_signed, signed_by, uri};
use crate::ca::profile::Usage;
use crate::ca::{Profiles, Request, SignError, Signer};
use crate::cert::{DEFAULT_PERMISSION_OID, KeyKind};
use crate::clock::UnixTime;
use crate::grant::{Kind, WrittenGrants};
use crate::identity::{Fingerprint, Name, SpiffeId};
use crate::peer::{Agreed, Peer};
use crate::policy::{Grounds, Policy};
use crate::registry::{EnrolmentKind, Outline, View};
use crate::tls::{AnchorOptions, NameFrom, Profile, Trust};

const NAME: &str = "spiffe://example.org/agent";
const KINDS: [(&str, Kind); 4] = [
    ("tools", Kind::Tools),
    ("resources", Kind::Resources),
    ("prompts", Kind::Prompts),
    ("admin", Kind::Admin),
];

/// SplitMix64: the same seed gives the same chains everywhere.
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        usize::try_from((z ^ (z >> 31)) >> 33).unwrap() % end
    }

    fn grant(&mut self) -> String {
        if self.below(8) == 0 {
            return "*".to_owned();
        }
        let pieces = ["a", "b", "*", "ab"];
        let pattern: String = (0..=self.below(3)).map(|_| pieces[self.below(4)]).collect();
        // Mostly one kind, or the sets would seldom meet.
        let kind = ["tools", "tools", "tools", "prompts", "resources", "admin"][self.below(6)];
        format!("{kind}:{pattern}")
    }

    fn set(&mut self) -> Vec<String> {
        (0..self.below(4) + 1).map(|_| self.grant()).collect()
    }

    /// One in three has none.
    fn maybe(&mut self) -> Option<Vec<String>> {
        (self.below(3) > 0).then(|| self.set())
    }

    fn target(&mut self) -> String {
        (0..=self.below(4))
            .map(|_| ["a", "b", "ab"][self.below(3)])
            .collect()
    }
}

/// The textbook's matcher: a star is nothing, or one more character and the star again.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern, text) {
        ([], []) => true,
        ([b'*', rest @ ..], _) if matches(rest, text) => true,
        ([b'*', ..], [_, text @ ..]) => matches(pattern, text),
        ([one, rest @ ..], [first, text @ ..]) if one == first => matches(rest, text),
        _ => false,
    }
}

fn allows(set: &[String], kind: &str, target: &str) -> bool {
    set.iter().any(|grant| match grant.split_once(':') {
        None => kind != "admin",
        Some((of, pattern)) => of == kind && matches(pattern.as_bytes(), target.as_bytes()),
    })
}

struct Signed {
    der: Vec<u8>,
    signer: Signer,
}

impl Signed {
    fn print(&self) -> Fingerprint {
        Fingerprint::of_der(&self.der)
    }
}

/// Signs whatever is asked for.
fn made(name: &str, role: Role<'_>, grants: Option<&[String]>, by: Option<&Signed>) -> Signed {
    let (signer, _) = Signer::generate(KeyKind::P256).unwrap();
    let grants = grants.map(|grants| WrittenGrants::parse(grants).unwrap());
    let id = if matches!(role, Role::Leaf(_)) {
        NAME
    } else {
        "spiffe://example.org"
    };
    let contents = Contents {
        common_name: name,
        organization: None,
        names: vec![uri(id).unwrap()],
        not_before: UnixTime(NOW.0 - 60),
        not_after: UnixTime(NOW.0 + 3600),
        role,
        permissions: grants
            .as_ref()
            .map(|grants| (DEFAULT_PERMISSION_OID, grants)),
    };
    let certificate = match by {
        None => self_signed(&contents, &signer),
        Some(by) => {
            let der = by.der.as_slice().into();
            let issuer = rcgen::Issuer::from_ca_cert_der(&der, &by.signer).unwrap();
            signed_by(&contents, &signer, &issuer)
        }
    };
    Signed {
        der: certificate.unwrap().der().to_vec(),
        signer,
    }
}

fn outline(of: &Signed, kind: EnrolmentKind, grants: Option<&[String]>) -> Outline {
    let name = if kind == EnrolmentKind::Leaf {
        NAME
    } else {
        "spiffe://example.org/delegate"
    };
    Outline {
        fingerprint: of.print(),
        kind,
        name: Name::new(name).unwrap(),
        grants: grants.map(|grants| Arc::new(WrittenGrants::parse(grants).unwrap())),
        not_after: UnixTime(NOW.0 + 3600),
        pinned: true,
        revoked: false,
    }
}

fn trust(dir: &Path, root: &Signed, mode: &str, ceiling: Option<&[String]>, view: View) -> Trust {
    let bundle = dir.join("root.pem");
    std::fs::write(&bundle, crate::cert::pem::certificate(&root.der)).unwrap();
    let anchor = AnchorOptions {
        name: "ours".to_owned(),
        bundle,
        mode: Some(mode.to_owned()),
        identity_from: NameFrom::Spiffe,
        crl: None,
        crl_file: None,
        ceiling: ceiling.map(<[String]>::to_vec),
    };
    let view = Arc::new(view);
    Trust::load(&[anchor], DEFAULT_PERMISSION_OID, view, Profile::Modern).unwrap()
}

/// Who is pinned.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pinned {
    Leaf,
    Delegate,
    Nobody,
}

#[test]
fn no_chain_lets_a_leaf_do_what_anything_above_it_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let chance = &mut Chance(20_261_121);
    let (mut admitted, mut allowed, mut refused) = (0, 0, 0);
    for case in 0..400 {
        let [of_root, of_issuing, of_delegate] = std::array::from_fn(|_| chance.maybe());
        let (of_leaf, of_anchor, of_pin) = (chance.maybe(), chance.maybe(), chance.maybe());
        let with_delegate = chance.below(2) == 0;
        let pinned = match chance.below(3) {
            0 => Pinned::Nobody,
            1 if with_delegate => Pinned::Delegate,
            _ => Pinned::Leaf,
        };
        let mode = if pinned == Pinned::Nobody {
            "issued"
        } else {
            "pinned"
        };

        let root = made("root", Role::Authority(2), of_root.as_deref(), None);
        let issuing = made(
            "issuing",
            Role::Authority(1),
            of_issuing.as_deref(),
            Some(&root),
        );
        let mut above = vec![issuing];
        if with_delegate {
            let ceiling = of_delegate.as_deref();
            above.insert(
                0,
                made("delegate", Role::Authority(0), ceiling, Some(&above[0])),
            );
        }
        let usage = [Usage::Client];
        let leaf = made(
            "agent",
            Role::Leaf(&usage),
            of_leaf.as_deref(),
            Some(&above[0]),
        );

        let view = View::default();
        match pinned {
            Pinned::Leaf => view.apply(&[outline(&leaf, EnrolmentKind::Leaf, of_pin.as_deref())]),
            Pinned::Delegate => {
                view.apply(&[outline(
                    &above[0],
                    EnrolmentKind::Authority,
                    of_pin.as_deref(),
                )]);
            }
            Pinned::Nobody => {}
        }
        let trust = trust(dir.path(), &root, mode, of_anchor.as_deref(), view);

        let presented: Vec<Vec<u8>> = [&leaf]
            .into_iter()
            .chain(&above)
            .map(|one| one.der.clone())
            .collect();
        let chain = trust.chain_of(&presented, NOW).unwrap();
        let delegate = of_delegate.as_ref().filter(|_| with_delegate);
        let pin = of_pin.as_ref().filter(|_| pinned != Pinned::Nobody);
        let layers = [
            of_leaf.as_ref(),
            delegate,
            of_issuing.as_ref(),
            of_root.as_ref(),
        ];
        let layers: Vec<&Vec<String>> = layers
            .into_iter()
            .chain([of_anchor.as_ref(), pin])
            .flatten()
            .collect();
        let something_grants = of_leaf.is_some() || pin.is_some();

        let grounds = trust.standing(&chain, NOW).map(|pin| {
            let agreed = Agreed {
                version: "",
                suite: "",
                group: "",
                resumed: false,
            };
            let peer = Peer::admitted(Arc::clone(&chain), agreed, ([127, 0, 0, 1], 1).into());
            let grants = pin
                .as_ref()
                .and_then(|p| Some((p.fingerprint, p.grants.as_deref()?)));
            Grounds::compile(&Policy::default(), &peer, grants)
        });
        match &grounds {
            Ok(_) => admitted += 1,
            Err(_) => refused += 1,
        }
        for _ in 0..40 {
            let (word, kind) = KINDS[chance.below(4)];
            let target = chance.target();
            let expected = something_grants && layers.iter().all(|set| allows(set, word, &target));
            let decided = grounds
                .as_ref()
                .is_ok_and(|grounds| grounds.allows(kind, &target));
            assert_eq!(
                decided, expected,
                "case {case}: {word}:{target} of {layers:?}"
            );
            allowed += usize::from(decided);
        }
    }
    // Or the loop would show nothing.
    assert!(
        admitted > 100 && refused > 50,
        "{admitted} admitted, {refused} refused"
    );
    assert!(allowed > 300, "{allowed} allowed");
}

#[test]
fn what_signing_accepts_the_ceiling_allows() {
    let dir = tempfile::tempdir().unwrap();
    let chance = &mut Chance(7);
    let profiles = Profiles::embedded().unwrap();
    let (mut accepted, mut refused) = (0, 0);
    for case in 0..150 {
        let (ceiling, asked) = (chance.set(), chance.set());
        let root = made("root", Role::Authority(2), None, None);
        let issuing = made("issuing", Role::Authority(1), Some(&ceiling), Some(&root));
        let path = |name: &str, der: &[u8]| {
            let path = dir.path().join(name);
            std::fs::write(&path, crate::cert::pem::certificate(der)).unwrap();
            path
        };
        let files = (
            path("issuing.crt", &issuing.der),
            path("root.crt", &root.der),
        );
        let above = Above::load(&files.0, &files.1, DEFAULT_PERMISSION_OID).unwrap();
        let authority = Authority::of(above, issuing.signer);
        let (signer, _) = Signer::generate(KeyKind::P256).unwrap();
        let request = Request {
            name: NAME.parse::<SpiffeId>().unwrap(),
            subject_key: &signer.public_key(),
            grants: WrittenGrants::parse(&asked).unwrap(),
            profile: profiles.get("agent").unwrap(),
            ttl: Some(std::time::Duration::from_secs(600)),
            dns: Vec::new(),
            ips: Vec::new(),
        };
        match authority.sign(&request, rules(), NOW) {
            Ok(_) => accepted += 1,
            Err(SignError::Ceiling { .. }) => {
                refused += 1;
                continue;
            }
            Err(other) => panic!("case {case}: {other}"),
        }
        for _ in 0..100 {
            let (word, _) = KINDS[chance.below(4)];
            let target = chance.target();
            assert!(
                !allows(&asked, word, &target) || allows(&ceiling, word, &target),
                "case {case}: {word}:{target}, asked {asked:?}, ceiling {ceiling:?}"
            );
        }
    }
    assert!(
        accepted > 15 && refused > 30,
        "{accepted} accepted, {refused} refused"
    );
}
