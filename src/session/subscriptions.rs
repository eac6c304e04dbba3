//! What one connection wants to hear of: the legacy subscriptions of the connection and the
//! `subscriptions/listen` streams of the modern era. Every URI that goes out is authorized again.

use tokio::sync::{broadcast, watch};

use crate::backend::{Caller, Happening};
use crate::dispatch::{Listening, Watch};
use crate::grant::Kind;
use crate::jsonrpc::{
    OwnedId, RequestId, begin_result, end_result, write_notification, write_string,
};

/// Everything that a connection subscribed to, and where the news comes from.
#[derive(Debug)]
pub struct Subscriptions {
    /// What providers report.
    pub events: broadcast::Receiver<Happening>,
    /// Grows when the policy or the registry changes.
    pub changes: watch::Receiver<u64>,
    wanted: Wanted,
}

impl Subscriptions {
    /// None yet.
    #[must_use]
    pub fn new(events: broadcast::Receiver<Happening>, changes: watch::Receiver<u64>) -> Self {
        Self {
            events,
            changes,
            wanted: Wanted::default(),
        }
    }
}

impl std::ops::Deref for Subscriptions {
    type Target = Wanted;

    fn deref(&self) -> &Wanted {
        &self.wanted
    }
}

impl std::ops::DerefMut for Subscriptions {
    fn deref_mut(&mut self) -> &mut Wanted {
        &mut self.wanted
    }
}

/// What is subscribed to.
#[derive(Debug, Default)]
pub struct Wanted {
    /// Whether a legacy client finished its handshake: it hears of changed lists unasked.
    pub unasked: bool,
    legacy: Vec<Watch>,
    listens: Vec<(OwnedId, Listening)>,
}

impl Wanted {
    /// Resources that are watched, over all subscriptions.
    #[must_use]
    pub fn watched(&self) -> usize {
        let listens = self
            .listens
            .iter()
            .map(|(_, listening)| listening.watches.len());
        self.legacy.len() + listens.sum::<usize>()
    }

    /// Streams that are open.
    #[must_use]
    pub fn streams(&self) -> usize {
        self.listens.len()
    }

    /// Adds a legacy subscription; a second one for the same URI changes nothing.
    pub fn subscribe(&mut self, watch: Watch) {
        if !self.legacy.iter().any(|known| known.uri() == watch.uri()) {
            self.legacy.push(watch);
        }
    }

    /// Ends a legacy subscription.
    pub fn unsubscribe(&mut self, uri: &str) {
        self.legacy.retain(|watch| watch.uri() != uri);
    }

    /// Opens a stream and returns its acknowledgement, the first message of the stream.
    pub fn listen(&mut self, id: OwnedId, listening: Listening) -> Vec<u8> {
        let acknowledged = acknowledge(&id, &listening);
        self.listens.push((id, listening));
        acknowledged
    }

    /// Whether a stream with this id is open.
    #[must_use]
    pub fn has(&self, id: &[u8]) -> bool {
        self.listens
            .iter()
            .any(|(known, _)| RequestId::same(known, id))
    }

    /// Closes the stream with this id.
    pub fn cancel(&mut self, id: &[u8]) -> bool {
        let before = self.listens.len();
        self.listens
            .retain(|(known, _)| !RequestId::same(known, id));
        self.listens.len() < before
    }

    /// Closes every stream; the ids, for their final results.
    pub fn end(&mut self) -> Vec<OwnedId> {
        self.legacy.clear();
        self.listens.drain(..).map(|(id, _)| id).collect()
    }

    /// The notifications that this happening means for this connection.
    #[must_use]
    pub fn notifications(&self, happening: &Happening, caller: &Caller) -> Vec<Vec<u8>> {
        match happening {
            Happening::ResourceUpdated(uri) => self.updated(uri, caller),
            Happening::ToolsChanged => {
                self.changed("notifications/tools/list_changed", |l| l.filter.tools)
            }
            Happening::PromptsChanged => {
                self.changed("notifications/prompts/list_changed", |l| l.filter.prompts)
            }
            Happening::ResourcesChanged => self
                .changed("notifications/resources/list_changed", |l| {
                    l.filter.resources
                }),
        }
    }

