//! The preface of HTTP/2 (RFC 9113, section 3.4) where it is missing, and where it does not belong.
//! Either way the peer is told in a frame of HTTP/2, behind the empty SETTINGS with which a server
//! begins.

/// How a client begins.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// A SETTINGS frame that sets nothing.
pub const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
/// GOAWAY, no stream was looked at, PROTOCOL_ERROR: what came is not HTTP/2.
pub const NOT_HTTP2: [u8; 17] = goaway(0x1);
/// GOAWAY, no stream was looked at, HTTP_1_1_REQUIRED: ALPN agreed on that.
pub const HTTP1_REQUIRED: [u8; 17] = goaway(0xd);

const fn goaway(code: u8) -> [u8; 17] {
    [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, code]
}

/// How much of the preface has been read.
#[derive(Debug, Default)]
pub struct Preface {
    read: u8,
    wrong: bool,
}

impl Preface {
    /// Whether all of it was read.
    pub const fn is_over(&self) -> bool {
        self.read as usize == PREFACE.len()
    }

    /// Whether something else was.
    pub const fn is_wrong(&self) -> bool {
        self.wrong
    }

    /// Looks at what comes next; whether it goes on with the preface.
    pub fn goes_on(&mut self, bytes: &[u8]) -> bool {
        let left = &PREFACE[usize::from(self.read)..];
        let count = bytes.len().min(left.len());
        self.wrong = bytes[..count] != left[..count];
        if !self.wrong {
            self.read += u8::try_from(count).unwrap_or_default();
        }
        !self.wrong
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_preface_is_told_however_it_is_cut() {
        for cut in 0..PREFACE.len() {
            let mut preface = Preface::default();
            assert!(preface.goes_on(&PREFACE[..cut]));
            assert!(!preface.is_over() && !preface.is_wrong());
            let rest = [&PREFACE[cut..], b"and frames"].concat();
            assert!(preface.goes_on(&rest) && preface.is_over());
            let mut preface = Preface::default();
            assert!(preface.goes_on(&PREFACE[..cut]));
            assert!(!preface.goes_on(b"\x00") && preface.is_wrong());
        }
    }
}
