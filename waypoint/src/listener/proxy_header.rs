//! The PROXY header that a load balancer puts before a connection, version 1 or 2.
//!
//! # Source
//! The PROXY protocol, as HAProxy defines it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::detect::Replay;
use crate::limits::{PROXY_HEADER_BUDGET, PROXY_HEADER_BYTES_MAX, READ_BYTES_MIN};

/// What a header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Header {
    /// Source and destination of the connection that the load balancer took.
    Proxied(SocketAddr, SocketAddr),
    /// The load balancer speaks for itself.
    Local,
}

/// Why a connection has no header.
#[derive(Debug, thiserror::Error)]
pub enum HeaderError {
    /// Something else came.
    #[error("connection does not begin with a PROXY header")]
    Absent,
    /// Nothing came, or not enough.
    #[error("no PROXY header within {PROXY_HEADER_BUDGET:?}")]
    TimedOut,
    /// Reading failed.
    #[error("reading the PROXY header failed: {0}")]
    Read(#[from] std::io::Error),
}

/// Reads the header; what follows it is left in the stream.
///
/// # Errors
/// [`HeaderError`]: the connection must be closed.
pub async fn read<T: AsyncRead + Unpin>(mut io: T) -> Result<(Header, Replay<T>), HeaderError> {
    let reading = async {
        let mut first = BytesMut::new();
        loop {
            match parse(&first) {
                Parsed::Header(header, length) => {
                    first.advance(length);
                    return Ok((header, first));
                }
                Parsed::Bad => return Err(HeaderError::Absent),
                Parsed::More if first.len() > PROXY_HEADER_BYTES_MAX => return Err(HeaderError::Absent),
                Parsed::More => {}
            }
            first.reserve(READ_BYTES_MIN);
            if io.read_buf(&mut first).await? == 0 {
                return Err(HeaderError::Absent);
            }
        }
    };
    let read = tokio::time::timeout(PROXY_HEADER_BUDGET, reading).await.map_err(|_| HeaderError::TimedOut)?;
    let (header, rest) = read?;
    Ok((header, Replay::new(rest, io)))
}

#[derive(Debug, PartialEq, Eq)]
enum Parsed {
    More,
    Bad,
    /// And its length.
    Header(Header, usize),
}

fn parse(bytes: &[u8]) -> Parsed {
    let begins = |prefix: &[u8]| {
        let shared = bytes.len().min(prefix.len());
        bytes.get(..shared) == prefix.get(..shared)
    };
    match (begins(SIGNATURE), begins(V1)) {
        (true, _) => version_two(bytes),
        (_, true) => version_one(bytes),
        _ => Parsed::Bad,
    }
}

fn version_one(bytes: &[u8]) -> Parsed {
    let line = bytes.get(..V1_BYTES_MAX).unwrap_or(bytes);
    let Some(end) = line.windows(2).position(|pair| pair == b"\r\n") else {
        return if bytes.len() >= V1_BYTES_MAX { Parsed::Bad } else { Parsed::More };
    };
    let text = bytes.get(..end).and_then(|line| std::str::from_utf8(line).ok()).unwrap_or_default();
    let words: Vec<_> = text.split(' ').collect();
    let header = match words.as_slice() {
        ["PROXY", "UNKNOWN", ..] => Some(Header::Local),
        ["PROXY", family @ ("TCP4" | "TCP6"), source, destination, source_port, destination_port] => {
            let address = |ip: &str, port: &str| {
                let ip: IpAddr = ip.parse().ok()?;
                (ip.is_ipv4() == (*family == "TCP4")).then_some(SocketAddr::new(ip, decimal(port)?))
            };
            address(source, source_port)
                .zip(address(destination, destination_port))
                .map(|(source, destination)| Header::Proxied(source, destination))
        }
        _ => None,
    };
    header.map_or(Parsed::Bad, |header| Parsed::Header(header, end + 2))
}

/// A port as the format has it: no sign, and no zero before other digits.
fn decimal(text: &str) -> Option<u16> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| plain)
}

