//! A registry whose disk is full: it says that it holds nothing, and takes nothing.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::clock::UnixTime;
use crate::grant::WrittenGrants;
use crate::identity::Fingerprint;
use crate::registry::{
    Change, Confirmation, Enrolment, Outline, Page, Reply, Revocation, RevokedSerial, Store,
    StoreError, Token, TokenDigest,
};

#[derive(Default)]
pub struct Full {
    asked: AtomicBool,
}

impl Full {
    /// Whether somebody wanted to enrol.
    pub fn was_asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }
}

fn full<'a, T: Send + 'a>() -> Reply<'a, T> {
    let (place, cause) = (
        String::from("/full/registry.db"),
        String::from("the disk is full"),
    );
    Box::pin(std::future::ready(Err(StoreError::Unreachable {
        place,
        cause,
    })))
}

impl Store for Full {
    fn place(&self) -> &str {
        "/full/registry.db"
    }

    fn enrol<'a>(&'a self, _: &'a Enrolment) -> Reply<'a, u64> {
        self.asked.store(true, Ordering::Relaxed);
        full()
    }

    fn revoke<'a>(&'a self, _: Fingerprint, _: &'a Revocation) -> Reply<'a, u64> {
        full()
    }

    fn set_pinned<'a>(&'a self, _: Fingerprint, _: bool) -> Reply<'a, u64> {
        full()
    }

    fn set_grants<'a>(&'a self, _: Fingerprint, _: Option<&'a WrittenGrants>) -> Reply<'a, u64> {
        full()
    }

    fn set_end(&self, _: Fingerprint, _: UnixTime) -> Reply<'_, u64> {
        full()
    }

    fn get(&self, _: Fingerprint) -> Reply<'_, Option<Enrolment>> {
        Box::pin(std::future::ready(Ok(None)))
    }

    fn find<'a>(&'a self, key: &'a str, _: UnixTime) -> Reply<'a, Enrolment> {
        Box::pin(std::future::ready(Err(StoreError::NotFound(
            key.to_owned(),
        ))))
    }

    fn named<'a>(&'a self, _: &'a str, _: UnixTime) -> Reply<'a, Vec<Enrolment>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    fn list(&self, _: Option<Fingerprint>, _: u32) -> Reply<'_, Vec<Enrolment>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    fn revoked(&self, _: Fingerprint, _: UnixTime) -> Reply<'_, Vec<RevokedSerial>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    fn page(&self, _: u64, _: u32, _: UnixTime) -> Reply<'_, Page> {
        full()
    }

    fn changes(&self, _: u64, _: u32) -> Reply<'_, Vec<Change>> {
        full()
    }

    fn touched(&self, _: u64, _: u64) -> Reply<'_, Vec<Outline>> {
        full()
    }

    fn put_token<'a>(&'a self, _: &'a Token) -> Reply<'a, ()> {
        full()
    }

    fn token(&self, _: TokenDigest) -> Reply<'_, Option<Token>> {
        full()
    }

    fn take_token<'a>(&'a self, _: TokenDigest, _: &'a Enrolment, _: UnixTime) -> Reply<'a, u64> {
        full()
    }

    fn purge_tokens(&self, _: UnixTime) -> Reply<'_, ()> {
        full()
    }

    fn prune(&self, _: UnixTime) -> Reply<'_, u64> {
        full()
    }

    fn newest(&self) -> Reply<'_, u64> {
        full()
    }

    fn changed(&self, _: u64, _: Duration) -> Reply<'_, u64> {
        full()
    }

    fn heartbeat<'a>(&'a self, _: &'a str, _: u64) -> Reply<'a, ()> {
        full()
    }

    fn farewell<'a>(&'a self, _: &'a str) -> Reply<'a, ()> {
        full()
    }

    fn confirmed(&self, _: u64, _: Duration) -> Reply<'_, Confirmation> {
        full()
    }
}
