//! An HTTP/2 client that writes frames by hand.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

/// How a stream, or its connection, ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Answered with this status.
    Status(u16),
    /// The stream was reset with this code.
    Reset(u32),
    /// The connection was ended with this code.
    GoAway(u32),
    /// The connection was ended without a word.
    Closed,
    /// Nothing came.
    Silence,
}

/// Anything that carries bytes both ways.
pub(crate) trait Carrier: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Carrier for T {}

/// A connection.
pub(crate) struct Client {
    stream: Box<dyn Carrier>,
}

impl Client {
    /// Connects and says what a client says first.
    pub(crate) async fn open(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self::over(stream).await
    }

    /// Says what a client says first, over something that is connected already.
    pub(crate) async fn over(stream: impl Carrier + 'static) -> Self {
        let mut client = Self { stream: Box::new(stream) };
        client.send(&[PREFACE, &frame(SETTINGS, 0, 0, &[]), &frame(SETTINGS, ACK, 0, &[])].concat()).await;
        client
    }

    /// Sends all of it; false when the proxy has ended the connection.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> bool {
        let sent = tokio::time::timeout(Duration::from_secs(10), self.stream.write_all(bytes)).await;
        matches!(sent, Ok(Ok(())))
    }

    /// The next frame: type, flags, stream and payload; none at the end.
    async fn next(&mut self) -> Option<(u8, u8, u32, Vec<u8>)> {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head).await.ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & 0x7fff_ffff;
        let mut payload = vec![0; length as usize];
        self.stream.read_exact(&mut payload).await.ok()?;
        Some((head[3], head[4], stream, payload))
    }

    /// How `stream` ends, or the connection.
    pub(crate) async fn end(&mut self, stream: u32) -> End {
        let waiting = async {
            loop {
                let Some((kind, _, at, payload)) = self.next().await else { return End::Closed };
                match kind {
                    HEADERS if at == stream => return End::Status(status(&payload)),
                    RESET if at == stream => return End::Reset(number(&payload, 0)),
                    GO_AWAY => return End::GoAway(number(&payload, 4)),
                    _ => {}
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(3), waiting).await.unwrap_or(End::Silence)
    }

    /// Waits until so many bytes of data have come on `stream`, and yields them; fewer when it ends before.
    pub(crate) async fn data(&mut self, stream: u32, many: usize) -> Vec<u8> {
        let mut seen = Vec::new();
        let waiting = async {
            while seen.len() < many {
                let Some((kind, flags, at, payload)) = self.next().await else { return };
                match kind {
                    DATA if at == stream => seen.extend(payload),
                    RESET if at == stream => return,
                    GO_AWAY => return,
                    _ => {}
                }
                if at == stream && matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0 {
                    return;
                }
            }
        };
        let _ = tokio::time::timeout(Duration::from_secs(5), waiting).await;
        seen
    }

    /// How the connection ends, whatever happens to its streams; at most `within`.
    pub(crate) async fn connection_end(&mut self, within: Duration) -> End {
        let waiting = async {
            loop {
                match self.next().await {
                    None => return End::Closed,
                    Some((GO_AWAY, _, _, payload)) => return End::GoAway(number(&payload, 4)),
                    Some(_) => {}
                }
            }
        };
        tokio::time::timeout(within, waiting).await.unwrap_or(End::Silence)
    }
}

/// One frame.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A header block of literals that are not remembered.
pub(crate) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0);
        for text in [name, value] {
            integer(&mut bytes, text.len());
            bytes.extend(text.as_bytes());
        }
    }
    bytes
}

/// With a prefix of seven bits.
fn integer(bytes: &mut Vec<u8>, value: usize) {
    if value < 127 {
        bytes.push(u8::try_from(value).unwrap());
        return;
    }
    bytes.push(127);
    let mut rest = value - 127;
    while rest >= 128 {
        bytes.push(u8::try_from(rest % 128).unwrap() | 128);
        rest /= 128;
    }
    bytes.push(u8::try_from(rest).unwrap());
}

/// A whole request without body on `stream`.
pub(crate) fn request(stream: u32, fields: &[(&str, &str)]) -> Vec<u8> {
    headers(stream, END_STREAM, &block(fields))
}

/// HEADERS, and CONTINUATION for what does not fit.
pub(crate) fn headers(stream: u32, flags: u8, block: &[u8]) -> Vec<u8> {
    let mut pieces = block.chunks(16 << 10);
    let first = pieces.next().unwrap_or_default();
    let rest: Vec<_> = pieces.collect();
    let ends = |last: bool| if last { END_HEADERS } else { 0 };
    let mut bytes = frame(HEADERS, flags | ends(rest.is_empty()), stream, first);
    for (index, piece) in rest.iter().enumerate() {
        bytes.extend(frame(CONTINUATION, ends(index + 1 == rest.len()), stream, piece));
    }
    bytes
}

fn number(payload: &[u8], at: usize) -> u32 {
    payload.get(at..at + 4).map_or(0, |bytes| u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}

/// The status is the first field of a block: one of the static table, or three digits, packed or not.
fn status(block: &[u8]) -> u16 {
    match block {
        [index @ 0x88..=0x8e, ..] => [200, 204, 206, 304, 400, 404, 500][usize::from(index - 0x88)],
        [_, 3, a, b, c, ..] => [a, b, c].iter().fold(0, |sum, digit| sum * 10 + u16::from(*digit - b'0')),
        [_, length, packed @ ..] if length & 0x80 != 0 => digits(&packed[..usize::from(length & 0x7f)]),
        _ => 0,
    }
}

/// Digits of the code of RFC 7541: the first three have five bits, the others six.
fn digits(packed: &[u8]) -> u16 {
    let bits: Vec<_> = packed.iter().flat_map(|byte| (0..8).rev().map(move |bit| u16::from(byte >> bit & 1))).collect();
    let value = |at: usize, many: usize| bits[at..at + many].iter().fold(0, |sum, bit| sum << 1 | bit);
    let (mut at, mut number) = (0, 0);
    for _ in 0..3 {
        let five = value(at, 5);
        let (digit, used) = if five < 3 { (five, 5) } else { (value(at, 6) - 25 + 3, 6) };
        number = number * 10 + digit;
        at += used;
    }
    number
}

/// What a client says first.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RESET: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GO_AWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;
pub(crate) const ACK: u8 = 1;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
