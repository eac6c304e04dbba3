//! PKCS#8 private keys, plain or as `EncryptedPrivateKeyInfo` (scrypt, AES-256-CBC), which OpenSSL opens too.
use std::path::Path;
use crate::secret::Secret;
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error(transparent)] File(#[from] super::files::FileError),
    #[error("`{path}` holds no PKCS#8 private key in PEM")] NotAKey { path: String },
    #[error("`{path}` is encrypted and no passphrase was given")] PassphraseNeeded { path: String },
    #[error("`{path}`: the passphrase is wrong")] WrongPassphrase { path: String },
    #[error("the key cannot be encrypted: {0}")] Encrypt(String),
}
/// PKCS#8 `PrivateKeyInfo` DER; wiped when dropped.
#[derive(Clone, Debug)]
pub struct PrivateKey(pub Secret);
/// # Errors
/// As [`KeyError`] says; a file that others can read is refused.
pub fn load_key(path: &Path, passphrase: Option<&Secret>) -> Result<PrivateKey, KeyError> { let _ = passphrase; todo!("{}", path.display()) }
/// PEM text of the encrypted key.
/// # Errors
/// The key is not PKCS#8.
pub fn encrypt_pkcs8(key: &PrivateKey, passphrase: &Secret) -> Result<String, KeyError> { let _ = (key, passphrase); todo!() }
/// # Errors
/// Not an encrypted key, or a wrong passphrase; `path` is for the message.
pub fn decrypt_pkcs8(pem: &str, passphrase: &Secret, path: &str) -> Result<PrivateKey, KeyError> { let _ = (pem, passphrase, path); todo!() }
