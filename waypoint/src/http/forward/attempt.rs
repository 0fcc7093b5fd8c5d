//! One attempt: a request that is under way, and everything that may end it.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use http_body_util::BodyExt;
use mesh_route::retry::Outcome;
use tokio::time::{Instant, Sleep, sleep};

use crate::http::RequestUpload;
use crate::http::connection::Connection;
use crate::http::deadline::Deadline;
use crate::http::download::{Expired, Limits};
use crate::http::interim::{Interim, Interims, send_hints};
use crate::limits::CONTINUE_BUDGET;
use crate::upstream::{BoxError, Failure, Reply, RequestBody, UpstreamError};

/// What surrounds an attempt.
pub(super) struct Attempt<'a> {
    pub(super) connection: &'a Rc<Connection>,
    pub(super) upload: Option<&'a Rc<RequestUpload>>,
    pub(super) limits: &'a mut Limits,
    /// When the request began.
    pub(super) started: Instant,
    pub(super) per_try: Option<Deadline>,
    pub(super) interims: Option<&'a Interims>,
}

/// How an attempt ended.
#[allow(clippy::large_enum_variant)] // one at a time, on the stack; the large one is the common one
pub(super) enum Ended {
    Reply(Reply),
    Failed(Failure),
    PerTry,
    Expired(Expired),
}

impl Attempt<'_> {
    /// # Cancel safety
    /// Dropping it drops the attempt.
    pub(super) async fn run(mut self, sending: impl Future<Output = Result<Reply, Failure>>) -> Ended {
        let mut sending = pin!(sending);
        let gated = self.upload.is_some_and(|upload| upload.is_gated());
        let mut patience = pin!(gated.then(|| sleep(CONTINUE_BUDGET)));
        poll_fn(|cx| {
            if let Poll::Ready(sent) = sending.as_mut().poll(cx) {
                // They may have come together with the response.
                self.poll_interims(cx);
                return Poll::Ready(match sent {
                    Ok(reply) => Ended::Reply(reply),
                    Err(failure) if is_timeout(&failure) => Ended::PerTry,
                    Err(failure) => Ended::Failed(failure),
                });
            }
            self.poll_interims(cx);
            if let Some(patience) = patience.as_mut().as_pin_mut() {
                self.poll_patience(patience, cx);
            }
            self.poll_limits(cx)
        })
        .await
    }

    fn poll_limits(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        if !self.limits.is_empty()
            && let Poll::Ready(expired) = self.limits.poll(cx, self.started, self.upload)
        {
            return Poll::Ready(Ended::Expired(expired));
        }
        let (started, upload) = (self.started, self.upload);
        let received = |cx: &mut Context<'_>| upload.map_or(Poll::Ready(started), |upload| upload.poll_received(cx));
        match &mut self.per_try {
            Some(per_try) => per_try.poll(cx, received).map(|()| Ended::PerTry),
            None => Poll::Pending,
        }
    }

    fn poll_interims(&self, cx: &mut Context<'_>) {
        let Some(interims) = self.interims else { return };
        while let Poll::Ready(interim) = interims.poll(cx) {
            match (interim, &self.connection.watch) {
                (Interim::Continue, _) => self.open(),
                (Interim::Hints(hints), Some(watch)) => send_hints(watch, &hints),
                (Interim::Hints(_), None) => {}
            }
        }
    }

    /// Upstreams need not answer with 100: after a while the client is told to go on.
    fn poll_patience(&self, patience: std::pin::Pin<&mut Sleep>, cx: &mut Context<'_>) {
        if self.upload.is_some_and(|upload| upload.is_gated()) && patience.poll(cx).is_ready() {
            self.open();
        }
    }

    fn open(&self) {
        if let Some(upload) = self.upload {
            upload.open();
        }
    }
}

/// What retry conditions call it; `None`: nothing that another attempt could help.
pub(super) fn outcome_of(error: &UpstreamError) -> Option<Outcome<'static>> {
    Some(match error {
        UpstreamError::Overflow { .. } => Outcome::Overflow,
        UpstreamError::Connect { .. } | UpstreamError::ConnectTimeout { .. } => Outcome::ConnectFailure,
        UpstreamError::Reset { refused: true, .. } => Outcome::RefusedStream,
        UpstreamError::Closed { wrote_request, .. } => Outcome::Reset { wrote_request: *wrote_request },
        UpstreamError::Reset { .. } | UpstreamError::Protocol { .. } => Outcome::Reset { wrote_request: true },
        UpstreamError::ResponseTimeout { .. } => Outcome::PerTryTimeout,
        _ => return None,
    })
}

/// The body of one attempt.
pub(super) fn body_of(upload: Option<&Rc<RequestUpload>>) -> RequestBody {
    match upload {
        None => RequestBody::Empty,
        Some(upload) => RequestBody::Boxed(Box::pin(upload.body().map_err(BoxError::from))),
    }
}

fn is_timeout(failure: &Failure) -> bool {
    matches!(failure.error, UpstreamError::ResponseTimeout { .. })
}
