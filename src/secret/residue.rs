//! Looks through the whole memory of this process for what should be gone: what is searched for is
//! kept in a form in which it does not find itself.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

/// Bytes to look for, and the same backwards: `ring` keeps numbers in little-endian limbs.
pub struct Sought(Vec<u8>);

const MASK: u8 = 0xa5;

impl Sought {
    pub fn new(bytes: &[u8]) -> Self {
        assert!(bytes.len() >= 16, "too short to be found nowhere by chance");
        Self(bytes.iter().map(|byte| byte ^ MASK).collect())
    }

    /// How often it is in the memory that can be written.
    pub fn copies(&self) -> usize {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let memory = File::open("/proc/self/mem").unwrap();
        let mut piece = vec![0; 256 * 1024];
        let piece_from = piece.as_ptr().addr() as u64;
        let piece_to = piece_from + piece.len() as u64;
        let mut found = 0;
        for (from, to) in maps.lines().filter_map(writable) {
            // Not into itself: what comes before it would be repeated all through it.
            for (from, to) in [(from, to.min(piece_from)), (from.max(piece_to), to)] {
                found += self.copies_in(&memory, &mut piece, from, to);
            }
        }
        found
    }

    /// Piece by piece; each is forgotten once it was looked through.
    fn copies_in(&self, memory: &File, piece: &mut [u8], from: u64, to: u64) -> usize {
        let (mut at, mut found) = (from, 0);
        while at < to {
            let wanted = piece.len().min(usize::try_from(to - at).unwrap());
            let Ok(count @ 1..) = memory.read_at(&mut piece[..wanted], at) else {
                break;
            };
            found += self.within(&piece[..count]);
            piece[..count].fill(0);
            let end = at + count as u64;
            // What lies across the border is in both pieces.
            at = if end == to {
                end
            } else {
                end - (self.0.len() as u64 - 1)
            };
        }
        found
    }

    fn within(&self, piece: &[u8]) -> usize {
        let same = |(found, sought): (&u8, &u8)| found ^ MASK == *sought;
        let (first, last) = (self.0[0] ^ MASK, self.0[self.0.len() - 1] ^ MASK);
        let ends = memchr::memchr2_iter(first, last, piece);
        ends.filter_map(|at| piece.get(at..at + self.0.len()))
            .filter(|found| {
                let forwards = found.iter().zip(&self.0).all(same);
                forwards || found.iter().zip(self.0.iter().rev()).all(same)
            })
            .count()
    }
}

fn writable(line: &str) -> Option<(u64, u64)> {
    let mut fields = line.split_whitespace();
    let (range, mode) = (fields.next()?, fields.next()?);
    if !mode.starts_with("rw") {
        return None;
    }
    let (from, to) = range.split_once('-')?;
    let number = |text| u64::from_str_radix(text, 16).ok();
    Some((number(from)?, number(to)?))
}
