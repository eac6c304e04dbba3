//! The URIs of RFC 7512 by which a key in a token is named. A PIN in the URI (`pin-value`) is
//! refused, and so is what would be passed over without being understood.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::super::files::read_private;
use super::super::key::KeyError;
use super::refusal::TokenError;
use crate::secret::Secret;

const SCHEME: &str = "pkcs11:";

/// What a system sets up so that every installed module is reached by one.
const PROXY: &str = "p11-kit-proxy.so";

/// The longest PIN that a token takes (its length is one octet in most cards).
const LONGEST_PIN: usize = 255;

/// What is wrong with a URI. Values are not repeated: one of them may be a PIN.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UriError {
    /// Another scheme.
    #[error("a key in a token is named by `pkcs11:…`")]
    Scheme,
    /// Not `name=value`, or `%` without two hexadecimal digits.
    #[error("in the PKCS#11 URI an attribute is no `name=value` of RFC 7512")]
    Malformed,
    /// Not an attribute that is known.
    #[error("in the PKCS#11 URI the attribute `{0}` is not known")]
    Unknown(String),
    /// Twice.
    #[error("in the PKCS#11 URI the attribute `{0}` stands twice")]
    Twice(String),
    /// A value that makes no sense.
    #[error("in the PKCS#11 URI the attribute `{0}` has a value that cannot be used")]
    Value(&'static str),
    /// A PIN for all to see.
    #[error("the PKCS#11 URI holds a PIN (`pin-value`), which belongs into a file (`pin-source`)")]
    PinValue,
    /// It would name any token.
    #[error("the PKCS#11 URI names no token (`token=` or `serial=`)")]
    NoToken,
    /// It would name any key.
    #[error("the PKCS#11 URI names no key (`object=` or `id=`)")]
    NoKey,
}

/// Names one private key in one token.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyUri {
    written: String,
    pub(super) token: Option<String>,
    pub(super) serial: Option<String>,
    pub(super) manufacturer: Option<String>,
    pub(super) model: Option<String>,
    pub(super) object: Option<String>,
    pub(super) id: Option<Vec<u8>>,
    module: Option<PathBuf>,
    pin_source: Option<PathBuf>,
}

impl KeyUri {
    /// Whether this is the name of a key in a token and not the path of a file.
    #[must_use]
    pub fn is_one(path: &Path) -> bool {
        path.as_os_str().as_bytes().starts_with(SCHEME.as_bytes())
    }

    /// Reads a URI.
    ///
    /// # Errors
    /// As [`UriError`] says.
    pub fn parse(text: &str) -> Result<Self, UriError> {
        let rest = text.strip_prefix(SCHEME).ok_or(UriError::Scheme)?;
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let mut read = Self {
            written: text.to_owned(),
            token: None,
            serial: None,
            manufacturer: None,
            model: None,
            object: None,
            id: None,
            module: None,
            pin_source: None,
        };
        for part in path.split(';').filter(|part| !part.is_empty()) {
            let (name, value) = attribute(part)?;
            match name {
                "token" => once(&mut read.token, name, string("token", value)?)?,
                "serial" => once(&mut read.serial, name, string("serial", value)?)?,
                "manufacturer" => {
                    once(&mut read.manufacturer, name, string("manufacturer", value)?)?;
                }
                "model" => once(&mut read.model, name, string("model", value)?)?,
                "object" => once(&mut read.object, name, string("object", value)?)?,
                "id" if value.is_empty() => return Err(UriError::Value("id")),
                "id" => once(&mut read.id, name, value)?,
                "type" if value == b"private" => {}
                "type" => return Err(UriError::Value("type")),
                "pin-value" => return Err(UriError::PinValue),
                other => return Err(UriError::Unknown(shown(other))),
            }
        }
        for part in query.split('&').filter(|part| !part.is_empty()) {
            let (name, value) = attribute(part)?;
            match name {
                "module-path" => once(&mut read.module, name, file("module-path", value)?)?,
                "pin-source" => once(&mut read.pin_source, name, file("pin-source", value)?)?,
                "pin-value" => return Err(UriError::PinValue),
                other => return Err(UriError::Unknown(shown(other))),
            }
        }
        if read.token.is_none() && read.serial.is_none() {
            return Err(UriError::NoToken);
        }
        if read.object.is_none() && read.id.is_none() {
            return Err(UriError::NoKey);
        }
        Ok(read)
    }

