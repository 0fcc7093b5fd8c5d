//! The body of a response on its way to the client, until the request is over.

use std::borrow::Cow;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use super::deadline::Deadline;
use super::record::Record;
use super::web::Encode;
use crate::report::Flags;
use crate::upstream::{ReplyBody, UpstreamError};

/// A response body of either server. Ends the request's record.
pub(crate) struct Download {
    source: Source,
    /// What is known to be left, where the length is known.
    left: Option<u64>,
    /// `None`: what follows is not for the server to tell.
    record: Option<Box<Record>>,
    limits: Option<Box<Limits>>,
    upload: Option<Rc<super::RequestUpload>>,
    /// Told when asked again: until then the server sends what it has.
    broken: Option<DownloadError>,
}

/// Where the bytes come from.
pub(crate) enum Source {
    Empty,
    Full(Bytes),
    Upstream(ReplyBody),
    Web(Box<Encode<ReplyBody>>),
}

/// Time limits that go on while the response flows.
#[derive(Default)]
pub(crate) struct Limits {
    /// Of the route.
    pub(crate) route: Option<Deadline>,
    /// Of the client itself, from the beginning of the request.
    pub(crate) client: Option<Deadline>,
}

/// Which limit was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expired {
    Route,
    Client,
}

impl Limits {
    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.route.is_none() && self.client.is_none()
    }

    /// `started`: when the request began. `upload`: its body, if it has one.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        started: Instant,
        upload: Option<&Rc<super::RequestUpload>>,
    ) -> Poll<Expired> {
        let received = |cx: &mut Context<'_>| upload.map_or(Poll::Ready(started), |upload| upload.poll_received(cx));
        if let Some(route) = &mut self.route
            && route.poll(cx, received).is_ready()
        {
            return Poll::Ready(Expired::Route);
        }
        if let Some(client) = &mut self.client
            && client.poll(cx, |_| Poll::Ready(started)).is_ready()
        {
            return Poll::Ready(Expired::Client);
        }
        Poll::Pending
    }
}

/// Why a response ends before its end: the client is told by a reset.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DownloadError {
    /// The upstream broke off.
    #[error("upstream broke off the response")]
    Upstream(#[source] UpstreamError),
    /// The request took too long.
    #[error("response took longer than the route allows")]
    TimedOut,
}

impl Download {
    pub(crate) fn new(source: Source, record: Option<Box<Record>>) -> Self {
        let left = match &source {
            Source::Empty => Some(0),
            Source::Full(bytes) => Some(bytes.len() as u64),
            Source::Upstream(body) => body.size_hint().exact(),
            Source::Web(_) => None,
        };
        Self { source, left, record, limits: None, upload: None, broken: None }
    }

    pub(crate) fn limited(mut self, limits: Option<Box<Limits>>) -> Self {
        self.limits = limits;
        self
    }

    /// The request's body, which may still be on its way.
    pub(crate) fn uploading(mut self, upload: Option<Rc<super::RequestUpload>>) -> Self {
        self.upload = upload;
        self
    }

    fn poll_limits(&mut self, cx: &mut Context<'_>) -> Poll<Expired> {
        match (&mut self.limits, &self.record) {
            (Some(limits), Some(record)) => limits.poll(cx, record.started, self.upload.as_ref()),
            _ => Poll::Pending,
        }
    }

    fn poll_source(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, DownloadError>>> {
        match &mut self.source {
            Source::Empty => Poll::Ready(None),
            Source::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                self.source = Source::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Source::Upstream(body) => Pin::new(body).poll_frame(cx).map_err(DownloadError::Upstream),
            Source::Web(body) => Pin::new(&mut **body).poll_frame(cx).map_err(DownloadError::Upstream),
        }
    }

    fn account(&mut self, frame: &Frame<Bytes>) {
        if let Some(data) = frame.data_ref() {
            self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
        }
        let Some(record) = &mut self.record else { return };
        if let Some(data) = frame.data_ref() {
            record.body_sent += data.len() as u64;
            if let Some(messages) = &mut record.messages_sent {
                messages.pass(data);
            }
        } else if let Some(trailers) = frame.trailers_ref() {
            record.grpc_status_of(trailers);
        }
    }

    /// Servers drop what they have not sent yet when a body breaks: they get a turn to send it.
    fn break_off(
        &mut self,
        error: DownloadError,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, DownloadError>>> {
        self.broken = Some(error);
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Nothing more is sent.
    fn end(&mut self, cut: Option<(Flags, Cow<'static, str>)>) {
        self.source = Source::Empty;
        let Some(mut record) = self.record.take() else { return };
        if let Some(upload) = &self.upload {
            (record.body_received, record.messages_received) = upload.counts();
        }
        match cut {
            Some((flags, details)) => record.cut(flags, details),
            None => record.finish(),
        }
    }
}

impl Body for Download {
    type Data = Bytes;
    type Error = DownloadError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, DownloadError>>> {
        let this = self.get_mut();
        if let Some(error) = this.broken.take() {
            return Poll::Ready(Some(Err(error)));
        }
        if this.poll_limits(cx).is_ready() && !this.is_end_stream() {
            this.end(Some((Flags::UT, "response_timeout".into())));
            return this.break_off(DownloadError::TimedOut, cx);
        }
        match ready!(this.poll_source(cx)) {
            Some(Ok(frame)) => {
                this.account(&frame);
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                let (flags, reason) = reset_reason(&error);
                this.end(Some((flags, format!("upstream_reset_after_response_started{{{reason}}}").into())));
                this.break_off(error, cx)
            }
            None => {
                this.end(None);
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        if self.broken.is_some() {
            return false;
        }
        match &self.source {
            Source::Empty => true,
            Source::Full(bytes) => bytes.is_empty(),
            Source::Upstream(body) => body.is_end_stream(),
            Source::Web(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Empty => SizeHint::with_exact(0),
            Source::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Source::Upstream(body) => body.size_hint(),
            Source::Web(body) => body.size_hint(),
        }
    }
}

impl Drop for Download {
    /// Servers stop asking once the length is reached or the stream has ended: then all is well. Otherwise the client has
    /// left.
    fn drop(&mut self) {
        if self.record.is_none() {
            return;
        }
        if self.left == Some(0) || self.is_end_stream() {
            self.end(None);
        } else {
            self.end(Some((Flags::DC, "downstream_remote_disconnect".into())));
        }
    }
}

/// Whether the peer reset the stream or the connection ended.
fn reset_reason(error: &DownloadError) -> (Flags, &'static str) {
    match error {
        DownloadError::Upstream(UpstreamError::Reset { .. }) => (Flags::UR, "remote_reset"),
        DownloadError::Upstream(UpstreamError::Protocol { .. }) => (Flags::UPE, "protocol_error"),
        DownloadError::Upstream(_) => (Flags::UC, "connection_termination"),
        DownloadError::TimedOut => (Flags::UT, "response_timeout"),
    }
}
