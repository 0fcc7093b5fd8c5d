//! Interim responses of upstreams: 100 (Continue) opens the gate for the client's body, 103 (Early Hints) is passed on.

use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use http::header::{ACCEPT, EXPECT, LINK};
use http::{HeaderMap, Request, StatusCode};

use super::guard::Watch;

/// What has come in for one attempt and was not looked at. The library calls back from wherever it reads, hence the lock,
/// which nobody ever waits for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Interims(Arc<Mutex<Inbox>>);

#[derive(Debug, Default)]
struct Inbox {
    go_on: bool,
    hints: Vec<HeaderMap>,
    waker: Option<Waker>,
}

/// One interim response.
pub(crate) enum Interim {
    /// The upstream wants the body.
    Continue,
    /// What the response will refer to.
    Hints(HeaderMap),
}

impl Interims {
    /// Whether a client waits for an interim response, or can make use of one: early hints are for those who render pages.
    pub(crate) fn are_wanted(headers: &HeaderMap) -> bool {
        waits(headers)
            || headers
                .get(ACCEPT)
                .is_some_and(|accept| accept.as_bytes().windows(HTML.len()).any(|window| window == HTML))
    }

    /// Has the library call back for this request.
    pub(crate) fn watch<B>(&self, request: &mut Request<B>) {
        let inbox = self.clone();
        hyper::ext::on_informational(request, move |response| inbox.push(response.status(), response.headers()));
    }

    /// The next one.
    pub(crate) fn poll(&self, cx: &mut Context<'_>) -> Poll<Interim> {
        let mut inbox = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::take(&mut inbox.go_on) {
            return Poll::Ready(Interim::Continue);
        }
        if let Some(hints) = inbox.hints.pop() {
            return Poll::Ready(Interim::Hints(hints));
        }
        inbox.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn push(&self, status: StatusCode, headers: &HeaderMap) {
        let mut inbox = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match status {
            StatusCode::CONTINUE => inbox.go_on = true,
            StatusCode::EARLY_HINTS if inbox.hints.is_empty() => inbox.hints.push(headers.clone()),
            _ => return,
        }
        if let Some(waker) = inbox.waker.take() {
            waker.wake();
        }
    }
}

/// Whether the client sends its body only when it is told to.
pub(crate) fn waits(headers: &HeaderMap) -> bool {
    headers.get(EXPECT).is_some_and(|expect| expect.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// Passes early hints on to a client of HTTP/1.
pub(crate) fn send_hints(watch: &Watch, hints: &HeaderMap) {
    let mut text = b"HTTP/1.1 103 Early Hints\r\n".to_vec();
    // Anything else is for the response itself.
    for (name, value) in hints.iter().filter(|(name, _)| **name == LINK) {
        text.extend_from_slice(name.as_str().as_bytes());
        text.extend_from_slice(b": ");
        text.extend_from_slice(value.as_bytes());
        text.extend_from_slice(b"\r\n");
    }
    text.extend_from_slice(b"\r\n");
    // Nobody relies on hints.
    let _ = watch.interim(&text);
}

const HTML: &[u8] = b"text/html";
