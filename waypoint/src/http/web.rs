//! gRPC-Web: what browsers speak in place of gRPC, because they cannot see trailers.
//!
//! # Source
//! gRPC-Web protocol specification: the body ends in a frame of trailers; `-text` bodies are base64.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, TE};
use http::{HeaderMap, HeaderValue};
use http_body::{Body, Frame, SizeHint};

/// How a client speaks gRPC-Web.
#[derive(Debug, Clone)]
pub(crate) struct Bridge {
    /// For the response.
    content_type: HeaderValue,
    /// For the request.
    upstream: HeaderValue,
    text: bool,
}

/// Base64 text to bytes, piece by piece.
#[derive(Debug, Clone, Default)]
pub(crate) struct Decode {
    /// Characters of a group of four.
    group: Vec<u8>,
}

/// A body that is not base64.
#[derive(Debug, thiserror::Error)]
#[error("body of gRPC-Web text is not base64")]
pub(crate) struct NotBase64;

/// A response body with its trailers inside.
pub(crate) struct Encode<B> {
    inner: B,
    text: bool,
    /// Of a group of three.
    rest: BytesMut,
    ended: bool,
}

impl Bridge {
    /// Of the head of a request. `None`: it is something else.
    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        let content_type = headers.get(CONTENT_TYPE)?.clone();
        let kind = content_type.to_str().ok()?.strip_prefix(GRPC_WEB)?;
        let (text, format) = match kind.strip_prefix("-text") {
            Some(format) => (true, format),
            None => (false, kind),
        };
        if !(format.is_empty() || format.starts_with(['+', ';'])) {
            return None;
        }
        let upstream = HeaderValue::try_from(format!("application/grpc{format}")).ok()?;
        Some(Self { content_type, upstream, text })
    }

    /// Turns the head of the request into one of gRPC.
    pub(crate) fn translate(&self, headers: &mut HeaderMap) {
        headers.insert(CONTENT_TYPE, self.upstream.clone());
        headers.insert(TE, HeaderValue::from_static("trailers"));
        if self.text {
            headers.remove(CONTENT_LENGTH);
        }
    }

    /// For the body of the request.
    pub(crate) fn decode(&self) -> Option<Decode> {
        self.text.then(Decode::default)
    }

    /// Turns the head of a gRPC response, the proxy's own included, into one of gRPC-Web.
    pub(crate) fn answer(&self, headers: &mut HeaderMap) {
        let is_grpc = headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
        if is_grpc {
            headers.insert(CONTENT_TYPE, self.content_type.clone());
        }
        headers.remove(CONTENT_LENGTH);
    }

    /// The body of the response.
    pub(crate) fn encode<B>(&self, inner: B) -> Encode<B> {
        Encode { inner, text: self.text, rest: BytesMut::new(), ended: false }
    }
}

impl Decode {
    /// # Errors
    /// Not base64.
    pub(crate) fn push(&mut self, text: &[u8]) -> Result<Bytes, NotBase64> {
        let mut bytes = BytesMut::with_capacity(text.len() / 4 * 3 + 3);
        for character in text {
            self.group.push(*character);
            if self.group.len() == 4 {
                bytes.put_slice(&STANDARD.decode(&self.group).map_err(|_| NotBase64)?);
                self.group.clear();
            }
        }
        Ok(bytes.freeze())
    }
}

impl<B> Encode<B> {
    fn data(&mut self, data: Bytes) -> Bytes {
        if !self.text {
            return data;
        }
        self.rest.extend_from_slice(&data);
        let whole = self.rest.len() / 3 * 3;
        STANDARD.encode(self.rest.split_to(whole)).into()
    }

