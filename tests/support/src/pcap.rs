//! Reading packet captures: who talked to whom, and in plain text or not.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

/// A capture that is running.
#[derive(Debug)]
pub struct Capture {
    node: String,
    file: PathBuf,
}

impl Capture {
    pub(crate) fn new(node: &str, file: PathBuf) -> Self {
        Self { node: node.to_owned(), file }
    }

    pub(crate) fn node(&self) -> &str {
        &self.node
    }

    pub(crate) fn read(&self) -> Result<Packets> {
        let bytes = std::fs::read(&self.file).with_context(|| format!("reading {}", self.file.display()))?;
        Packets::parse(&bytes)
    }
}

/// One TCP segment.
#[derive(Debug, Clone)]
pub struct Segment {
    /// Microseconds since the epoch.
    pub at_us: u64,
    /// Sender.
    pub from: SocketAddr,
    /// Receiver.
    pub to: SocketAddr,
    /// What the segment carried, empty for bare control segments.
    pub payload: Vec<u8>,
}

/// The TCP segments of a capture, in the order of their arrival.
#[derive(Clone, Default)]
pub struct Packets {
    segments: Vec<Segment>,
}

impl fmt::Debug for Packets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} TCP segments", self.segments.len())
    }
}

impl Packets {
    fn parse(bytes: &[u8]) -> Result<Self> {
        let magic = bytes.get(..4).map(<[u8]>::to_vec);
        ensure!(magic == Some(0xa1b2_c3d4_u32.to_ne_bytes().to_vec()), "not a capture file");
        let mut rest = bytes.get(24..).context("the file header is cut")?;
        let mut segments = Vec::new();
        while let (Some(header), Some(body)) = (rest.get(..16), rest.get(16..)) {
            let word = |at: usize| header.get(at..at + 4).map(native);
            let (seconds, micros, len) = (word(0), word(4), word(8));
            let (Some(seconds), Some(micros), Some(len)) = (seconds, micros, len) else { break };
            // The last packet may be cut when the capture ends.
            let Some(frame) = body.get(..len as usize) else { break };
            let at_us = u64::from(seconds) * 1_000_000 + u64::from(micros);
            segments.extend(segment(frame, at_us));
            rest = body.get(len as usize..).unwrap_or_default();
        }
        Ok(Self { segments })
    }

    /// Every TCP segment.
    #[must_use]
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Those of which one end is one of these addresses.
    #[must_use]
    pub fn of(&self, ips: &[IpAddr]) -> Self {
        let own = |segment: &&Segment| ips.contains(&segment.from.ip()) || ips.contains(&segment.to.ip());
        Self { segments: self.segments.iter().filter(own).cloned().collect() }
    }

    /// Those between two of these addresses.
    #[must_use]
    pub fn between(&self, ips: &[IpAddr]) -> Self {
        let own = |segment: &&Segment| ips.contains(&segment.from.ip()) && ips.contains(&segment.to.ip());
        Self { segments: self.segments.iter().filter(own).cloned().collect() }
    }

    /// Those that arrived at this time or later.
    #[must_use]
    pub fn since(&self, at_us: u64) -> Self {
        Self { segments: self.segments.iter().filter(|segment| segment.at_us >= at_us).cloned().collect() }
    }

    /// Whether some segment holds these bytes.
    #[must_use]
    pub fn contains(&self, needle: &[u8]) -> bool {
        self.segments.iter().any(|segment| segment.payload.windows(needle.len()).any(|window| window == needle))
    }

    /// Segments with payload that do not belong to a conversation with this port.
    #[must_use]
    pub fn payload_outside(&self, port: u16) -> Vec<&Segment> {
        let outside = |segment: &&Segment| segment.from.port() != port && segment.to.port() != port;
        self.segments.iter().filter(|segment| !segment.payload.is_empty()).filter(outside).collect()
    }

    /// How many bytes went to or came from this port.
    #[must_use]
    pub fn bytes_with(&self, port: u16) -> usize {
        let with = |segment: &&Segment| segment.from.port() == port || segment.to.port() == port;
        self.segments.iter().filter(with).map(|segment| segment.payload.len()).sum()
    }

    /// Protocol versions that servers on `port` chose, as `(major, minor)` of TLS.
    #[must_use]
    pub fn tls_versions_chosen(&self, port: u16) -> Vec<(u8, u8)> {
        let answers = self.segments.iter().filter(|segment| segment.from.port() == port);
        let mut versions: Vec<_> = answers.filter_map(|segment| server_hello_version(&segment.payload)).collect();
        versions.sort_unstable();
        versions.dedup();
        versions
    }
}

/// The version that a ServerHello at the start of `payload` settles on (RFC 8446 section 4.1.3, 4.2.1).
fn server_hello_version(payload: &[u8]) -> Option<(u8, u8)> {
    const HANDSHAKE: u8 = 22;
    const SERVER_HELLO: u8 = 2;
    if *payload.first()? != HANDSHAKE || *payload.get(5)? != SERVER_HELLO {
        return None;
    }
    // Record header 5, handshake header 4, legacy version 2, random 32, then the session id with its length.
    let session = usize::from(*payload.get(43)?);
    let mut at = 44 + session + 2 + 1;
    let end = at + 2 + number(payload, at, 2)?;
    at += 2;
    while at + 4 <= end {
        let (kind, len) = (number(payload, at, 2)?, number(payload, at + 2, 2)?);
        if kind == 43 {
            return match number(payload, at + 4, 2)? {
                0x0304 => Some((1, 3)),
                0x0303 => Some((1, 2)),
                _ => Some((0, 0)),
            };
        }
        at += 4 + len;
    }
    Some((1, 2))
}

