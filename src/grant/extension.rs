//! `CountersignPermissions ::= SEQUENCE { version INTEGER { v1(1) }, grants SEQUENCE SIZE (0..256) OF UTF8String (SIZE (1..512)) }`

use super::set::{GrantError, WrittenGrants};

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExtensionError {
    #[error("the permission extension is not the DER that it should be: {0}")]
    Der(&'static str),
    #[error("the permission extension has version {0}, this program knows 1")]
    Version(u64),
    #[error("the permission extension: {0}")]
    Grant(#[from] GrantError),
}

/// The extension's content (the OCTET STRING's inside), strict DER.
/// # Errors
/// Not DER, trailing bytes, another version, too many or too long entries, or one that does not parse.
pub fn decode_extension(der: &[u8]) -> Result<WrittenGrants, ExtensionError> { todo!("{}", der.len()) }

/// The DER content for these grants.
#[must_use]
pub fn encode_extension(grants: &WrittenGrants) -> Vec<u8> { todo!("{grants:?}") }