    fn end(&mut self, trailers: Option<&HeaderMap>) -> Option<Bytes> {
        let mut frame = BytesMut::new();
        if let Some(trailers) = trailers {
            let mut block = BytesMut::new();
            for (name, value) in trailers {
                block.put_slice(name.as_str().as_bytes());
                block.put_slice(b": ");
                block.put_slice(value.as_bytes());
                block.put_slice(b"\r\n");
            }
            frame.put_u8(TRAILERS_FLAG);
            frame.put_u32(u32::try_from(block.len()).unwrap_or(u32::MAX));
            frame.put_slice(&block);
        }
        self.ended = true;
        if self.text {
            self.rest.extend_from_slice(&frame);
            frame = STANDARD.encode(std::mem::take(&mut self.rest)).as_bytes().into();
        }
        Some(frame.freeze()).filter(|frame| !frame.is_empty())
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Encode<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.get_mut();
        while !this.ended {
            let frame = match ready!(Pin::new(&mut this.inner).poll_frame(cx)) {
                None => this.end(None),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => Some(this.data(data)).filter(|data| !data.is_empty()),
                    Err(frame) => frame.into_trailers().ok().and_then(|trailers| this.end(Some(&trailers))),
                },
            };
            if let Some(frame) = frame {
                return Poll::Ready(Some(Ok(Frame::data(frame))));
            }
        }
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        // What is left of a group of three is yet to come.
        self.ended || (self.rest.is_empty() && self.inner.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

const GRPC_WEB: &str = "application/grpc-web";
const TRAILERS_FLAG: u8 = 0x80;

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http_body_util::{BodyExt, StreamBody};

    use super::*;

    fn request(kind: &'static str) -> (HeaderMap, Option<Bridge>) {
        let mut headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(kind))]);
        let bridge = Bridge::of(&headers);
        if let Some(bridge) = &bridge {
            bridge.translate(&mut headers);
        }
        (headers, bridge)
    }

    #[test]
    fn requests_become_grpc() {
        let (headers, bridge) = request("application/grpc-web+proto");
        assert_eq!(
            (headers[CONTENT_TYPE].as_bytes(), headers[TE].as_bytes()),
            (&b"application/grpc+proto"[..], &b"trailers"[..])
        );
        assert!(bridge.unwrap().decode().is_none());
        assert!(request("application/grpc-web-text").1.unwrap().decode().is_some());
        for other in ["application/grpc", "application/grpc-websocket", "text/plain"] {
            assert!(request(other).1.is_none(), "{other}");
        }
    }

    #[test]
    fn text_is_decoded_however_it_is_cut_and_padded() {
        let text = format!("{}{}", STANDARD.encode(b"ab"), STANDARD.encode(b"cdefg"));
        for size in [1, 3, 4, 100] {
            let mut decode = Decode::default();
            let bytes: Vec<u8> = text.as_bytes().chunks(size).flat_map(|piece| decode.push(piece).unwrap()).collect();
            assert_eq!(bytes, b"abcdefg");
        }
        assert!(Decode::default().push(b"!!!!").is_err());
    }

    #[tokio::test]
    async fn the_last_bytes_of_a_body_without_trailers_are_not_lost() {
        let body = http_body_util::Full::new(Bytes::from_static(b"abcd"));
        let mut body = request("application/grpc-web-text").1.unwrap().encode(body);
        let mut whole = Vec::new();
        // As servers do it.
        while !body.is_end_stream() {
            let Some(frame) = body.frame().await else { break };
            whole.extend_from_slice(&frame.unwrap().into_data().unwrap());
        }
        assert_eq!(whole, STANDARD.encode(b"abcd").as_bytes());
    }

    #[tokio::test]
    async fn trailers_become_the_last_frame() {
        for (kind, text) in [("application/grpc-web", false), ("application/grpc-web-text", true)] {
            let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from_static("0"))]);
            let frames: Vec<Result<Frame<Bytes>, Infallible>> =
                vec![Ok(Frame::data(Bytes::from_static(b"\0\0\0\0\x01a"))), Ok(Frame::trailers(trailers))];
            let body = request(kind).1.unwrap().encode(StreamBody::new(futures::stream::iter(frames)));
            let mut whole = body.collect().await.unwrap().to_bytes().to_vec();
            if text {
                whole = STANDARD.decode(&whole).unwrap();
            }
            assert_eq!(whole, b"\0\0\0\0\x01a\x80\0\0\0\x10grpc-status: 0\r\n");
        }
    }
}
