//! Port forwarding over SPDY, as `kubectl` does it: directly on an upgraded connection, or inside a
//! WebSocket. Every forwarded connection is a pair of streams, one for data and one for an error.

use std::{collections::HashMap, io, sync::Arc, time::Duration};

use axum::extract::ws::{Message, WebSocket};
use bytes::{Bytes, BytesMut};
use futures::{SinkExt, StreamExt};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split},
    sync::mpsc,
    task::{AbortHandle, JoinSet},
    time::timeout,
};

use super::spdy::{Fields, Frame, FrameReader, HeaderWriter, REFUSED_STREAM, malformed};
use crate::backend::NodeBackend;

/// Streams open at once in one session: half as many connections.
const STREAMS_MAX: usize = 512;
/// Frames that wait for the client.
const OUTGOING_MAX: usize = 64;
/// Pieces of data that wait for one connection into the pod.
const INCOMING_MAX: usize = 8;
/// Data read at once, in bytes.
const READ_BYTES: usize = 32 * 1024;
/// Bytes in flight between a WebSocket and the session in it.
const PIPE_BYTES: usize = 64 * 1024;
/// How long the last frames may take.
const LINGER: Duration = Duration::from_secs(5);

/// Where the ports are.
#[derive(Clone)]
pub(super) struct Pod {
    pub(super) backend: Arc<dyn NodeBackend>,
    pub(super) node: String,
    pub(super) uid: String,
}

/// A session inside the binary messages of a WebSocket.
pub(super) async fn over_websocket(socket: WebSocket, pod: Pod) {
    let (near, far) = tokio::io::duplex(PIPE_BYTES);
    let (mut sender, mut receiver) = socket.split();
    let (mut from_session, mut to_session) = split(near);
    let incoming = async {
        while let Some(Ok(message)) = receiver.next().await {
            match message {
                Message::Binary(data) if to_session.write_all(&data).await.is_err() => return,
                Message::Close(_) => return,
                _ => {}
            }
        }
    };
    let outgoing = async {
        loop {
            let mut buffer = BytesMut::with_capacity(READ_BYTES);
            match from_session.read_buf(&mut buffer).await {
                Ok(1..) => {
                    if sender.send(Message::Binary(buffer.freeze())).await.is_err() {
                        return;
                    }
                }
                _ => {
                    let _ = sender.send(Message::Close(None)).await;
                    return;
                }
            }
        }
    };
    tokio::select! {
        () = async { tokio::join!(run(far, pod), outgoing); } => {}
        () = incoming => {}
    }
}

/// Carries a session until the client ends it.
pub(super) async fn run(stream: impl AsyncRead + AsyncWrite + Send, pod: Pod) {
    let (reader, mut writer) = split(stream);
    let (frames, mut outgoing) = mpsc::channel::<Frame>(OUTGOING_MAX);
    let writing = async {
        let mut headers = HeaderWriter::new()?;
        let mut buffer = BytesMut::new();
        while let Some(frame) = outgoing.recv().await {
            frame.encode(&mut headers, &mut buffer)?;
            writer.write_all(&buffer).await?;
            writer.flush().await?;
            buffer.clear();
        }
        writer.shutdown().await
    };
    let reading = async {
        let mut reader = FrameReader::new(reader)?;
        let mut session =
            Session { pod, frames, streams: HashMap::new(), errors: HashMap::new(), connections: JoinSet::new() };
        while let Some(frame) = reader.next().await? {
            if !session.take(frame).await? {
                break;
            }
        }
        Ok::<(), io::Error>(())
    };
    tokio::pin!(writing);
    let ended = tokio::select! {
        result = reading => {
            // What the connections still said is sent.
            let _ = timeout(LINGER, &mut writing).await;
            result
        }
        result = &mut writing => result,
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "port forwarding ended early");
    }
}

/// The streams of one client.
struct Session {
    pod: Pod,
    frames: mpsc::Sender<Frame>,
    streams: HashMap<u32, Stream>,
    /// Error streams that wait for their data stream, by request id.
    errors: HashMap<String, u32>,
    connections: JoinSet<()>,
}

enum Stream {
    Error,
    Data { to_pod: Option<mpsc::Sender<Bytes>>, connection: AbortHandle },
}

