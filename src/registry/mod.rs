//! Who is enrolled: identities, certificates, pins, revocations; two stores behind one trait, and
//! the picture of it that a server keeps in memory and decides by.
//!
//! It stores and tells; it refuses to judge. Whether a certificate is valid, whether an issuer may
//! sign, what a grant allows: those are the business of the floors above.

mod contact;
mod feed;
mod key;
mod offline;
mod open;
#[cfg(test)]
mod outage;
mod place;
mod postgres;
mod queue;
mod record;
mod rows;
mod shard;
mod sqlite;
mod store;
#[cfg(test)]
mod suite;
mod token;
mod view;

pub use feed::{Applied, Feed};
pub use open::open;
pub use place::{PlaceError, RegistryPlace};
pub use postgres::PostgresStore;
pub use record::{
    Change, ChangeKind, Enrolment, EnrolmentKind, Outline, Page, Reason, Revocation, RevokedSerial,
    UnknownReason,
};
pub use sqlite::SqliteStore;
pub use store::{Confirmation, LIVE_FOR, Reply, Store, StoreError};
pub use token::{Token, TokenDigest, TokenRefusal};
pub use view::{Pin, Standing, View};
