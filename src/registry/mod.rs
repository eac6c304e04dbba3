//! Who is enrolled: identities, certificates, pins, revocations; one store behind one trait, and
//! the picture of it that a server keeps in memory and decides by.

mod feed;
mod record;
mod sqlite;
mod store;
mod view;

pub use feed::{Applied, Feed};
pub use record::{Change, ChangeKind, Enrolment, EnrolmentKind, Reason, Revocation};
pub use sqlite::SqliteStore;
pub use store::{Confirmation, Store, StoreError};
pub use view::{Pin, Standing, View};
