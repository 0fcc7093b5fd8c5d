//! The server of all cases: short answers by HTTP/1.1 and HTTP/2, a sink and a source of bytes.
//!
//! It must cost little, so that it is not what limits a case; HTTP is served by one thread, as a small web server would.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener as StdListener, TcpStream as StdStream};

use anyhow::{Context, Result};
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Requests.
pub(crate) const HTTP_PORT: u16 = 8080;
/// Takes bytes.
pub(crate) const SINK_PORT: u16 = 9001;
/// Gives bytes.
pub(crate) const SOURCE_PORT: u16 = 9002;

/// Serves until the process is ended.
pub(crate) fn run() -> Result<()> {
    bulk(SINK_PORT, |mut stream| {
        let mut buffer = vec![0; CHUNK_BYTES];
        while stream.read(&mut buffer).is_ok_and(|count| count > 0) {}
    })?;
    bulk(SOURCE_PORT, |mut stream| {
        let buffer = vec![7; CHUNK_BYTES];
        while stream.write_all(&buffer).is_ok() {}
    })?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = listen(HTTP_PORT)?;
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        loop {
            let (stream, _) = listener.accept().await.context("accept")?;
            tokio::spawn(async move {
                // A client that leaves is no fault of the server.
                let _ = answer(stream).await;
            });
        }
    })
}

/// One thread for each connection to `port`.
fn bulk(port: u16, serve: fn(StdStream)) -> Result<()> {
    let listener = listen(port)?;
    std::thread::Builder::new().name(format!("port-{port}")).spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || serve(stream));
        }
    })?;
    Ok(())
}

fn listen(port: u16) -> Result<StdListener> {
    let options = mesh_sys::socket::TcpListenOptions {
        backlog: 4096,
        ..mesh_sys::socket::TcpListenOptions::new((Ipv4Addr::UNSPECIFIED, port).into())
    };
    let listener = options.bind().with_context(|| format!("port {port}"))?;
    listener.set_nonblocking(false)?;
    Ok(listener)
}

async fn answer(mut stream: TcpStream) -> Result<()> {
    let mut buffer = [0; REQUEST_BYTES_MAX];
    let mut filled = 0;
    loop {
        let count = stream.read(buffer.get_mut(filled..).unwrap_or_default()).await?;
        if count == 0 {
            return Ok(());
        }
        filled += count;
        let request = buffer.get(..filled).unwrap_or_default();
        if request.starts_with(PREFACE) {
            let begun = std::io::Cursor::new(request.to_vec());
            return answer_http2(begun, stream).await;
        }
        if !request.ends_with(b"\r\n\r\n") || request.ends_with(PREFACE_HEAD) {
            continue;
        }
        filled = 0;
        let last = request.windows(CLOSE.len()).any(|window| window == CLOSE);
        stream.write_all(RESPONSE).await?;
        if last {
            return Ok(());
        }
    }
}

/// `begun` was read already.
async fn answer_http2(begun: std::io::Cursor<Vec<u8>>, stream: TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let (read, write) = stream.into_split();
    let stream = tokio::io::join(AsyncReadExt::chain(begun, read), write);
    let mut connection = h2::server::handshake(stream).await?;
    while let Some(request) = connection.accept().await {
        let (_, mut respond) = request?;
        let head = http::Response::builder()
            .header("server", "bench")
            .header("content-type", "text/plain")
            .header("content-length", BODY.len());
        respond.send_response(head.body(())?, false)?.send_data(Bytes::from_static(BODY), true)?;
    }
    Ok(())
}

/// One write or read of bulk traffic.
pub(crate) const CHUNK_BYTES: usize = 128 << 10;
const REQUEST_BYTES_MAX: usize = 1024;
const CLOSE: &[u8] = b"Connection: close";
/// What a connection of HTTP/2 begins with, and the part of it that looks like a request.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const PREFACE_HEAD: &[u8] = b"PRI * HTTP/2.0\r\n\r\n";
const BODY: &[u8] = b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\
    0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nServer: bench\r\nContent-Type: text/plain\r\nContent-Length: 128\r\n\r\n\
    0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\
    0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
