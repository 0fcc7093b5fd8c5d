//! The PROXY protocol, version 2, as sent to applications that terminate tunnels themselves: who connects, proven by
//! mutual TLS, and what was asked for.
//!
//! # Source
//! HAProxy, "The PROXY protocol", section 2.2; TLV 0xD0 is Istio's.

use std::net::{IpAddr, SocketAddr};

use mesh_core::Identity;

/// What a header tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header<'a> {
    /// The client.
    pub source: SocketAddr,
    /// What the client asked for.
    pub destination: SocketAddr,
    /// Whom the client proved to be.
    pub identity: Option<&'a Identity>,
}

impl Header<'_> {
    /// The bytes that precede the payload. If the families of the addresses differ, both are sent as IPv6.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut block = Vec::with_capacity(BLOCK_BYTES_TYPICAL);
        let family = match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                block.extend(source.octets());
                block.extend(destination.octets());
                TCP_OVER_IPV4
            }
            (source, destination) => {
                block.extend(six(source));
                block.extend(six(destination));
                TCP_OVER_IPV6
            }
        };
        block.extend(self.source.port().to_be_bytes());
        block.extend(self.destination.port().to_be_bytes());
        if let Some(identity) = self.identity {
            let text = identity.to_string();
            // An identity comes from a certificate, which is far shorter than this.
            if let Ok(length) = u16::try_from(text.len()).map(u16::to_be_bytes)
                && text.len() <= IDENTITY_BYTES_MAX
            {
                block.push(IDENTITY_TLV);
                block.extend(length);
                block.extend(text.into_bytes());
            }
        }
        let length = u16::try_from(block.len()).expect("addresses and a bounded identity are far below 64 KiB");
        let mut bytes = Vec::with_capacity(SIGNATURE.len() + 4 + block.len());
        bytes.extend(SIGNATURE);
        bytes.extend([VERSION_2_PROXY, family]);
        bytes.extend(length.to_be_bytes());
        bytes.append(&mut block);
        bytes
    }
}

/// Also of an IPv4 address.
fn six(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, command PROXY.
const VERSION_2_PROXY: u8 = 0x21;
const TCP_OVER_IPV4: u8 = 0x11;
const TCP_OVER_IPV6: u8 = 0x21;
/// SPIFFE identity of the client, as text.
const IDENTITY_TLV: u8 = 0xD0;
/// Longer ones are left out: SPIFFE allows 2048 bytes.
const IDENTITY_BYTES_MAX: usize = 2048;
const BLOCK_BYTES_TYPICAL: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(source: &str, destination: &str, identity: Option<&str>) -> Vec<u8> {
        let identity: Option<Identity> = identity.map(|text| text.parse().unwrap());
        let header = Header {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            identity: identity.as_ref(),
        };
        header.encode()
    }

    #[test]
    fn ipv4_addresses_and_the_identity() {
        let bytes = encode("10.1.0.5:40000", "172.20.0.9:80", Some("spiffe://td/ns/a/sa/b"));
        let mut expected = b"\r\n\r\n\0\r\nQUIT\n\x21\x11".to_vec();
        expected.extend([0, 12 + 3 + 21]);
        expected.extend([10, 1, 0, 5, 172, 20, 0, 9, 0x9C, 0x40, 0, 80]);
        expected.extend(b"\xD0\x00\x15spiffe://td/ns/a/sa/b");
        assert_eq!(bytes, expected);
    }

    #[test]
    fn without_an_identity_there_is_no_tlv() {
        let bytes = encode("[fd00::5]:1", "[fd00::9]:2", None);
        assert_eq!(&bytes[12..16], &[0x21, 0x21, 0, 36]);
        assert_eq!(bytes.len(), 16 + 36);
        assert_eq!(&bytes[48..], &[0, 1, 0, 2]);
    }

    #[test]
    fn mixed_families_are_sent_as_ipv6() {
        let bytes = encode("10.1.0.5:1", "[fd00::9]:2", None);
        assert_eq!(bytes[13], TCP_OVER_IPV6);
        let mapped = [&[0; 10][..], &[0xFF, 0xFF, 10, 1, 0, 5]].concat();
        assert_eq!(&bytes[16..32], &mapped[..]);
    }

    #[test]
    fn an_absurdly_long_identity_is_left_out() {
        let long = format!("spiffe://td/ns/a/sa/{}", "b".repeat(IDENTITY_BYTES_MAX));
        assert_eq!(encode("10.1.0.5:1", "10.1.0.9:2", Some(&long)).len(), 16 + 12);
    }
}