    /// As written. There is no PIN in it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.written
    }

    /// The module, a shared library: the system's own for all tokens unless the URI names one.
    #[must_use]
    pub fn module(&self) -> &Path {
        self.module.as_deref().unwrap_or(Path::new(PROXY))
    }

    /// Whether the URI says where the PIN is.
    #[must_use]
    pub fn has_pin(&self) -> bool {
        self.pin_source.is_some()
    }

    /// The PIN in the file that the URI names; one trailing line end is not part of it.
    ///
    /// # Errors
    /// Unreadable, readable by others, empty, or too long.
    pub fn pin(&self) -> Result<Option<Secret>, TokenError> {
        let Some(path) = &self.pin_source else {
            return Ok(None);
        };
        let content = read_private(path).map_err(TokenError::PinFile)?;
        let pin = content.strip_suffix(b"\n").unwrap_or(&content);
        let pin = pin.strip_suffix(b"\r").unwrap_or(pin);
        if pin.is_empty() || pin.len() > LONGEST_PIN {
            return Err(TokenError::PinLength(path.clone()));
        }
        Ok(Some(Secret::new(pin.to_vec())))
    }

    /// What people call the token.
    #[must_use]
    pub fn token_name(&self) -> String {
        let named = self.token.as_ref().or(self.serial.as_ref());
        named.cloned().unwrap_or_default()
    }

    /// What people call the key.
    #[must_use]
    pub fn key_name(&self) -> String {
        match (&self.object, &self.id) {
            (Some(object), _) => object.clone(),
            (None, id) => hex::encode(id.as_deref().unwrap_or_default()),
        }
    }
}

impl fmt::Display for KeyUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

impl fmt::Debug for KeyUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyUri({})", self.written)
    }
}

/// The URI that stands in the place of a key file's path, or in the file in the place of a key (one
/// line; the file is as private as a key's). `None`: it is a key file.
///
/// # Errors
/// A URI that is wrong, or a file that cannot be read or that others can read.
pub fn uri_of(path: &Path) -> Result<Option<KeyUri>, KeyError> {
    let wrong = |cause| KeyError::Uri {
        path: if KeyUri::is_one(path) {
            // Not repeated: there may be a PIN in it.
            String::from(SCHEME)
        } else {
            path.display().to_string()
        },
        cause,
    };
    if KeyUri::is_one(path) {
        let text = path.to_str().ok_or_else(|| wrong(UriError::Malformed))?;
        return KeyUri::parse(text).map(Some).map_err(wrong);
    }
    let content = read_private(path)?;
    if !content.starts_with(SCHEME.as_bytes()) {
        return Ok(None);
    }
    let text = std::str::from_utf8(&content).map_err(|_| wrong(UriError::Malformed))?;
    KeyUri::parse(text.trim_end()).map(Some).map_err(wrong)
}

/// `name=value`, the value with its `%XX` decoded.
fn attribute(part: &str) -> Result<(&str, Vec<u8>), UriError> {
    let (name, value) = part.split_once('=').ok_or(UriError::Malformed)?;
    let mut decoded = Vec::with_capacity(value.len());
    let mut bytes = value.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let mut digit = || {
            let digit = bytes.next().and_then(|byte| char::from(byte).to_digit(16));
            digit.and_then(|digit| u8::try_from(digit).ok())
        };
        let (Some(high), Some(low)) = (digit(), digit()) else {
            return Err(UriError::Malformed);
        };
        decoded.push(high << 4 | low);
    }
    Ok((name, decoded))
}

fn once<T>(place: &mut Option<T>, name: &str, value: T) -> Result<(), UriError> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(UriError::Twice(shown(name))),
    }
}

fn string(name: &'static str, value: Vec<u8>) -> Result<String, UriError> {
    String::from_utf8(value)
        .ok()
        .filter(|text| !text.is_empty() && !text.contains(char::is_control))
        .ok_or(UriError::Value(name))
}

/// An absolute path, plain or as `file:` with it.
fn file(name: &'static str, value: Vec<u8>) -> Result<PathBuf, UriError> {
    let path = match value.strip_prefix(b"file:") {
        Some(rest) => {
            let path = rest.strip_prefix(b"//").unwrap_or(rest);
            PathBuf::from(OsStr::from_bytes(path))
        }
        None => PathBuf::from(std::ffi::OsString::from_vec(value)),
    };
    let usable = path.is_absolute() && !path.as_os_str().as_bytes().contains(&0);
    usable.then_some(path).ok_or(UriError::Value(name))
}

