//! The calls to a PKCS#11 module: finding the token and the key, logging in, signing, and beginning
//! anew where a session, a token or a whole module was lost. A PIN that was refused is never tried
//! again: tokens lock themselves.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::types::RawAuthPin;
use ring::rand::{SecureRandom, SystemRandom};

use super::form::{Made, ec, edwards, prepare, rsa, to_make, written};
use super::key::{Scheme, TokenKeyKind};
use super::link::Keeper;
use super::refusal::TokenError;
use super::uri::KeyUri;
use crate::cert::kind::KeyKind;
use crate::secret::Secret;

/// A library can be initialised once in a process; its calls run beside each other, and nothing runs
/// while it is initialised anew.
struct Module {
    gate: RwLock<Loaded>,
}

struct Loaded {
    library: Pkcs11,
    /// How many times it was initialised: handles of an earlier time may mean something else now.
    round: u64,
}

static MODULES: Mutex<BTreeMap<PathBuf, Arc<Module>>> = Mutex::new(BTreeMap::new());

fn modules() -> MutexGuard<'static, BTreeMap<PathBuf, Arc<Module>>> {
    MODULES.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Module {
    fn of(path: &Path) -> Result<Arc<Self>, TokenError> {
        let mut all = modules();
        if let Some(module) = all.get(path) {
            return Ok(Arc::clone(module));
        }
        let failed = |error: Error| TokenError::Module {
            module: path.to_owned(),
            cause: error.to_string(),
        };
        let library = Pkcs11::new(path).map_err(failed)?;
        initialize(&library).map_err(failed)?;
        let module = Arc::new(Self {
            gate: RwLock::new(Loaded { library, round: 0 }),
        });
        all.insert(path.to_owned(), Arc::clone(&module));
        Ok(module)
    }

    /// Initialises the library anew, if nobody is in it. Every session of every key ends.
    fn begin_again(&self) -> Result<(), Error> {
        let Ok(mut loaded) = self.gate.try_write() else {
            return Ok(());
        };
        loaded.round += 1;
        // It may be beyond ending properly.
        let _ = loaded.library.clone().finalize();
        initialize(&loaded.library)
    }
}

fn initialize(library: &Pkcs11) -> Result<(), Error> {
    match library.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
        // By another part of the process that uses the same library.
        Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => Ok(()),
        other => other,
    }
}

/// The session and the key in it.
struct Open {
    session: Session,
    key: ObjectHandle,
    round: u64,
}

/// A key, its token, and the session while there is one.
pub(super) struct Slot {
    uri: KeyUri,
    pin: Option<Secret>,
    module: Arc<Module>,
    open: Option<Open>,
    pin_refused: bool,
}

impl Slot {
    /// Opens the key, and makes it first where that is wished for and it is not there.
    pub fn open(
        uri: KeyUri,
        pin: Option<Secret>,
        make: Option<KeyKind>,
    ) -> Result<(Self, (TokenKeyKind, Vec<u8>)), TokenError> {
        let module = Module::of(uri.module())?;
        let mut slot = Self {
            uri,
            pin,
            module,
            open: None,
            pin_refused: false,
        };
        let about = match (slot.enter(), make) {
            (Err(TokenError::NoKey { .. }), Some(kind)) => {
                slot.make(kind)?;
                slot.enter()?
            }
            (entered, _) => entered?,
        };
        Ok((slot, about))
    }

    /// A session in which the key can be used, and what the key is.
    fn enter(&mut self) -> Result<(TokenKeyKind, Vec<u8>), TokenError> {
        let module = Arc::clone(&self.module);
        let loaded = module.gate.read().unwrap_or_else(PoisonError::into_inner);
        let session = self.session(&loaded.library, false)?;
        let entered = self.key(&session);
        let about = entered.and_then(|key| Ok((key, self.about(&session, key)?)));
        match about {
            Ok((key, about)) => {
                let round = loaded.round;
                self.open = Some(Open {
                    session,
                    key,
                    round,
                });
                Ok(about)
            }
            Err(error) => {
                let _ = session.close();
                Err(error)
            }
        }
    }

