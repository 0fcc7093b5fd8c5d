//! A WebSocket client: opens a socket, sends texts, checks that they come back.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

/// Sends `count` texts, with a pause before each but the first, and returns what the server says at the end.
///
/// # Errors
/// When the server does not switch protocols, or a text does not come back.
pub async fn run(url: &Uri, host: Option<&str>, count: u32, pause: Duration) -> Result<String> {
    let authority = url.authority().context("the URL names no host")?.as_str();
    let target = (url.host().context("the URL names no host")?, url.port_u16().unwrap_or(80));
    let stream = TcpStream::connect(target).await.context("connect")?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.context("handshake")?;
    tokio::spawn(connection.with_upgrades());
    let request = Request::get(url.path_and_query().map_or("/ws", |path| path.as_str()))
        .header(header::HOST, host.unwrap_or(authority))
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_VERSION, "13")
        .header(header::SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ==")
        .body(Empty::<Bytes>::new())?;
    let answer = sender.send_request(request).await.context("request")?;
    ensure!(answer.status() == StatusCode::SWITCHING_PROTOCOLS, "answer {}", answer.status());
    let accepted = answer.headers().get(header::SEC_WEBSOCKET_ACCEPT);
    // The answer to the key above, of RFC 6455 section 1.3.
    ensure!(accepted.is_some_and(|key| key == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "accepted with {accepted:?}");
    let mut io = TokioIo::new(hyper::upgrade::on(answer).await.context("upgrade")?);
    for index in 0..count {
        if index > 0 {
            tokio::time::sleep(pause).await;
        }
        let text = format!("text {index} {}", "x".repeat(index as usize % 200));
        send(&mut io, TEXT, text.as_bytes()).await?;
        let (opcode, back) = receive(&mut io).await?;
        ensure!(opcode == TEXT && back == text.as_bytes(), "sent {text:?}, got {:?}", String::from_utf8_lossy(&back));
    }
    send(&mut io, CLOSE, &1000_u16.to_be_bytes()).await?;
    match receive(&mut io).await? {
        (CLOSE, _) => Ok(format!("{count} texts came back")),
        (other, _) => bail!("opcode {other} in place of a close"),
    }
}

async fn send(io: &mut (impl AsyncWrite + Unpin), opcode: u8, payload: &[u8]) -> Result<()> {
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    let mut frame = vec![0x80 | opcode];
    match u8::try_from(payload.len()) {
        Ok(length) if length < 126 => frame.push(0x80 | length),
        _ => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&u16::try_from(payload.len()).context("text is too long")?.to_be_bytes());
        }
    }
    frame.extend_from_slice(&mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    io.write_all(&frame).await?;
    Ok(io.flush().await?)
}

async fn receive(io: &mut (impl AsyncRead + Unpin)) -> Result<(u8, Vec<u8>)> {
    let first = io.read_u8().await.context("reading a frame")?;
    let length = match io.read_u8().await? & 0x7f {
        126 => u64::from(io.read_u16().await?),
        127 => io.read_u64().await?,
        length => u64::from(length),
    };
    ensure!(length <= FRAME_BYTES_MAX, "a frame of {length} bytes");
    let mut payload = vec![0; usize::try_from(length)?];
    io.read_exact(&mut payload).await.context("reading a frame")?;
    Ok((first & 0x0f, payload))
}

const TEXT: u8 = 1;
const CLOSE: u8 = 8;
/// Longest frame that is taken.
const FRAME_BYTES_MAX: u64 = 1 << 20;
