//! The PROXY header before a connection to a gateway, as whoever reaches the port can send it.

use std::net::SocketAddr;

use waypoint::listener::proxy_header::{Header, HeaderError, read};
use waypoint::upstream::proxy_protocol::{Version, header};

use crate::pieces::{Pieces, cuts, now, rest};
use crate::proxy_protocol::address;

/// A header is found or not, however its bytes come; what follows it is left; and what is written is what is read.
pub fn run(bytes: &[u8]) {
    let whole = found(bytes, (0, usize::MAX));
    for cut in cuts(bytes) {
        assert_eq!(found(bytes, cut), whole, "in pieces of {cut:?}");
    }
    if let Some((said, rest)) = whole {
        let length = length(bytes);
        assert_eq!(Some(rest.as_slice()), bytes.get(length..), "what follows the header is left");
        if let Header::Proxied(source, destination) = said {
            again(source, destination, bytes.get(..length).unwrap_or_default());
        }
    }
    // Any two addresses.
    if let Some((source, rest)) = bytes.split_at_checked(19) {
        written(address(source), address(rest));
    }
}

fn found(bytes: &[u8], (first, length): (usize, usize)) -> Option<(Header, Vec<u8>)> {
    now(async {
        match read(Pieces::new(bytes, first, length)).await {
            Ok((header, replay)) => Some((header, rest(replay).await)),
            Err(HeaderError::Absent) => None,
            Err(error) => panic!("{error}"),
        }
    })
}

/// As the format says it, for bytes that begin with a header.
fn length(bytes: &[u8]) -> usize {
    match bytes.get(14..16) {
        Some(length) if bytes.starts_with(b"\r\n\r\n\0\r\nQUIT\n") => {
            16 + length.iter().fold(0, |number, byte| number << 8 | usize::from(*byte))
        }
        _ => bytes.windows(2).position(|pair| pair == b"\r\n").expect("a line has an end") + 2,
    }
}

/// What was read says the same when it is written; a line about IPv4 has one spelling only.
fn again(source: SocketAddr, destination: SocketAddr, read: &[u8]) {
    let line = header(Version::One, Some(source), Some(destination));
    if read.starts_with(b"PROXY TCP4 ") {
        assert_eq!(read, line, "{}", read.escape_ascii());
    }
    if source.is_ipv4() == destination.is_ipv4() {
        assert_eq!(found(&line, (0, 5)), Some((Header::Proxied(source, destination), Vec::new())));
    }
}

fn written(source: SocketAddr, destination: SocketAddr) {
    for version in [Version::One, Version::Two] {
        let mut sent = header(version, Some(source), Some(destination));
        sent.extend(b"GET /");
        let Some((Header::Proxied(from, to), rest)) = found(&sent, (0, usize::MAX)) else {
            panic!("{} is not read", sent.escape_ascii());
        };
        assert_eq!((from.ip().to_canonical(), from.port()), (source.ip().to_canonical(), source.port()));
        assert_eq!((to.ip().to_canonical(), to.port()), (destination.ip().to_canonical(), destination.port()));
        assert_eq!(rest, b"GET /");
    }
}
