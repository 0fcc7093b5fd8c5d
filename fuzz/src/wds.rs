//! Workload discovery: a response of the control plane.

use std::sync::Arc;

use mesh_wire::discovery::DeltaDiscoveryResponse;
use mesh_wire::workload::Address;
use prost::Message;
use ztunnel::state::{Snapshot, State};

use crate::hbone_request::{NoIdentities, local};

/// A response is applied, or refused resource by resource; the indexes agree with one another in both cases.
pub fn run(bytes: &[u8]) {
    let (state, mut feed) = State::new(local("n1"), Arc::new(NoIdentities));
    // Two responses, as the second meets what the first has left.
    let (first, second) = bytes.split_at(bytes.len() / 2);
    let responses = [bytes, first, second].map(DeltaDiscoveryResponse::decode);
    for response in responses.into_iter().flatten() {
        let named = response.resources.into_iter().filter_map(|resource| {
            let message = Address::decode(resource.resource?.value.as_slice()).ok()?;
            Some((resource.name, message))
        });
        let named: Vec<_> = named.collect();
        let (count, rejected) = (named.len(), feed.addresses(named, &response.removed_resources));
        assert!(rejected.len() <= count);
        agree(&state.snapshot());
    }
}

fn agree(snapshot: &Snapshot) {
    for workload in snapshot.workloads() {
        assert_eq!(snapshot.workload_by_uid(&workload.uid).map(|found| &found.uid), Some(&workload.uid));
    }
    for service in snapshot.services() {
        let endpoints = snapshot.endpoints(service).into_iter().flat_map(|endpoints| endpoints.values());
        for endpoint in endpoints {
            let uid = &endpoint.workload.uid;
            assert!(snapshot.workload_by_uid(uid).is_some(), "endpoint {uid} of {} is no workload", service.key);
            assert!(endpoint.workload.ports_for(&service.key).is_some(), "{uid} does not serve {}", service.key);
        }
    }
}
