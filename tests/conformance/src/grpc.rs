//! gRPC messages over HTTP/2, framed by hand.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Response};
use prost::Message;

/// The messages of one direction.
pub struct Messages {
    body: RecvStream,
    buffer: BytesMut,
}

impl Messages {
    /// Reads `body`.
    #[must_use]
    pub fn new(body: RecvStream) -> Self {
        Self { body, buffer: BytesMut::new() }
    }

    /// The next message; `None` at the end of the stream.
    ///
    /// # Errors
    /// When the stream is reset.
    pub async fn next<M: Message + Default>(&mut self) -> Result<Option<M>, h2::Error> {
        loop {
            if self.buffer.len() >= 5 {
                let len = u32::from_be_bytes(self.buffer[1..5].try_into().unwrap()) as usize;
                if self.buffer.len() >= 5 + len {
                    assert_eq!(self.buffer[0], 0, "nobody offered to take compressed messages");
                    self.buffer.advance(5);
                    return Ok(Some(M::decode(self.buffer.split_to(len)).unwrap()));
                }
            }
            match self.body.data().await {
                Some(chunk) => {
                    let chunk = chunk?;
                    let _ = self.body.flow_control().release_capacity(chunk.len());
                    self.buffer.extend_from_slice(&chunk);
                }
                None => return Ok(None),
            }
        }
    }
}

/// Starts an answer with this initial metadata.
///
/// # Errors
/// When the stream is gone.
pub fn start(respond: &mut SendResponse<Bytes>, metadata: &[(String, String)]) -> Result<SendStream<Bytes>, h2::Error> {
    let mut response = Response::builder().status(200).header("content-type", "application/grpc");
    for (name, value) in metadata {
        response = response.header(name, value);
    }
    respond.send_response(response.body(()).unwrap(), false)
}

/// Sends one message.
///
/// # Errors
/// When the stream is gone.
pub fn send(to: &mut SendStream<Bytes>, message: &impl Message) -> Result<(), h2::Error> {
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.encoded_len()).unwrap());
    message.encode(&mut frame).unwrap();
    to.send_data(frame.freeze(), false)
}

/// Ends the answer with a status.
pub fn end(to: &mut SendStream<Bytes>, code: u32, message: &str) {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", code.into());
    trailers.insert("grpc-message", message.parse().unwrap());
    let _ = to.send_trailers(trailers);
}

/// Answers with a status alone.
pub fn refuse(mut respond: SendResponse<Bytes>, code: u32, message: &str) {
    let response = Response::builder()
        .status(200)
        .header("content-type", "application/grpc")
        .header("grpc-status", code)
        .header("grpc-message", message)
        .body(())
        .unwrap();
    let _ = respond.send_response(response, true);
}

/// gRPC status codes.
pub mod code {
    /// CANCELLED.
    pub const CANCELLED: u32 = 1;
    /// UNKNOWN.
    pub const UNKNOWN: u32 = 2;
    /// RESOURCE_EXHAUSTED.
    pub const RESOURCE_EXHAUSTED: u32 = 8;
    /// INTERNAL.
    pub const INTERNAL: u32 = 13;
    /// UNAVAILABLE.
    pub const UNAVAILABLE: u32 = 14;
    /// UNAUTHENTICATED.
    pub const UNAUTHENTICATED: u32 = 16;
}
