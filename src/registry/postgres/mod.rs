//! The store of a fleet: one PostgreSQL database, for the servers and commands of many machines.
//!
//! The same schema as [`super::sqlite`]'s, version by version. One connection of each process
//! writes, one listens, a few read. Whatever comes to the writer together is committed together.
//! Writers of all processes come one after the other, through one row that each of them locks: so
//! changes are numbered in the order of their commits, without gaps, and nobody who follows the feed
//! can pass by a number that is committed later.

mod connection;
mod database;
mod ear;
mod postgres_store;
mod reader;
mod statement;
#[cfg(test)]
mod tests;
mod tokens;
mod writer;

pub use postgres_store::PostgresStore;