fn segment(frame: &[u8], at_us: u64) -> Option<Segment> {
    let kind = number(frame, 12, 2)?;
    let packet = frame.get(14..)?;
    let (from, to, tcp) = match kind {
        0x0800 => {
            let header = usize::from(packet.first()? & 0x0f) * 4;
            let total = number(packet, 2, 2)?;
            let ip = |at: usize| Some(IpAddr::from(<[u8; 4]>::try_from(packet.get(at..at + 4)?).ok()?));
            (*packet.get(9)? == TCP).then_some(())?;
            // Offloaded frames may leave the length at zero.
            let end = if total == 0 { packet.len() } else { total.min(packet.len()) };
            (ip(12)?, ip(16)?, packet.get(header..end)?)
        }
        0x86dd => {
            let ip = |at: usize| Some(IpAddr::from(<[u8; 16]>::try_from(packet.get(at..at + 16)?).ok()?));
            (*packet.get(6)? == TCP).then_some(())?;
            let len = number(packet, 4, 2)?;
            let end = if len == 0 { packet.len() } else { (40 + len).min(packet.len()) };
            (ip(8)?, ip(24)?, packet.get(40..end)?)
        }
        _ => return None,
    };
    let port = |at: usize| u16::try_from(number(tcp, at, 2)?).ok();
    let header = usize::from(*tcp.get(12)? >> 4) * 4;
    Some(Segment {
        at_us,
        from: SocketAddr::new(from, port(0)?),
        to: SocketAddr::new(to, port(2)?),
        payload: tcp.get(header..)?.to_vec(),
    })
}

/// A big-endian number of `len` bytes.
fn number(bytes: &[u8], at: usize, len: usize) -> Option<usize> {
    Some(bytes.get(at..at + len)?.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)))
}

fn native(bytes: &[u8]) -> u32 {
    <[u8; 4]>::try_from(bytes).map_or(0, u32::from_ne_bytes)
}

const TCP: u8 = 6;

#[cfg(test)]
mod tests {
    use super::*;

    fn file(frames: &[Vec<u8>]) -> Vec<u8> {
        let mut out = Vec::new();
        for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 262_144, 1] {
            out.extend(word.to_ne_bytes());
        }
        for (index, frame) in frames.iter().enumerate() {
            for word in [7, index as u32, frame.len() as u32, frame.len() as u32] {
                out.extend(word.to_ne_bytes());
            }
            out.extend(frame);
        }
        out
    }

    fn frame(from: &str, to: &str, payload: &[u8]) -> Vec<u8> {
        let (from, to): (SocketAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
        let mut out = vec![0; 12];
        match (from.ip(), to.ip()) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                out.extend([0x08, 0x00, 0x45, 0]);
                out.extend((40 + payload.len() as u16).to_be_bytes());
                out.extend([0, 0, 0, 0, 64, TCP, 0, 0]);
                out.extend(a.octets());
                out.extend(b.octets());
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                out.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
                out.extend((20 + payload.len() as u16).to_be_bytes());
                out.extend([TCP, 64]);
                out.extend(a.octets());
                out.extend(b.octets());
            }
            _ => panic!("mixed families"),
        }
        out.extend(from.port().to_be_bytes());
        out.extend(to.port().to_be_bytes());
        out.extend([0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0, 0, 0, 0, 0, 0, 0]);
        out.extend(payload);
        out
    }

    #[test]
    fn segments_of_both_families_are_read() {
        let packets = Packets::parse(&file(&[
            frame("10.0.0.1:4000", "10.0.0.2:80", b"GET / HTTP/1.1"),
            frame("[fd00::1]:4000", "[fd00::2]:15008", b"xyz"),
        ]))
        .unwrap();
        assert_eq!(packets.segments().len(), 2);
        assert!(packets.contains(b"GET /"));
        assert!(!packets.contains(b"POST"));
        assert_eq!(packets.payload_outside(15008).len(), 1);
        assert_eq!(packets.bytes_with(15008), 3);
        assert_eq!(packets.since(7_000_001).segments().len(), 1);
        let (a, b) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        assert_eq!(packets.between(&[a, b]).segments().len(), 1);
        assert_eq!(packets.between(&[a]).segments().len(), 0);
        assert_eq!(packets.of(&[a]).segments().len(), 1);
    }

    #[test]
    fn a_cut_file_keeps_what_is_whole() {
        let mut bytes = file(&[frame("10.0.0.1:1", "10.0.0.2:2", b"a"), frame("10.0.0.1:1", "10.0.0.2:2", b"b")]);
        bytes.truncate(bytes.len() - 1);
        assert_eq!(Packets::parse(&bytes).unwrap().segments().len(), 1);
        assert!(Packets::parse(b"nonsense").is_err());
    }

    #[test]
    fn the_version_of_a_server_hello_is_its_extension() {
        let mut hello = vec![22, 3, 3, 0, 0, 2, 0, 0, 0, 3, 3];
        hello.extend([0; 32]);
        hello.extend([0, 0x13, 0x02, 0, 0, 6, 0, 43, 0, 2, 3, 4]);
        assert_eq!(server_hello_version(&hello), Some((1, 3)));
        assert_eq!(server_hello_version(b"\x17\x03\x03\x00\x05hello"), None);
        assert_eq!(server_hello_version(b"HTTP/1.1 200 OK"), None);
    }
}
