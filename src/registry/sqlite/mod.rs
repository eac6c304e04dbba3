//! The embedded store: one SQLite file, for the servers and commands of one machine.
//!
//! One connection writes, a few read. Whatever comes to the writer together is committed together,
//! so that one wait for the disk serves many. Other processes hear of a change by a small file
//! beside the database, the *bell*, which is written after each commit.

mod bell;
mod file;
#[cfg(test)]
mod measure;
mod reader;
mod sqlite_store;
mod statement;
#[cfg(test)]
mod tests;
mod tokens;
mod writer;

pub use sqlite_store::SqliteStore;