    fn updated(&self, uri: &str, caller: &Caller) -> Vec<Vec<u8>> {
        // The URI of the notification may lie below the one that was subscribed to.
        if !caller.grounds.allows(Kind::Resources, uri) {
            return Vec::new();
        }
        let mut member = br#""uri":"#.to_vec();
        write_string(&mut member, uri);
        let mut out = Vec::new();
        if self.legacy.iter().any(|watch| covers(watch.uri(), uri)) {
            out.push(notification(
                "notifications/resources/updated",
                None,
                &member,
            ));
        }
        for (id, listening) in &self.listens {
            if listening
                .watches
                .iter()
                .any(|watch| covers(watch.uri(), uri))
            {
                out.push(notification(
                    "notifications/resources/updated",
                    Some(id),
                    &member,
                ));
            }
        }
        out
    }

    fn changed(&self, method: &str, wanted: impl Fn(&Listening) -> bool) -> Vec<Vec<u8>> {
        let legacy = self.unasked.then(|| notification(method, None, b""));
        let streams = self
            .listens
            .iter()
            .filter(|(_, listening)| wanted(listening));
        legacy
            .into_iter()
            .chain(streams.map(|(id, _)| notification(method, Some(id), b"")))
            .collect()
    }
}

/// Whether a subscription to `subscribed` hears of `uri`: the same, or below it.
fn covers(subscribed: &str, uri: &str) -> bool {
    uri.strip_prefix(subscribed)
        .is_some_and(|rest| rest.is_empty() || subscribed.ends_with('/') || rest.starts_with('/'))
}

/// Members of `_meta` that name the stream.
fn stream_meta(id: &[u8]) -> Vec<u8> {
    let mut meta = br#""_meta":{"io.modelcontextprotocol/subscriptionId":"#.to_vec();
    meta.extend_from_slice(id);
    meta.push(b'}');
    meta
}

fn notification(method: &str, stream: Option<&[u8]>, member: &[u8]) -> Vec<u8> {
    let mut params = stream.map_or_else(Vec::new, stream_meta);
    if !params.is_empty() && !member.is_empty() {
        params.push(b',');
    }
    params.extend_from_slice(member);
    let mut out = Vec::with_capacity(params.len() + 80);
    write_notification(&mut out, method, &params);
    out
}

fn acknowledge(id: &[u8], listening: &Listening) -> Vec<u8> {
    let filter = &listening.filter;
    let mut member = br#""notifications":{"#.to_vec();
    let flags = [
        ("toolsListChanged", filter.tools),
        ("promptsListChanged", filter.prompts),
        ("resourcesListChanged", filter.resources),
    ];
    for (name, _) in flags.iter().filter(|(_, wanted)| *wanted) {
        member.extend_from_slice(format!(r#""{name}":true,"#).as_bytes());
    }
    member.extend_from_slice(br#""resourceSubscriptions":["#);
    for (index, uri) in filter.uris.iter().enumerate() {
        if index > 0 {
            member.push(b',');
        }
        write_string(&mut member, uri);
    }
    member.extend_from_slice(b"]}");
    notification(
        "notifications/subscriptions/acknowledged",
        Some(id),
        &member,
    )
}

/// Appends the result that ends a stream from the server's side.
pub fn write_stream_end(out: &mut Vec<u8>, id: &[u8]) {
    let meta = stream_meta(id);
    begin_result(out, id);
    out.extend_from_slice(br#""resultType":"complete","#);
    out.extend_from_slice(&meta);
    end_result(out);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subscription_covers_itself_and_what_lies_below() {
        assert!(covers("file:///a", "file:///a"));
        assert!(covers("file:///a", "file:///a/b"));
        assert!(covers("file:///a/", "file:///a/b"));
        assert!(!covers("file:///a", "file:///ab"));
        assert!(!covers("file:///a/b", "file:///a"));
    }

    #[test]
    fn the_last_message_of_a_stream_is_its_result() {
        let mut out = Vec::new();
        write_stream_end(&mut out, b"\"l\"");
        let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(
            value["result"],
            serde_json::json!({"resultType":"complete","_meta":{"io.modelcontextprotocol/subscriptionId":"l"}})
        );
    }
}
