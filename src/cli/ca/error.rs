//! What can go wrong in a command on certificates, and what a person can do about it.

use std::path::PathBuf;

use crate::audit::AuditError;
use crate::authority_server::{AuthorityServerError, OwnError, PrepareError};
use crate::ca::{
    AuthorityError, BuildError, CreateError, CrlError, CsrError, DelegateError, IssueError,
    PinError, ProfileError, RenewError, RevokeError, SignError, SignerError,
};
use crate::cert::{FileError, KeyError, ParseError, PassphraseError, TokenError, UriError};
use crate::est::InvitationError;
use crate::grant::GrantError;
use crate::identity::{NameError, SpiffeError};
use crate::registry::StoreError;

/// Why a command on certificates did nothing.
#[derive(Debug, thiserror::Error)]
#[expect(
    missing_docs,
    reason = "each passes on the error of the step that it is named for"
)]
pub enum CaCommandError {
    #[error(transparent)]
    Create(#[from] CreateError),
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    #[error(transparent)]
    Passphrase(#[from] PassphraseError),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error("{0}")]
    Uri(UriError),
    #[error("the key that `{file}` names is in a token, and the new one would be in a file")]
    WasInToken { file: PathBuf, flag: &'static str },
    #[error(transparent)]
    Profile(#[from] ProfileError),
    #[error(transparent)]
    Sign(#[from] SignError),
    #[error(transparent)]
    Issue(#[from] IssueError),
    #[error(transparent)]
    Renew(#[from] RenewError),
    #[error(transparent)]
    Delegate(#[from] DelegateError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error("cannot read the request `{path}`: {cause}")]
    ReadRequest {
        path: PathBuf,
        cause: std::io::Error,
    },
    #[error("`{path}`: {error}")]
    Request { path: PathBuf, error: CsrError },
    #[error("a PKCS#12 file holds the key, and the key of a request is not here")]
    NoKeyForP12,
    #[error("`{0}` is not pinned, so that no end can be set for it but now")]
    EndWithoutPin(String),
    #[error(transparent)]
    Signer(#[from] SignerError),
    #[error(transparent)]
    Build(#[from] BuildError),
    #[error(transparent)]
    Revoke(#[from] RevokeError),
    #[error(transparent)]
    Crl(#[from] CrlError),
    #[error(transparent)]
    Pin(#[from] PinError),
    #[error(transparent)]
    Grant(#[from] GrantError),
    #[error("`{name}`: {error}")]
    Name { name: String, error: SpiffeError },
    #[error(transparent)]
    Parse(#[from] ParseError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Invitation(#[from] InvitationError),
    #[error(transparent)]
    RegistryName(#[from] NameError),
    #[error(transparent)]
    Server(#[from] AuthorityServerError),
    #[error(transparent)]
    Audit(#[from] AuditError),
    #[error("the operating system refuses: {0}")]
    Signals(std::io::Error),
    #[error("it is not known where the CA's server is dialled")]
    NoAddress,
    #[error("it is not known what the CA's server is dialled by")]
    NoHost,
}

impl CaCommandError {
    /// What to do about it, where there is something to say.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Create(CreateError::Exists(_)) => {
                "use it, or choose another folder with --dir".to_owned()
            }
            Self::Create(CreateError::Partial { dir, .. }) => format!(
                "bring the missing file back from a backup, or move `{}` away and run `countersign \
                 ca init` again",
                dir.display()
            ),
            Self::Create(CreateError::Foreign(_)) => "choose another folder with --dir".to_owned(),
            Self::Authority(AuthorityError::Passphrase(error)) | Self::Passphrase(error) => {
                return passphrase_hint(error);
            }
            Self::Authority(AuthorityError::Key(KeyError::WrongPassphrase { .. })) => {
                "the root's key and the issuing CA's can have different passphrases".to_owned()
            }
            Self::WasInToken { flag, .. } => {
                format!("name the new key with {flag} pkcs11:…")
            }
            Self::Create(CreateError::SameKey) => {
                "name a key that is not there yet: it is made in the token".to_owned()
            }
            Self::Token(error)
            | Self::Key(KeyError::Token(error))
            | Self::Create(CreateError::Key(KeyError::Token(error)))
            | Self::Authority(AuthorityError::Key(KeyError::Token(error))) => {
                return token_hint(error).map(str::to_owned);
            }
            Self::Authority(AuthorityError::File(FileError::Mode { .. }))
            | Self::File(FileError::Mode { .. })
            | Self::Authority(AuthorityError::Key(KeyError::File(FileError::Mode { .. }))) => {
                return None;
            }
            Self::Authority(AuthorityError::File(_)) => {
                "make a CA with `countersign ca init`, or name its folder with --ca".to_owned()
            }
            Self::Sign(error) | Self::Renew(RenewError::Sign(error)) => return sign_hint(error),
            Self::NoKeyForP12 => "take --format pem or json, and put the key beside it".to_owned(),
            Self::EndWithoutPin(_) => "revoke it with --end-old now".to_owned(),
            Self::Delegate(DelegateError::Exists(_)) => {
                "choose another folder with --out".to_owned()
            }
            Self::Issue(IssueError::MustRecord(_)) => {
                "leave --offline out, or sign with a delegate: `countersign ca delegate`".to_owned()
            }
            Self::Renew(RenewError::Wider { .. }) => {
                "give more with a certificate of its own: `countersign ca issue`".to_owned()
            }
            Self::Issue(IssueError::InTheWay(_)) => {
                "choose another folder with --out, or write over it with --replace".to_owned()
            }
            Self::Issue(IssueError::OtherRoot(_)) => {
                "choose another folder with --out: clients there trust the other CA".to_owned()
            }
            Self::Pin(PinError::Candidates { .. }) => {
                "give the name with --name, or say where it stands with --identity-from".to_owned()
            }
            Self::Pin(PinError::NoGrants(_)) => {
                "say what it may do with --grant or --role".to_owned()
            }
            Self::Store(error)
            | Self::Renew(RenewError::Store(error))
            | Self::Revoke(RevokeError::Store(error))
            | Self::Pin(PinError::Store(error)) => return store_hint(error),
            Self::NoAddress => {
                "start `countersign ca serve` with this CA, or say it with --server HOST:PORT".to_owned()
            }
            Self::NoHost
            | Self::Server(AuthorityServerError::Prepare(PrepareError::Own(OwnError::Sign(_)))) => {
                "say it with --host NAME, as clients dial it".to_owned()
            }
            Self::Server(AuthorityServerError::Listen { .. }) => {
                "choose another address with --listen or --crl-listen".to_owned()
            }
            Self::Audit(AuditError::Busy { .. }) => {
                "another `countersign ca serve` runs with this CA: stop it, or name another log with \
                 --audit"
                    .to_owned()
            }
            _ => return None,
        };
        Some(hint)
    }
}

/// What a person can do about a key in a token.
#[must_use]
pub fn token_hint(error: &TokenError) -> Option<&'static str> {
    Some(match error {
        TokenError::NotBuilt => "build it with `cargo build --features cryptoki`",
        TokenError::Module { .. } => {
            "name the token's module in the URI: `?module-path=/usr/lib/softhsm/libsofthsm2.so`"
        }
        TokenError::NoToken(_) | TokenError::NoKey { .. } => {
            "see what there is with `pkcs11-tool --module FILE --list-slots` and `--list-objects --login`"
        }
        TokenError::NoPin(_) => {
            "say where the PIN is: `?pin-source=/path/of/a/file` in the URI, or as an encrypted key's passphrase"
        }
        TokenError::WrongPin(_) => {
            "it was tried once and is not tried again: tokens lock themselves after a few wrong ones"
        }
        _ => return None,
    })
}

fn passphrase_hint(error: &PassphraseError) -> Option<String> {
    let place = match error {
        PassphraseError::Missing { .. } => {
            "--passphrase-file, in COUNTERSIGN_CA_PASSPHRASE, as the systemd credential `countersign-ca`"
        }
        PassphraseError::Wanted { place, .. } => place,
        _ => return None,
    };
    Some(format!("give it with {place}, or at a terminal"))
}

fn sign_hint(error: &SignError) -> Option<String> {
    let hint = match error {
        SignError::NoGrants(_) => "say what it may do with --grant or --role".to_owned(),
        SignError::NoServerName(_) => "say how it is dialled with --dns or --ip".to_owned(),
        SignError::TrustDomain { domain, .. } => {
            format!("give the path alone, or a URI that begins with `spiffe://{domain}/`")
        }
        SignError::Role { .. } => "define the role in the configuration".to_owned(),
        _ => return None,
    };
    Some(hint)
}

fn store_hint(error: &StoreError) -> Option<String> {
    let hint = match error {
        StoreError::NotFound(_) => "see what there is with `countersign ca list --all`",
        StoreError::Ambiguous(_) => {
            "see them with `countersign ca list`; `ca revoke --all` takes all of a name"
        }
        StoreError::Unreachable { .. } => {
            "name the registry with --registry; `countersign ca init` makes one with the CA, and \
             `countersign serve` an empty one where it was lost"
        }
        _ => return None,
    };
    Some(hint.to_owned())
}
