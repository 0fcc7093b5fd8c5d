//! SPDY/3.1, as far as port forwarding uses it: frames in both directions over one byte stream.
//!
//! Clients of Kubernetes neither send nor expect window updates, so none are sent here; every queue
//! is bounded, and a stream that is not read slows its session down.

mod headers;

use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

pub(super) use self::headers::{Fields, HeaderReader, HeaderWriter};

/// Largest frame accepted, in bytes. Clients copy in pieces of 32 KiB.
const FRAME_BYTES_MAX: usize = 256 * 1024;
/// Bytes of a frame's head.
const HEAD_BYTES: usize = 8;
/// Set in the first byte of control frames.
const CONTROL: u8 = 0x80;
/// Version 3, also of SPDY/3.1.
const VERSION: u16 = 3;
/// The flag of the last frame in a direction.
const FIN: u8 = 0x01;
/// Ids have 31 bits.
const ID_MASK: u32 = 0x7fff_ffff;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;

/// Status of a reset: no stream may be opened now.
pub(super) const REFUSED_STREAM: u32 = 3;

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Frame {
    /// The client opens a stream.
    Open { id: u32, last: bool, fields: Fields },
    /// The server accepts a stream.
    Reply { id: u32 },
    /// Bytes of a stream.
    Data { id: u32, last: bool, bytes: Bytes },
    /// A stream ends at once.
    Reset { id: u32, status: u32 },
    /// To be sent back.
    Ping { id: u32 },
    /// The session ends.
    GoAway,
}

/// Reads frames.
pub(super) struct FrameReader<R> {
    stream: R,
    headers: HeaderReader,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub(super) fn new(stream: R) -> io::Result<Self> {
        Ok(Self { stream, headers: HeaderReader::new() })
    }

    /// The next frame of interest; `None` at the end of the byte stream.
    pub(super) async fn next(&mut self) -> io::Result<Option<Frame>> {
        loop {
            let mut head = [0; HEAD_BYTES];
            match self.stream.read_exact(&mut head).await {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
                Err(error) => return Err(error),
            }
            let mut head = &head[..];
            let (first, rest) = (head.get_u32(), head.get_u32());
            let [flags, ..] = rest.to_be_bytes();
            let length = usize::try_from(rest & 0x00ff_ffff).unwrap_or(usize::MAX);
            if length > FRAME_BYTES_MAX {
                return Err(malformed(format!("a frame of {length} bytes, at most {FRAME_BYTES_MAX} are taken")));
            }
            let mut body = vec![0; length];
            self.stream.read_exact(&mut body).await?;
            let last = flags & FIN != 0;
            let [leading, ..] = first.to_be_bytes();
            if leading & CONTROL == 0 {
                return Ok(Some(Frame::Data { id: first & ID_MASK, last, bytes: Bytes::from(body) }));
            }
            let kind = u16::try_from(first & 0xffff).unwrap_or_default();
            if let Some(frame) = self.control(kind, last, &body)? {
                return Ok(Some(frame));
            }
        }
    }

    fn control(&mut self, kind: u16, last: bool, mut body: &[u8]) -> io::Result<Option<Frame>> {
        let wanted = match kind {
            SYN_STREAM => 10,
            RST_STREAM | GOAWAY => 8,
            SYN_REPLY | PING | HEADERS => 4,
            // Settings, window updates and what nobody knows.
            _ => return Ok(None),
        };
        if body.len() < wanted {
            return Err(malformed(format!(
                "a control frame {kind} of {} bytes, at least {wanted} are needed",
                body.len()
            )));
        }
        let id = body.get_u32() & ID_MASK;
        Ok(match kind {
            SYN_STREAM => {
                // The stream it belongs to, and its priority.
                body.advance(6);
                Some(Frame::Open { id, last, fields: self.headers.read(body)? })
            }
            RST_STREAM => Some(Frame::Reset { id, status: body.get_u32() }),
            PING => Some(Frame::Ping { id }),
            GOAWAY => Some(Frame::GoAway),
            _ => {
                // Not of interest, but the compression goes on behind it.
                self.headers.read(body)?;
                None
            }
        })
    }
}

