//! The body of a request on its way upstream: read once from the client, sent as often as there are attempts, and copied
//! to mirrors.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http::{HeaderMap, HeaderName};
use http_body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use super::copies::Copies;
use super::messages::Messages;
use super::replay::{Replay, ReplayBudget};
use super::web::Decode;
use crate::limits::REPLAY_BYTES_MAX;

/// The body of one request. Shared by its attempts, of which only the last may read it; lives on one worker.
pub(crate) struct Upload<B>(RefCell<State<B>>);

/// An attempt's view of the body, from its beginning.
pub(crate) struct UploadBody<B> {
    upload: Rc<Upload<B>>,
    attempt: u32,
    begun: bool,
    trailers_passed: bool,
}

/// Why a body ends before its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UploadError {
    /// The client's fault or its departure.
    #[error("request body of the client ended early")]
    Client(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Another attempt has taken over.
    #[error("request is sent again elsewhere")]
    Superseded,
}

struct State<B> {
    source: B,
    decode: Option<Decode>,
    /// Whole, from the beginning; none once it was given up.
    kept: Option<Replay>,
    /// Kept pieces that the last attempt has had.
    position: usize,
    keep: Keep,
    trailers: Option<HeaderMap>,
    length: Option<u64>,
    /// The last byte was received.
    ended: Option<Instant>,
    failed: bool,
    attempt: u32,
    bytes: u64,
    messages: Option<Messages>,
    gate: Gate,
    /// Waits for the last byte.
    waiter: Option<Waker>,
    copies: Copies,
    passed_on: Rc<Cell<u64>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Keep {
    /// There may be another attempt.
    All,
    /// There will be none.
    Nothing,
    /// There can be none: part of the body is gone.
    Lost,
}

enum Gate {
    Open,
    /// The client waits for 100 (Continue) before it sends anything.
    Closed(Option<Waker>),
}

/// What the pipeline knows about a body before it flows.
#[derive(Default)]
pub(crate) struct UploadOptions {
    /// There may be several attempts; what is kept for them counts here.
    pub(crate) keep: Option<Rc<ReplayBudget>>,
    /// The client waits for 100 (Continue).
    pub(crate) gated: bool,
    /// Count gRPC messages.
    pub(crate) grpc: bool,
    /// It is base64 text of gRPC-Web.
    pub(crate) decode: Option<Decode>,
    /// Whoever gets a copy.
    pub(crate) copies: Copies,
    /// Counts what was taken from the connection.
    pub(crate) passed_on: Rc<Cell<u64>>,
}

impl<B: Body<Data = Bytes> + Unpin> Upload<B>
where
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    pub(crate) fn new(source: B, options: UploadOptions) -> Rc<Self> {
        let UploadOptions { keep, gated, grpc, decode, copies, passed_on } = options;
        let length = if decode.is_some() { None } else { source.size_hint().exact() };
        // A body that cannot fit is not worth keeping the first megabyte of.
        let keep = keep.filter(|_| length.is_none_or(|length| length <= REPLAY_BYTES_MAX as u64));
        Rc::new(Self(RefCell::new(State {
            source,
            decode,
            keep: if keep.is_some() { Keep::All } else { Keep::Nothing },
            kept: keep.map(Replay::new),
            position: 0,
            trailers: None,
            length,
            ended: None,
            failed: false,
            attempt: 0,
            bytes: 0,
            messages: grpc.then(Messages::default),
            gate: if gated { Gate::Closed(None) } else { Gate::Open },
            waiter: None,
            copies,
            passed_on,
        })))
    }

    /// For another attempt; those before it get nothing any more.
    pub(crate) fn body(self: &Rc<Self>) -> UploadBody<B> {
        let mut state = self.0.borrow_mut();
        state.attempt += 1;
        state.position = 0;
        if let Some(kept) = &mut state.kept {
            kept.join();
        }
        UploadBody { upload: self.clone(), attempt: state.attempt, begun: false, trailers_passed: false }
    }

    /// Whether another attempt would send the same bytes.
    pub(crate) fn can_replay(&self) -> bool {
        let state = self.0.borrow();
        !state.failed && (state.keep == Keep::All || state.bytes == 0 && state.ended.is_none())
    }

    /// There will be no other attempt: what was kept may go.
    pub(crate) fn settle(&self) {
        let mut state = self.0.borrow_mut();
        if state.keep == Keep::All {
            state.keep = Keep::Nothing;
            state.forget();
        }
    }

    /// The client may send: the upstream wants the body, or nobody knows.
    pub(crate) fn open(&self) {
        let gate = std::mem::replace(&mut self.0.borrow_mut().gate, Gate::Open);
        if let Gate::Closed(Some(waker)) = gate {
            waker.wake();
        }
    }

    /// Whether the client still waits for 100 (Continue).
    pub(crate) fn is_gated(&self) -> bool {
        matches!(self.0.borrow().gate, Gate::Closed(_))
    }

