//! The client's side: a lean MCP client over any byte stream, the stdio bridge, and the doctor.
//!
//! Speaks revision 2026-07-28 only: every request carries its metadata, there is no handshake. The
//! bridge speaks no revision at all: it passes lines. Reads no environment and prints nothing; both
//! belong to the command line.

mod bridge;
mod caller;
mod carrier;
mod credentials;
mod dial;
mod doctor;
mod farewell;
mod fault;
mod http;
mod lines;
mod loopback;
mod message;
mod peek;
mod target;
mod transport;
mod websocket;

pub use bridge::{Backoff, Bridge, BridgeOptions, Dial};
pub use caller::{Client, Listing, Stop};
pub use carrier::Carrier;
pub use credentials::{Credentials, CredentialsError, Folder};
pub use dial::{Dialer, TlsClient};
pub use doctor::{Step, StepState, examine};
pub use farewell::Farewells;
pub use fault::{Alert, ClientError, Fault};
pub use lines::{LineError, Lines, MAX_LINE};
pub use loopback::{Loopback, LoopbackError, Token};
pub use message::{Event, Request, RpcError};
pub use target::{DEFAULT_PORT, Target, TargetError};
pub use transport::{Transport, UnknownTransport};
