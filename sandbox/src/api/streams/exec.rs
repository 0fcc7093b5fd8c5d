//! One command over one WebSocket: the channels of `v4.channel.k8s.io` and `v5.channel.k8s.io`.

use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, close_code};
use bytes::{BufMut, Bytes, BytesMut};
use futures::{SinkExt, StreamExt, stream::SplitSink};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    sync::oneshot,
    time::timeout,
};

use crate::backend::{BoxReader, BoxWriter, ExecSession};

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
/// In version 5: the channel named by the next byte is closed.
const CLOSE: u8 = 255;

/// Output read at once, in bytes.
const READ_BYTES: usize = 32 * 1024;
/// How long output is still read after the command has ended: its children may hold the pipes open.
const DRAIN_TIME: Duration = Duration::from_secs(1);

/// Carries a command's input and output until it ends or the client goes away.
pub(super) async fn run(socket: WebSocket, session: ExecSession, closes: bool) {
    let (mut sender, mut receiver) = socket.split();
    let ExecSession { stdin, stdout, stderr, exit } = session;
    let input = async {
        let mut stdin = stdin;
        while let Some(Ok(message)) = receiver.next().await {
            match message {
                Message::Binary(data) => take_input(&mut stdin, &data, closes).await,
                Message::Text(text) => take_input(&mut stdin, text.as_bytes(), closes).await,
                Message::Close(_) => return,
                Message::Ping(_) | Message::Pong(_) => {}
            }
        }
    };
    let output = async {
        let code = copy_output(&mut sender, stdout, stderr, exit).await;
        let status = exit_status(code).to_string();
        let _ = sender.send(frame(ERROR, status.as_bytes())).await;
        // Ends the connection in order; the client may be gone already.
        let _ = sender
            .send(Message::Close(Some(CloseFrame { code: close_code::NORMAL, reason: Utf8Bytes::default() })))
            .await;
    };
    tokio::select! {
        () = output => {}
        () = input => tracing::debug!("exec client went away"),
    }
}

async fn take_input(stdin: &mut Option<BoxWriter>, data: &[u8], closes: bool) {
    match data.split_first() {
        Some((&STDIN, input)) => {
            let Some(writer) = stdin else { return };
            let written = async {
                writer.write_all(input).await?;
                writer.flush().await
            };
            // The command may have closed its input; that is its business.
            if written.await.is_err() {
                *stdin = None;
            }
        }
        Some((&CLOSE, [STDIN])) if closes => {
            if let Some(mut writer) = stdin.take() {
                let _ = writer.shutdown().await;
            }
        }
        // Terminal sizes (channel 4) are read and not used.
        _ => {}
    }
}

async fn copy_output(
    sender: &mut SplitSink<WebSocket, Message>,
    stdout: BoxReader,
    stderr: BoxReader,
    mut exit: oneshot::Receiver<i32>,
) -> Option<i32> {
    let (mut stdout, mut stderr) = (Some(stdout), Some(stderr));
    let mut code = None;
    while code.is_none() {
        tokio::select! {
            biased;
            data = read(&mut stdout), if stdout.is_some() => if !forward(sender, STDOUT, data).await { return None },
            data = read(&mut stderr), if stderr.is_some() => if !forward(sender, STDERR, data).await { return None },
            ended = &mut exit => code = Some(ended.ok()),
        }
    }
    let rest = async {
        while stdout.is_some() || stderr.is_some() {
            let (channel, data) = tokio::select! {
                data = read(&mut stdout), if stdout.is_some() => (STDOUT, data),
                data = read(&mut stderr), if stderr.is_some() => (STDERR, data),
            };
            if !forward(sender, channel, data).await {
                return;
            }
        }
    };
    let _ = timeout(DRAIN_TIME, rest).await;
    code.flatten()
}

/// Reads a piece; forgets the reader at its end.
async fn read(reader: &mut Option<BoxReader>) -> Option<Bytes> {
    let source = reader.as_mut()?;
    let data = piece(source).await;
    if data.is_none() {
        *reader = None;
    }
    data
}

async fn piece(reader: &mut (impl AsyncRead + Unpin)) -> Option<Bytes> {
    let mut buffer = BytesMut::with_capacity(READ_BYTES);
    match reader.read_buf(&mut buffer).await {
        Ok(0) | Err(_) => None,
        Ok(_) => Some(buffer.freeze()),
    }
}

/// Sends a piece; `false` when the client is gone.
async fn forward(sender: &mut SplitSink<WebSocket, Message>, channel: u8, data: Option<Bytes>) -> bool {
    match data {
        Some(data) => sender.send(frame(channel, &data)).await.is_ok(),
        None => true,
    }
}

/// A message on a channel.
pub(super) fn frame(channel: u8, data: &[u8]) -> Message {
    let mut message = BytesMut::with_capacity(data.len() + 1);
    message.put_u8(channel);
    message.put_slice(data);
    Message::Binary(message.freeze())
}

/// The Status that ends a command.
fn exit_status(code: Option<i32>) -> Value {
    match code {
        Some(0) => json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}),
        Some(code) => json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
            "message": format!("command terminated with non-zero exit code: exit status {code}"),
            "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
        }),
        None => json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": "InternalError",
            "message": "the command ended without an exit code", "code": 500,
        }),
    }
}
