//! The PROXY protocol header that applications of tunnels read. The proxy only writes it, from what peers prove and ask
//! for; so the reader here is one of the format's description, and the bytes are those of a peer.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use mesh_core::Identity;
use ztunnel::proxy_protocol::Header;

/// Whatever the peer is called, a reader finds the same addresses, one identity, and nothing more.
pub fn run(bytes: &[u8]) {
    let Some((head, name)) = bytes.split_at_checked(38) else { return };
    let (source, rest) = head.split_at(19);
    let (source, destination) = (address(source), address(rest));
    let identity: Option<Identity> = std::str::from_utf8(name).ok().and_then(|text| text.parse().ok());
    let written = Header { source, destination, identity: identity.as_ref() }.encode();
    let (start, block) = written.split_at(16);
    assert_eq!(start.get(..13), Some(&b"\r\n\r\n\0\r\nQUIT\n\x21"[..]));
    assert_eq!(start.get(14..).map(number), Some(block.len()), "length of the rest");
    let four = start.get(13) == Some(&0x11);
    assert_eq!(four, source.is_ipv4() && destination.is_ipv4());
    let size = if four { 4 } else { 16 };
    let (addresses, rest) = block.split_at(2 * size + 4);
    let (ips, ports) = addresses.split_at(2 * size);
    let (from, to) = ips.split_at(size);
    assert_eq!((ip(from), ip(to)), (source.ip().to_canonical(), destination.ip().to_canonical()));
    assert_eq!(ports.chunks(2).map(number).collect::<Vec<_>>(), [source.port(), destination.port()].map(usize::from));
    match (&identity, rest.split_at_checked(3)) {
        (Some(identity), Some((tlv, text))) => {
            assert_eq!(tlv.first(), Some(&0xD0));
            assert_eq!(tlv.get(1..).map(number), Some(text.len()));
            assert_eq!(text, identity.to_string().as_bytes());
        }
        // Too long to be one.
        (Some(identity), None) => assert!(identity.to_string().len() > 2048 && rest.is_empty()),
        (None, _) => assert!(rest.is_empty()),
    }
}

/// A family, an address and a port.
pub(crate) fn address(bytes: &[u8]) -> SocketAddr {
    let mut octets = [0; 16];
    octets.iter_mut().zip(bytes.iter().skip(1)).for_each(|(to, from)| *to = *from);
    let six = Ipv6Addr::from(octets);
    let [.., a, b, c, d] = octets;
    let ip =
        if bytes.first().is_some_and(|first| first % 2 == 0) { Ipv4Addr::new(a, b, c, d).into() } else { six.into() };
    let port = bytes.iter().rev().take(2).fold(0_u16, |port, byte| port << 8 | u16::from(*byte));
    SocketAddr::new(ip, port)
}

fn ip(bytes: &[u8]) -> IpAddr {
    match <[u8; 4]>::try_from(bytes) {
        Ok(four) => Ipv4Addr::from(four).into(),
        Err(_) => IpAddr::from(<[u8; 16]>::try_from(bytes).expect("an address has 4 or 16 bytes")).to_canonical(),
    }
}

fn number(bytes: &[u8]) -> usize {
    bytes.iter().fold(0, |number, byte| number << 8 | usize::from(*byte))
}
