//! Forwarded ports over one WebSocket, as `v4.channel.k8s.io` numbers them: port `i` has its data on
//! channel `2i` and its errors on channel `2i + 1`.

use std::sync::Arc;

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, close_code};
use bytes::BytesMut;
use futures::{SinkExt, StreamExt, stream::FuturesUnordered};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf, split},
    sync::mpsc,
};

use super::exec::frame;
use crate::backend::{BoxDuplex, NodeBackend};

/// Messages waiting for the client; readers of the ports wait when it is full.
const OUTGOING_MAX: usize = 16;
/// Data read at once, in bytes.
const READ_BYTES: usize = 32 * 1024;

/// Carries data until every port is closed or the client goes away.
pub(super) async fn run(socket: WebSocket, backend: Arc<dyn NodeBackend>, node: &str, uid: &str, ports: Vec<u16>) {
    let (mut sender, mut receiver) = socket.split();
    let mut writers: Vec<Option<WriteHalf<BoxDuplex>>> = Vec::new();
    let mut readers = FuturesUnordered::new();
    let (outgoing, mut waiting) = mpsc::channel::<Message>(OUTGOING_MAX);
    for (port, channel) in ports.into_iter().zip((0_u8..).step_by(2)) {
        // Both channels of a port begin with its number.
        for channel in [channel, channel + 1] {
            if sender.send(frame(channel, &port.to_le_bytes())).await.is_err() {
                return;
            }
        }
        match backend.port_forward(node, uid, port).await {
            Ok(stream) => {
                let (reader, writer) = split(stream);
                writers.push(Some(writer));
                readers.push(copy(reader, channel, outgoing.clone()));
            }
            Err(error) => {
                writers.push(None);
                if sender.send(frame(channel + 1, error.to_string().as_bytes())).await.is_err() {
                    return;
                }
            }
        }
    }
    drop(outgoing);
    let from_ports = async { while readers.next().await.is_some() {} };
    let to_client = async {
        while let Some(message) = waiting.recv().await {
            if sender.send(message).await.is_err() {
                return;
            }
        }
        let _ = sender
            .send(Message::Close(Some(CloseFrame { code: close_code::NORMAL, reason: Utf8Bytes::default() })))
            .await;
    };
    let from_client = async {
        while let Some(Ok(message)) = receiver.next().await {
            let Message::Binary(data) = message else { continue };
            let Some((channel, data)) = data.split_first() else { continue };
            let Some(slot) = writers.get_mut(usize::from(channel / 2)) else { continue };
            if let Some(writer) = slot
                && channel % 2 == 0
                && writer.write_all(data).await.is_err()
            {
                *slot = None;
            }
        }
    };
    tokio::select! {
        ((), ()) = async { tokio::join!(from_ports, to_client) } => {}
        () = from_client => {}
    }
}

async fn copy(mut reader: ReadHalf<BoxDuplex>, channel: u8, outgoing: mpsc::Sender<Message>) {
    loop {
        let mut buffer = BytesMut::with_capacity(READ_BYTES);
        match reader.read_buf(&mut buffer).await {
            Ok(read) if read > 0 => {
                if outgoing.send(frame(channel, &buffer)).await.is_err() {
                    return;
                }
            }
            _ => return,
        }
    }
}
