//! Keeps a view in step with its store, and tells who must react.

use std::sync::Arc;
use super::record::Change;
use super::store::{Store, StoreError};
use super::view::View;

/// Changes that the view now holds.
#[derive(Clone, Debug)]
pub struct Applied { pub changes: Vec<Change>, pub upto: u64 }

pub struct Feed {}

impl Feed {
    /// Loads the view. `on_applied` is called after each batch that the view has taken in, before
    /// the server's heartbeat confirms it: whoever closes connections does it there.
    /// # Errors
    /// The store cannot be read.
    pub async fn load(store: Arc<dyn Store>, server: String) -> Result<(Self, Arc<View>), StoreError> { let _ = (store, server); todo!() }
    /// Runs until the future is dropped: file notification or poll, apply, `on_applied`, heartbeat.
    pub async fn run(self, on_applied: impl Fn(&Applied) + Send + Sync + 'static) { let _ = on_applied; todo!() }
}
