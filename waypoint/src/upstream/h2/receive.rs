//! The body of a response.

use std::net::SocketAddr;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;
use http_body::{Frame, SizeHint};
use tokio::task::AbortHandle;

use super::{Place, unanswered};
use crate::upstream::error::UpstreamError;

/// Bytes and trailers of one stream. Dropped before its end, the stream is reset.
pub(crate) struct Receiving {
    stream: RecvStream,
    data_ended: bool,
    ended: bool,
    upload: Option<AbortHandle>,
    place: Option<Place>,
}

impl Receiving {
    pub(super) fn new(stream: RecvStream, upload: Option<AbortHandle>, place: Place) -> Self {
        Self { stream, data_ended: false, ended: false, upload, place: Some(place) }
    }

    pub(crate) fn is_end(&self) -> bool {
        self.ended || self.stream.is_end_stream()
    }

    /// Of a response that has ended already; the stream's own count is not to be seen.
    pub(crate) fn size_hint(&self) -> SizeHint {
        if self.is_end() { SizeHint::with_exact(0) } else { SizeHint::default() }
    }

    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
        address: SocketAddr,
    ) -> Poll<Option<Result<Frame<Bytes>, UpstreamError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if !self.data_ended {
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(bytes)) => {
                    // Fails only if more were released than received.
                    let _ = self.stream.flow_control().release_capacity(bytes.len());
                    return Poll::Ready(Some(Ok(Frame::data(bytes))));
                }
                // The peer has sent all that it wanted to.
                Some(Err(error)) if error.is_reset() && error.reason() == Some(h2::Reason::NO_ERROR) => {
                    self.end();
                    return Poll::Ready(None);
                }
                Some(Err(error)) => {
                    self.end();
                    return Poll::Ready(Some(Err(unanswered(address, &error))));
                }
                None => self.data_ended = true,
            }
        }
        let trailers = ready!(self.stream.poll_trailers(cx));
        self.end();
        match trailers {
            Ok(Some(trailers)) => Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
            Ok(None) => Poll::Ready(None),
            Err(error) => Poll::Ready(Some(Err(unanswered(address, &error)))),
        }
    }

    fn end(&mut self) {
        self.ended = true;
        self.place = None;
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        if let Some(upload) = &self.upload {
            upload.abort();
        }
    }
}
