//! Bodies, both ways. None is buffered beyond what the transport needs.

use std::cell::RefCell;
use std::fmt;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::task::JoinHandle;

use super::accounting::Active;
use super::error::UpstreamError;
use super::h1::Lease;
use super::h2::Receiving;

/// Any error.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The body of a request on its way to an upstream.
#[derive(Default)]
pub enum RequestBody {
    /// None.
    #[default]
    Empty,
    /// All at once.
    Full(Bytes),
    /// As it comes from the client.
    Incoming(Incoming),
    /// Anything else.
    Boxed(AnyBody),
    /// The same, and whoever has the other end of the token sees whether it is still there.
    Tracked(AnyBody, Rc<()>),
}

type AnyBody = Pin<Box<dyn Body<Data = Bytes, Error = BoxError>>>;

/// The body of a response. As long as it lives its request counts as active; when it has ended, its connection is free.
pub struct ReplyBody {
    source: Source,
    address: SocketAddr,
    _active: Option<Active>,
}

enum Source {
    One {
        incoming: Incoming,
        carrier: Option<Carrier>,
    },
    Two(Receiving),
    /// Of a response that is no response but the start of something else.
    None,
}

/// Whoever does the work of the connection.
enum Carrier {
    /// Whoever wants the body.
    Reader(Lease),
    /// The request is still being sent: whoever reads the response may not read on before that is done.
    Task(Driven),
}

/// A connection that a task of its own moves. Dropped, it closes.
struct Driven {
    lease: Rc<RefCell<Option<Lease>>>,
    task: JoinHandle<()>,
}

impl Driven {
    fn new(lease: Lease) -> Self {
        let lease = Rc::new(RefCell::new(Some(lease)));
        let shared = lease.clone();
        let task = tokio::task::spawn_local(poll_fn(move |cx| {
            let mut lease = shared.borrow_mut();
            let Some(lease) = &mut *lease else { return Poll::Ready(()) };
            lease.poll_driver(cx);
            if lease.has_ended() { Poll::Ready(()) } else { Poll::Pending }
        }));
        Self { lease, task }
    }
}

impl Drop for Driven {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Carrier {
    fn give_back(self, cx: &mut Context<'_>) {
        let lease = match self {
            Self::Reader(lease) => Some(lease),
            Self::Task(driven) => driven.lease.borrow_mut().take(),
        };
        if let Some(lease) = lease {
            lease.give_back(cx);
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            full @ Self::Full(_) => match std::mem::take(full) {
                Self::Full(bytes) if !bytes.is_empty() => Poll::Ready(Some(Ok(Frame::data(bytes)))),
                _ => Poll::Ready(None),
            },
            Self::Incoming(incoming) => Pin::new(incoming).poll_frame(cx).map_err(BoxError::from),
            Self::Boxed(body) | Self::Tracked(body, _) => body.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(bytes) => bytes.is_empty(),
            Self::Incoming(incoming) => incoming.is_end_stream(),
            Self::Boxed(body) | Self::Tracked(body, _) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Incoming(incoming) => incoming.size_hint(),
            Self::Boxed(body) | Self::Tracked(body, _) => body.size_hint(),
        }
    }
}

impl RequestBody {
    /// A token that is shared for as long as the body is there. `None`: it is all there at once.
    pub(super) fn track(&mut self) -> Option<Rc<()>> {
        if self.is_end_stream() {
            return None;
        }
        match std::mem::take(self) {
            Self::Boxed(body) | Self::Tracked(body, _) => {
                let token = Rc::new(());
                *self = Self::Tracked(body, token.clone());
                Some(token)
            }
            other => {
                *self = other;
                None
            }
        }
    }
}

impl fmt::Debug for RequestBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self {
            Self::Empty => "empty",
            Self::Full(_) => "full",
            Self::Incoming(_) => "incoming",
            Self::Boxed(_) | Self::Tracked(..) => "boxed",
        };
        f.debug_tuple("RequestBody").field(&kind).finish()
    }
}

impl ReplyBody {
    pub(super) fn one(incoming: Incoming, lease: Lease, address: SocketAddr, active: Active) -> Self {
        let carrier = Some(Carrier::Reader(lease));
        let mut body = Self { source: Source::One { incoming, carrier }, address, _active: Some(active) };
        body.release(&mut Context::from_waker(std::task::Waker::noop()));
        if let Source::One { carrier, .. } = &mut body.source {
            *carrier = carrier.take().map(|carrier| match carrier {
                Carrier::Reader(lease) if lease.is_sending() => Carrier::Task(Driven::new(lease)),
                other => other,
            });
        }
        body
    }

    pub(super) fn two(receiving: Receiving, address: SocketAddr, active: Active) -> Self {
        Self { source: Source::Two(receiving), address, _active: Some(active) }
    }

    pub(super) fn none(address: SocketAddr) -> Self {
        Self { source: Source::None, address, _active: None }
    }

    /// The connection goes back to its pool as soon as there is nothing more to read for us.
    fn release(&mut self, cx: &mut Context<'_>) {
        if let Source::One { incoming, carrier } = &mut self.source
            && incoming.is_end_stream()
            && let Some(carrier) = carrier.take()
        {
            carrier.give_back(cx);
        }
    }

    fn poll_one(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, UpstreamError>>> {
        let Source::One { incoming, carrier } = &mut self.source else { return Poll::Ready(None) };
        let mut polled = Pin::new(&mut *incoming).poll_frame(cx);
        if polled.is_pending()
            && let Some(Carrier::Reader(lease)) = carrier
        {
            // Whoever wants the body does the connection's work.
            lease.poll_driver(cx);
            polled = Pin::new(incoming).poll_frame(cx);
        }
        let Poll::Ready(frame) = polled else { return Poll::Pending };
        let address = self.address;
        match frame {
            Some(Ok(frame)) => {
                self.release(cx);
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => Poll::Ready(Some(Err(super::h1::broken_body(address, &error)))),
            None => {
                if let Source::One { carrier, .. } = &mut self.source
                    && let Some(carrier) = carrier.take()
                {
                    carrier.give_back(cx);
                }
                Poll::Ready(None)
            }
        }
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = UpstreamError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, UpstreamError>>> {
        let this = self.get_mut();
        let address = this.address;
        match &mut this.source {
            Source::One { .. } => this.poll_one(cx),
            Source::Two(receiving) => receiving.poll_frame(cx, address),
            Source::None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::One { incoming, .. } => incoming.is_end_stream(),
            Source::Two(receiving) => receiving.is_end(),
            Source::None => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::One { incoming, .. } => incoming.size_hint(),
            Source::Two(receiving) => receiving.size_hint(),
            Source::None => SizeHint::with_exact(0),
        }
    }
}

impl fmt::Debug for ReplyBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplyBody").field("address", &self.address).finish_non_exhaustive()
    }
}
