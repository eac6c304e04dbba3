//! How a verified chain stands now: validity, revocation, pin, name, some grant. Asked in the
//! handshake, after every handshake, and again while a connection lives. Look-ups only.

use std::fmt;
use std::time::Duration;

use super::refusal::{Class, Refusal};
use crate::clock::UnixTime;
use crate::grant::{Grant, Kind, WrittenGrant, WrittenGrants};
use crate::peer::{Chain, Link, Mode, Source};
use crate::registry::{Pin, Standing, View};

/// Comparisons after which a chain is taken to allow something: each call is decided by itself
/// anyway, and a chain of hundreds of grants must not cost milliseconds a handshake.
const COMPARISONS: usize = 4096;

/// What is looked at beside the chain itself.
pub(super) struct Sources<'a> {
    pub(super) view: &'a View,
    /// How long the registry may go unheard of; from then on nobody is admitted by what it said.
    pub(super) max_staleness: Duration,
    /// The path as CRLs name it; empty where only the chain is at hand, and then the leaf's serial
    /// alone is looked up.
    pub(super) links: &'a [Link],
}

/// The pin in force, where there is one.
///
/// # Errors
/// The refusal, with the name and the fingerprint.
pub(super) fn standing(
    sources: &Sources<'_>,
    chain: &Chain,
    now: UnixTime,
) -> Result<Option<Pin>, Refusal> {
    judge(sources, chain, now)
        .map_err(|refusal| refusal.of(chain.fingerprint).named(chain.name.as_str()))
}

fn judge(sources: &Sources<'_>, chain: &Chain, now: UnixTime) -> Result<Option<Pin>, Refusal> {
    let view = sources.view;
    check_validity(chain, now)?;
    check_contact(sources)?;
    let leaf = view.standing(&chain.fingerprint);
    if leaf == Standing::Revoked {
        return Err(refuse(Class::Revoked, "the certificate is revoked"));
    }
    let issuers: Vec<Standing> = chain
        .issuers
        .iter()
        .map(|print| view.standing(print))
        .collect();
    if let Some(at) = issuers
        .iter()
        .position(|standing| *standing == Standing::Revoked)
    {
        let print = chain.issuers[at].short();
        return Err(refuse(
            Class::Revoked,
            format_args!("the issuer {print} is revoked"),
        ));
    }
    check_serials(sources, chain)?;
    let pin = match chain.mode {
        Mode::Pinned => Some(pin(leaf, issuers, chain)?),
        Mode::Issued => issued(leaf, chain)?,
    };
    if let Some(pin) = &pin {
        check_pin(pin, chain, now)?;
    }
    check_some_grant(chain, pin.as_ref())?;
    Ok(pin)
}

/// The serials that a signed CRL on disk lists, beside what the store says.
fn check_serials(sources: &Sources<'_>, chain: &Chain) -> Result<(), Refusal> {
    let revoked = if sources.links.is_empty() {
        // A serial that is not hex was never read from a certificate.
        let serial = hex::decode(&chain.serial).unwrap_or_default();
        let issuer = chain.issuers.first();
        issuer.is_some_and(|issuer| sources.view.is_serial_revoked(issuer, &serial))
    } else {
        let mut named = chain.issuers.iter().zip(sources.links);
        named.any(|(issuer, link)| sources.view.is_serial_revoked(issuer, &link.serial))
    };
    if revoked {
        let reason = "the CA's own CRL names the certificate or an issuer above it";
        return Err(refuse(Class::Revoked, reason));
    }
    Ok(())
}

fn check_contact(sources: &Sources<'_>) -> Result<(), Refusal> {
    if sources.max_staleness == Duration::MAX {
        return Ok(());
    }
    let stale = sources.view.staleness();
    if stale > sources.max_staleness {
        let seconds = stale.as_secs();
        let reason = format!("the registry was last heard of {seconds} s ago, which is too long");
        return Err(refuse(Class::AccessDenied, reason));
    }
    Ok(())
}

fn check_validity(chain: &Chain, now: UnixTime) -> Result<(), Refusal> {
    if now < chain.not_before {
        let begin = chain.not_before;
        return Err(refuse(
            Class::NotYetValid,
            format_args!("the chain begins at {begin}"),
        ));
    }
    if now >= chain.not_after {
        let end = chain.not_after;
        return Err(refuse(
            Class::Expired,
            format_args!("the chain ended at {end}"),
        ));
    }
    Ok(())
}

