//! Packets of the node agent.

use ztunnel::node::packet;

/// A packet is a request or an error, with and without a truncation.
pub fn run(bytes: &[u8]) {
    assert!(packet::decode(bytes, Vec::new(), true).is_err());
    if let Ok(message) = packet::decode(bytes, Vec::new(), false) {
        assert!(!matches!(message, packet::Message::Add { .. }), "an add without a descriptor was taken");
    }
}
