//! The gRPC side of `echo`: the last part of the path says what kind of call it is.
//!
//! Messages have one string field, number 1. `Collect` takes a stream and answers once, `Expand` answers with a
//! stream, `Chat` does both; every other method takes one message and answers one, with what the server saw.

use std::io;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::response::Response;
use bytes::{Buf, BytesMut};
use http::{HeaderMap, HeaderValue, header};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::sync::mpsc;

use crate::seen::Seen;
use crate::wish::{Reset, Wishes};

/// Answers a call.
#[must_use]
pub fn answer(path: &str, wishes: &Wishes, seen: &Seen, body: Body) -> Response {
    if let Some(status) = wishes.grpc_status.filter(|status| *status != 0) {
        let mut response = grpc_response(Body::empty(), wishes);
        response.headers_mut().insert("grpc-status", status.into());
        response.headers_mut().insert("grpc-message", HeaderValue::from_static("as wished"));
        return response;
    }
    let (frames, receiver) = mpsc::channel(8);
    let call = Call {
        method: path.rsplit('/').next().unwrap_or_default().to_owned(),
        count: wishes.count,
        pause: wishes.pause,
        broken: wishes.reset == Some(Reset::Body),
        trailers: wishes.trailers.iter().cloned().collect(),
        text: serde_json::to_vec(seen).unwrap_or_default(),
        frames,
    };
    tokio::spawn(call.run(body));
    let stream = futures::stream::unfold(receiver, |mut receiver| async move {
        let frame = receiver.recv().await?;
        Some((frame, receiver))
    });
    grpc_response(Body::new(StreamBody::new(stream)), wishes)
}

fn grpc_response(body: Body, wishes: &Wishes) -> Response {
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    if let Some(status) = wishes.status {
        *response.status_mut() = status;
    }
    for (name, value) in &wishes.headers {
        response.headers_mut().append(name.clone(), value.clone());
    }
    response
}

type Sent = Result<Frame<Bytes>, io::Error>;

/// A call while it is answered.
struct Call {
    method: String,
    count: u32,
    pause: Duration,
    broken: bool,
    trailers: HeaderMap,
    text: Vec<u8>,
    frames: mpsc::Sender<Sent>,
}

impl Call {
    /// Answers until all is said or the client has gone.
    async fn run(self, body: Body) {
        let mut messages = Messages { body, buffer: BytesMut::new() };
        let said = match self.method.as_str() {
            "Collect" => {
                let (mut count, mut bytes) = (0_u64, 0_u64);
                while let Some(message) = messages.next().await {
                    count += 1;
                    bytes += message.len() as u64;
                }
                self.say(format!("{count} messages, {bytes} bytes").as_bytes()).await
            }
            "Expand" => self.expand(messages.next().await.unwrap_or_default()).await,
            "Chat" => self.chat(messages).await,
            _ => {
                messages.next().await;
                self.say(&self.text).await
            }
        };
        if said.is_some() {
            self.end().await;
        }
    }

    async fn expand(&self, first: Bytes) -> Option<()> {
        for index in 0..self.count {
            if index > 0 {
                tokio::time::sleep(self.pause).await;
            }
            self.say(format!("{} {index}", String::from_utf8_lossy(&first)).as_bytes()).await?;
        }
        Some(())
    }

    async fn chat(&self, mut messages: Messages) -> Option<()> {
        while let Some(message) = messages.next().await {
            self.say(&message).await?;
        }
        Some(())
    }

    /// Sends one message; none when the client has gone.
    async fn say(&self, text: &[u8]) -> Option<()> {
        self.frames.send(Ok(Frame::data(framed(text)))).await.ok()
    }

    async fn end(self) {
        if self.broken {
            let _ = self.frames.send(Err(io::Error::other("a reset was wished"))).await;
            return;
        }
        let mut trailers = self.trailers;
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        let _ = self.frames.send(Ok(Frame::trailers(trailers))).await;
    }
}

/// The messages of a request, by their string field.
struct Messages {
    body: Body,
    buffer: BytesMut,
}

impl Messages {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(message) = unframed(&mut self.buffer) {
                return Some(message);
            }
            let frame = self.body.frame().await?.ok()?;
            if let Some(data) = frame.data_ref() {
                self.buffer.extend_from_slice(data);
            }
        }
    }
}

/// A message with one string field, with its frame.
#[must_use]
pub fn framed(text: &[u8]) -> Bytes {
    let mut message = vec![0x0a];
    let mut length = text.len();
    while length >= 0x80 {
        message.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    message.push(length as u8);
    message.extend_from_slice(text);
    let mut framed = vec![0];
    framed.extend_from_slice(&u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
    framed.extend_from_slice(&message);
    framed.into()
}

/// Takes one whole message off the buffer and returns its string field; empty where it has none.
pub fn unframed(buffer: &mut BytesMut) -> Option<Bytes> {
    let header: [u8; 5] = buffer.get(..5)?.try_into().ok()?;
    let [_, length @ ..] = header;
    let length = u32::from_be_bytes(length) as usize;
    if buffer.len() < 5 + length {
        return None;
    }
    buffer.advance(5);
    let mut message = buffer.split_to(length).freeze();
    if message.first() != Some(&0x0a) {
        return Some(Bytes::new());
    }
    message.advance(1);
    let (mut size, mut shift) = (0_usize, 0);
    while let Some(byte) = message.first().copied() {
        message.advance(1);
        size |= usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 || shift > 28 {
            break;
        }
    }
    message.truncate(size);
    Some(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_out_as_they_went_in() {
        let mut buffer = BytesMut::new();
        let long = "x".repeat(300);
        for text in ["a", "", &long] {
            buffer.extend_from_slice(&framed(text.as_bytes()));
        }
        buffer.extend_from_slice(&[0, 0, 0, 0, 9, 1]);
        for text in ["a", "", &long] {
            assert_eq!(unframed(&mut buffer).unwrap(), text.as_bytes());
        }
        assert_eq!(unframed(&mut buffer), None);
    }
}
