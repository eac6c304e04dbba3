//! Our own certificate chain and key, from PEM files with checked modes.
use std::path::Path;
#[derive(Debug, thiserror::Error)]
pub enum IdentityError { #[error("`{path}`: {cause}")] File { path: String, cause: String } }
/// Chain and key, leaf first.
#[derive(Debug, Clone)]
pub struct Identity {}
impl Identity {
    /// `cert`: PEM chain; `key`: PKCS#8 PEM, plain or encrypted (then `passphrase` is needed).
    /// # Errors
    /// Unreadable, a key that others can read, a key that does not fit the certificate.
    pub fn load(cert: &Path, key: &Path, passphrase: Option<&crate::secret::Secret>) -> Result<Self, IdentityError> { let _ = (cert, key, passphrase); todo!() }
}
