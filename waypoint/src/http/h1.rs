//! HTTP/1 connections of clients.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;

use bytes::Bytes;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::connection::Connection;
use super::guard::{Guard, Watch};
use super::unread::ClientBody;
use super::{exchange, life, tunnel};
use crate::connection::ConnectionContext;
use crate::limits::{LINGER_BUDGET, LINGER_BYTES_MAX, REQUEST_HEAD_BYTES_MAX};

/// Serves requests until the connection ends, or becomes something else.
pub(crate) async fn serve<IO>(io: IO, ahead: Bytes, context: ConnectionContext)
where
    IO: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let (guard, watch) = Guard::new(io, ahead);
    let connection = Connection::new(context, Some(watch.clone()));
    let serving = connection.clone();
    let service = service_fn(move |request| exchange::serve(serving.clone(), ClientBody::new(request)));
    let mut server = builder().serve_connection(TokioIo::new(guard), service);
    let mut life = pin!(life::life(connection.clone()));
    let mut ending = false;
    let served = poll_fn(|cx| {
        if !ending && life.as_mut().poll(cx).is_ready() {
            ending = true;
            Pin::new(&mut server).graceful_shutdown();
        }
        Pin::new(&mut server).poll(cx)
    });
    let served = served.await;
    if let Err(error) = &served {
        report_fault(&connection, &watch, error);
    }
    let parts = server.into_parts();
    let (io, ahead) = parts.io.into_inner().into_parts();
    let granted = connection.upgraded.borrow_mut().take();
    match granted {
        Some(granted) => {
            let early = if parts.read_buf.is_empty() { ahead } else { [parts.read_buf, ahead].concat().into() };
            tunnel::relay(io, early, granted).await;
        }
        None => linger(io).await,
    }
}

fn builder() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder.max_header_size(REQUEST_HEAD_BYTES_MAX).max_buf_size(REQUEST_HEAD_BYTES_MAX + HEAD_SLACK_BYTES);
    builder
}

/// A request that never became one has its line in the log all the same.
fn report_fault(connection: &Rc<Connection>, watch: &Watch, error: &hyper::Error) {
    let detail = match watch.fault() {
        Some(fault) => fault.to_string(),
        None if error.is_parse() => error.to_string(),
        None => return,
    };
    let status = if error.is_parse_too_large() { 431 } else { 400 };
    super::record::report_malformed(connection, status, &detail);
}

/// Lets the client read its last answer: a connection that is closed while bytes of the client are under way may lose it.
async fn linger<IO: AsyncRead + AsyncWrite + Unpin>(mut io: IO) {
    let drained = async {
        if io.shutdown().await.is_err() {
            return;
        }
        let mut piece = [0; 256];
        let mut left = LINGER_BYTES_MAX;
        while left > 0 {
            match io.read(&mut piece).await {
                Ok(0) | Err(_) => return,
                Ok(read) => left = left.saturating_sub(read),
            }
        }
    };
    // Whether it left by itself or not, it is over.
    let _ = tokio::time::timeout(LINGER_BUDGET, drained).await;
}

/// What the parser reads beyond a head section before it gives up on it.
const HEAD_SLACK_BYTES: usize = 4 << 10;
