//! Patterns: `*` stands for any run of characters, also none; `\*` is a literal star and `\\` a
//! literal backslash. A backslash before anything else is refused, so that no text has two readings.

use std::fmt;
use std::str::FromStr;

use memchr::memmem;

/// The longest pattern, and the longest entry of a grant list, in bytes.
pub(super) const MAX_BYTES: usize = 512;

/// Stands for a star of the contained pattern in [`Pattern::contains`]. It is no byte of any UTF-8
/// text, so only a star of the containing pattern can cover it.
const FOREIGN: u8 = 0xFF;

/// A checked pattern, compiled: the literal runs between its stars, escapes resolved.
///
/// Displays exactly as it was written. Two patterns are equal when they were written alike.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pattern {
    text: Box<str>,
    /// One more than there are stars: the first is a prefix, the last a suffix; the only one of a
    /// pattern without stars is the whole text.
    runs: Box<[Box<[u8]>]>,
    /// What a text must begin with; most patterns of a set are ruled out by it at a glance.
    first: Option<u8>,
    /// Bytes that a text must have; all that it has, where there is no star.
    least: usize,
}

/// Why a text is no pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Nothing at all; it would match nothing but the empty name.
    #[error("a pattern is empty")]
    Empty,
    /// More than 512 bytes, together with the kind where it stands in a grant.
    #[error("a pattern is longer than 512 bytes")]
    TooLong,
    /// `\` at the end or before another character than `*` and `\`.
    #[error("a backslash in a pattern stands only before `*` or another backslash")]
    Escape,
    /// Control characters would forge lines in a log and cells in a table.
    #[error("a pattern holds a control character")]
    Control,
}

impl Pattern {
    /// Whether `text` matches. Takes time linear in `text` and the pattern, whatever they are.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        self.matches_bytes(text.as_bytes())
    }

    /// Whether everything that `other` matches is matched by this one. Exact.
    ///
    /// A text that `other` matches is its literal runs with anything between them. This pattern
    /// matches all of them if and only if it matches the one in which that anything is a symbol
    /// that no literal of this pattern can meet: whichever star covers the symbol covers whatever
    /// stands in its place.
    #[must_use]
    pub fn contains(&self, other: &Self) -> bool {
        self.matches_bytes(&other.runs.join(&FOREIGN))
    }

    /// Whether it matches everything.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.runs.len() > 1 && self.runs.iter().all(|run| run.is_empty())
    }

    /// The pattern that matches exactly this text: stars and backslashes escaped.
    ///
    /// # Errors
    /// As for a pattern that is written.
    pub fn literal(text: &str) -> Result<Self, PatternError> {
        let mut written = String::with_capacity(text.len());
        for c in text.chars() {
            if matches!(c, '*' | '\\') {
                written.push('\\');
            }
            written.push(c);
        }
        written.parse()
    }

    /// The pattern of a URI template (RFC 6570): every expression may become any text, so that the
    /// pattern matches all that the template can become, and more.
    ///
    /// # Errors
    /// As for a pattern that is written.
    pub fn of_template(template: &str) -> Result<Self, PatternError> {
        let mut written = String::with_capacity(template.len());
        let mut inside = false;
        for c in template.chars() {
            match c {
                '{' if !inside => {
                    inside = true;
                    written.push('*');
                }
                '}' if inside => inside = false,
                _ if inside => (),
                '*' | '\\' => written.extend(['\\', c]),
                other => written.push(other),
            }
        }
        written.parse()
    }

    /// Whether some text is matched by both patterns. Exact; time is the product of the lengths.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        let (left, right) = (self.symbols(), other.symbols());
        // `row[j]`: whether what is left of the one and `right[j..]` have a text in common.
        let mut row = vec![false; right.len() + 1];
        for i in (0..=left.len()).rev() {
            let mut below = row.clone();
            for j in (0..=right.len()).rev() {
                let after_both = below.get(j + 1).copied().unwrap_or(false);
                row[j] = match (left.get(i), right.get(j)) {
                    (None, None) => true,
                    // A star stands for nothing, or for the next symbol of the other.
                    (Some(None), Some(_)) => below[j] || row[j + 1],
                    (Some(None), None) => below[j],
                    (Some(_), Some(None)) => row[j + 1] || below[j],
                    (None, Some(None)) => row[j + 1],
                    (Some(a), Some(b)) => a == b && after_both,
                    (None, Some(_)) | (Some(_), None) => false,
                };
            }
            below.clear();
        }
        row[0]
    }

    /// The pattern as bytes, `None` for a star.
    fn symbols(&self) -> Vec<Option<u8>> {
        let mut out = Vec::new();
        for (index, run) in self.runs.iter().enumerate() {
            if index > 0 {
                out.push(None);
            }
            out.extend(run.iter().copied().map(Some));
        }
        out
    }

    fn matches_bytes(&self, text: &[u8]) -> bool {
        if text.len() < self.least || self.first.is_some() && self.first != text.first().copied() {
            return false;
        }
        let [first, between @ .., last] = &*self.runs else {
            return text.len() == self.least && self.runs.iter().all(|only| **only == *text);
        };
        let Some(rest) = text.strip_prefix(&**first) else {
            return false;
        };
        let Some(mut rest) = rest.strip_suffix(&**last) else {
            return false;
        };
        // The leftmost place for each run leaves the most for those that follow, so nothing that is
        // found is ever given back.
        for run in between {
            match find(rest, run) {
                Some(at) => rest = &rest[at + run.len()..],
                None => return false,
            }
        }
        true
    }
}

