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
mod connect_listen;
mod enrol;
mod enrol_rate;
mod handshake;
mod http;
mod killed;
mod life;
mod outage;
mod pressure;
mod protocol;
mod revocation;
mod rmcp;
mod secrets;
mod spiffe;
mod streams;
mod subtree;
#[cfg(feature = "cryptoki")]
mod token;
mod transports;
mod websocket;
