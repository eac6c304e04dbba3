//! One integration binary; a file for each boundary.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and reads the clock where it makes certificates"
)]

mod support;

mod admission;
mod algorithms;
mod authorization;
mod cli;
mod configuration;
mod confirmed;
mod connect_listen;
mod crls;
mod embed;
mod enrol;
mod handshake;
#[cfg(feature = "rmcp")]
mod hosted;
mod http;
mod killed;
mod life;
mod memory;
mod outage;
mod pressure;
mod protocol;
mod renewal;
mod revocation;
mod rmcp;
mod rows;
mod secrets;
mod spiffe;
mod streams;
mod subtree;
#[cfg(feature = "cryptoki")]
mod token;
mod transports;
mod websocket;