impl Frame {
    /// Appends the frame to `buffer`.
    pub(super) fn encode(&self, headers: &mut HeaderWriter, buffer: &mut BytesMut) -> io::Result<()> {
        match self {
            Self::Data { id, last, bytes } => {
                buffer.put_u32(id & ID_MASK);
                put_length(buffer, *last, bytes.len())?;
                buffer.put_slice(bytes);
            }
            Self::Reply { id } => control(buffer, SYN_REPLY, *id, &headers.empty()?)?,
            Self::Reset { id, status } => control(buffer, RST_STREAM, *id, &status.to_be_bytes())?,
            Self::Ping { id } => control(buffer, PING, *id, &[])?,
            // The last stream that was looked at, and a status: all is well.
            Self::GoAway => control(buffer, GOAWAY, 0, &[0; 4])?,
            Self::Open { .. } => return Err(malformed("the server opens no streams".to_owned())),
        }
        Ok(())
    }
}

fn control(buffer: &mut BytesMut, kind: u16, id: u32, rest: &[u8]) -> io::Result<()> {
    buffer.put_u16(0x8000 | VERSION);
    buffer.put_u16(kind);
    put_length(buffer, false, rest.len() + 4)?;
    buffer.put_u32(id & ID_MASK);
    buffer.put_slice(rest);
    Ok(())
}

fn put_length(buffer: &mut BytesMut, last: bool, length: usize) -> io::Result<()> {
    let length = u32::try_from(length).ok().filter(|length| *length < 1 << 24);
    let length = length.ok_or_else(|| malformed("a frame does not fit".to_owned()))?;
    buffer.put_u32(if last { u32::from(FIN) << 24 | length } else { length });
    Ok(())
}

pub(super) fn malformed(reason: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a client sends to open a stream.
    fn opening(headers: &mut HeaderWriter, id: u32, fields: &[(&str, &str)]) -> BytesMut {
        let block = headers.write(fields).unwrap();
        let mut frame = BytesMut::new();
        frame.put_u16(0x8003);
        frame.put_u16(SYN_STREAM);
        frame.put_u32(u32::try_from(block.len() + 10).unwrap());
        frame.put_u32(id);
        frame.put_slice(&[0; 6]);
        frame.put_slice(&block);
        frame
    }

    #[tokio::test]
    async fn frames_are_read_and_the_compression_goes_on() {
        let mut headers = HeaderWriter::new().unwrap();
        let mut bytes = opening(&mut headers, 1, &[("streamtype", "error"), ("port", "80"), ("requestid", "0")]);
        bytes.extend(opening(&mut headers, 3, &[("streamtype", "data"), ("port", "80"), ("requestid", "0")]));
        // Settings, which are of no interest.
        bytes.extend([0x80, 3, 0, 4, 0, 0, 0, 4, 0, 0, 0, 0]);
        Frame::Ping { id: 5 }.encode(&mut headers, &mut bytes).unwrap();
        let data = Frame::Data { id: 3, last: true, bytes: Bytes::from_static(b"hello") };
        data.encode(&mut headers, &mut bytes).unwrap();
        let mut reader = FrameReader::new(&bytes[..]).unwrap();
        for (wanted, kind) in [(1, "error"), (3, "data")] {
            match reader.next().await.unwrap().unwrap() {
                Frame::Open { id, last, fields } => {
                    assert_eq!((id, last, fields.get("streamtype").map(String::as_str)), (wanted, false, Some(kind)));
                    assert_eq!(fields.get("port").map(String::as_str), Some("80"));
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(reader.next().await.unwrap(), Some(Frame::Ping { id: 5 }));
        assert_eq!(reader.next().await.unwrap(), Some(data));
        assert_eq!(reader.next().await.unwrap(), None);
    }

    #[tokio::test]
    async fn hostile_frames_end_the_session() {
        let oversized = [0, 0, 0, 1, 0, 0xff, 0xff, 0xff];
        let short = [0x80, 3, 0, 1, 0, 0, 0, 2, 0, 0];
        let garbage = [0x80, 3, 0, 1, 0, 0, 0, 14, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4];
        for bytes in [&oversized[..], &short, &garbage] {
            assert!(FrameReader::new(bytes).unwrap().next().await.is_err(), "{bytes:?}");
        }
    }
}
