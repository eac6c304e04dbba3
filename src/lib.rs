//! Countersign: a zero-trust MCP server and gateway.
//!
//! The modules are listed by floor. A module imports only from floors below its own; the test
//! `tests/architecture.rs` reads the sources and fails on an import that runs sideways or upwards.

// Floor 0: words. No I/O, no policy.
pub mod clock;
pub mod framing;
pub mod grant;
pub mod identity;
pub mod jsonrpc;
pub mod secret;

// Floor 1: what a certificate says, and who was proven.
pub mod cert;
pub mod est;
pub mod peer;

// Floor 2: what may be asked, and who is enrolled.
pub mod policy;
pub mod registry;

// Floor 3: the protocol's table, and the record of decisions.
pub mod audit;
pub mod mcp;

// Floor 4: certificates made, handshakes judged, bytes framed.
pub mod ca;
pub mod tls;
pub mod transport;

// Floor 5: connections accepted, tools offered.
pub mod backend;
pub mod enrol;
pub mod listener;

// Floor 6
pub mod dispatch;

// Floor 7
pub mod session;

// Floor 8
pub mod config;

// Floor 9
pub mod authority_server;
pub mod client;
pub mod server;

// Floor 10
pub mod cli;
