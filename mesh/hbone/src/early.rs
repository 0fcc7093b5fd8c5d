//! Bytes that are sent ahead of the answer to a CONNECT: on a tunnel that is open already, the first request of an
//! application need not wait for a round trip.
//!
//! # Source
//! RFC 9113 section 8.5: the payload of DATA frames on the stream is passed on once the connection is made. A peer that
//! refuses the request drops them.

use std::task::{Context, Poll};

use bytes::Bytes;

/// The first bytes of a connection. They are kept until the answer has come, so that a request that is made again on
/// another tunnel begins with the same bytes.
pub struct FirstBytes<F> {
    source: F,
    first: First,
}

enum First {
    /// Not there yet.
    Awaited,
    Taken(Bytes),
    /// There are none, or nobody has them.
    None,
}

impl<F: FnMut(&mut Context<'_>) -> Poll<Option<Bytes>>> FirstBytes<F> {
    /// Takes what `source` has when it is first ready, which should not be more than some kilobytes.
    pub fn new(source: F) -> Self {
        Self { source, first: First::Awaited }
    }

    /// The bytes that begin a request, once they are there.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Bytes> {
        if let First::Awaited = self.first
            && let Poll::Ready(ready) = (self.source)(cx)
        {
            self.first = ready.map_or(First::None, First::Taken);
        }
        match &self.first {
            First::Taken(bytes) => Poll::Ready(bytes.clone()),
            First::Awaited | First::None => Poll::Pending,
        }
    }

    /// How many bytes were sent ahead.
    #[must_use]
    pub fn len(&self) -> u64 {
        match &self.first {
            First::Taken(bytes) => bytes.len() as u64,
            First::Awaited | First::None => 0,
        }
    }

    /// Whether none were.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// For connections that send nothing ahead.
pub(crate) fn nothing() -> FirstBytes<Nobody> {
    FirstBytes::new(|_| Poll::Ready(None))
}

type Nobody = fn(&mut Context<'_>) -> Poll<Option<Bytes>>;
