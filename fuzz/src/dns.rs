//! Queries of applications and replies of name servers.

use std::net::{IpAddr, Ipv4Addr};

use ztunnel::dns::answer::{Transport, complaint, encode};
use ztunnel::dns::lookup::Answer;
use ztunnel::dns::message::{Header, Request};

/// A query is read or complained about; every answer to it answers it, within the bounds of its transport.
pub fn run(bytes: &[u8]) {
    let request = match Request::read(bytes) {
        Ok(request) => request,
        Err(error) => {
            if let Some(reply) = complaint(&error) {
                assert!(Header::read(&reply).expect("has a header").is_response());
            }
            return;
        }
    };
    assert_eq!(request.bytes(), bytes);
    let (first, second) = bytes.split_at(bytes.len() / 2);
    let _ = (request.is_answered_by(first), request.is_answered_by(second));
    let addresses: Vec<IpAddr> = (0..60).map(|n| Ipv4Addr::new(10, 1, 0, n).into()).collect();
    for alias_labels in [None, Some(0), Some(1), Some(3)] {
        for transport in [Transport::Udp, Transport::Tcp] {
            let answer = Answer { alias_labels, addresses: addresses.clone() };
            let Some(reply) = encode(&request, &answer, transport) else { continue };
            assert!(request.is_answered_by(&reply), "{reply:?} does not answer {bytes:?}");
            assert!(reply.len() <= usize::from(u16::MAX));
        }
    }
}