fn version_two(bytes: &[u8]) -> Parsed {
    let (Some([command, family, high, low]), Some(rest)) =
        (bytes.get(12..16).and_then(|part| <[u8; 4]>::try_from(part).ok()), bytes.get(16..))
    else {
        return Parsed::More;
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    if command >> 4 != 2 || length + 16 > PROXY_HEADER_BYTES_MAX {
        return Parsed::Bad;
    }
    let Some(body) = rest.get(..length) else { return Parsed::More };
    let header = match (command & 0x0f, family) {
        (0, _) => Some(Header::Local),
        (1, 0x11) => four(body),
        (1, 0x21) => six(body),
        // Families that are no TCP say nothing that we could use.
        (1, _) => Some(Header::Local),
        _ => None,
    };
    header.map_or(Parsed::Bad, |header| Parsed::Header(header, 16 + length))
}

fn four(mut body: &[u8]) -> Option<Header> {
    if body.len() < 12 {
        return None;
    }
    let (source, destination) = (Ipv4Addr::from(body.get_u32()), Ipv4Addr::from(body.get_u32()));
    let (source_port, destination_port) = (body.get_u16(), body.get_u16());
    Some(Header::Proxied((source, source_port).into(), (destination, destination_port).into()))
}

fn six(mut body: &[u8]) -> Option<Header> {
    if body.len() < 36 {
        return None;
    }
    let (source, destination) = (Ipv6Addr::from(body.get_u128()), Ipv6Addr::from(body.get_u128()));
    let (source_port, destination_port) = (body.get_u16(), body.get_u16());
    Some(Header::Proxied((source, source_port).into(), (destination, destination_port).into()))
}

const V1: &[u8] = b"PROXY ";
/// Its end included.
const V1_BYTES_MAX: usize = 107;
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    fn proxied(source: &str, destination: &str) -> Header {
        Header::Proxied(source.parse().unwrap(), destination.parse().unwrap())
    }

    #[test]
    fn both_versions_are_read_and_nothing_else() {
        let two = |command: u8, family: u8, body: &[u8]| {
            let length = u16::try_from(body.len()).unwrap().to_be_bytes();
            [SIGNATURE, &[0x20 | command, family], &length, body].concat()
        };
        let v4 = two(1, 0x11, &[192, 0, 2, 1, 10, 0, 0, 1, 0x1f, 0x90, 0, 80, 4, 0, 0]);
        let longest = |bytes: usize| format!("PROXY UNKNOWN {}\r\n", "x".repeat(bytes - 16)).into_bytes();
        let cases: [(Vec<u8>, Parsed); 14] = [
            (
                b"PROXY TCP4 192.0.2.1 10.0.0.1 8080 80\r\nGET".to_vec(),
                Parsed::Header(proxied("192.0.2.1:8080", "10.0.0.1:80"), 39),
            ),
            (b"PROXY TCP6 ::1 ::2 1 2\r\n".to_vec(), Parsed::Header(proxied("[::1]:1", "[::2]:2"), 24)),
            (b"PROXY UNKNOWN\r\n".to_vec(), Parsed::Header(Header::Local, 15)),
            (b"PROXY TCP4 ::1 ::2 1 2\r\n".to_vec(), Parsed::Bad),
            (b"PROXY TCP4 1.1.1.1 2.2.2.2 1\r\n".to_vec(), Parsed::Bad),
            (b"PROXY TCP4 1.1.1.1 2.2.2.2 +1 2\r\n".to_vec(), Parsed::Bad),
            (b"PROXY TCP4 1.1.1.1 2.2.2.2 1 02\r\n".to_vec(), Parsed::Bad),
            (longest(107), Parsed::Header(Header::Local, 107)),
            (longest(108), Parsed::Bad),
            (b"PROX".to_vec(), Parsed::More),
            (b"GET / HTTP/1.1\r\n".to_vec(), Parsed::Bad),
            (v4.clone(), Parsed::Header(proxied("192.0.2.1:8080", "10.0.0.1:80"), 31)),
            (two(0, 0, &[]), Parsed::Header(Header::Local, 16)),
            (two(1, 0x11, &[1, 2, 3]), Parsed::Bad),
        ];
        for (bytes, expected) in cases {
            assert_eq!(parse(&bytes), expected, "{}", String::from_utf8_lossy(&bytes));
        }
        for cut in 0..v4.len() {
            assert_eq!(parse(&v4[..cut]), Parsed::More, "{cut}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_follows_stays_and_silence_ends() {
        let (mut client, server) = tokio::io::duplex(256);
        client.write_all(b"PROXY TCP4 192.0.2.1 10.0.0.1 8080 80\r\nhello").await.unwrap();
        let (header, mut rest) = read(server).await.unwrap();
        assert_eq!(header, proxied("192.0.2.1:8080", "10.0.0.1:80"));
        drop(client);
        let mut text = String::new();
        rest.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "hello");
        let (_silent, server) = tokio::io::duplex(256);
        assert!(matches!(read(server).await, Err(HeaderError::TimedOut)));
    }
}