/// The leaf's pin, else that of the nearest issuer that the registry pins as a delegate. One that
/// was unpinned on purpose ends the search: a pin further up does not bring it back.
fn pin(leaf: Standing, issuers: Vec<Standing>, chain: &Chain) -> Result<Pin, Refusal> {
    match leaf {
        Standing::Pinned(pin) => return Ok(pin),
        Standing::Unpinned => {
            return Err(refuse(
                Class::AccessDenied,
                "the certificate is no longer pinned",
            ));
        }
        Standing::Unknown | Standing::Revoked => {}
    }
    for (standing, print) in issuers.into_iter().zip(&chain.issuers) {
        match standing {
            Standing::Pinned(pin) if pin.delegate => return Ok(pin),
            Standing::Unpinned => {
                let print = print.short();
                let reason = format!("neither the certificate nor its issuer {print} is pinned");
                return Err(refuse(Class::AccessDenied, reason));
            }
            _ => {}
        }
    }
    Err(refuse(Class::AccessDenied, "the certificate is not pinned"))
}

/// `issued` needs no pin; one that is there holds all the same.
fn issued(leaf: Standing, chain: &Chain) -> Result<Option<Pin>, Refusal> {
    if !chain.leaf_carries_grants {
        let anchor = &chain.anchor;
        let reason = format!("the certificate carries no grants, and anchor `{anchor}` wants them");
        return Err(refuse(Class::AccessDenied, reason));
    }
    Ok(match leaf {
        Standing::Pinned(pin) => Some(pin),
        _ => None,
    })
}

fn check_pin(pin: &Pin, chain: &Chain, now: UnixTime) -> Result<(), Refusal> {
    if now >= pin.not_after {
        let end = pin.not_after;
        return Err(refuse(
            Class::Expired,
            format_args!("the pin ended at {end}"),
        ));
    }
    if pin.fingerprint == chain.fingerprint && pin.name != chain.name {
        let name = &pin.name;
        let reason = format!("the certificate is pinned under another name, `{name}`");
        return Err(refuse(Class::AccessDenied, reason));
    }
    Ok(())
}

/// Refuses who could not be allowed a single thing. Not exact: roles count as anything, and only
/// the ends of patterns are compared; every call is decided by itself.
fn check_some_grant(chain: &Chain, pin: Option<&Pin>) -> Result<(), Refusal> {
    let of_pin = pin.and_then(|pin| pin.grants.as_deref());
    if !chain.leaf_carries_grants && of_pin.is_none() {
        let reason = "neither the certificate nor its pin grants anything";
        return Err(refuse(Class::AccessDenied, reason));
    }
    let layers = chain.layers.iter().map(|layer| &*layer.grants);
    let sets: Vec<&WrittenGrants> = layers.chain(of_pin).collect();
    if let Some(at) = sets.iter().position(|grants| grants.is_empty()) {
        let source = &sources(chain, pin)[at];
        return Err(refuse(
            Class::AccessDenied,
            format_args!("{source} grants nothing"),
        ));
    }
    let Some((first, rest)) = sets.split_first() else {
        return Ok(());
    };
    let mut left = COMPARISONS;
    let mut covered = |grant: &WrittenGrant, others: &WrittenGrants| {
        others.entries().iter().any(|other| {
            left = left.saturating_sub(1);
            left == 0 || overlap(grant, other)
        })
    };
    let some = |grant: &&WrittenGrant| rest.iter().all(|others| covered(grant, others));
    if first.entries().iter().find(some).is_none() {
        let all = sources(chain, pin).join(", ");
        let reason = format!("nothing that all of these grant: {all}");
        return Err(refuse(Class::AccessDenied, reason));
    }
    Ok(())
}

/// Where each layer was written, in the order in which they are compared.
fn sources(chain: &Chain, pin: Option<&Pin>) -> Vec<String> {
    let layers = chain.layers.iter().map(|layer| layer.source.to_string());
    let pin = pin.map(|pin| Source::Pin(pin.fingerprint).to_string());
    layers.chain(pin).collect()
}

