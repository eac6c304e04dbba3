//! Certificates and keys as files and as parsed things: PEM and DER, file modes, SANs, the
//! permission extension, and keys that stay in a token. Judges no chain.

#[cfg(test)]
pub(crate) mod fault;
mod files;
mod key;
mod kind;
mod memory_key;
mod parsed;
mod passphrase;
pub mod pem;
mod pkcs11;

pub use files::{FileError, check_private, load_chain, write_atomic};
pub use key::{
    KeyError, Opener, PrivateKey, decrypt_pkcs8, encrypt_pkcs8, load_key, load_keys, opened_by,
};
pub use kind::{KeyKind, KeyKindError};
pub use memory_key::{MemoryKey, MemoryKeyError};
pub use parsed::{DEFAULT_PERMISSION_OID, ParseError, Parsed};
pub use passphrase::{PassphraseError, read_passphrase};
pub use pkcs11::{KeyUri, Scheme, TokenError, TokenKey, TokenKeyKind, UriError, uri_of};
