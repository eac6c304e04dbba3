//! Which transport an admitted peer speaks: by what ALPN agreed on, else by its first byte.
//!
//! Whoever speaks neither is given to the one whose refusal it can most likely read: a letter is
//! HTTP, which answers with a status line; everything else is the raw stream, which answers with a
//! JSON-RPC error.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt};

/// ALPN of the raw stream.
pub const ALPN_RAW: &[u8] = b"mcp";
/// ALPN of HTTP/2.
pub const ALPN_HTTP2: &[u8] = b"h2";
/// ALPN of HTTP/1.1.
pub const ALPN_HTTP1: &[u8] = b"http/1.1";

/// Bytes of the first read.
const FIRST: usize = 4096;
/// How the connection preface of HTTP/2 begins (RFC 9113, section 3.4); no method of HTTP/1.1 does.
const PREFACE: &[u8] = b"PRI ";

/// What a peer speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// One message a line.
    Raw,
    /// HTTP/1.1: Streamable HTTP, or WebSocket by upgrade.
    Http1,
    /// HTTP/2: Streamable HTTP, or WebSocket by extended CONNECT.
    Http2,
}

/// Why there is nothing to choose.
#[derive(Debug, thiserror::Error)]
pub enum ChooseError {
    /// It said nothing in time.
    #[error("no first byte within {0:?}")]
    Silent(Duration),
    /// It closed its side without a word.
    #[error("closed before the first byte")]
    Closed,
    /// The connection broke.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Way {
    /// What ALPN agreed on; `None` for a protocol that is none of ours.
    #[must_use]
    pub fn named(alpn: &[u8]) -> Option<Self> {
        [
            (ALPN_RAW, Self::Raw),
            (ALPN_HTTP2, Self::Http2),
            (ALPN_HTTP1, Self::Http1),
        ]
        .into_iter()
        .find_map(|(name, way)| (name == alpn).then_some(way))
    }

    /// What these first bytes begin; `None` while that is open.
    fn of(first: &[u8]) -> Option<Self> {
        let byte = first.first()?;
        if !byte.is_ascii_alphabetic() {
            return Some(Self::Raw);
        }
        let common = first
            .iter()
            .zip(PREFACE)
            .take_while(|(a, b)| a == b)
            .count();
        if common == PREFACE.len() {
            Some(Self::Http2)
        } else {
            (common < first.len()).then_some(Self::Http1)
        }
    }
}

/// Decides. Without an agreement it reads the first bytes, which it gives back to be read again.
///
/// # Errors
/// [`ChooseError`]: the connection is to be closed.
pub async fn choose<S: AsyncRead + Unpin>(
    alpn: Option<&[u8]>,
    stream: &mut S,
    limit: Duration,
) -> Result<(Way, BytesMut), ChooseError> {
    if let Some(way) = alpn.and_then(Way::named) {
        return Ok((way, BytesMut::new()));
    }
    let mut first = BytesMut::with_capacity(FIRST);
    let reading = async {
        loop {
            if let Some(way) = Way::of(&first) {
                return Ok(way);
            }
            if stream.read_buf(&mut first).await? == 0 {
                return Err(ChooseError::Closed);
            }
        }
    };
    let way = match tokio::time::timeout(limit, reading).await {
        Ok(way) => way?,
        Err(_) => return Err(ChooseError::Silent(limit)),
    };
    Ok((way, first))
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    async fn chosen(alpn: Option<&[u8]>, says: &[u8]) -> Result<(Way, BytesMut), ChooseError> {
        let (mut near, mut far) = tokio::io::duplex(64);
        for byte in says {
            far.write_all(&[*byte]).await.unwrap();
        }
        drop(far);
        choose(alpn, &mut near, LONG).await
    }

    #[tokio::test]
    async fn the_agreement_decides_and_nothing_is_read() {
        for (alpn, way) in [
            (ALPN_RAW, Way::Raw),
            (ALPN_HTTP1, Way::Http1),
            (ALPN_HTTP2, Way::Http2),
        ] {
            let (chosen, read) = chosen(Some(alpn), b"{").await.unwrap();
            assert_eq!((chosen, read.len()), (way, 0));
        }
    }

    #[tokio::test]
    async fn the_first_byte_decides_and_is_given_back() {
        for (says, way) in [
            (&b"{\"a\":1}"[..], Way::Raw),
            (b"[", Way::Raw),
            (b" {", Way::Raw),
            (b"\n", Way::Raw),
            (b"\xef\xbb\xbf{", Way::Raw),
            (b"\x16\x03", Way::Raw),
            (b"7", Way::Raw),
            (b"GET / HTTP/1.1", Way::Http1),
            (b"POST /", Way::Http1),
            (b"PRIVATE /", Way::Http1),
            (b"PRI * HTTP/2.0", Way::Http2),
        ] {
            let (mut near, mut far) = tokio::io::duplex(64);
            far.write_all(says).await.unwrap();
            let (chosen, read) = choose(None, &mut near, LONG).await.unwrap();
            assert_eq!((chosen, &read[..]), (way, says), "{says:?}");
        }
        // The same, byte by byte; only what is needed has to be there.
        assert_eq!(chosen(None, b"PO").await.unwrap().0, Way::Http1);
        assert_eq!(chosen(None, b"PRI ").await.unwrap().0, Way::Http2);
        assert!(matches!(
            chosen(None, b"PR").await,
            Err(ChooseError::Closed)
        ));
        assert!(matches!(chosen(None, b"").await, Err(ChooseError::Closed)));
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends() {
        let (mut near, _far) = tokio::io::duplex(64);
        let silent = choose(None, &mut near, LONG).await;
        assert!(matches!(silent, Err(ChooseError::Silent(LONG))));
    }
}
