//! The permission grammar: parse, match, contain, and the certificate extension that carries it.

mod extension;
mod pattern;
mod set;

pub use extension::{ExtensionError, decode_extension, encode_extension};
pub use pattern::{Pattern, PatternError};
pub use set::{Grant, GrantError, GrantSet, Kind, Roles, UnknownRole, WrittenGrant, WrittenGrants};
