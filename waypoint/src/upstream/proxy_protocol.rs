//! The PROXY protocol's header: tells an upstream who its client is.
//!
//! # Source
//! "The PROXY protocol, versions 1 & 2", sections 2.1 and 2.2.

use std::net::{IpAddr, SocketAddr};

/// Which form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// A line of text.
    One,
    /// Binary.
    Two,
}

/// The header for a connection from `source` to `destination`; for nobody in particular without them.
#[must_use]
pub fn header(version: Version, source: Option<SocketAddr>, destination: Option<SocketAddr>) -> Vec<u8> {
    let ends = source.zip(destination).map(|(source, destination)| same_family(source, destination));
    match (version, ends) {
        (Version::One, None) => b"PROXY UNKNOWN\r\n".to_vec(),
        (Version::One, Some((source, destination))) => {
            let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
            let (from, to) = (source.ip(), destination.ip());
            format!("PROXY {family} {from} {to} {} {}\r\n", source.port(), destination.port()).into_bytes()
        }
        (Version::Two, None) => [SIGNATURE, &[LOCAL, 0, 0, 0]].concat(),
        (Version::Two, Some((source, destination))) => {
            let (family, length) = if source.is_ipv4() { (TCP4, 12_u16) } else { (TCP6, 36) };
            let mut out = [SIGNATURE, &[PROXY, family], &length.to_be_bytes()].concat();
            for ip in [source.ip(), destination.ip()] {
                match ip {
                    IpAddr::V4(ip) => out.extend(ip.octets()),
                    IpAddr::V6(ip) => out.extend(ip.octets()),
                }
            }
            out.extend(source.port().to_be_bytes());
            out.extend(destination.port().to_be_bytes());
            out
        }
    }
}

/// Both ends have one family in a header.
fn same_family(source: SocketAddr, destination: SocketAddr) -> (SocketAddr, SocketAddr) {
    let six = |address: SocketAddr| match address.ip() {
        IpAddr::V4(ip) => SocketAddr::new(IpAddr::V6(ip.to_ipv6_mapped()), address.port()),
        IpAddr::V6(_) => address,
    };
    if source.is_ipv4() == destination.is_ipv4() { (source, destination) } else { (six(source), six(destination)) }
}

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Option<SocketAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn version_1_is_a_line() {
        let four = header(Version::One, address("10.0.0.1:1000"), address("10.0.0.2:80"));
        assert_eq!(four, b"PROXY TCP4 10.0.0.1 10.0.0.2 1000 80\r\n");
        let six = header(Version::One, address("[fd00::1]:1000"), address("[fd00::2]:80"));
        assert_eq!(six, b"PROXY TCP6 fd00::1 fd00::2 1000 80\r\n");
        assert_eq!(header(Version::One, None, address("10.0.0.2:80")), b"PROXY UNKNOWN\r\n");
    }

    #[test]
    fn version_2_is_binary() {
        let four = header(Version::Two, address("10.0.0.1:258"), address("10.0.0.2:80"));
        let mut wanted = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c".to_vec();
        wanted.extend([10, 0, 0, 1, 10, 0, 0, 2, 1, 2, 0, 80]);
        assert_eq!(four, wanted);
        let mixed = header(Version::Two, address("10.0.0.1:258"), address("[fd00::2]:80"));
        assert_eq!((mixed.len(), mixed[13], mixed[15]), (16 + 36, 0x21, 36));
        assert_eq!(header(Version::Two, None, None).len(), 16);
    }
}
