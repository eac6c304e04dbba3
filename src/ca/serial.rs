//! Serial numbers.

use ring::rand::{SecureRandom, SystemRandom};

/// The random source of the operating system did not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the operating system gives no random numbers")]
pub struct RandomError;

/// A fresh serial number: 17 octets, of which 16 are random.
///
/// The leading octet is always 1, so the number is positive and not zero (RFC 5280 section
/// 4.1.2.2), has the same length in every tool's display, and keeps all 128 random bits: DER drops
/// no leading zero and adds none.
pub fn fresh() -> Result<[u8; 17], RandomError> {
    let mut serial = [1; 17];
    SystemRandom::new()
        .fill(&mut serial[1..])
        .map_err(|_| RandomError)?;
    Ok(serial)
}

/// `bytes` random bytes as lower-case hex.
pub fn token(bytes: usize) -> Result<String, RandomError> {
    let mut random = vec![0; bytes];
    SystemRandom::new()
        .fill(&mut random)
        .map_err(|_| RandomError)?;
    Ok(hex::encode(random))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn serials_are_positive_long_and_different() {
        let serials: HashSet<[u8; 17]> = (0..1000).map(|_| fresh().unwrap()).collect();
        assert_eq!(serials.len(), 1000);
        assert!(
            serials.iter().all(|serial| serial[0] == 1),
            "a leading 1 keeps the sign bit clear"
        );
        // All 128 bits move: no bit of the random part is the same in a thousand of them.
        for bit in 8..17 * 8 {
            let ones = serials
                .iter()
                .filter(|s| s[bit / 8] >> (bit % 8) & 1 == 1)
                .count();
            assert!(
                (300..700).contains(&ones),
                "bit {bit} is set in {ones} of 1000"
            );
        }
    }
}
