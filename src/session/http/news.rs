//! What happens behind the door, on its way to one stream: happenings of providers, and changes of
//! the policy or the registry that change what this caller may see.

use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, watch};

use crate::backend::{Caller, Happening};
use crate::transport::http::Gone;

use super::super::service::Service;
use super::super::subscriptions::Wanted;
use super::conn::Conn;

/// Where the news comes from. It waits here while nobody takes it, within the bound of the channel.
#[derive(Debug)]
pub struct News {
    events: broadcast::Receiver<Happening>,
    changes: watch::Receiver<u64>,
}

/// As [`News::following`] says.
pub type Following = Pin<Box<dyn Future<Output = (Item, News)> + Send>>;

/// One piece of news.
#[derive(Debug)]
pub enum Item {
    /// A provider said so.
    Happened(Happening),
    /// The policy or the registry has changed.
    WorldChanged,
}

impl News {
    /// From now on.
    #[must_use]
    pub fn new(service: &Service) -> Self {
        Self {
            events: service.router.catalogue().events(),
            changes: service.changes(),
        }
    }

    /// The next piece and where the others come from, as a future that goes from stream to stream:
    /// whoever polled it last is woken, and nothing is lost in between.
    pub fn following(mut self) -> Following {
        Box::pin(async move {
            let item = self.next().await;
            (item, self)
        })
    }

    /// The next piece.
    pub async fn next(&mut self) -> Item {
        loop {
            tokio::select! {
                biased;
                changed = self.changes.changed() => match changed {
                    Ok(()) => return Item::WorldChanged,
                    Err(_) => return std::future::pending().await,
                },
                event = self.events.recv() => match event {
                    Ok(happening) => return Item::Happened(happening),
                    // What was missed is gone; what a client sees next is the present.
                    Err(RecvError::Lagged(missed)) => tracing::warn!(missed, "a stream fell behind"),
                    Err(RecvError::Closed) => return std::future::pending().await,
                }
            }
        }
    }
}

/// Turns news into notifications for one caller.
pub struct Teller {
    caller: Arc<Caller>,
}

impl Teller {
    /// # Errors
    /// The peer may no longer stay.
    pub fn new(conn: &Conn) -> Result<Self, Gone> {
        Ok(Self {
            caller: conn.caller()?,
        })
    }

    /// The notifications that this piece means.
    ///
    /// # Errors
    /// The peer may no longer stay.
    pub fn tell(
        &mut self,
        conn: &Conn,
        item: &Item,
        notifications: impl Fn(&Happening, &Caller) -> Vec<Vec<u8>>,
    ) -> Result<Vec<Vec<u8>>, Gone> {
        let now = conn.caller()?;
        let before = std::mem::replace(&mut self.caller, now);
        match item {
            Item::Happened(happening) => Ok(notifications(happening, &self.caller)),
            Item::WorldChanged => {
                if before.grounds.steps() == self.caller.grounds.steps() {
                    return Ok(Vec::new());
                }
                let lists = [
                    Happening::ToolsChanged,
                    Happening::PromptsChanged,
                    Happening::ResourcesChanged,
                ];
                Ok(lists
                    .iter()
                    .flat_map(|list| notifications(list, &self.caller))
                    .collect())
            }
        }
    }
}

/// As [`Wanted::notifications`], for [`Teller::tell`].
pub fn of(wanted: &Wanted) -> impl Fn(&Happening, &Caller) -> Vec<Vec<u8>> + '_ {
    |happening, caller| wanted.notifications(happening, caller)
}
