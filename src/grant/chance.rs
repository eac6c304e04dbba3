//! A small seeded generator for the property loops of this folder's tests.

/// SplitMix64: the same seed gives the same tests everywhere.
pub(super) struct Chance(u64);

impl Chance {
    pub(super) const fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        usize::try_from((z ^ (z >> 31)) >> 33).unwrap() % end
    }

    /// 1 to `most` pieces of a pattern over a small alphabet.
    pub(super) fn pattern(&mut self, most: usize) -> String {
        let pieces = ["a", "b", "*", "*", r"\*", r"\\", "é", "a"];
        (0..=self.below(most))
            .map(|_| pieces[self.below(pieces.len())])
            .collect()
    }

    /// 0 to `most` characters of the same alphabet.
    pub(super) fn text(&mut self, most: usize) -> String {
        let pieces = ["a", "b", "*", r"\", "é", "a"];
        (0..self.below(most + 1))
            .map(|_| pieces[self.below(pieces.len())])
            .collect()
    }
}
