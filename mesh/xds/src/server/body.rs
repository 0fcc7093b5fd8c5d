//! The response of a stream as an HTTP body: pulled by the transport, so that a slow client builds up nothing.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures::Stream;
use futures::stream::BoxStream;
use http::HeaderMap;
use http_body::Frame;
use tokio::time::Instant;
use tonic::Status;

use super::hub::Hub;
use super::wire::{Push, Writing};

/// Responses, and at last the status.
pub(super) struct Body {
    pub(super) hub: Arc<Hub>,
    pub(super) pushes: BoxStream<'static, Result<Push, Status>>,
    pub(super) writing: Option<Written>,
    pub(super) ended: bool,
}

/// A response of which at least the beginning was handed out.
pub(super) struct Written {
    writing: Writing,
    began: Instant,
}

impl Body {
    /// The transport has taken all of a response.
    fn done(&self, written: &Written) {
        let now = Instant::now();
        self.hub.observer.sent(now - written.began);
        if let Some(since) = written.writing.since() {
            self.hub.observer.converged(now.saturating_duration_since(since));
        }
    }

    fn end(&mut self, status: &Status) -> Frame<Bytes> {
        self.ended = true;
        if status.code() == tonic::Code::Internal {
            self.hub.observer.internal_error();
        }
        let mut trailers = HeaderMap::new();
        // A message that does not fit into a header goes without.
        if status.add_header(&mut trailers).is_err() {
            trailers.insert("grpc-status", http::HeaderValue::from_static("13"));
        }
        Frame::trailers(trailers)
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        if this.ended {
            return Poll::Ready(None);
        }
        loop {
            if let Some(written) = &mut this.writing {
                if let Some(piece) = written.writing.piece() {
                    return Poll::Ready(Some(Ok(Frame::data(piece))));
                }
                if let Some(written) = this.writing.take() {
                    this.done(&written);
                }
            }
            let began = Instant::now();
            let frame = match ready!(Pin::new(&mut this.pushes).poll_next(cx)) {
                None => this.end(&Status::ok("")),
                Some(Err(status)) => this.end(&status),
                Some(Ok(push)) => match Writing::new(push) {
                    Err(status) => this.end(&status),
                    Ok(writing) => {
                        this.hub.observer.written(writing.url(), writing.size, began.elapsed());
                        this.writing = Some(Written { writing, began });
                        continue;
                    }
                },
            };
            return Poll::Ready(Some(Ok(frame)));
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}
