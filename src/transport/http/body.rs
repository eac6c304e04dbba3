//! Bodies: a request's, collected within its bounds, and an answer's, whole or as events.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::stream::{BoxStream, StreamExt};
use hyper::body::{Body, Frame, Incoming, SizeHint};

use super::pace::{Busy, Pace};

/// Why there is no body.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// Over the limit: 413.
    #[error("the body is longer than {0} bytes")]
    TooLong(usize),
    /// Not whole in time: 408.
    #[error("the body was not whole within {0:?}")]
    Slow(Duration),
    /// The connection broke, or the framing is wrong.
    #[error("the body broke off: {0}")]
    Broken(hyper::Error),
}

/// A body that is being collected. One that says that it is longer than the limit is not read at all; one
/// that comes in one piece is not copied.
#[derive(Debug)]
pub struct Collecting {
    body: Incoming,
    limit: usize,
    first: Bytes,
    all: BytesMut,
}

impl Collecting {
    /// `limit`: bytes.
    #[must_use]
    pub fn new(body: Incoming, limit: usize) -> Self {
        Self {
            body,
            limit,
            first: Bytes::new(),
            all: BytesMut::new(),
        }
    }

    /// The bytes that are still to come at the least, as far as they are told.
    fn least(&self) -> Option<usize> {
        usize::try_from(self.body.size_hint().lower()).ok()
    }

    /// Ready when it is whole.
    ///
    /// # Errors
    /// [`BodyError`]; it is not to be polled again.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, BodyError>> {
        let limit = self.limit;
        if self.least().is_none_or(|least| least > limit) {
            return Poll::Ready(Err(BodyError::TooLong(limit)));
        }
        while let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            let frame = frame.map_err(BodyError::Broken)?;
            // Trailers are read over: nothing in them is asked for.
            let Ok(data) = frame.into_data() else {
                continue;
            };
            let Self { first, all, .. } = self;
            if first.len() + all.len() + data.len() > limit {
                return Poll::Ready(Err(BodyError::TooLong(limit)));
            }
            if all.is_empty() && first.is_empty() {
                *first = data;
                continue;
            }
            if all.is_empty() {
                let rest = self.least().unwrap_or(limit).min(limit);
                let Self { first, all, .. } = self;
                all.reserve(first.len() + data.len() + rest);
                all.extend_from_slice(&std::mem::take(first));
            }
            self.all.extend_from_slice(&data);
        }
        Poll::Ready(Ok(if self.all.is_empty() {
            std::mem::take(&mut self.first)
        } else {
            std::mem::take(&mut self.all).freeze()
        }))
    }

    /// The whole of one that has not come with its head.
    ///
    /// # Errors
    /// As [`Self::poll`], and that it took longer than `timeout`.
    pub async fn rest(mut self, busy: &Busy, timeout: Duration) -> Result<Bytes, BodyError> {
        let slow = BodyError::Slow(timeout);
        if busy.body_begins() {
            let whole = poll_fn(|cx| match self.poll(cx) {
                Poll::Ready(whole) => Poll::Ready(Some(whole)),
                Poll::Pending => busy.poll_slow(cx).map(|()| None),
            });
            whole.await.unwrap_or(Err(slow))
        } else {
            tokio::time::timeout(timeout, poll_fn(|cx| self.poll(cx)))
                .await
                .unwrap_or(Err(slow))
        }
    }
}

/// The body of an answer.
pub struct ReplyBody {
    kind: Kind,
    /// Counts what was not sent yet (HTTP/2).
    pace: Option<Arc<Pace>>,
}

enum Kind {
    Whole(Option<Bytes>),
    Events(BoxStream<'static, Bytes>),
}

impl ReplyBody {
    /// One piece, or none.
    #[must_use]
    pub const fn whole(bytes: Option<Bytes>) -> Self {
        Self {
            kind: Kind::Whole(bytes),
            pace: None,
        }
    }

    /// Events as they come.
    #[must_use]
    pub const fn events(events: BoxStream<'static, Bytes>) -> Self {
        Self {
            kind: Kind::Events(events),
            pace: None,
        }
    }

    /// Has HTTP/2 count what of this was not sent yet: there a client can take in everything that
    /// the connection carries and yet never the answers.
    pub fn counted_by(&mut self, pace: &Arc<Pace>) {
        if pace.counts() {
            if let Kind::Whole(Some(bytes)) = &mut self.kind {
                *bytes = pace.count(std::mem::take(bytes));
                return;
            }
            self.pace = Some(Arc::clone(pace));
        }
    }

    fn counted(&self, bytes: Bytes) -> Frame<Bytes> {
        Frame::data(match &self.pace {
            Some(pace) => pace.count(bytes),
            None => bytes,
        })
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = self.get_mut();
        let next = match &mut this.kind {
            Kind::Whole(bytes) => bytes.take(),
            Kind::Events(events) => ready!(events.poll_next_unpin(cx)),
        };
        Poll::Ready(next.map(|bytes| Ok(this.counted(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.kind, Kind::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Kind::Events(_) => SizeHint::default(),
        }
    }
}