/// A stranger's word, fit for a line.
fn shown(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::super::super::files::{FileError, write_atomic};
    use super::*;

    #[test]
    fn a_uri_names_one_key_of_one_token() {
        let uri = KeyUri::parse(
            "pkcs11:token=The%20CA;serial=1;object=issuing;id=%01%ff;type=private?\
             pin-source=file:/run/pin&module-path=/usr/lib/softhsm/libsofthsm2.so",
        )
        .unwrap();
        assert_eq!(uri.token_name(), "The CA");
        assert_eq!(uri.key_name(), "issuing");
        assert_eq!(uri.id.as_deref(), Some(&[1, 0xff][..]));
        assert_eq!(uri.module(), Path::new("/usr/lib/softhsm/libsofthsm2.so"));
        assert_eq!(uri.pin_source.as_deref(), Some(Path::new("/run/pin")));
        let short = KeyUri::parse("pkcs11:serial=12;id=%0A").unwrap();
        assert_eq!(
            (short.token_name(), short.key_name()),
            ("12".into(), "0a".into())
        );
        assert_eq!(short.module(), Path::new("p11-kit-proxy.so"));
        assert!(!short.has_pin());
        for plain in ["?pin-source=/run/pin", "?pin-source=file:///run/pin"] {
            let uri = KeyUri::parse(&format!("pkcs11:token=a;object=b{plain}")).unwrap();
            assert_eq!(uri.pin_source.as_deref(), Some(Path::new("/run/pin")));
        }
    }

    #[test]
    fn what_is_not_understood_is_refused_and_not_repeated() {
        KeyUri::parse("pkcs11:token=a;object=b").unwrap();
        for (text, error) in [
            ("token=a;object=b", UriError::Scheme),
            ("pkcs11:object=b", UriError::NoToken),
            ("pkcs11:token=a", UriError::NoKey),
            ("pkcs11:token=a;object", UriError::Malformed),
            ("pkcs11:token=a;object=%4", UriError::Malformed),
            ("pkcs11:token=a;object=%zz", UriError::Malformed),
            (
                "pkcs11:token=a;object=b;object=c",
                UriError::Twice("object".into()),
            ),
            ("pkcs11:token=a;object=", UriError::Value("object")),
            ("pkcs11:token=a;object=b;type=cert", UriError::Value("type")),
            (
                "pkcs11:token=a;object=b;slot=1",
                UriError::Unknown("slot".into()),
            ),
            ("pkcs11:token=a;object=b?pin-value=8642", UriError::PinValue),
            ("pkcs11:token=a;object=b;pin-value=8642", UriError::PinValue),
            (
                "pkcs11:token=a;object=b?pin-source=pin",
                UriError::Value("pin-source"),
            ),
            (
                "pkcs11:token=a;object=b?pin-source=%7ccat",
                UriError::Value("pin-source"),
            ),
            (
                "pkcs11:token=a;object=b?module-path=x.so",
                UriError::Value("module-path"),
            ),
        ] {
            assert_eq!(KeyUri::parse(text), Err(error), "{text}");
        }
        let path = Path::new("pkcs11:token=a;object=b?pin-value=8642");
        let said = uri_of(path).unwrap_err();
        assert!(!format!("{said} {said:?}").contains("8642"), "{said}");
    }

    #[test]
    fn a_key_file_may_hold_the_uri_and_is_private_then_too() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("issuing.key");
        write_atomic(&path, b"pkcs11:token=a;object=b\n", 0o600).unwrap();
        let uri = uri_of(&path).unwrap().unwrap();
        assert_eq!(uri.as_str(), "pkcs11:token=a;object=b");
        write_atomic(&path, b"-----BEGIN PRIVATE KEY-----\n", 0o600).unwrap();
        assert_eq!(uri_of(&path).unwrap(), None);
        write_atomic(&path, b"pkcs11:token=a;object=b\n", 0o640).unwrap();
        assert!(matches!(
            uri_of(&path),
            Err(KeyError::File(FileError::Mode { .. }))
        ));
    }

    #[test]
    fn the_pin_is_in_a_private_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pin");
        let text = format!("pkcs11:token=a;object=b?pin-source={}", path.display());
        let uri = KeyUri::parse(&text).unwrap();
        write_atomic(&path, b"8642\n", 0o600).unwrap();
        assert_eq!(uri.pin().unwrap().unwrap().expose(), b"8642");
        for (content, mode) in [
            (&b"8642\n"[..], 0o644),
            (b"\n", 0o600),
            (&[b'1'; 300], 0o600),
        ] {
            write_atomic(&path, content, mode).unwrap();
            let error = uri.pin().unwrap_err().to_string();
            assert!(error.contains("pin") && !error.contains("8642"), "{error}");
        }
    }
}
