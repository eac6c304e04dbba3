//! Who somebody is: fingerprints, names, SPIFFE IDs. Knows nothing of certificates or connections.

mod fingerprint;
mod name;
mod spiffe;

pub use fingerprint::{Fingerprint, ParseFingerprintError};
pub use name::{Name, NameError};
pub use spiffe::{SpiffeError, SpiffeId};
