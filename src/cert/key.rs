//! PKCS#8 private keys, plain or as `EncryptedPrivateKeyInfo` (scrypt, AES-256-CBC), which OpenSSL
//! opens too. Older forms (`EC PRIVATE KEY`, `RSA PRIVATE KEY`) are refused.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pkcs8::der::{Decode, EncodePem};
use pkcs8::pkcs5::{pbes2, scrypt};
use pkcs8::{EncryptedPrivateKeyInfoRef, LineEnding, PrivateKeyInfoRef};
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use super::files::{FileError, read_private};
use super::pkcs11::{TokenError, UriError, uri_of};
use crate::secret::{Secret, on_wiped_stack};

/// scrypt's cost: N = 2^14, r = 8, p = 5; about 0.2 s and 16 MiB for one try. OpenSSL 3 opens
/// nothing that takes 32 MiB or more, so the cost above its default is in p and not in N.
const SCRYPT: (u8, u32, u32) = (14, 8, 5);

const PLAIN: &str = "PRIVATE KEY";
const ENCRYPTED: &str = "ENCRYPTED PRIVATE KEY";

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file is not there, not private, or not readable.
    #[error(transparent)]
    File(#[from] FileError),
    /// No section of the right label, or its content is damaged.
    #[error("`{path}` holds no PKCS#8 private key in PEM")]
    NotAKey {
        /// The file.
        path: String,
    },
    /// An encrypted key, and nothing to open it with.
    #[error("`{path}` is encrypted and no passphrase was given")]
    PassphraseNeeded {
        /// The file.
        path: String,
    },
    /// Opened to something that is no key.
    #[error("`{path}`: the passphrase is wrong")]
    WrongPassphrase {
        /// The file.
        path: String,
    },
    /// A URI in the place of a path or a key.
    #[error("`{path}`: {cause}")]
    Uri {
        /// The file; of a URI only its scheme.
        path: String,
        /// What is wrong.
        cause: UriError,
    },
    /// A key in a token.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// Not PKCS#8, or the system gives no random numbers.
    #[error("the key cannot be encrypted: {0}")]
    Encrypt(String),
}

/// PKCS#8 `PrivateKeyInfo` DER; wiped when dropped.
#[derive(Clone, Debug)]
pub struct PrivateKey(pub Secret);

/// The private key of a PEM file, plain or encrypted. A passphrase for a plain key is not used.
///
/// # Errors
/// As [`KeyError`] says; a file that others can read is refused.
pub fn load_key(path: &Path, passphrase: Option<&Secret>) -> Result<PrivateKey, KeyError> {
    // `load_keys` gives at least one.
    Ok(load_keys(path, passphrase)?.swap_remove(0))
}

/// Every plain private key of a PEM file, in file order, or its one encrypted key: at least one.
/// There are two while a renewal puts the new one in the old one's place.
///
/// # Errors
/// As [`load_key`].
pub fn load_keys(path: &Path, passphrase: Option<&Secret>) -> Result<Vec<PrivateKey>, KeyError> {
    let shown = path.display().to_string();
    let content = read_private(path)?;
    let not_a_key = || KeyError::NotAKey {
        path: shown.clone(),
    };
    let text = std::str::from_utf8(&content).map_err(|_| not_a_key())?;
    let mut keys = Vec::new();
    let mut rest = text;
    while let Some(der) = section(rest, PLAIN) {
        PrivateKeyInfoRef::from_der(&der).map_err(|_| not_a_key())?;
        keys.push(PrivateKey(Secret::new(der.to_vec())));
        let end = format!("-----END {PLAIN}-----");
        rest = rest.split_once(&end).map_or("", |(_, rest)| rest);
    }
    if !keys.is_empty() {
        return Ok(keys);
    }
    if section(text, ENCRYPTED).is_none() {
        return Err(not_a_key());
    }
    let passphrase = passphrase.ok_or_else(|| KeyError::PassphraseNeeded {
        path: shown.clone(),
    })?;
    decrypt_pkcs8(text, passphrase, &shown).map(|key| vec![key])
}

/// What a key takes to be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opener {
    /// A plain key, or one in a token whose URI says where the PIN is.
    Nothing,
    /// An encrypted key.
    Passphrase,
    /// The PIN of this token.
    Pin(String),
}

/// What the key at a path, or at a PKCS#11 URI, takes to be used. Opens nothing.
///
/// # Errors
/// The file cannot be read, or others can read it; the URI is wrong.
pub fn opened_by(path: &Path) -> Result<Opener, KeyError> {
    if let Some(uri) = uri_of(path)? {
        return Ok(if uri.has_pin() {
            Opener::Nothing
        } else {
            Opener::Pin(uri.token_name())
        });
    }
    match load_keys(path, None) {
        Ok(_) => Ok(Opener::Nothing),
        Err(KeyError::PassphraseNeeded { .. }) => Ok(Opener::Passphrase),
        Err(error) => Err(error),
    }
}

