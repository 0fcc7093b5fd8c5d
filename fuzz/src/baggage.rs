//! The `baggage` header of a peer.

use http::{HeaderMap, HeaderValue};
use mesh_hbone::Baggage;
use mesh_hbone::baggage::BAGGAGE;

/// One header a line. What was understood can be said again, and is understood the same way then.
pub fn run(bytes: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in bytes.split(|byte| *byte == b'\n').take(16) {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.append(BAGGAGE, value);
        }
    }
    let Some(first) = Baggage::decode(&headers) else { return };
    let Some(again) = first.encode() else { return };
    let mut headers = HeaderMap::new();
    headers.insert(BAGGAGE, again);
    let second = Baggage::decode(&headers).expect("what we write we can read");
    assert_eq!(
        (&first.cluster, &first.namespace, &first.workload, &first.service, &first.revision),
        (&second.cluster, &second.namespace, &second.workload, &second.service, &second.revision),
    );
    assert_eq!((first.region, first.zone), (second.region, second.zone));
}
