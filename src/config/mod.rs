//! The configuration: the written document, `countersign.toml`, checked as a whole and resolved
//! into the options that each floor owns. Reads one file and the environment it is given; opens
//! nothing that the document names.

mod amount;
mod document;
mod example;
mod load;
mod look;
mod mistake;
mod overrides;
mod reference;
mod render;
mod resolve;
mod resolved;
mod schema;
mod shape;
#[cfg(test)]
mod tests;
mod written;

pub use amount::{AmountError, Period, Size};
pub use example::{DevPaths, example};
pub use look::look;
pub use mistake::Mistake;
pub use reference::reference;
pub use resolved::{CaOptions, Config, RegistryOptions, ServerInfo, TlsOptions};
pub use schema::schema;
pub use written::{
    AuditSection, CaSection, LimitsSection, ListenSection, RegistrySection, ServerSection, Sync,
    TlsSection, Written,
};
