//! Looks through the whole memory of a process for what should be gone: what is searched for is
//! kept in a form in which it does not find itself.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pkcs8::PrivateKeyInfoRef;
use pkcs8::der::asn1::{AnyRef, UintRef};
use pkcs8::der::{Decode as _, Reader as _, SliceReader};
use ring::digest;

/// Bytes to look for, and the same backwards: `ring` keeps numbers in little-endian limbs.
pub struct Sought(Vec<u8>);

const MASK: u8 = 0xa5;
/// Algorithms of keys in PKCS#8.
const ECDSA: &str = "1.2.840.10045.2.1";
const ED25519: &str = "1.3.101.112";
/// FIPS 186-5 and SP 800-186, section 3.2.1.
const P256_ORDER: &str = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";
const P384_ORDER: &str = "ffffffffffffffffffffffffffffffffffffffffffffffff\
                          c7634d81f4372ddf581a0db248b0a77aecec196accc52973";
/// What is read at once, in bytes.
const PIECE: usize = 256 * 1024;
/// Of an entry of `/proc/PID/pagemap` (8 bytes, little-endian): in memory, or in swap.
const THERE: u8 = 0xc0;

impl Sought {
    pub fn new(bytes: &[u8]) -> Self {
        // An allocator writes into the first bytes of what it got back, and the rest would not be found.
        let inner = match bytes.len() {
            32.. => &bytes[8..bytes.len() - 8],
            16.. => bytes,
            _ => panic!("too short to be found nowhere by chance"),
        };
        Self(inner.iter().map(|byte| byte ^ MASK).collect())
    }

    /// The secret number of a key, given as PKCS#8: as it is there, and as `ring` keeps it, where that
    /// is another form. Of an RSA key it is a prime.
    pub fn forms_of(pkcs8: &[u8]) -> Vec<Self> {
        let info = PrivateKeyInfoRef::from_der(pkcs8).unwrap();
        let key = AnyRef::from_der(info.private_key.as_bytes()).unwrap();
        let mut fields = SliceReader::new(key.value()).unwrap();
        match info.algorithm.oid.to_string().as_str() {
            // RFC 8410: the seed, of whose hash the second half is kept.
            ED25519 => {
                let hash = digest::digest(&digest::SHA512, key.value());
                vec![Self::new(key.value()), Self::new(&hash.as_ref()[32..])]
            }
            // RFC 5915: the version, then the number.
            ECDSA => {
                fields.decode::<AnyRef<'_>>().unwrap();
                let number = fields.decode::<AnyRef<'_>>().unwrap().value();
                vec![Self::new(number), Self::new(&in_montgomery_form(number))]
            }
            // RFC 8017, appendix A.1.2: version, n, e and d come before the primes.
            _ => {
                for _ in 0..4 {
                    fields.decode::<AnyRef<'_>>().unwrap();
                }
                let prime = fields.decode::<UintRef<'_>>().unwrap();
                vec![Self::new(prime.as_bytes())]
            }
        }
    }

    /// How often it is in the memory of this process that can be written.
    pub fn copies(&self) -> usize {
        self.copies_of("self")
    }

    /// How often it is in that of a process, which this one may look into: a number, or `self`.
    pub fn copies_of(&self, process: &str) -> usize {
        let piece = &mut vec![0; PIECE];
        let own = piece.as_ptr().addr() as u64;
        // Not into itself: what comes before it would be repeated all through it.
        let but = match process {
            "self" => (own, own + PIECE as u64),
            _ => (0, 0),
        };
        let maps = std::fs::read_to_string(format!("/proc/{process}/maps")).unwrap();
        let open = |what| File::open(format!("/proc/{process}/{what}")).unwrap();
        let (memory, pages) = (open("mem"), open("pagemap"));
        let mut found = 0;
        for (from, to) in maps.lines().filter_map(writable) {
            for (from, to) in touched(&pages, from, to) {
                for (from, to) in [(from, to.min(but.0)), (from.max(but.1), to)] {
                    found += self.copies_in(&memory, piece, from, to);
                }
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

/// PKCS#8 of an RSA key of 2048 bits, which `ring` cannot make.
pub fn rsa_pkcs8() -> Vec<u8> {
    let arguments = "genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048";
    let made = Command::new("openssl").args(arguments.split(' ')).output();
    let pem = made.unwrap().stdout;
    let lines = pem.split(|byte| *byte == b'\n');
    let content: Vec<&[u8]> = lines.filter(|line| !line.starts_with(b"-")).collect();
    STANDARD.decode(content.concat()).unwrap()
}

/// A number times 2^(8 · its length), modulo the order of the curve that has numbers of this length.
fn in_montgomery_form(number: &[u8]) -> Vec<u8> {
    let order = match number.len() {
        32 => hex::decode(P256_ORDER).unwrap(),
        _ => hex::decode(P384_ORDER).unwrap(),
    };
    let mut form = number.to_vec();
    for _ in 0..8 * number.len() {
        double(&mut form, &order);
    }
    form
}

/// Twice a number, modulo the order; both are big-endian and of one length.
fn double(number: &mut [u8], order: &[u8]) {
    let mut over = 0;
    for byte in number.iter_mut().rev() {
        let carried = *byte >> 7;
        *byte = *byte << 1 | over;
        over = carried;
    }
    if over == 1 || &*number >= order {
        let mut borrowed = false;
        for (byte, less) in number.iter_mut().zip(order).rev() {
            let (once, first) = byte.overflowing_sub(*less);
            let (twice, second) = once.overflowing_sub(u8::from(borrowed));
            (*byte, borrowed) = (twice, first || second);
        }
    }
}

/// The stretches of pages that were ever touched, of the whole pages from `from` to `to`: an allocator
/// reserves gigabytes that never are.
fn touched(pages: &File, from: u64, to: u64) -> Vec<(u64, u64)> {
    let page = rustix::param::page_size() as u64;
    let mut entries = vec![0; usize::try_from((to - from) / page).unwrap() * 8];
    pages.read_exact_at(&mut entries, from / page * 8).unwrap();
    let there = |entry: &[u8]| entry[7] & THERE != 0;
    let mut at = from;
    let stretches = entries
        .as_chunks::<8>()
        .0
        .chunk_by(|one, next| there(one) == there(next));
    let with_ends = stretches.map(|stretch| {
        let start = at;
        at += stretch.len() as u64 * page;
        there(&stretch[0]).then_some((start, at))
    });
    with_ends.flatten().collect()
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
