//! The permission grammar: parse, match, contain, and the certificate extension that carries it.
//!
//! ```text
//! entry    = "*" / grant / "role:" role
//! grant    = kind ":" pattern
//! kind     = "tools" / "resources" / "prompts" / "admin"
//! pattern  = 1*( character / "*" / "\*" / "\\" )
//! role     = 1*( ALPHA / DIGIT / "_" / "-" / "." )
//! ```
//!
//! An entry is 1 to 512 bytes, a list has at most 256. Grants only allow: what denies is the
//! server's policy, and what combines several sets is `policy`, not this module.

#[cfg(test)]
mod chance;
mod extension;
mod pattern;
mod set;
mod written;

pub use extension::{ExtensionError, decode_extension, encode_extension};
pub use pattern::{Pattern, PatternError};
pub use set::{Grant, GrantError, GrantSet, Kind, Roles};
pub use written::{UnknownRole, WrittenGrant, WrittenGrants};
