//! Certs-only PKCS#7 (RFC 5652 section 5, RFC 7030 section 4.1.3): a signed-data structure that
//! carries certificates and signs nothing. Read strictly as DER; the certificates themselves are
//! taken as they are and judged elsewhere.

/// `id-signedData`, 1.2.840.113549.1.7.2
const SIGNED_DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x02];
/// `id-data`, 1.2.840.113549.1.7.1
const DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x01];

const INTEGER: u8 = 0x02;
const OID: u8 = 0x06;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
/// `[0]`, constructed: the content, and within it the certificates.
const ZERO: u8 = 0xa0;
/// `[1]`, constructed: CRLs, which are skipped.
const ONE: u8 = 0xa1;

/// More certificates than any path has.
const MOST: usize = 64;

/// The bytes are no certs-only structure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a certs-only PKCS#7 structure: {0}")]
pub struct CertsOnlyError(&'static str);

/// Certificates (DER) in one structure, in this order.
#[must_use]
pub fn write_certs_only<'a>(certificates: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let all: Vec<u8> = certificates.into_iter().flatten().copied().collect();
    let signed = [
        element(INTEGER, &[1]),
        element(SET, &[]),
        element(SEQUENCE, &element(OID, DATA)),
        element(ZERO, &all),
        element(SET, &[]),
    ];
    let signed = element(SEQUENCE, &signed.concat());
    element(
        SEQUENCE,
        &[element(OID, SIGNED_DATA), element(ZERO, &signed)].concat(),
    )
}

/// The certificates (DER) of such a structure, in its order: at least one, at most 64.
///
/// # Errors
/// Anything else.
pub fn read_certs_only(der: &[u8]) -> Result<Vec<Vec<u8>>, CertsOnlyError> {
    let mut whole = Reader(der);
    let mut info = Reader(whole.take(SEQUENCE)?);
    whole.end()?;
    if info.take(OID)? != SIGNED_DATA {
        return Err(CertsOnlyError("it is not signed data"));
    }
    let mut content = Reader(info.take(ZERO)?);
    info.end()?;
    let mut signed = Reader(content.take(SEQUENCE)?);
    content.end()?;
    signed.take(INTEGER)?;
    signed.take(SET)?;
    signed.take(SEQUENCE)?;
    let mut certificates = Reader(signed.take(ZERO)?);
    if signed.0.first() == Some(&ONE) {
        signed.take(ONE)?;
    }
    signed.take(SET)?;
    signed.end()?;
    let mut found = Vec::new();
    while !certificates.0.is_empty() {
        if found.len() == MOST {
            return Err(CertsOnlyError("it holds too many certificates"));
        }
        found.push(certificates.whole(SEQUENCE)?.to_vec());
    }
    if found.is_empty() {
        return Err(CertsOnlyError("it holds no certificate"));
    }
    Ok(found)
}

fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    let length = content.len().to_be_bytes();
    let significant = &length[length.iter().take_while(|b| **b == 0).count()..];
    match (content.len(), u8::try_from(significant.len())) {
        (short @ 0..=0x7f, _) => out.extend(u8::try_from(short)),
        (_, Ok(bytes)) => {
            out.push(0x80 | bytes);
            out.extend_from_slice(significant);
        }
        (_, Err(_)) => unreachable!("a length has at most 8 bytes"),
    }
    out.extend_from_slice(content);
    out
}

/// What is left to be read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// The content of the next element, which must have this tag.
    fn take(&mut self, tag: u8) -> Result<&'a [u8], CertsOnlyError> {
        let (head, length) = self.head(tag)?;
        let content = &self.0[head..head + length];
        self.0 = &self.0[head + length..];
        Ok(content)
    }

    /// The next element with its tag and length.
    fn whole(&mut self, tag: u8) -> Result<&'a [u8], CertsOnlyError> {
        let (head, length) = self.head(tag)?;
        let (whole, rest) = self.0.split_at(head + length);
        self.0 = rest;
        Ok(whole)
    }

    /// The sizes of tag and length, and of the content, all of which is there.
    fn head(&self, tag: u8) -> Result<(usize, usize), CertsOnlyError> {
        let short = CertsOnlyError("it ends too early");
        let (found, first) = match self.0 {
            [found, first, ..] => (*found, usize::from(*first)),
            _ => return Err(short),
        };
        if found != tag {
            return Err(CertsOnlyError("an element is not where it belongs"));
        }
        let (head, length) = match first {
            0..=0x7f => (2, first),
            0x81..=0x84 => {
                let bytes = first - 0x80;
                let digits = self.0.get(2..2 + bytes).ok_or(short)?;
                let length = digits.iter().fold(0, |sum, b| sum << 8 | usize::from(*b));
                (2 + bytes, length)
            }
            _ => return Err(CertsOnlyError("a length is not DER")),
        };
        if self.0.len() - head < length {
            return Err(short);
        }
        Ok((head, length))
    }

    fn end(&self) -> Result<(), CertsOnlyError> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(CertsOnlyError("bytes follow its end"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_come_back_in_their_order() {
        for sizes in [&[5][..], &[200, 5], &[70_000, 130, 5]] {
            let all: Vec<Vec<u8>> = sizes
                .iter()
                .map(|n| element(SEQUENCE, &vec![7; *n]))
                .collect();
            let der = write_certs_only(all.iter().map(Vec::as_slice));
            assert_eq!(read_certs_only(&der).unwrap(), all);
        }
    }

    #[test]
    fn what_is_cut_or_longer_or_changed_is_refused_without_a_panic() {
        let one = element(SEQUENCE, &[7; 300]);
        let der = write_certs_only([one.as_slice()]);
        for end in 0..der.len() {
            assert!(read_certs_only(&der[..end]).is_err(), "{end}");
        }
        let longer = [der.as_slice(), &[0]].concat();
        assert!(read_certs_only(&longer).is_err());
        assert!(read_certs_only(&write_certs_only([])).is_err());
        for at in 0..der.len() {
            for bit in 0..8 {
                let mut changed = der.clone();
                changed[at] ^= 1 << bit;
                // Whatever it says then, it says it.
                let _ = read_certs_only(&changed);
            }
        }
    }

    #[test]
    fn the_one_of_openssl_is_read() {
        // openssl crl2pkcs7 -nocrl -certfile … of two certificates, with the certificates cut out.
        let certificates = [element(SEQUENCE, &[1, 2]), element(SEQUENCE, &[3])];
        let mut der = write_certs_only(certificates.iter().map(Vec::as_slice));
        // OpenSSL writes an empty `[1]` for no CRLs.
        let end = der.len() - 2;
        der.splice(end..end, [ONE, 0]);
        for length in [1, 1 + 2 + 9 + 2] {
            der[length] += 2;
        }
        der[1 + 2 + 9 + 2 + 2] += 2;
        der[1 + 2 + 9 + 2] -= 0;
        assert_eq!(read_certs_only(&der).unwrap(), certificates);
    }
}
