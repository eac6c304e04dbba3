//! Bodies: a request's, collected within its bounds, and an answer's, whole or as events.

use std::future::poll_fn;
use std::pin::{Pin, pin};
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

/// Collects a body. One that says that it is longer than `limit` is not read at all; one that comes
/// in one piece is not copied.
///
/// # Errors
/// [`BodyError`].
pub async fn collect(
    body: Incoming,
    limit: usize,
    busy: &Busy,
    timeout: Duration,
) -> Result<Bytes, BodyError> {
    let least = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if least > limit {
        return Err(BodyError::TooLong(limit));
    }
    let mut gathering = pin!(gather(body, limit));
    let slow = BodyError::Slow(timeout);
    // Most have come with their head.
    let body =
        if let Poll::Ready(done) = poll_fn(|cx| Poll::Ready(gathering.as_mut().poll(cx))).await {
            done
        } else if busy.body_begins() {
            poll_fn(|cx| match gathering.as_mut().poll(cx) {
                Poll::Ready(done) => Poll::Ready(Some(done)),
                Poll::Pending => busy.poll_slow(cx).map(|()| None),
            })
            .await
            .unwrap_or(Err(slow))
        } else {
            tokio::time::timeout(timeout, gathering)
                .await
                .unwrap_or(Err(slow))
        };
    busy.body_done();
    body
}

async fn gather(body: Incoming, limit: usize) -> Result<Bytes, BodyError> {
    let mut body = pin!(body);
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    while let Some(frame) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
        let frame = frame.map_err(BodyError::Broken)?;
        // Trailers are read over: nothing in them is asked for.
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if first.len() + all.len() + data.len() > limit {
            return Err(BodyError::TooLong(limit));
        }
        if all.is_empty() && first.is_empty() {
            first = data;
            continue;
        }
        if all.is_empty() {
            let rest = usize::try_from(body.size_hint().lower())
                .unwrap_or(limit)
                .min(limit);
            all.reserve(first.len() + data.len() + rest.min(limit));
            all.extend_from_slice(&std::mem::take(&mut first));
        }
        all.extend_from_slice(&data);
    }
    Ok(if all.is_empty() { first } else { all.freeze() })
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
