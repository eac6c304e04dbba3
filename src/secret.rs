//! Holders of keys, passphrases and tokens: redacted in `Debug`, wiped when dropped.

use std::fmt;

use zeroize::{Zeroize as _, Zeroizing};

/// Overwrites every piece of memory before it is given back to the allocator within: for libraries that
/// let a key, or what follows from it, go as it is. The program has it; a program that embeds the library
/// declares it as its `#[global_allocator]` (`docs/embed.md`). Memory that C code allocates for itself does
/// not pass through it; AWS-LC wipes its own.
pub use zeroizing_alloc::ZeroAlloc as WipingAllocator;

#[cfg(test)]
pub(crate) mod residue;

/// The one of the program, for the tests that look for what is left of a key.
#[cfg(test)]
#[global_allocator]
static ALLOCATOR: WipingAllocator<mimalloc::MiMalloc> = WipingAllocator(mimalloc::MiMalloc);

/// How much of the stack is overwritten: more than signing or opening a key takes.
const STACK: usize = 64 * 1024;

/// Bytes that no log, error or `Debug` may show. The memory is overwritten when the value goes.
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes the bytes over; the caller keeps no copy.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes. The name is long so that a reader sees every place that uses it.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self::new(text.into_bytes())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(redacted)")
    }
}

/// Runs `work`, then overwrites the stack that it used: for libraries that leave a key, or what
/// follows from it, in the values that they drop. What `work` gives back must hold no key by value.
/// Costs a microsecond or two.
pub fn on_wiped_stack<T>(work: impl FnOnce() -> T) -> T {
    let done = apart(work);
    overwrite();
    done
}

/// A frame of its own, at the place where that of [`overwrite`] will be.
#[inline(never)]
fn apart<T>(work: impl FnOnce() -> T) -> T {
    work()
}

#[inline(never)]
fn overwrite() {
    let mut room = [0xff_u8; STACK];
    room.zeroize();
    std::hint::black_box(&room);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_nothing_of_the_bytes() {
        let secret = Secret::from(String::from("hunter2"));
        assert_eq!(secret.expose(), b"hunter2");
        assert_eq!(format!("{secret:?}"), "Secret(redacted)");
    }

    fn random(length: usize) -> Vec<u8> {
        use ring::rand::{SecureRandom as _, SystemRandom};
        let mut bytes = vec![0; length];
        SystemRandom::new().fill(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn what_lay_on_the_heap_is_gone_of_every_size_and_after_growing() {
        let secret = Secret::new(random(32));
        let sought = residue::Sought::new(secret.expose());
        for size in [1, 4, 100, 10_000, 1_000_000] {
            let copies = secret.expose().repeat(size);
            assert_eq!(sought.copies(), 1 + size);
            let mut grown = Vec::new();
            for copy in copies.chunks(32) {
                grown.extend_from_slice(copy);
            }
            drop(copies);
            assert_eq!(sought.copies(), 1 + size);
            drop(grown);
            assert_eq!(sought.copies(), 1, "{size}");
        }
    }

    #[test]
    fn what_lay_on_the_stack_is_gone_and_what_was_kept_is_not() {
        let secret = Secret::new(random(32));
        let sought = residue::Sought::new(secret.expose());
        assert_eq!(sought.copies(), 1);
        let spread = || {
            let mut copies = [[0_u8; 32]; 1024];
            for copy in &mut copies {
                copy.copy_from_slice(secret.expose());
            }
            std::hint::black_box(&copies);
        };
        apart(spread);
        assert!(sought.copies() > 1, "and otherwise it would be there");
        on_wiped_stack(spread);
        assert_eq!(sought.copies(), 1);
        drop(secret);
        assert_eq!(sought.copies(), 0);
    }
}
