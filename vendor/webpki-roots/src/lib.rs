//! In place of the list of roots that browsers trust: none.
//!
//! sqlx has no build with TLS and without such a list, and adds it to the CA that `sslrootcert` names. The
//! registry's database would then be whatever any public CA vouches for. `Cargo.toml` puts this crate
//! where sqlx looks (`[patch.crates-io]`), so only the CA of the configuration is left.

/// No roots.
pub const TLS_SERVER_ROOTS: &[rustls_pki_types::TrustAnchor<'static>] = &[];