/// Whether two entries may both allow some one thing.
fn overlap(one: &WrittenGrant, other: &WrittenGrant) -> bool {
    match (one, other) {
        (WrittenGrant::Role(_), _) | (_, WrittenGrant::Role(_)) => true,
        (WrittenGrant::Everything, WrittenGrant::Everything) => true,
        (WrittenGrant::Everything, WrittenGrant::Grant(grant))
        | (WrittenGrant::Grant(grant), WrittenGrant::Everything) => grant.kind != Kind::Admin,
        (WrittenGrant::Grant(one), WrittenGrant::Grant(other)) => {
            one.kind == other.kind && ends_meet(one, other)
        }
    }
}

/// Whether the literal beginnings and ends of two patterns can belong to one text.
fn ends_meet(one: &Grant, other: &Grant) -> bool {
    let (a, b) = (one.pattern.to_string(), other.pattern.to_string());
    let (a, b) = (Ends::of(&a), Ends::of(&b));
    let begins = a.begin.starts_with(b.begin) || b.begin.starts_with(a.begin);
    let finishes = a.end.ends_with(b.end) || b.end.ends_with(a.end);
    match (a.literal, b.literal) {
        (true, true) => a.begin == b.begin,
        (true, false) => a.begin.starts_with(b.begin) && a.begin.ends_with(b.end),
        (false, true) => b.begin.starts_with(a.begin) && b.begin.ends_with(a.end),
        (false, false) => begins && finishes,
    }
}

/// A pattern's text before its first star and after its last, escapes left as written: a checked
/// pattern has one way to write a literal.
struct Ends<'a> {
    begin: &'a str,
    end: &'a str,
    literal: bool,
}

impl<'a> Ends<'a> {
    fn of(pattern: &'a str) -> Self {
        let mut escaped = false;
        let mut stars = pattern.bytes().enumerate().filter(|(_, byte)| {
            let star = *byte == b'*' && !escaped;
            escaped = *byte == b'\\' && !escaped;
            star
        });
        let Some((first, _)) = stars.next() else {
            return Self {
                begin: pattern,
                end: pattern,
                literal: true,
            };
        };
        let last = stars.last().map_or(first, |(at, _)| at);
        Self {
            begin: &pattern[..first],
            end: &pattern[last + 1..],
            literal: false,
        }
    }
}

