//! What rustls asks in the handshake: the client's certificate, its signature, its ticket. Leaves
//! the exact reason of a refusal for the audit log; the alert tells its class only.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::ProducesTickets;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use zeroize::Zeroizing;

use super::cache::Key;
use super::provider::unix_time;
use super::refusal::Refusal;
use super::trust::Trust;
use crate::clock;

/// What one handshake leaves behind for [`super::server`].
#[derive(Default)]
pub(super) struct Notes {
    /// Why the verifier refused.
    pub(super) refusal: Option<Refusal>,
    /// The chain that was verified, or that the accepted ticket was given to.
    chain: Option<Key>,
}

tokio::task_local! {
    /// Scoped around one handshake's future: rustls calls the verifier and the ticketer inside its
    /// poll, and knows no way to hand anything back.
    pub(super) static NOTES: RefCell<Notes>;
}

/// Does nothing outside of a handshake's future; a ticket is then neither given nor taken.
fn note(change: impl FnOnce(&mut Notes)) {
    let _ = NOTES.try_with(|notes| change(&mut notes.borrow_mut()));
}

/// Asks for a certificate and judges it.
pub(super) struct Verifier {
    trust: Arc<Trust>,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    pub(super) fn new(trust: Arc<Trust>, provider: Arc<CryptoProvider>) -> Self {
        Self { trust, provider }
    }
}

impl ClientCertVerifier for Verifier {
    /// None: who is trusted is nobody's business, and a client then sends what it has.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        match self.trust.judge(end_entity, intermediates, unix_time(now)) {
            Ok((key, _)) => {
                note(|notes| notes.chain = Some(key));
                Ok(ClientCertVerified::assertion())
            }
            Err(refusal) => {
                let error = refusal.class.certificate_error();
                note(|notes| notes.refusal = Some(refusal));
                Err(Error::InvalidCertificate(error))
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier")
            .field("trust", &self.trust)
            .finish_non_exhaustive()
    }
}

/// Tickets that name the chain they were given to, inside the seal. One whose chain is no longer
/// known, valid and in good standing is not taken: the full handshake that follows refuses it with
/// the right alert, which rustls cannot send after a resumption.
pub(super) struct BoundTickets {
    trust: Arc<Trust>,
    sealer: Arc<dyn ProducesTickets>,
}

impl BoundTickets {
    pub(super) fn new(trust: Arc<Trust>, sealer: Arc<dyn ProducesTickets>) -> Self {
        Self { trust, sealer }
    }
}

impl ProducesTickets for BoundTickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        self.sealer.lifetime()
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let chain = NOTES.try_with(|notes| notes.borrow().chain).ok()??;
        let mut bound = Zeroizing::new(Vec::with_capacity(chain.len() + plain.len()));
        bound.extend_from_slice(&chain);
        bound.extend_from_slice(plain);
        self.sealer.encrypt(&bound)
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        let bound = Zeroizing::new(self.sealer.decrypt(cipher)?);
        let (chain, plain) = bound.split_first_chunk()?;
        if !self.trust.resumable(chain, clock::unix_now()) {
            return None;
        }
        note(|notes| notes.chain = Some(*chain));
        Some(plain.to_vec())
    }
}

impl fmt::Debug for BoundTickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BoundTickets")
    }
}
