//! Who on this machine may use the endpoint: the token, and the names under which a browser may have
//! come here.
//!
//! A page of any site can make a browser send requests to a loopback port, and by a name of its own
//! that it points there (DNS rebinding) it can read the answers. So the request must name this
//! endpoint as its host, and a browser's origin must be this endpoint.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hyper::header::{AUTHORIZATION, HOST, HeaderMap, HeaderName, ORIGIN};
use hyper::http::request::Parts;
use hyper::http::uri::Authority;
use ring::digest::{Digest, SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};

use crate::secret::Secret;

/// The names of this machine for itself.
const NAMES: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];
/// The fewest and the most bytes of a token.
const TOKEN_LENGTHS: std::ops::RangeInclusive<usize> = 16..=4096;

/// What clients must send as `Authorization: Bearer`.
#[derive(Clone, Debug)]
pub struct Token(Secret);

/// The text is no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a token has 16 to 4096 characters of visible ASCII")]
pub struct NotAToken;

impl Token {
    /// A new one of 256 random bits. None without randomness.
    #[must_use]
    pub fn random() -> Option<Self> {
        let mut bits = [0; 32];
        SystemRandom::new().fill(&mut bits).ok()?;
        Some(Self(Secret::from(URL_SAFE_NO_PAD.encode(bits))))
    }

    /// One that somebody else chose.
    ///
    /// # Errors
    /// Too short, too long, or not visible ASCII.
    pub fn given(text: &[u8]) -> Result<Self, NotAToken> {
        if !TOKEN_LENGTHS.contains(&text.len()) || !text.iter().all(u8::is_ascii_graphic) {
            return Err(NotAToken);
        }
        Ok(Self(Secret::new(text.to_vec())))
    }

    /// The token, to be shown to whoever started the endpoint.
    #[must_use]
    pub fn expose(&self) -> &str {
        // Both ways to make one yield ASCII.
        std::str::from_utf8(self.0.expose()).unwrap_or_default()
    }

    fn digest(&self) -> Digest {
        digest(&SHA256, self.0.expose())
    }
}

/// Why a request is refused here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// From a page of another site.
    Origin,
    /// Under another name than this machine's own.
    Host,
    /// Without the token.
    Token,
}

/// Decides who may use the endpoint.
pub struct Guard {
    port: u16,
    /// Only digests are compared: how long that takes tells nothing of the token.
    token: Option<Digest>,
}

impl Guard {
    /// For the endpoint on this port; without a token everybody on this machine may use it.
    pub fn new(port: u16, token: Option<&Token>) -> Self {
        Self {
            port,
            token: token.map(Token::digest),
        }
    }

    /// Looks at a request.
    pub fn check(&self, request: &Parts) -> Result<(), Refusal> {
        if !self.origin_fits(&request.headers) {
            return Err(Refusal::Origin);
        }
        if !self.host_fits(request) {
            return Err(Refusal::Host);
        }
        match &self.token {
            Some(token) if !token_fits(token, &request.headers) => Err(Refusal::Token),
            _ => Ok(()),
        }
    }

    fn origin_fits(&self, headers: &HeaderMap) -> bool {
        if !headers.contains_key(ORIGIN) {
            return true;
        }
        only(headers, &ORIGIN)
            .and_then(|origin| origin.strip_prefix("http://"))
            .is_some_and(|authority| self.is_here(authority))
    }

    fn host_fits(&self, request: &Parts) -> bool {
        let named = request
            .uri
            .authority()
            .is_none_or(|name| self.is_here(name.as_str()));
        named && only(&request.headers, &HOST).is_some_and(|name| self.is_here(name))
    }

    fn is_here(&self, authority: &str) -> bool {
        let Ok(authority) = authority.parse::<Authority>() else {
            return false;
        };
        let plain = !authority.as_str().contains('@');
        plain
            && NAMES
                .iter()
                .any(|name| authority.host().eq_ignore_ascii_case(name))
            && authority.port_u16().unwrap_or(80) == self.port
    }
}

