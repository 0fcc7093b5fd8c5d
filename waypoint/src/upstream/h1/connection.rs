//! One connection: what it carries, and how it ends.

use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use crate::upstream::body::RequestBody;
use crate::upstream::io::UpstreamIo;

type Driver = http1::Connection<TokioIo<UpstreamIo>, RequestBody>;

/// Idle, or in use by one request.
pub(super) struct Connection {
    pub(super) sender: http1::SendRequest<RequestBody>,
    pub(super) driver: Driver,
    /// The driver has nothing more to do.
    pub(super) ended: bool,
    /// The request did not come to its end, through no fault of the endpoint.
    pub(super) torn: bool,
    /// Server name, where connections for different hosts differ.
    pub(super) name: Option<Arc<str>>,
    pub(super) served: u32,
    /// May be used again after the current request.
    pub(super) reusable: bool,
    pub(super) idle_since: Duration,
    pub(super) made: Duration,
    pub(super) local: Option<SocketAddr>,
}

impl Connection {
    /// Does what there is to do, and tells whether a request may be sent.
    pub(super) fn is_free(&mut self) -> bool {
        self.poll_driver(&mut Context::from_waker(Waker::noop()));
        !self.ended && self.sender.is_ready()
    }

    pub(super) fn poll_driver(&mut self, cx: &mut Context<'_>) {
        if !self.ended
            && let Poll::Ready(done) = self.driver.poll_without_shutdown(cx)
        {
            self.ended = true;
            self.torn |= done.is_err_and(|error| is_torn(&error));
        }
    }

    /// Closes when nobody waits for the response any more. In order, if it was all there or the endpoint has ended the
    /// connection itself: it may still be reading.
    pub(super) fn give_up(self) {
        let outstanding = if self.ended { self.torn } else { !self.sender.is_ready() };
        if outstanding {
            self.driver.into_parts().io.into_inner().give_up();
        }
    }
}

/// Whether the body of the request failed, not the endpoint.
pub(super) fn is_torn(error: &hyper::Error) -> bool {
    error.is_user() || error.is_body_write_aborted()
}
