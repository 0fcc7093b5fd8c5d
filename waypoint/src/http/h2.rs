//! HTTP/2 connections of clients.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use mesh_hbone::guarded::{Guarded, Verdict};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::connection::Connection;
use super::unread::{ClientBody, Unread};
use super::{exchange, life};
use crate::connection::ConnectionContext;
use crate::limits::{
    CUT_BUDGET, HTTP2_SEND_BUFFER_BYTES, HTTP2_STREAM_ERRORS_MAX, HTTP2_STREAM_WINDOW_BYTES, HTTP2_STREAMS_MAX,
    HTTP2_UNSEEN_RESETS_MAX, REQUEST_HEAD_BYTES_MAX,
};
use crate::overload::Hoard;
use crate::worker::Worker;

/// Serves requests until the connection ends.
pub(crate) async fn serve<IO>(io: IO, ahead: Bytes, context: ConnectionContext)
where
    IO: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let line = Line(Rc::new(RefCell::new(Shared { io, ahead, flushed: true })));
    let guarded = Guarded::application(line.clone());
    let verdict = guarded.verdict();
    let connection = Connection::new(context, None);
    let (hoard, window) = hoard(&connection, verdict.clone());
    let serving = connection.clone();
    let unread = Unread::new();
    let reader = unread.clone();
    let service = service_fn(move |request| exchange::serve(serving.clone(), ClientBody::announced(request, &reader)));
    let mut server = pin!(builder(window).serve_connection(TokioIo::new(guarded), service));
    let mut life = pin!(life::life(connection.clone()));
    let mut ending = false;
    let flood = poll_fn(|cx| {
        if !ending && life.as_mut().poll(cx).is_ready() {
            ending = true;
            server.as_mut().graceful_shutdown();
        }
        let served = server.as_mut().poll(cx);
        unread.poll(cx);
        match (served, verdict.flood()) {
            (Poll::Pending, Some(flood)) => Poll::Ready(Some(flood)),
            (Poll::Pending, None) => Poll::Pending,
            (Poll::Ready(_), _) => Poll::Ready(None),
        }
    });
    let flood = tokio::select! {
        biased;
        () = hoard.cut() => {
            let peer = connection.context.peer.source_address;
            tracing::info!(%peer, "connection was cut: nobody reads what its client sends, and memory runs out");
            return;
        }
        flood = flood => flood,
    };
    if let Some(flood) = flood {
        tracing::debug!(%flood, "client floods");
        line.say_goodbye().await;
        super::record::report_malformed(&connection, 0, &flood.to_string());
    }
}

/// What the client may send before it is passed on, and the count of it.
fn hoard(connection: &Rc<Connection>, verdict: Verdict) -> (Hoard, u32) {
    let Worker { shared, hoards, .. } = &*connection.context.worker;
    let window = shared.overload.http2_window(hoards.promised(), shared.config.workers);
    let passed_on = connection.passed_on();
    // Bodies that nobody wanted were thrown away uncounted, but no more than the window can ever be held back.
    let held = move || verdict.data_bytes().saturating_sub(passed_on.get()).min(window.into());
    let mut hoard = hoards.enter(held);
    hoard.promise(window.into());
    (hoard, window)
}

fn builder(window: u32) -> http2::Builder<LocalTasks> {
    let mut builder = http2::Builder::new(LocalTasks);
    builder
        .initial_stream_window_size(HTTP2_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(window)
        .max_concurrent_streams(HTTP2_STREAMS_MAX)
        .max_header_list_size(u32::try_from(REQUEST_HEAD_BYTES_MAX).unwrap_or(u32::MAX))
        .max_send_buf_size(HTTP2_SEND_BUFFER_BYTES)
        .max_pending_accept_reset_streams(HTTP2_UNSEEN_RESETS_MAX)
        .max_local_error_reset_streams(HTTP2_STREAM_ERRORS_MAX)
        .enable_connect_protocol();
    builder
}

/// Runs streams on the worker of their connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LocalTasks;

impl<F: Future + 'static> hyper::rt::Executor<F> for LocalTasks {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(async move {
            future.await;
        });
    }
}

/// The stream of a connection, of which a hand is kept to say why it ends.
struct Line<IO>(Rc<RefCell<Shared<IO>>>);

struct Shared<IO> {
    io: IO,
    ahead: Bytes,
    /// Everything that the server wrote has left, so that a frame may follow.
    flushed: bool,
}

impl<IO> Clone for Line<IO> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<IO: AsyncWrite + Unpin> Line<IO> {
    /// Tells a client that listens why the connection ends.
    async fn say_goodbye(mut self) {
        if self.0.borrow().flushed {
            let told = tokio::time::timeout(CUT_BUDGET, async {
                self.write_all(ENHANCE_YOUR_CALM).await?;
                self.shutdown().await
            });
            // It may well not listen.
            let _ = told.await;
        }
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Line<IO> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let shared = &mut *self.0.borrow_mut();
        if shared.ahead.has_remaining() {
            let now = shared.ahead.split_to(shared.ahead.len().min(out.remaining()));
            out.put_slice(&now);
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut shared.io).poll_read(cx, out)
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Line<IO> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let shared = &mut *self.0.borrow_mut();
        shared.flushed = false;
        Pin::new(&mut shared.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let shared = &mut *self.0.borrow_mut();
        shared.flushed = false;
        Pin::new(&mut shared.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.borrow().io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shared = &mut *self.0.borrow_mut();
        let flushed = Pin::new(&mut shared.io).poll_flush(cx);
        shared.flushed |= matches!(flushed, Poll::Ready(Ok(())));
        flushed
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.borrow_mut().io).poll_shutdown(cx)
    }
}

/// GOAWAY: no stream was or will be looked at; ENHANCE_YOUR_CALM.
///
/// # Source
/// RFC 9113 section 6.8.
const ENHANCE_YOUR_CALM: &[u8] = &[0, 0, 8, 7, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 11];
