//! Pings that find out whether the peer is still there.

use std::pin::Pin;
use std::task::{Context, Poll};

use h2::{Ping, PingPong};
use tokio::time::{Instant, Sleep};

use crate::error::HboneError;
use crate::settings::{PING_INTERVAL, PING_TIMEOUT};

/// Polled by the connection's driver; the only timer a tunnel has.
pub(crate) struct Keepalive {
    pings: Option<PingPong>,
    timer: Pin<Box<Sleep>>,
    /// A ping is out and `timer` is its deadline; else `timer` is the time of the next ping.
    waiting: bool,
}

impl Keepalive {
    pub(crate) fn new(pings: Option<PingPong>) -> Self {
        Self { pings, timer: Box::pin(tokio::time::sleep(PING_INTERVAL)), waiting: false }
    }

    /// Sends pings and takes their answers. Ready when the peer is considered dead.
    pub(crate) fn poll_dead(&mut self, cx: &mut Context<'_>) -> Poll<HboneError> {
        let Some(pings) = &mut self.pings else {
            return Poll::Pending;
        };
        loop {
            if self.waiting {
                match pings.poll_pong(cx) {
                    Poll::Ready(Ok(_)) => {
                        self.waiting = false;
                        self.timer.as_mut().reset(Instant::now() + PING_INTERVAL);
                        continue;
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(error.into()),
                    Poll::Pending => {}
                }
            }
            if self.timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if self.waiting {
                return Poll::Ready(HboneError::PingTimeout(PING_TIMEOUT));
            }
            if pings.send_ping(Ping::opaque()).is_err() {
                // The connection is closing and will report why by itself.
                self.pings = None;
                return Poll::Pending;
            }
            self.waiting = true;
            self.timer.as_mut().reset(Instant::now() + PING_TIMEOUT);
        }
    }
}
