//! Accept loop, permits, deadlines, drain; the index of live connections by fingerprint and issuer.
//! Knows nothing of what is said on a connection.

mod accept;
mod bell;
mod crew;
mod guest;
mod live;
mod parting;
mod told;
mod waking;

pub use accept::{Door, ListenError, Listener, ListenerOptions};
pub use bell::{Bell, Vigil};
pub use crew::Crew;
pub use guest::Guest;
pub use live::{Close, Live, LiveIndex};
pub use parting::Stream;
pub use told::Told;
