//! All providers under one roof: names, prefixes, lists.
//!
//! Written by the owner of dispatch.

use super::provider::Provider;
use std::sync::Arc;

/// Providers by name, in the order of the configuration.
pub struct Catalogue {
    providers: Vec<(String, Arc<dyn Provider>)>,
}
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    #[error("two providers are called `{0}`")]
    Twice(String),
}
pub struct Listed;
impl Catalogue {
    #[must_use]
    pub fn providers(&self) -> &[(String, Arc<dyn Provider>)] {
        &self.providers
    }
}
