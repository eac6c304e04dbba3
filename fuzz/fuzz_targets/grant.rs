//! The grant grammar: printing is the inverse of parsing, and containment agrees with matching.
//!
//! The input is up to three lines: a grant, another, and a target.
#![no_main]
#![allow(
    dead_code,
    unused_imports,
    reason = "a whole module is included for a part of it"
)]

use libfuzzer_sys::fuzz_target;

#[path = "../../src/grant/mod.rs"]
mod grant;

use grant::{Grant, GrantSet, Pattern, WrittenGrant};

/// Matching as the words of the grammar say it, with no regard for time: the judge.
fn matches_by_the_book(pattern: &str, text: &str) -> bool {
    /// A literal character or a star.
    #[derive(Clone, Copy, PartialEq)]
    enum Piece {
        Char(char),
        Star,
    }
    let mut pieces = Vec::new();
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        match c {
            '*' => pieces.push(Piece::Star),
            '\\' => match chars.clone().next() {
                Some(escaped @ ('*' | '\\')) => {
                    chars.next();
                    pieces.push(Piece::Char(escaped));
                }
                _ => pieces.push(Piece::Char('\\')),
            },
            other => pieces.push(Piece::Char(other)),
        }
    }
    let text: Vec<char> = text.chars().collect();
    // reach[i]: the pieces so far match the first i characters.
    let mut reach = vec![false; text.len() + 1];
    reach[0] = true;
    for piece in pieces {
        let mut next = vec![false; text.len() + 1];
        match piece {
            Piece::Star => {
                let mut any = false;
                for i in 0..=text.len() {
                    any |= reach[i];
                    next[i] = any;
                }
            }
            Piece::Char(c) => {
                for i in 0..text.len() {
                    next[i + 1] = reach[i] && text[i] == c;
                }
            }
        }
        reach = next;
    }
    reach[text.len()]
}

fuzz_target!(|input: &str| {
    let mut lines = input.splitn(3, '\n');
    let (one, two, target) = (
        lines.next().unwrap_or(""),
        lines.next().unwrap_or(""),
        lines.next().unwrap_or(""),
    );

    if let Ok(written) = one.parse::<WrittenGrant>() {
        let printed = written.to_string();
        assert_eq!(
            printed.parse::<WrittenGrant>().as_ref(),
            Ok(&written),
            "`{printed}` reads back as it was written"
        );
    }
    let Ok(first) = one.parse::<Grant>() else {
        return;
    };
    assert_eq!(first.to_string().parse::<Grant>().as_ref(), Ok(&first));
    assert!(
        first.pattern.contains(&first.pattern),
        "`{first}` contains itself"
    );
    if target.len() <= 256 {
        assert_eq!(
            first.pattern.matches(target),
            matches_by_the_book(&first.pattern.to_string(), target),
            "`{first}` and `{target}`"
        );
    }
    let set = GrantSet::new(vec![first.clone()]);
    assert_eq!(
        set.allows(first.kind, target),
        first.pattern.matches(target)
    );
    assert!(
        set.first_outside(&set).is_none(),
        "a set lies within itself"
    );

    let Ok(second) = two.parse::<Grant>() else {
        return;
    };
    // Soundness of containment: whatever the inner one matches, the outer one matches too.
    if first.pattern.contains(&second.pattern) && second.pattern.matches(target) {
        assert!(
            first.pattern.matches(target),
            "`{first}` contains `{second}`, which alone matches `{target}`"
        );
    }
    if first.kind != second.kind {
        assert_eq!(
            set.first_outside(&GrantSet::new(vec![second.clone()])),
            Some(&second),
            "kinds are apart"
        );
    }
    let everything: Pattern = "*".parse().expect("the star is a pattern");
    assert!(everything.contains(&second.pattern));
});
