//! The body of a request, as fast as the peer takes it.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, SendStream};
use http_body::Body;

use crate::upstream::body::{BoxError, RequestBody};

/// Resolves when everything is sent, or nobody wants more of it.
pub(super) struct Upload {
    body: RequestBody,
    stream: SendStream<Bytes>,
    /// Read, and not yet sent.
    waiting: Bytes,
    ended: bool,
}

/// The body broke: the client left, for instance.
pub(super) struct UploadError(pub(super) BoxError);

impl Upload {
    pub(super) fn new(body: RequestBody, stream: SendStream<Bytes>) -> Self {
        Self { body, stream, waiting: Bytes::new(), ended: false }
    }

    /// The peer has had enough, or is gone: its response tells why.
    fn is_unwanted(&mut self, cx: &mut Context<'_>) -> bool {
        self.stream.poll_reset(cx).is_ready()
    }

    /// Sends what waits, as far as it is allowed.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        while !self.waiting.is_empty() {
            self.stream.reserve_capacity(self.waiting.len());
            let mut allowed = self.stream.capacity();
            if allowed == 0 {
                allowed = match ready!(self.stream.poll_capacity(cx)) {
                    Some(allowed) => allowed?,
                    None => return Poll::Ready(Ok(())),
                };
            }
            let part = self.waiting.split_to(allowed.min(self.waiting.len()));
            let last = self.waiting.is_empty() && self.body.is_end_stream();
            self.stream.send_data(part, last)?;
            self.ended |= last;
        }
        Poll::Ready(Ok(()))
    }
}

impl Future for Upload {
    type Output = Result<(), UploadError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        loop {
            if this.is_unwanted(cx) {
                return Poll::Ready(Ok(()));
            }
            // What the stream has against it, the response tells better.
            if ready!(this.poll_send(cx)).is_err() || this.ended {
                return Poll::Ready(Ok(()));
            }
            let Some(frame) = ready!(Pin::new(&mut this.body).poll_frame(cx)) else {
                this.ended = true;
                let _ = this.stream.send_data(Bytes::new(), true);
                continue;
            };
            let frame = match frame {
                Ok(frame) => frame,
                Err(error) => {
                    this.stream.send_reset(Reason::CANCEL);
                    return Poll::Ready(Err(UploadError(error)));
                }
            };
            match frame.into_data() {
                Ok(data) => this.waiting = data,
                Err(frame) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        this.ended = true;
                        let _ = this.stream.send_trailers(trailers);
                    }
                }
            }
        }
    }
}
