//! Takes recorded calls to where they are answered. What was not authenticated, authorized and
//! recorded does not compile: the one way in takes a `Recorded<Permitted<Box<Call>>>`.

mod cursor;
mod lists;
mod reply;
mod rounds;
mod router;

pub use cursor::{Cursors, NoRandom};
pub use reply::{Dispatched, Effect, Listening, Members, Reply, Watch};
pub use router::{Router, RouterOptions};