/// Texts up to this length are looked through place by place: names are short, and setting up a
/// search that stays linear costs more than it saves there.
const SHORT: usize = 128;

/// The first place of `run` in `text`, in time linear in both.
fn find(text: &[u8], run: &[u8]) -> Option<usize> {
    if text.len() > SHORT {
        return memmem::find(text, run);
    }
    let Some((first, others)) = run.split_first() else {
        return Some(0);
    };
    let last = text.len().checked_sub(run.len())?;
    (0..=last).find(|&at| text[at] == *first && text[at + 1..].starts_with(others))
}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        if text.is_empty() {
            return Err(PatternError::Empty);
        }
        if text.len() > MAX_BYTES {
            return Err(PatternError::TooLong);
        }
        if text.chars().any(char::is_control) {
            return Err(PatternError::Control);
        }
        let mut runs = Vec::new();
        let mut run = Vec::new();
        let mut bytes = text.bytes();
        while let Some(byte) = bytes.next() {
            match byte {
                b'*' => runs.push(std::mem::take(&mut run).into_boxed_slice()),
                b'\\' => match bytes.next() {
                    Some(escaped @ (b'*' | b'\\')) => run.push(escaped),
                    _ => return Err(PatternError::Escape),
                },
                other => run.push(other),
            }
        }
        runs.push(run.into_boxed_slice());
        Ok(Self {
            text: text.into(),
            first: runs.first().and_then(|run| run.first()).copied(),
            least: runs.iter().map(|run| run.len()).sum(),
            runs: runs.into_boxed_slice(),
        })
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::super::chance::Chance;
    use super::*;

    #[test]
    fn overlap_agrees_with_looking_for_a_common_text() {
        // Every text over two letters up to length 6 against every pair of small patterns.
        let mut texts = vec![String::new()];
        for at in 0..126 {
            texts.push(format!("{}a", texts[at]));
            texts.push(format!("{}b", texts[at]));
        }
        let shapes = [
            "*", "a", "a*", "*a", "*ab", "b*a", "a*b*a", "ab", "*b*", "bb*", "*aa*b",
        ];
        for left in shapes.map(pattern) {
            for right in shapes.map(pattern) {
                let common = texts
                    .iter()
                    .any(|text| left.matches(text) && right.matches(text));
                assert_eq!(left.overlaps(&right), common, "{left} {right}");
            }
        }
    }

    #[test]
    fn a_template_becomes_a_pattern() {
        let template = Pattern::of_template("file:///a*b/{+path}/x").unwrap();
        assert!(template.matches("file:///a*b/c/d/x"));
        assert!(!template.matches("file:///aXb/c/x"));
        assert!(template.overlaps(&pattern("file:///a\\*b/docs/*")));
        assert!(!template.overlaps(&pattern("file:///other/*")));
    }

    fn pattern(text: &str) -> Pattern {
        text.parse().unwrap()
    }

    #[test]
    fn a_star_stands_for_any_run() {
        for (written, text, expected) in [
            ("read_file", "read_file", true),
            ("read_file", "read_file2", false),
            ("read_*", "read_", true),
            ("read_*", "rea", false),
            ("*", "", true),
            ("*", "anything", true),
            ("**", "x", true),
            ("a*b*c", "abc", true),
            ("a*b*c", "a-c-b-b-c", true),
            ("a*b*c", "ac", false),
            ("ab*ba", "aba", false),
            ("ab*ba", "abba", true),
            ("*é*", "caf\u{e9}s", true),
            (r"a\*", "a*", true),
            (r"a\*", "ab", false),
            (r"a\\*", r"a\b", true),
            (r"a\\*", "ab", false),
        ] {
            assert_eq!(
                pattern(written).matches(text),
                expected,
                "{written} on {text}"
            );
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for (written, error) in [
            ("", PatternError::Empty),
            ("\\", PatternError::Escape),
            (r"a\n", PatternError::Escape),
            (r"a\\\", PatternError::Escape),
            ("a\nb", PatternError::Control),
            (&"a".repeat(513), PatternError::TooLong),
        ] {
            assert_eq!(written.parse::<Pattern>(), Err(error), "{written}");
        }
        assert!("a".repeat(512).parse::<Pattern>().is_ok());
    }

    #[test]
    fn a_literal_matches_itself_and_nothing_else() {
        let star = Pattern::literal(r"a*\b").unwrap();
        assert!(star.matches(r"a*\b"));
        assert!(!star.matches(r"axx\b"));
        assert_eq!(star.to_string(), r"a\*\\b");
    }

    #[test]
    fn short_and_long_texts_are_searched_alike() {
        let inner = pattern("x*abc*abd*y");
        for length in [0, 1, 60, SHORT - 12, SHORT, SHORT + 1, 5 * SHORT] {
            let filler = "ab".repeat(length);
            let good = format!("x{filler}abc{filler}abdy");
            assert!(inner.matches(&good), "{length}");
            let bad = format!("x{filler}abd{filler}abcy");
            assert!(!inner.matches(&bad), "{length}");
        }
    }

    #[test]
    fn a_pattern_made_to_blow_up_is_answered_at_once() {
        // A backtracking matcher needs more steps here than there are atoms.
        let hard = pattern(&"a*".repeat(200));
        assert!(!hard.matches(&("a".repeat(199) + &"b".repeat(100_000))));
        assert!(hard.matches(&"a".repeat(200)));
    }

    #[test]
    fn the_textbook_matcher_agrees() {
        // Dynamic programming over characters, as slow and as plain as can be.
        fn textbook(pattern: &[char], text: &[char]) -> bool {
            match pattern {
                [] => text.is_empty(),
                ['\\', c, rest @ ..] => text.first() == Some(c) && textbook(rest, &text[1..]),
                ['*', rest @ ..] => (0..=text.len()).any(|n| textbook(rest, &text[n..])),
                [c, rest @ ..] => text.first() == Some(c) && textbook(rest, &text[1..]),
            }
        }
        let mut chance = Chance::seeded(1);
        let mut matched = 0;
        for _ in 0..20_000 {
            let written = chance.pattern(6);
            let text = chance.text(7);
            let (p, t): (Vec<char>, Vec<char>) =
                (written.chars().collect(), text.chars().collect());
            let expected = textbook(&p, &t);
            matched += usize::from(expected);
            assert_eq!(
                pattern(&written).matches(&text),
                expected,
                "{written} on {text}"
            );
        }
        assert!(matched > 1_000, "the texts hardly ever match: {matched}");
    }

    #[test]
    fn containing_agrees_with_matching() {
        // All texts of up to five characters decide: over patterns as short as these, a text that
        // tells two of them apart is no longer than that.
        let mut texts = vec![String::new()];
        for start in 0.. {
            let Some(text) = texts
                .get(start)
                .filter(|text| text.chars().count() < 5)
                .cloned()
            else {
                break;
            };
            texts.extend(['a', 'b', '*', '\\', 'é'].map(|c| format!("{text}{c}")));
        }
        let mut chance = Chance::seeded(2);
        let (mut inside, mut outside) = (0, 0);
        for _ in 0..1_500 {
            let (p, q) = (pattern(&chance.pattern(4)), pattern(&chance.pattern(4)));
            let by_matching = texts.iter().all(|text| !p.matches(text) || q.matches(text));
            assert_eq!(q.contains(&p), by_matching, "{q} contains {p}");
            *(if by_matching {
                &mut inside
            } else {
                &mut outside
            }) += 1;
        }
        assert!(inside > 100 && outside > 100, "{inside} {outside}");
    }

    #[test]
    fn containing_is_exact_where_a_prefix_test_is_not() {
        for (q, p, expected) in [
            ("*", "a*b", true),
            ("a*", "a*b*", true),
            ("a*b", "a*", false),
            ("*a*", "b*ab", true),
            ("a*a", "a", false),
            ("a**", "a*", true),
            (r"\*", "*", false),
            ("*", r"\*", true),
            (r"a\*", r"a\*", true),
        ] {
            assert_eq!(
                pattern(q).contains(&pattern(p)),
                expected,
                "{q} contains {p}"
            );
        }
    }

    #[test]
    fn everything_is_stars_only() {
        assert!(pattern("*").is_everything());
        assert!(pattern("***").is_everything());
        assert!(!pattern("*a").is_everything());
        assert!(!pattern(r"\*").is_everything());
    }
}
