//! The calls to a PKCS#11 module: finding the token and the key, logging in, signing, and beginning
//! anew where a session, a token or a whole module was lost. A PIN that was refused is never tried
//! again: tokens lock themselves.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::rsa::{PkcsMgfType, PkcsPssParams};
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::types::RawAuthPin;
use ring::digest;
use ring::rand::{SecureRandom, SystemRandom};

use super::key::{Curve, Scheme, TokenKeyKind};
use super::link::Keeper;
use super::refusal::TokenError;
use super::uri::KeyUri;
use crate::secret::Secret;

/// The object identifiers of the curves, DER.
const P256: &[u8] = &[6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
const P384: &[u8] = &[6, 5, 0x2b, 0x81, 4, 0, 0x22];

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
        make: Option<Curve>,
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
            (Err(TokenError::NoKey { .. }), Some(curve)) => {
                slot.make(curve)?;
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
            Some(KeyType::EC) => {
                let wanted = [AttributeType::EcParams, AttributeType::EcPoint];
                let attributes = read(public, &wanted)?;
                ec(attributes).ok_or_else(strange)
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
    fn make(&mut self, curve: Curve) -> Result<(), TokenError> {
        let module = Arc::clone(&self.module);
        let loaded = module.gate.read().unwrap_or_else(PoisonError::into_inner);
        let session = self.session(&loaded.library, true)?;
        let params = match curve {
            Curve::P256 => P256,
            Curve::P384 => P384,
        };
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
        let public = [
            Attribute::EcParams(params.to_vec()),
            Attribute::Verify(true),
            Attribute::Private(false),
        ];
        let private = [
            Attribute::Sign(true),
            Attribute::Private(true),
            Attribute::Sensitive(true),
            Attribute::Extractable(false),
        ];
        let made = session.generate_key_pair(
            &Mechanism::EccKeyPairGen,
            &[&both[..], &public].concat(),
            &[&both[..], &private].concat(),
        );
        let _ = session.close();
        made.map(drop).map_err(|error| self.failed(&error))
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
        match scheme {
            Scheme::EcdsaSha256 | Scheme::EcdsaSha384 => ecdsa_der(&signature).ok_or_else(|| {
                let cause = String::from("the signature has another length than its curve");
                let token = self.uri.token_name();
                TokenError::Failed { token, cause }
            }),
            _ => Ok(signature),
        }
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

/// What the token is asked to do, and with which bytes. It is given digests: every token signs
/// those, and few digest themselves.
fn prepare(scheme: Scheme, message: &[u8]) -> (Mechanism<'static>, Vec<u8>) {
    let digest = |algorithm| digest::digest(algorithm, message).as_ref().to_vec();
    let sha256 = || digest(&digest::SHA256);
    let sha384 = || digest(&digest::SHA384);
    let sha512 = || digest(&digest::SHA512);
    let pss = |hash_alg, mgf, length: u64| {
        Mechanism::RsaPkcsPss(PkcsPssParams {
            hash_alg,
            mgf,
            s_len: length.into(),
        })
    };
    // RFC 8017 section 9.2, note 1: `DigestInfo` up to the digest itself.
    let info = |last: u8, digest: Vec<u8>| {
        let length = u8::try_from(digest.len()).unwrap_or(u8::MAX);
        let mut info = vec![
            0x30,
            0x11 + length,
            0x30,
            0x0d,
            6,
            9,
            0x60,
            0x86,
            0x48,
            1,
            0x65,
            3,
            4,
            2,
            last,
            5,
            0,
            4,
            length,
        ];
        info.extend(digest);
        info
    };
    match scheme {
        Scheme::EcdsaSha256 => (Mechanism::Ecdsa, sha256()),
        Scheme::EcdsaSha384 => (Mechanism::Ecdsa, sha384()),
        Scheme::PssSha256 => (
            pss(MechanismType::SHA256, PkcsMgfType::MGF1_SHA256, 32),
            sha256(),
        ),
        Scheme::PssSha384 => (
            pss(MechanismType::SHA384, PkcsMgfType::MGF1_SHA384, 48),
            sha384(),
        ),
        Scheme::PssSha512 => (
            pss(MechanismType::SHA512, PkcsMgfType::MGF1_SHA512, 64),
            sha512(),
        ),
        Scheme::Pkcs1Sha256 => (Mechanism::RsaPkcs, info(1, sha256())),
        Scheme::Pkcs1Sha384 => (Mechanism::RsaPkcs, info(2, sha384())),
        Scheme::Pkcs1Sha512 => (Mechanism::RsaPkcs, info(3, sha512())),
    }
}

fn ec(attributes: Vec<Attribute>) -> Option<(TokenKeyKind, Vec<u8>)> {
    let (mut curve, mut point) = (None, None);
    for attribute in attributes {
        match attribute {
            Attribute::EcParams(params) if params == P256 => curve = Some((Curve::P256, 65)),
            Attribute::EcParams(params) if params == P384 => curve = Some((Curve::P384, 97)),
            Attribute::EcPoint(found) => point = Some(found),
            _ => {}
        }
    }
    let ((curve, length), mut point) = (curve?, point?);
    // An OCTET STRING around it, as the standard says; some tokens leave it away.
    if point.len() == length + 2 && point[0] == 4 && usize::from(point[1]) == length {
        point.drain(..2);
    }
    (point.len() == length && point[0] == 4).then_some((TokenKeyKind::Ec(curve), point))
}

fn rsa(attributes: Vec<Attribute>) -> Option<(TokenKeyKind, Vec<u8>)> {
    let (mut modulus, mut exponent) = (None, None);
    for attribute in attributes {
        match attribute {
            Attribute::Modulus(found) => modulus = Some(found),
            Attribute::PublicExponent(found) => exponent = Some(found),
            _ => {}
        }
    }
    let modulus = modulus?;
    let significant = modulus.iter().skip_while(|byte| **byte == 0);
    let bits = significant.clone().count() * 8
        - significant
            .clone()
            .next()
            .map_or(0, |byte| byte.leading_zeros() as usize);
    if bits < 2048 {
        return None;
    }
    let content = [integer(&modulus), integer(&exponent?)].concat();
    Some((TokenKeyKind::Rsa, tagged(0x30, &content)))
}

/// Raw `r` and `s` as a DER sequence.
fn ecdsa_der(signature: &[u8]) -> Option<Vec<u8>> {
    if !matches!(signature.len(), 64 | 96) {
        return None;
    }
    let (r, s) = signature.split_at(signature.len() / 2);
    Some(tagged(0x30, &[integer(r), integer(s)].concat()))
}

/// An unsigned number, DER.
fn integer(bytes: &[u8]) -> Vec<u8> {
    let first = bytes.iter().position(|byte| *byte != 0);
    let mut content = bytes[first.unwrap_or(bytes.len())..].to_vec();
    if content.first().is_none_or(|byte| byte & 0x80 != 0) {
        content.insert(0, 0);
    }
    tagged(2, &content)
}

fn tagged(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let first = length.iter().position(|byte| *byte != 0);
    let length = &length[first.unwrap_or(length.len() - 1)..];
    let mut der = vec![tag];
    if content.len() >= 0x80 {
        der.push(0x80 | u8::try_from(length.len()).unwrap_or(u8::MAX));
    }
    der.extend_from_slice(length);
    der.extend_from_slice(content);
    der
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_der_wants_them() {
        assert_eq!(integer(&[0, 0, 1]), [2, 1, 1]);
        assert_eq!(integer(&[0x80]), [2, 2, 0, 0x80]);
        assert_eq!(integer(&[0, 0]), [2, 1, 0]);
        assert_eq!(integer(&[]), [2, 1, 0]);
        let long = integer(&[0xff; 256]);
        assert_eq!(long[..6], [2, 0x82, 1, 1, 0, 0xff]);
        assert_eq!(tagged(4, &[7; 200])[..3], [4, 0x81, 200]);
    }

    #[test]
    fn a_signature_has_its_curve_s_length() {
        let der = ecdsa_der(&[1; 64]).unwrap();
        assert_eq!(der[..4], [0x30, 68, 2, 32]);
        assert_eq!(ecdsa_der(&[1; 65]), None);
    }

    #[test]
    fn a_point_comes_with_or_without_its_octet_string() {
        let point = [&[4][..], &[9; 64]].concat();
        let wrapped = [&[4, 65][..], &point].concat();
        for found in [&point, &wrapped] {
            let attributes = vec![
                Attribute::EcParams(P256.to_vec()),
                Attribute::EcPoint(found.clone()),
            ];
            let (kind, read) = ec(attributes).unwrap();
            assert_eq!((kind, &read), (TokenKeyKind::Ec(Curve::P256), &point));
        }
        let other = vec![
            Attribute::EcParams(P384.to_vec()),
            Attribute::EcPoint(point),
        ];
        assert!(ec(other).is_none());
    }

    #[test]
    fn a_short_rsa_key_is_none() {
        let key = |length| {
            rsa(vec![
                Attribute::Modulus(vec![0xff; length]),
                Attribute::PublicExponent(vec![1, 0, 1]),
            ])
        };
        assert!(key(256).is_some());
        assert!(key(255).is_none());
        assert!(key(128).is_none());
    }
}