fn refuse(class: Class, reason: impl fmt::Display) -> Refusal {
    Refusal::new(class, reason.to_string())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::identity::{Fingerprint, Name};
    use crate::peer::Layer;

    fn layer(grants: &[&str]) -> Layer {
        let grants = Arc::new(WrittenGrants::parse(grants).unwrap());
        Layer {
            source: Source::Certificate("c".into()),
            grants,
        }
    }

    fn chain(layers: &[&[&str]], leaf_carries_grants: bool) -> Chain {
        Chain {
            name: Name::new("spiffe://example.org/a").unwrap(),
            fingerprint: Fingerprint::of_der(b"leaf"),
            serial: String::from("01"),
            issuers: vec![Fingerprint::of_der(b"issuer"), Fingerprint::of_der(b"root")],
            anchor: "ours".into(),
            mode: Mode::Pinned,
            not_before: UnixTime(100),
            not_after: UnixTime(200),
            layers: layers.iter().map(|grants| layer(grants)).collect(),
            leaf_carries_grants,
        }
    }

    fn pinned(of: &[u8], grants: Option<&[&str]>) -> Pin {
        Pin {
            fingerprint: Fingerprint::of_der(of),
            name: Name::new("spiffe://example.org/a").unwrap(),
            grants: grants.map(|g| Arc::new(WrittenGrants::parse(g).unwrap())),
            not_after: UnixTime(150),
            delegate: of != b"leaf",
        }
    }

    #[test]
    fn a_chain_is_admitted_from_its_first_second_to_before_its_last() {
        let chain = chain(&[], true);
        let class = |now| check_validity(&chain, UnixTime(now)).err().map(|r| r.class);
        assert_eq!([100, 199].map(class), [None, None]);
        assert_eq!(
            [99, 200].map(class),
            [Some(Class::NotYetValid), Some(Class::Expired)]
        );
    }

    #[test]
    fn the_nearest_pin_decides() {
        let chain = chain(&[], true);
        let unknown = || vec![Standing::Unknown, Standing::Unknown];
        let own = pinned(b"leaf", None);
        assert_eq!(
            pin(Standing::Pinned(own.clone()), unknown(), &chain).unwrap(),
            own
        );
        let delegate = pinned(b"issuer", None);
        let by_delegate = || vec![Standing::Pinned(delegate.clone()), Standing::Unknown];
        assert_eq!(
            pin(Standing::Unknown, by_delegate(), &chain).unwrap(),
            delegate
        );
        assert!(pin(Standing::Unknown, unknown(), &chain).is_err());
        assert!(pin(Standing::Unpinned, by_delegate(), &chain).is_err());
        let plain = Pin {
            delegate: false,
            ..delegate.clone()
        };
        let not_a_delegate = vec![Standing::Pinned(plain), Standing::Unknown];
        assert!(pin(Standing::Unknown, not_a_delegate, &chain).is_err());
        let above = vec![Standing::Unpinned, Standing::Pinned(pinned(b"root", None))];
        assert!(pin(Standing::Unknown, above, &chain).is_err());
    }

    #[test]
    fn a_pin_holds_for_its_name_and_its_time() {
        let chain = chain(&[], true);
        let pin = pinned(b"leaf", None);
        check_pin(&pin, &chain, UnixTime(149)).unwrap();
        assert_eq!(
            check_pin(&pin, &chain, UnixTime(150)).unwrap_err().class,
            Class::Expired
        );
        let other = Pin {
            name: Name::new("b").unwrap(),
            ..pin
        };
        let refusal = check_pin(&other, &chain, UnixTime(149)).unwrap_err();
        assert_eq!(refusal.class, Class::AccessDenied);
        let delegate = Pin {
            name: Name::new("b").unwrap(),
            ..pinned(b"issuer", None)
        };
        check_pin(&delegate, &chain, UnixTime(149)).unwrap();
    }

    #[test]
    fn nobody_comes_in_for_nothing() {
        let some = |layers: &[&[&str]], leaf: bool, pin: Option<&[&str]>| {
            check_some_grant(&chain(layers, leaf), Some(&pinned(b"leaf", pin))).is_ok()
        };
        assert!(some(&[&["tools:read_*"]], true, None));
        assert!(some(&[], false, Some(&["tools:*"])));
        assert!(!some(&[], false, None), "neither grants");
        assert!(
            !some(&[&["tools:*"]], false, None),
            "a ceiling alone grants nothing"
        );
        assert!(!some(&[&[]], true, None), "an empty list");
        assert!(
            !some(&[&["tools:*"], &[]], true, None),
            "a ceiling that excludes all"
        );
        assert!(!some(&[&["tools:read_*"], &["tools:write_*"]], true, None));
        assert!(!some(&[&["tools:*"], &["prompts:*"]], true, None));
        assert!(!some(&[&["tools:a"]], true, Some(&["tools:b"])));
        assert!(some(
            &[&["tools:a", "prompts:p"], &["prompts:*"]],
            true,
            None
        ));
        assert!(
            some(&[&["role:x"], &["prompts:*"]], true, None),
            "a role may be anything"
        );
        assert!(some(&[&["*"], &["resources:file:*"]], true, None));
        assert!(!some(&[&["*"], &["admin:*"]], true, None));
    }

    #[test]
    fn overlap_never_misses_a_text_that_both_match() {
        let patterns = [
            "*", "a*", "*b", "a*b", "ab", "a\\*b", "*a*", "b*", "\\**", "a\\\\*",
        ];
        let texts = [
            "ab", "a", "b", "a*b", "aab", "ba", "*", "a\\", "a\\b", "abab",
        ];
        for one in patterns {
            for other in patterns {
                let grants = [one, other].map(|p| format!("tools:{p}").parse::<Grant>().unwrap());
                let both = |text: &&str| grants.iter().all(|g| g.pattern.matches(text));
                if texts.iter().any(both) {
                    assert!(ends_meet(&grants[0], &grants[1]), "{one} and {other}");
                }
            }
        }
    }
}