/// PEM text of the encrypted key.
///
/// # Errors
/// The key is not PKCS#8.
pub fn encrypt_pkcs8(key: &PrivateKey, passphrase: &Secret) -> Result<String, KeyError> {
    let error = |cause: &dyn std::fmt::Display| KeyError::Encrypt(cause.to_string());
    PrivateKeyInfoRef::from_der(key.0.expose()).map_err(|e| error(&e))?;
    let (mut salt, mut iv) = ([0; 16], [0; 16]);
    let random = SystemRandom::new();
    random
        .fill(&mut salt)
        .and_then(|()| random.fill(&mut iv))
        .map_err(|e| error(&e))?;
    let cost = scrypt::Params::new(SCRYPT.0, SCRYPT.1, SCRYPT.2).map_err(|e| error(&e))?;
    let scheme =
        pbes2::Parameters::generate_scrypt_aes256cbc(cost, &salt, iv).map_err(|e| error(&e))?;
    // The key that is derived from the passphrase, and what the cipher makes of it, stay behind.
    let sealed = on_wiped_stack(|| scheme.encrypt(passphrase.expose(), key.0.expose()))
        .map_err(|e| error(&e))?;
    let info = pkcs8::EncryptedPrivateKeyInfoOwned {
        encryption_algorithm: scheme.into(),
        encrypted_data: pkcs8::der::asn1::OctetString::new(sealed).map_err(|e| error(&e))?,
    };
    info.to_pem(LineEnding::LF).map_err(|e| error(&e))
}

/// Opens an encrypted key; `path` is for the message.
///
/// # Errors
/// Not an encrypted key, or a wrong passphrase.
pub fn decrypt_pkcs8(pem: &str, passphrase: &Secret, path: &str) -> Result<PrivateKey, KeyError> {
    let not_a_key = || KeyError::NotAKey { path: path.into() };
    let der = section(pem, ENCRYPTED).ok_or_else(not_a_key)?;
    let sealed = EncryptedPrivateKeyInfoRef::from_der(&der).map_err(|_| not_a_key())?;
    let wrong = || KeyError::WrongPassphrase { path: path.into() };
    let opened = on_wiped_stack(|| sealed.decrypt(passphrase.expose())).map_err(|_| wrong())?;
    // One wrong passphrase in 256 leaves a padding that looks right; the structure tells.
    PrivateKeyInfoRef::from_der(opened.as_bytes()).map_err(|_| wrong())?;
    Ok(PrivateKey(Secret::new(opened.as_bytes().to_vec())))
}

/// The content of the first PEM section with this label.
fn section(text: &str, label: &str) -> Option<Zeroizing<Vec<u8>>> {
    let (_, rest) = text.split_once(&format!("-----BEGIN {label}-----"))?;
    let (body, _) = rest.split_once(&format!("-----END {label}-----"))?;
    let mut packed = Zeroizing::new(Vec::with_capacity(body.len()));
    packed.extend(body.bytes().filter(|b| !b.is_ascii_whitespace()));
    STANDARD.decode(packed.as_slice()).ok().map(Zeroizing::new)
}

#[cfg(test)]
mod tests {
    use super::super::files::write_atomic;
    use super::*;

    fn key() -> PrivateKey {
        PrivateKey(Secret::new(
            rcgen::KeyPair::generate().unwrap().serialize_der(),
        ))
    }

    #[test]
    fn an_encrypted_key_opens_with_its_passphrase_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.pem");
        let (key, right) = (key(), Secret::from(String::from("right")));
        write_atomic(
            &path,
            encrypt_pkcs8(&key, &right).unwrap().as_bytes(),
            0o600,
        )
        .unwrap();
        assert_eq!(
            load_key(&path, Some(&right)).unwrap().0.expose(),
            key.0.expose()
        );
        let wrong = Secret::from(String::from("wrong"));
        assert!(matches!(
            load_key(&path, Some(&wrong)),
            Err(KeyError::WrongPassphrase { .. })
        ));
        assert!(matches!(
            load_key(&path, None),
            Err(KeyError::PassphraseNeeded { .. })
        ));
    }

    #[test]
    fn a_plain_key_is_read_and_other_forms_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.pem");
        let pair = rcgen::KeyPair::generate().unwrap();
        write_atomic(&path, pair.serialize_pem().as_bytes(), 0o600).unwrap();
        assert_eq!(
            load_key(&path, None).unwrap().0.expose(),
            pair.serialize_der()
        );
        let old_form = pair
            .serialize_pem()
            .replace("PRIVATE KEY", "EC PRIVATE KEY");
        write_atomic(&path, old_form.as_bytes(), 0o600).unwrap();
        assert!(matches!(
            load_key(&path, None),
            Err(KeyError::NotAKey { .. })
        ));
        write_atomic(&path, pair.serialize_pem().as_bytes(), 0o644).unwrap();
        assert!(matches!(
            load_key(&path, None),
            Err(KeyError::File(FileError::Mode { .. }))
        ));
    }

    #[test]
    fn debug_shows_nothing_of_a_key() {
        assert_eq!(format!("{:?}", key()), "PrivateKey(Secret(redacted))");
    }
}