    /// Logged in. Such a session is closed by hand, never by being dropped: after the library began
    /// anew its number may be that of another one.
    fn session(&mut self, library: &Pkcs11, write: bool) -> Result<Session, TokenError> {
        let token = self.uri.token_name();
        let mut found = Vec::new();
        for slot in library
            .get_slots_with_initialized_token()
            .map_err(|error| self.failed(&error))?
        {
            // One that was pulled out meanwhile is none.
            let Ok(about) = library.get_token_info(slot) else {
                continue;
            };
            let is = |wanted: &Option<String>, real: &str| {
                wanted.as_deref().is_none_or(|wanted| wanted == real)
            };
            if is(&self.uri.token, about.label())
                && is(&self.uri.serial, about.serial_number())
                && is(&self.uri.manufacturer, about.manufacturer_id())
                && is(&self.uri.model, about.model())
            {
                found.push((slot, about));
            }
        }
        let (slot, about) = match found.len() {
            0 => return Err(TokenError::NoToken(token)),
            1 => found.swap_remove(0),
            _ => return Err(TokenError::SeveralTokens(token)),
        };
        let session = if write {
            library.open_rw_session_no_drop(slot)
        } else {
            library.open_ro_session_no_drop(slot)
        };
        let session = session.map_err(|error| self.failed(&error))?;
        let logged_in = self.log_in(
            &session,
            about.login_required(),
            about.protected_authentication_path(),
        );
        match logged_in {
            Ok(()) => Ok(session),
            Err(error) => {
                let _ = session.close();
                Err(error)
            }
        }
    }

    fn log_in(&mut self, session: &Session, needed: bool, pad: bool) -> Result<(), TokenError> {
        let token = self.uri.token_name();
        if self.pin_refused {
            return Err(TokenError::WrongPin(token));
        }
        let done = match &self.pin {
            Some(pin) => {
                // Wiped when it goes, like ours.
                let pin = RawAuthPin::new(Box::new(pin.expose().to_vec()));
                session.login_with_raw(UserType::User, &pin)
            }
            // The token asks for it on a pad of its own.
            None if pad => session.login(UserType::User, None),
            None if needed => return Err(TokenError::NoPin(token)),
            None => return Ok(()),
        };
        match done {
            // Another session of this process did.
            Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Ok(()),
            Err(Error::Pkcs11(RvError::PinLocked, _)) => {
                self.pin_refused = true;
                Err(TokenError::PinLocked(token))
            }
            Err(Error::Pkcs11(
                RvError::PinIncorrect
                | RvError::PinInvalid
                | RvError::PinLenRange
                | RvError::PinExpired,
                _,
            )) => {
                self.pin_refused = true;
                Err(TokenError::WrongPin(token))
            }
            Err(error) => Err(self.failed(&error)),
        }
    }

    fn named(&self, class: ObjectClass) -> Vec<Attribute> {
        let mut template = vec![Attribute::Class(class)];
        let label = self.uri.object.as_ref();
        template.extend(label.map(|label| Attribute::Label(label.clone().into_bytes())));
        template.extend(self.uri.id.clone().map(Attribute::Id));
        template
    }

    fn key(&self, session: &Session) -> Result<ObjectHandle, TokenError> {
        let (token, key) = (self.uri.token_name(), self.uri.key_name());
        let found = session
            .find_objects(&self.named(ObjectClass::PRIVATE_KEY))
            .map_err(|error| self.failed(&error))?;
        match found.as_slice() {
            [one] => Ok(*one),
            [] => Err(TokenError::NoKey { token, key }),
            _ => Err(TokenError::SeveralKeys { token, key }),
        }
    }

    /// Kind and public key of a private key, from the public key beside it or, for RSA, from itself.
    fn about(
        &self,
        session: &Session,
        key: ObjectHandle,
    ) -> Result<(TokenKeyKind, Vec<u8>), TokenError> {
        let (token, name) = (self.uri.token_name(), self.uri.key_name());
        let failed = |error: Error| self.failed(&error);
        let strange = || TokenError::Kind {
            token: token.clone(),
            key: name.clone(),
        };
        let wanted = [AttributeType::KeyType, AttributeType::Id];
        let (mut kind, mut id) = (None, Vec::new());
        for attribute in session.get_attributes(key, &wanted).map_err(failed)? {
            match attribute {
                Attribute::KeyType(found) => kind = Some(found),
                Attribute::Id(found) => id = found,
                _ => {}
            }
        }
        let beside = if id.is_empty() {
            self.named(ObjectClass::PUBLIC_KEY)
        } else {
            vec![Attribute::Class(ObjectClass::PUBLIC_KEY), Attribute::Id(id)]
        };
        let public = session.find_objects(&beside).map_err(failed)?;
        let public = public.first().copied();
        let read = |from: Option<ObjectHandle>, wanted: &[AttributeType]| {
            let from = from.ok_or_else(|| TokenError::NoPublicKey {
                token: token.clone(),
                key: name.clone(),
            })?;
            session.get_attributes(from, wanted).map_err(failed)
        };
        match kind {
            Some(kind @ (KeyType::EC | KeyType::EC_EDWARDS)) => {
                let wanted = [AttributeType::EcParams, AttributeType::EcPoint];
                let attributes = read(public, &wanted)?;
                let known = if kind == KeyType::EC { ec } else { edwards };
                known(attributes).ok_or_else(strange)
            }
            Some(KeyType::RSA) => {
                let wanted = [AttributeType::Modulus, AttributeType::PublicExponent];
                let attributes = read(public.or(Some(key)), &wanted)?;
                rsa(attributes).ok_or_else(strange)
            }
            _ => Err(strange()),
        }
    }