    /// When the last byte was received.
    pub(crate) fn poll_received(&self, cx: &mut Context<'_>) -> Poll<Instant> {
        let mut state = self.0.borrow_mut();
        match state.ended {
            Some(at) => Poll::Ready(at),
            None => {
                state.waiter = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// The client's part ended in an error.
    pub(crate) fn failed(&self) -> bool {
        self.0.borrow().failed
    }

    /// Bytes and gRPC messages of the client so far.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let state = self.0.borrow();
        (state.bytes, state.messages.as_ref().map_or(0, Messages::count))
    }
}

impl<B: Body<Data = Bytes> + Unpin> State<B>
where
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn poll_source(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        if let Gate::Closed(waker) = &mut self.gate {
            *waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        loop {
            let frame = match ready!(Pin::new(&mut self.source).poll_frame(cx)) {
                None => {
                    self.end();
                    return Poll::Ready(None);
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(self.fail(error.into())))),
                Some(Ok(frame)) => frame,
            };
            let data = match frame.into_data() {
                Ok(data) => data,
                Err(frame) => {
                    let Ok(mut trailers) = frame.into_trailers() else { continue };
                    sanitise_trailers(&mut trailers);
                    self.trailers = Some(trailers.clone());
                    self.copies.trailers(&trailers);
                    self.end();
                    return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                }
            };
            self.bytes += data.len() as u64;
            self.passed_on.set(self.passed_on.get() + data.len() as u64);
            let data = match &mut self.decode {
                None => data,
                Some(decode) => match decode.push(&data) {
                    Ok(data) => data,
                    Err(error) => return Poll::Ready(Some(Err(self.fail(error.into())))),
                },
            };
            self.pass(&data);
            if self.source.is_end_stream() {
                self.end();
            }
            if !data.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
        }
    }

    fn pass(&mut self, data: &Bytes) {
        if let Some(messages) = &mut self.messages {
            messages.pass(data);
        }
        self.copies.data(data);
        let kept = match (&self.keep, &mut self.kept) {
            (Keep::All, Some(kept)) => kept.push(data).is_ok(),
            _ => false,
        };
        if !kept {
            self.lose();
        }
        self.position = self.pieces().len();
    }

    fn pieces(&self) -> &[Bytes] {
        self.kept.as_ref().map_or(&[], Replay::pieces)
    }

    /// Part of the body is gone.
    fn lose(&mut self) {
        self.keep = Keep::Lost;
        self.kept = None;
        self.position = 0;
    }

    /// Lets go of what nobody will ask for again.
    fn forget(&mut self) {
        if self.keep == Keep::Nothing && self.position >= self.pieces().len() {
            self.kept = None;
            self.position = 0;
        }
    }

    fn end(&mut self) {
        if self.ended.is_none() {
            self.ended = Some(Instant::now());
            self.copies.end();
            if let Some(waker) = self.waiter.take() {
                waker.wake();
            }
        }
    }

    fn fail(&mut self, error: Box<dyn std::error::Error + Send + Sync>) -> UploadError {
        self.failed = true;
        self.copies.fail();
        UploadError::Client(error)
    }
}

/// Trailers are added to what was checked already: they may say nothing of what is decided by headers.
///
/// # Source
/// RFC 9110 section 6.5.1.
fn sanitise_trailers(trailers: &mut HeaderMap) {
    for name in NO_TRAILERS {
        trailers.remove(name);
    }
    let ours = |name: &HeaderName| OUR_PREFIXES.iter().any(|prefix| name.as_str().starts_with(prefix));
    let forged: Vec<HeaderName> = trailers.keys().filter(|name| ours(name)).cloned().collect();
    for name in forged {
        trailers.remove(name);
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for UploadBody<B>
where
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = UploadError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        let this = self.get_mut();
        this.begun = true;
        let mut state = this.upload.0.borrow_mut();
        if state.attempt != this.attempt {
            return Poll::Ready(Some(Err(UploadError::Superseded)));
        }
        if let Some(kept) = state.pieces().get(state.position).cloned() {
            state.position += 1;
            state.forget();
            return Poll::Ready(Some(Ok(Frame::data(kept))));
        }
        if state.ended.is_some() {
            let trailers = if this.trailers_passed { None } else { state.trailers.clone() };
            this.trailers_passed = true;
            return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
        }
        let frame = ready!(state.poll_source(cx));
        if let Some(Ok(frame)) = &frame
            && frame.is_trailers()
        {
            this.trailers_passed = true;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        let state = self.upload.0.borrow();
        let all = state.attempt == self.attempt && state.ended.is_some() && state.position >= state.pieces().len();
        all && (self.trailers_passed || state.trailers.is_none())
    }

    fn size_hint(&self) -> SizeHint {
        let state = self.upload.0.borrow();
        match state.length {
            Some(length) if !self.begun => SizeHint::with_exact(length),
            _ => SizeHint::default(),
        }
    }
}

/// What trailers never say: who it is, where to, and how the message is to be read.
const NO_TRAILERS: [&str; 20] = [
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "keep-alive",
    "max-forwards",
    "proxy-authorization",
    "proxy-connection",
    "range",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-request-id",
];
/// Of headers that proxies write.
const OUR_PREFIXES: [&str; 2] = ["x-forwarded-", "x-envoy-"];

#[cfg(test)]
mod tests;