impl Session {
    /// Acts on a frame; `false` when the client has ended the session.
    async fn take(&mut self, frame: Frame) -> io::Result<bool> {
        while self.connections.try_join_next().is_some() {}
        match frame {
            Frame::Open { id, fields, .. } => self.open(id, &fields).await?,
            Frame::Data { id, last, bytes } => self.data(id, last, bytes).await,
            Frame::Reset { id, .. } => {
                if let Some(Stream::Data { connection, .. }) = self.streams.remove(&id) {
                    connection.abort();
                }
            }
            Frame::Ping { id } => self.send(Frame::Ping { id }).await?,
            Frame::GoAway => return Ok(false),
            Frame::Reply { .. } => {}
        }
        Ok(true)
    }

    async fn open(&mut self, id: u32, fields: &Fields) -> io::Result<()> {
        // Streams whose connection is over are forgotten when the next one is opened.
        self.streams.retain(|_, stream| match stream {
            Stream::Error => true,
            Stream::Data { connection, .. } => !connection.is_finished(),
        });
        let field = |name: &str| fields.get(name).map(String::as_str).unwrap_or_default();
        let (kind, request) = (field("streamtype"), field("requestid").to_owned());
        let port = field("port").parse::<u16>().ok().filter(|port| *port > 0);
        let port = port.filter(|_| self.streams.len() < STREAMS_MAX && !self.streams.contains_key(&id));
        let pairs_with = self.errors.get(&request).copied();
        match (kind, port, pairs_with) {
            ("error", Some(_), None) => {
                self.errors.insert(request, id);
                self.streams.insert(id, Stream::Error);
            }
            ("data", Some(port), Some(error_id)) => {
                self.errors.remove(&request);
                self.streams.remove(&error_id);
                let (to_pod, from_client) = mpsc::channel(INCOMING_MAX);
                let connection = Connection { id, error_id, port, from_client, frames: self.frames.clone() };
                let connection = self.connections.spawn(connection.run(self.pod.clone()));
                self.streams.insert(id, Stream::Data { to_pod: Some(to_pod), connection });
            }
            _ => return self.send(Frame::Reset { id, status: REFUSED_STREAM }).await,
        }
        self.send(Frame::Reply { id }).await
    }

    async fn data(&mut self, id: u32, last: bool, bytes: Bytes) {
        let Some(Stream::Data { to_pod, .. }) = self.streams.get_mut(&id) else { return };
        let gone = match to_pod {
            Some(sender) if !bytes.is_empty() => sender.send(bytes).await.is_err(),
            _ => false,
        };
        if last || gone {
            *to_pod = None;
        }
    }

    async fn send(&self, frame: Frame) -> io::Result<()> {
        self.frames.send(frame).await.map_err(|_| malformed("the client is gone".to_owned()))
    }
}

/// One connection into the pod.
struct Connection {
    id: u32,
    error_id: u32,
    port: u16,
    from_client: mpsc::Receiver<Bytes>,
    frames: mpsc::Sender<Frame>,
}

impl Connection {
    async fn run(self, pod: Pod) {
        let Self { id, error_id, port, mut from_client, frames } = self;
        let error = match pod.backend.port_forward(&pod.node, &pod.uid, port).await {
            Ok(stream) => {
                let (mut reader, mut writer) = split(stream);
                let to_pod = async {
                    while let Some(bytes) = from_client.recv().await {
                        if writer.write_all(&bytes).await.is_err() {
                            return;
                        }
                    }
                    let _ = writer.shutdown().await;
                };
                let from_pod = async {
                    loop {
                        let mut bytes = BytesMut::with_capacity(READ_BYTES);
                        match reader.read_buf(&mut bytes).await {
                            Ok(1..) => {
                                let frame = Frame::Data { id, last: false, bytes: bytes.freeze() };
                                if frames.send(frame).await.is_err() {
                                    return;
                                }
                            }
                            _ => return,
                        }
                    }
                };
                // The pod's end ends the connection; the client's leaves the answer to come.
                tokio::pin!(from_pod);
                tokio::select! {
                    () = &mut from_pod => {}
                    () = to_pod => from_pod.await,
                }
                Bytes::new()
            }
            Err(error) => Bytes::from(error.to_string()),
        };
        for (id, bytes) in [(error_id, error), (id, Bytes::new())] {
            // A client that left needs neither.
            let _ = frames.send(Frame::Data { id, last: true, bytes }).await;
        }
    }
}
