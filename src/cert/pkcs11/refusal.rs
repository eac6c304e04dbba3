//! Why a key in a token cannot be used. No variant holds a PIN.

use std::path::PathBuf;

use super::super::files::FileError;

/// Why a key in a token cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// Built without the feature.
    #[error(
        "this build cannot use keys in tokens (`pkcs11:`): it was made without the feature `cryptoki`"
    )]
    NotBuilt,
    /// The shared library.
    #[error("cannot use the PKCS#11 module `{module}`: {cause}")]
    Module {
        /// The library.
        module: PathBuf,
        /// What the loader or the library said.
        cause: String,
    },
    /// None of that name is plugged in.
    #[error("no token `{0}` is there")]
    NoToken(String),
    /// The URI does not say which.
    #[error("several tokens are called `{0}`")]
    SeveralTokens(String),
    /// Not in it.
    #[error("the token `{token}` holds no private key `{key}`")]
    NoKey {
        /// The token.
        token: String,
        /// The key.
        key: String,
    },
    /// The URI does not say which.
    #[error("the token `{token}` holds several private keys `{key}`")]
    SeveralKeys {
        /// The token.
        token: String,
        /// The key.
        key: String,
    },
    /// The private key alone does not say what its public key is.
    #[error("the token `{token}` holds no public key beside `{key}`")]
    NoPublicKey {
        /// The token.
        token: String,
        /// The key.
        key: String,
    },
    /// What the token says is its public key does not verify what it signs.
    #[error("the public key beside `{key}` in the token `{token}` is not its own")]
    Strangers {
        /// The token.
        token: String,
        /// The key.
        key: String,
    },
    /// An algorithm that is not used.
    #[error(
        "the key `{key}` in the token `{token}` is neither ECDSA on P-256 or P-384, nor Ed25519, nor RSA of 2048 bits or more"
    )]
    Kind {
        /// The token.
        token: String,
        /// The key.
        key: String,
    },
    /// The token wants one.
    #[error("the token `{0}` asks for a PIN and none was given")]
    NoPin(String),
    /// The file with it.
    #[error("the PIN: {0}")]
    PinFile(FileError),
    /// The file holds none.
    #[error("`{0}` holds no PIN of 1 to 255 bytes")]
    PinLength(PathBuf),
    /// Tried once and never again: tokens lock themselves after a few wrong ones.
    #[error("the token `{0}` refuses the PIN")]
    WrongPin(String),
    /// Too many wrong ones.
    #[error("the PIN of the token `{0}` is locked")]
    PinLocked(String),
    /// Anything else that it says.
    #[error("the token `{token}`: {cause}")]
    Failed {
        /// The token.
        token: String,
        /// The call and its answer.
        cause: String,
    },
    /// It hangs.
    #[error("the token `{token}` has not answered for {seconds} s")]
    Silent {
        /// The token.
        token: String,
        /// How long it was waited for.
        seconds: u64,
    },
    /// More at once than it can do.
    #[error("the token `{0}` has too much to sign")]
    Busy(String),
    /// The thread that talks to it could not be started, or ended.
    #[error("nothing talks to the token `{0}` any more")]
    Gone(String),
}
