//! List cursors: a position, sealed to the caller and the list, so that nobody reads or replays
//! another's. Sealed with a key of this process: after a restart a client starts its list anew.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};

/// Seals and opens cursors.
pub struct Cursors {
    key: LessSafeKey,
    random: SystemRandom,
}

/// The system gives no random bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the operating system gives no random bytes")]
pub struct NoRandom;

/// Bytes of a cursor's text at the most; the state of a call of several rounds may need as much.
const MAX: usize = 64 * 1024;

impl Cursors {
    /// A fresh key.
    ///
    /// # Errors
    /// [`NoRandom`].
    pub fn new() -> Result<Self, NoRandom> {
        let random = SystemRandom::new();
        let mut key = [0; 32];
        random.fill(&mut key).map_err(|_| NoRandom)?;
        let key = UnboundKey::new(&AES_256_GCM, &key).map_err(|_| NoRandom)?;
        Ok(Self {
            key: LessSafeKey::new(key),
            random,
        })
    }

    /// A cursor for `position` in `list` of the caller called `name`.
    #[must_use]
    pub fn seal(&self, name: &str, list: &str, position: &str) -> Option<String> {
        let mut nonce = [0; NONCE_LEN];
        self.random.fill(&mut nonce).ok()?;
        let mut sealed = position.as_bytes().to_vec();
        let bound = Aad::from(bound(name, list));
        let nonce_used = Nonce::assume_unique_for_key(nonce);
        self.key
            .seal_in_place_append_tag(nonce_used, bound, &mut sealed)
            .ok()?;
        let mut whole = nonce.to_vec();
        whole.extend_from_slice(&sealed);
        Some(URL_SAFE_NO_PAD.encode(whole))
    }

    /// The position; `None` for anything that was not sealed for this caller and this list.
    #[must_use]
    pub fn open(&self, name: &str, list: &str, cursor: &str) -> Option<String> {
        if cursor.len() > MAX {
            return None;
        }
        let mut whole = URL_SAFE_NO_PAD.decode(cursor).ok()?;
        if whole.len() < NONCE_LEN {
            return None;
        }
        let nonce = Nonce::try_assume_unique_for_key(&whole[..NONCE_LEN]).ok()?;
        let bound = Aad::from(bound(name, list));
        let plain = self
            .key
            .open_in_place(nonce, bound, &mut whole[NONCE_LEN..])
            .ok()?;
        String::from_utf8(plain.to_vec()).ok()
    }
}

fn bound(name: &str, list: &str) -> Vec<u8> {
    // Names hold no control characters, so the separator is unambiguous.
    format!("{list}\0{name}").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_opens_for_its_caller_and_list_only() {
        let cursors = Cursors::new().unwrap();
        let cursor = cursors.seal("ann", "tools/list", "files__b").unwrap();
        assert_eq!(
            cursors.open("ann", "tools/list", &cursor).as_deref(),
            Some("files__b")
        );
        assert_eq!(cursors.open("bob", "tools/list", &cursor), None);
        assert_eq!(cursors.open("ann", "prompts/list", &cursor), None);
        let changed = format!("{}A", &cursor[..cursor.len() - 1]);
        let other = format!("{}B", &cursor[..cursor.len() - 1]);
        assert!(
            cursors.open("ann", "tools/list", &changed).is_none()
                || cursors.open("ann", "tools/list", &other).is_none()
        );
        for nonsense in ["", "!", "AAAA", &"A".repeat(70_000)] {
            assert_eq!(cursors.open("ann", "tools/list", nonsense), None);
        }
    }
}