    /// A key pair that signs, whose private half never leaves the token.
    fn make(&mut self, kind: KeyKind) -> Result<(), TokenError> {
        let module = Arc::clone(&self.module);
        let loaded = module.gate.read().unwrap_or_else(PoisonError::into_inner);
        let session = self.session(&loaded.library, true)?;
        let id = match &self.uri.id {
            Some(id) => id.clone(),
            None => {
                let mut id = vec![0; 16];
                SystemRandom::new()
                    .fill(&mut id)
                    .map_err(|_| TokenError::Gone(self.uri.token_name()))?;
                id
            }
        };
        let label = self.uri.key_name().into_bytes();
        let both = [
            Attribute::Token(true),
            Attribute::Label(label),
            Attribute::Id(id),
        ];
        let private = [
            Attribute::Sign(true),
            Attribute::Private(true),
            Attribute::Sensitive(true),
            Attribute::Extractable(false),
        ];
        let private = [&both[..], &private].concat();
        let Made { mechanism, curves } = to_make(kind);
        let mut made = Err(TokenError::Gone(self.uri.token_name()));
        for curve in curves {
            let public = [
                Attribute::EcParams(curve.to_vec()),
                Attribute::Verify(true),
                Attribute::Private(false),
            ];
            let public = [&both[..], &public].concat();
            let pair = session.generate_key_pair(&mechanism, &public, &private);
            made = pair.map(drop).map_err(|error| self.failed(&error));
            if made.is_ok() {
                break;
            }
        }
        let _ = session.close();
        made
    }

    /// The session is let go. What the library no longer knows is not named to it.
    fn leave(&mut self) {
        let Some(open) = self.open.take() else { return };
        let loaded = self
            .module
            .gate
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        if open.round == loaded.round {
            let _ = open.session.close();
        }
    }

    /// One try in the session that is there, or in a new one.
    fn try_once(&mut self, scheme: Scheme, message: &[u8]) -> Result<Vec<u8>, TokenError> {
        let round = self
            .module
            .gate
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .round;
        if self.open.as_ref().is_some_and(|open| open.round != round) {
            self.leave();
        }
        if self.open.is_none() {
            self.enter()?;
        }
        let module = Arc::clone(&self.module);
        let loaded = module.gate.read().unwrap_or_else(PoisonError::into_inner);
        let open = self.open.as_ref().filter(|open| open.round == loaded.round);
        let open = open.ok_or_else(|| TokenError::Gone(self.uri.token_name()))?;
        let (mechanism, input) = prepare(scheme, message);
        let signature = open.session.sign(&mechanism, open.key, &input);
        let signature = signature.map_err(|error| self.failed(&error))?;
        written(scheme, signature).ok_or_else(|| {
            let cause = String::from("the signature has another length than its curve");
            let token = self.uri.token_name();
            TokenError::Failed { token, cause }
        })
    }

    fn failed(&self, error: &Error) -> TokenError {
        TokenError::Failed {
            token: self.uri.token_name(),
            cause: error.to_string(),
        }
    }
}

impl Keeper for Slot {
    /// Tries again in a new session, and then with the module initialised anew: a token that was
    /// pulled out, or a daemon that was restarted, is found again without a restart of ours.
    fn sign(&mut self, scheme: Scheme, message: &[u8]) -> Result<Vec<u8>, TokenError> {
        let is_final = |error: &TokenError| {
            matches!(
                error,
                TokenError::WrongPin(_) | TokenError::PinLocked(_) | TokenError::NoPin(_)
            )
        };
        match self.try_once(scheme, message) {
            Err(error) if !is_final(&error) => self.leave(),
            done => return done,
        }
        match self.try_once(scheme, message) {
            Err(error) if !is_final(&error) => self.leave(),
            done => return done,
        }
        self.module
            .begin_again()
            .map_err(|error| self.failed(&error))?;
        let done = self.try_once(scheme, message);
        if done.is_err() {
            self.leave();
        }
        done
    }
}

impl Drop for Slot {
    /// The last one ends the library too: some do not outlive the end of the process otherwise.
    fn drop(&mut self) {
        self.leave();
        let mut all = modules();
        // The table's and this one: all others are made under the table's lock.
        if Arc::strong_count(&self.module) <= 2 {
            all.remove(self.uri.module());
            let loaded = self
                .module
                .gate
                .read()
                .unwrap_or_else(PoisonError::into_inner);
            let _ = loaded.library.clone().finalize();
        }
    }
}
