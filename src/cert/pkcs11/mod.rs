//! Private keys that stay in a PKCS#11 token (a hardware security module, a smart card, SoftHSM) and
//! are used there, named by a URI of RFC 7512 wherever the path of a key file is taken. Reads no
//! private key out of a token, takes no PIN from a URI, and waits for no token without an end.

#[cfg(feature = "cryptoki")]
mod form;
mod key;
#[cfg(any(feature = "cryptoki", test))]
mod link;
mod refusal;
#[cfg(feature = "cryptoki")]
mod slot;
mod uri;

pub use key::{Scheme, TokenKey, TokenKeyKind};
pub use refusal::TokenError;
pub use uri::{KeyUri, UriError, uri_of};
