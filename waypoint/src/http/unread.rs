//! What is left of a request's body when nobody wants it any more.
//!
//! An answer may be complete before its request is: a denial, a 405. The stream could be reset at once then, and a client
//! that is just about to send the few bytes it announced would take that for a failure of the whole exchange, whatever
//! the answer said. So a body that is known to be short is read to its end for a moment, and thrown away.
//!
//! # Source
//! RFC 9113 section 8.1.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http::{Request, header};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::limits::{LINGER_BUDGET, UNREAD_BYTES_MAX};

/// The body of a client's request.
pub(crate) struct ClientBody {
    /// Gone once it was given up.
    body: Option<Incoming>,
    failed: bool,
    unread: Weak<Unread<Incoming>>,
}

/// Bodies of one connection that nobody wants any more. As many as the connection may have streams, at most.
pub(crate) struct Unread<B>(RefCell<State<B>>);

struct State<B> {
    /// The one that has waited for longest first.
    bodies: VecDeque<(Instant, B)>,
    timer: Option<Pin<Box<Sleep>>>,
    /// Of the connection's task.
    waker: Option<Waker>,
}

impl ClientBody {
    /// Of HTTP/1, where the end of the connection is what a client waits for.
    pub(crate) fn new(request: Request<Incoming>) -> Request<Self> {
        request.map(|body| Self { body: Some(body), failed: false, unread: Weak::new() })
    }

    /// One that goes to `unread` when it is dropped before its end, if it is short, and the client sends it unasked.
    pub(crate) fn announced(request: Request<Incoming>, unread: &Rc<Unread<Incoming>>) -> Request<Self> {
        let short = request.body().size_hint().exact().is_some_and(|bytes| (1..=UNREAD_BYTES_MAX).contains(&bytes));
        let waited_for = short && !request.headers().contains_key(header::EXPECT);
        let unread = if waited_for { Rc::downgrade(unread) } else { Weak::new() };
        request.map(|body| Self { body: Some(body), failed: false, unread })
    }
}

impl Body for ClientBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(body).poll_frame(cx));
        self.failed |= matches!(frame, Some(Err(_)));
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl Drop for ClientBody {
    fn drop(&mut self) {
        let over = self.failed || self.is_end_stream();
        if let (false, Some(unread), Some(body)) = (over, self.unread.upgrade(), self.body.take()) {
            unread.push(body);
        }
    }
}

impl<B: Body + Unpin> Unread<B> {
    pub(crate) fn new() -> Rc<Self> {
        Rc::new(Self(RefCell::new(State { bodies: VecDeque::new(), timer: None, waker: None })))
    }

    fn push(&self, body: B) {
        let mut state = self.0.borrow_mut();
        state.bodies.push_back((Instant::now() + LINGER_BUDGET, body));
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
    }

    /// Reads what there is, and lets go of bodies that ended, or had their time. To be called by the connection's task
    /// whenever it runs.
    pub(crate) fn poll(&self, cx: &mut Context<'_>) {
        let state = &mut *self.0.borrow_mut();
        if !state.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            state.waker = Some(cx.waker().clone());
        }
        if state.bodies.is_empty() {
            return;
        }
        let now = Instant::now();
        state.bodies.retain_mut(|(until, body)| *until > now && !is_over(body, cx));
        let Some(&(until, _)) = state.bodies.front() else { return };
        let timer = state.timer.get_or_insert_with(|| Box::pin(sleep_until(until)));
        if timer.deadline() != until {
            timer.as_mut().reset(until);
        }
        // Between two looks at the clock it can become ready.
        if timer.as_mut().poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
    }
}

fn is_over<B: Body + Unpin>(body: &mut B, cx: &mut Context<'_>) -> bool {
    loop {
        match Pin::new(&mut *body).poll_frame(cx) {
            Poll::Pending => return false,
            Poll::Ready(None | Some(Err(_))) => return true,
            Poll::Ready(Some(Ok(_))) if body.is_end_stream() => return true,
            Poll::Ready(Some(Ok(_))) => {}
        }
    }
}
