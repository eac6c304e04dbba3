//! The four lists, filtered by what the caller could use and cut into pages.

use std::sync::Arc;

use bytes::Bytes;

use crate::backend::{Caller, Listed};
use crate::grant::Kind;
use crate::jsonrpc::{RpcError, code};

use super::reply::Reply;
use super::router::Router;

/// Pages of a provider that are looked through for one page of the caller's: a caller who may use
/// little gets a short page and a cursor instead of a long wait.
const PAGES_AT_ONCE: usize = 8;

fn bad_cursor() -> Reply {
    Reply::Error(RpcError::new(
        code::INVALID_PARAMS,
        "the cursor is not one of this list",
    ))
}

/// Writes `"<name>":[…]` and the cursor of the next page.
struct ListWriter {
    out: Vec<u8>,
    count: usize,
}

impl ListWriter {
    fn new(name: &str) -> Self {
        Self {
            out: format!("\"{name}\":[").into_bytes(),
            count: 0,
        }
    }

    fn push(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        if self.count > 0 {
            self.out.push(b',');
        }
        write(&mut self.out);
        self.count += 1;
    }

    fn finish(mut self, next: Option<String>, ttl_ms: u32) -> Reply {
        self.out.push(b']');
        if let Some(cursor) = next {
            // Base64url needs no escaping.
            self.out
                .extend_from_slice(format!(r#","nextCursor":"{cursor}""#).as_bytes());
        }
        Reply::Result {
            members: Bytes::from(self.out).into(),
            tool_error: false,
            ttl_ms,
        }
    }
}

impl Router {
    /// `tools/list`: a tool is listed if it could be called.
    pub(super) fn list_tools(&self, caller: &Caller, cursor: Option<&str>) -> Reply {
        let tools = self.catalogue.tools().iter().filter(|tool| {
            caller.grounds.allows(Kind::Tools, &tool.listed.key)
                && tool
                    .requires
                    .iter()
                    .all(|(kind, what)| caller.grounds.allows(*kind, what))
        });
        self.page(
            "tools",
            "tools/list",
            caller,
            cursor,
            tools.map(|tool| &tool.listed),
        )
    }

    /// `prompts/list`.
    pub(super) fn list_prompts(&self, caller: &Caller, cursor: Option<&str>) -> Reply {
        let prompts = self.catalogue.prompts().iter();
        let prompts = prompts.filter(|one| caller.grounds.allows(Kind::Prompts, &one.key));
        self.page("prompts", "prompts/list", caller, cursor, prompts)
    }

    /// `resources/templates/list`: a template is listed if some URI of it could be read.
    pub(super) fn list_templates(&self, caller: &Caller, cursor: Option<&str>) -> Reply {
        let templates = self.catalogue.templates().iter();
        let templates =
            templates.filter(|one| caller.grounds.could_allow(Kind::Resources, &one.key));
        self.page(
            "resourceTemplates",
            "resources/templates/list",
            caller,
            cursor,
            templates,
        )
    }

    /// One page of a list that is in memory; the cursor names the last key of the page before.
    fn page<'a>(
        &self,
        member: &str,
        list: &str,
        caller: &Caller,
        cursor: Option<&str>,
        items: impl Iterator<Item = &'a Listed>,
    ) -> Reply {
        let name = caller.peer.name().as_str();
        let mut items = items.peekable();
        if let Some(cursor) = cursor {
            let Some(after) = self.cursors.open(name, list, cursor) else {
                return bad_cursor();
            };
            // The thing itself may be gone or out of reach by now; then the list starts anew,
            // which shows something twice but hides nothing.
            let mut ahead = items.by_ref().collect::<Vec<_>>();
            let from = ahead
                .iter()
                .position(|one| one.key == after)
                .map_or(0, |at| at + 1);
            return self.write_page(member, list, name, &mut ahead.drain(from..).peekable());
        }
        self.write_page(member, list, name, &mut items)
    }

    fn write_page<'a>(
        &self,
        member: &str,
        list: &str,
        name: &str,
        items: &mut std::iter::Peekable<impl Iterator<Item = &'a Listed>>,
    ) -> Reply {
        let mut writer = ListWriter::new(member);
        let mut last = None;
        while writer.count < self.options.page_size
            && let Some(item) = items.next()
        {
            writer.push(|out| out.extend_from_slice(&item.json));
            last = Some(&item.key);
        }
        let next = match (items.peek(), last) {
            (Some(_), Some(last)) => self.cursors.seal(name, list, last),
            _ => None,
        };
        writer.finish(next, self.options.list_ttl_ms)
    }

    /// `resources/list`: providers in their order, each asked page by page.
    pub(super) async fn list_resources(
        self: Arc<Self>,
        caller: Arc<Caller>,
        cursor: Option<String>,
    ) -> Reply {
        const LIST: &str = "resources/list";
        let name = caller.peer.name().as_str();
        let (mut provider, mut after) = match cursor {
            None => (0, None),
            Some(cursor) => {
                let position = self.cursors.open(name, LIST, &cursor);
                match position.as_deref().and_then(split_position) {
                    Some(position) => position,
                    None => return bad_cursor(),
                }
            }
        };
        let mut writer = ListWriter::new("resources");
        for _ in 0..PAGES_AT_ONCE {
            let Some(source) = self.catalogue.provider(provider) else {
                return writer.finish(None, self.options.list_ttl_ms);
            };
            let room = self.options.page_size - writer.count;
            let page = match source.resources(after.take(), room).wait().await {
                Ok(page) => page,
                Err(failure) => return Reply::failure(failure, bad_provider_page),
            };
            for item in &page.items {
                if caller.grounds.allows(Kind::Resources, &item.uri) {
                    writer.push(|out| item.encode(out));
                }
            }
            after = page.next;
            if after.is_none() {
                provider += 1;
            }
            if writer.count >= self.options.page_size {
                break;
            }
        }
        if after.is_none() && self.catalogue.provider(provider).is_none() {
            return writer.finish(None, self.options.list_ttl_ms);
        }
        let position = format!(
            "{provider}:{}",
            after.as_deref().map_or(String::new(), |a| format!("={a}"))
        );
        let next = self.cursors.seal(name, LIST, &position);
        writer.finish(next, self.options.list_ttl_ms)
    }
}

fn bad_provider_page() -> RpcError {
    RpcError::new(code::INTERNAL, "internal error")
}

/// `<provider>:` or `<provider>:=<after>`.
fn split_position(position: &str) -> Option<(usize, Option<String>)> {
    let (provider, after) = position.split_once(':')?;
    let after = after.strip_prefix('=').map(str::to_owned);
    Some((provider.parse().ok()?, after))
}