fn token_fits(token: &Digest, headers: &HeaderMap) -> bool {
    let Some((scheme, given)) = only(headers, &AUTHORIZATION).and_then(|said| said.split_once(' '))
    else {
        return false;
    };
    let given = digest(&SHA256, given.trim().as_bytes());
    scheme.eq_ignore_ascii_case("bearer") && given.as_ref() == token.as_ref()
}

/// The value of a header that is there exactly once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

#[cfg(test)]
mod tests {
    use hyper::Request;

    use super::*;

    fn check(guard: &Guard, headers: &[(&str, &str)]) -> Result<(), Refusal> {
        let mut request = Request::post("/mcp");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        guard.check(&request.body(()).unwrap().into_parts().0)
    }

    #[test]
    fn only_this_machines_own_names_are_answered() {
        let guard = Guard::new(4000, None);
        for good in [
            "localhost:4000",
            "LOCALHOST:4000",
            "127.0.0.1:4000",
            "[::1]:4000",
        ] {
            assert_eq!(check(&guard, &[("host", good)]), Ok(()), "{good}");
            let origin = format!("http://{good}");
            assert_eq!(
                check(&guard, &[("host", good), ("origin", &origin)]),
                Ok(()),
                "{good}"
            );
        }
        for bad in [
            "localhost",
            "localhost:4001",
            "evil.example:4000",
            "localhost.evil.example:4000",
            "127.0.0.1.evil.example:4000",
            "a@localhost:4000",
            "10.0.0.1:4000",
            "",
            "localhost:4000x",
        ] {
            assert_eq!(check(&guard, &[("host", bad)]), Err(Refusal::Host), "{bad}");
        }
        assert_eq!(check(&guard, &[]), Err(Refusal::Host));
        let twice = [("host", "localhost:4000"), ("host", "localhost:4000")];
        assert_eq!(check(&guard, &twice), Err(Refusal::Host));
        for bad in [
            "http://evil.example",
            "https://localhost:4000",
            "http://localhost:4001",
            "null",
            "http://localhost:4000/",
            "http://localhost:4000.evil.example",
        ] {
            let refused = check(&guard, &[("host", "localhost:4000"), ("origin", bad)]);
            assert_eq!(refused, Err(Refusal::Origin), "{bad}");
        }
        // On port 80 the port may be left out.
        assert_eq!(
            check(&Guard::new(80, None), &[("host", "localhost")]),
            Ok(())
        );
    }

    #[test]
    fn the_token_is_asked_for_exactly() {
        let token = Token::random().unwrap();
        assert_eq!(format!("{token:?}"), "Token(Secret(redacted))");
        let guard = Guard::new(4000, Some(&token));
        let bearer = format!("Bearer {}", token.expose());
        let host = ("host", "localhost:4000");
        assert_eq!(check(&guard, &[host, ("authorization", &bearer)]), Ok(()));
        let small = bearer.replace("Bearer", "bearer");
        assert_eq!(check(&guard, &[host, ("authorization", &small)]), Ok(()));
        let cut = &bearer[..bearer.len() - 1];
        for bad in [
            "",
            "Bearer",
            "Bearer ",
            token.expose(),
            cut,
            &bearer.replace("Bearer", "Basic"),
        ] {
            let refused = check(&guard, &[host, ("authorization", bad)]);
            assert_eq!(refused, Err(Refusal::Token), "{bad}");
        }
        let twice = [host, ("authorization", &bearer), ("authorization", &bearer)];
        assert_eq!(check(&guard, &twice), Err(Refusal::Token));
        assert_eq!(check(&guard, &[host]), Err(Refusal::Token));
        assert!(Token::given(b"0123456789abcdef").is_ok());
        for bad in [
            &b"short"[..],
            b"0123456789abcde\n",
            b"0123456789 abcdef",
            &[b'x'; 5000],
        ] {
            assert!(Token::given(bad).is_err());
        }
    }
}
