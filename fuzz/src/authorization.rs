//! Authorization policies of the control plane.

use std::sync::Arc;

use mesh_policy::{Connection, Policy, evaluate, nearest_allow};
use mesh_wire::security::Authorization;
use prost::Message;

/// A policy decodes or is refused; what decodes gives a verdict, and a way in exactly where that is a denial.
pub fn run(bytes: &[u8]) {
    let Ok(message) = Authorization::decode(bytes) else { return };
    let Ok(policy) = Policy::decode("db/p", message) else { return };
    let policies = [Arc::new(policy)];
    for identity in [None, Some("spiffe://cluster.local/ns/web/sa/api")] {
        for source_ip in ["10.2.0.8", "fd00::8"] {
            let connection = Connection {
                source_ip: source_ip.parse().expect("is an address"),
                identity: identity.map(|identity| identity.parse().expect("is an identity")),
                destination: "10.2.0.9:5432".parse().expect("is an address"),
            };
            let verdict = evaluate(&policies, &connection);
            assert_eq!(nearest_allow(&policies, &connection).is_none(), verdict.allowed);
        }
    }
}
