//! After any sequence of updates the indexes say what a plain walk over everything says.

use std::collections::BTreeMap;

use mesh_core::{NamespacedName, NetworkAddr};
use mesh_wire::workload as wire;
use proptest::prelude::*;

use crate::state::Snapshot;
use crate::state::fixture::*;

#[derive(Clone, Debug)]
enum Op {
    Workload { n: u8, ip: u8, hbone: bool, healthy: bool, host: bool, services: [bool; 3], hostname: bool },
    Service { n: u8, vip: u8, range: bool, all: bool, canonical: bool, private: bool },
    RemoveWorkload(u8),
    RemoveService(u8),
}

fn op() -> impl Strategy<Value = Op> {
    let workload =
        (0_u8..5, 0_u8..3, any::<[bool; 7]>()).prop_map(|(n, ip, [hbone, healthy, host, a, b, c, hostname])| {
            Op::Workload { n, ip, hbone, healthy, host, services: [a, b, c], hostname }
        });
    let service = (0_u8..3, 0_u8..3, any::<[bool; 4]>())
        .prop_map(|(n, vip, [range, all, canonical, private])| Op::Service { n, vip, range, all, canonical, private });
    prop_oneof![4 => workload, 3 => service, 1 => (0_u8..5).prop_map(Op::RemoveWorkload), 1 => (0_u8..3).prop_map(Op::RemoveService)]
}

fn uid(n: u8) -> String {
    // Not all are pods, so that ranks differ.
    if n.is_multiple_of(2) {
        format!("Kubernetes//Pod/ns{}/w{n}", n % 2)
    } else {
        format!("c/WorkloadEntry/ns{}/w{n}", n % 2)
    }
}

fn service_name(n: u8) -> String {
    // Two services share a hostname.
    format!("ns{n}/{}", ["same", "same", "other"][n as usize])
}

/// Records and endpoint sets in plain maps.
#[derive(Default)]
struct Model {
    workloads: BTreeMap<String, wire::Workload>,
    services: BTreeMap<String, wire::Service>,
    /// Service to uids.
    endpoints: BTreeMap<String, Vec<String>>,
    staged: BTreeMap<String, Vec<String>>,
}

fn takes(service: &wire::Service, workload: &wire::Workload) -> bool {
    workload.status == 0 || service.load_balancing.as_ref().is_some_and(|lb| lb.health_policy == 1)
}

impl Model {
    fn workload(&mut self, workload: wire::Workload) {
        self.remove_workload(&workload.uid.clone());
        for key in workload.services.keys() {
            match self.services.get(key) {
                Some(service) if takes(service, &workload) => {
                    self.endpoints.entry(key.clone()).or_default().push(workload.uid.clone());
                }
                Some(_) => {}
                None => self.staged.entry(key.clone()).or_default().push(workload.uid.clone()),
            }
        }
        self.workloads.insert(workload.uid.clone(), workload);
    }

    fn remove_workload(&mut self, uid: &str) {
        self.workloads.remove(uid);
        for set in self.endpoints.values_mut().chain(self.staged.values_mut()) {
            set.retain(|known| known != uid);
        }
    }

    fn service(&mut self, key: &str, service: wire::Service) {
        let mut uids = self.endpoints.remove(key).unwrap_or_default();
        uids.extend(self.staged.remove(key).unwrap_or_default());
        uids.retain(|uid| takes(&service, &self.workloads[uid]));
        self.endpoints.insert(key.to_owned(), uids);
        self.services.insert(key.to_owned(), service);
    }

    fn remove_service(&mut self, key: &str) {
        self.services.remove(key);
        self.endpoints.remove(key);
        self.staged.remove(key);
    }

    fn by_ip(&self, ip: &[u8]) -> Option<String> {
        let found = self.workloads.values().filter(|w| w.network_mode == 0 && w.addresses.iter().any(|a| a[..] == *ip));
        let rank = |w: &&wire::Workload| {
            (
                u8::from(w.uid.contains("//Pod/")) * 2 + u8::from(w.tunnel_protocol == 1),
                std::cmp::Reverse(w.uid.clone()),
            )
        };
        found.max_by_key(rank).map(|w| w.uid.clone())
    }

    fn best(&self, client: &str, fits: impl Fn(&wire::Service) -> bool) -> Option<String> {
        let visible = self.services.iter().filter(|(_, s)| fits(s) && (s.visibility == 0 || s.namespace == client));
        let rank = |(key, s): &(&String, &wire::Service)| {
            let own = s.namespace == client;
            (own, !own && s.canonical, std::cmp::Reverse((*key).clone()))
        };
        visible.max_by_key(rank).map(|(key, _)| key.clone())
    }
}

fn apply(world: &mut World, model: &mut Model, op: Op) {
    match op {
        Op::Workload { n, ip, hbone, healthy, host, services, hostname } => {
            let mut workload = pod(&format!("ns{}/w{n}", n % 2), &format!("10.0.0.{ip}"));
            workload.uid = uid(n);
            workload.tunnel_protocol = hbone.into();
            workload.status = (!healthy).into();
            workload.network_mode = host.into();
            workload.node = if n < 3 { NODE } else { "node-2" }.to_owned();
            if hostname {
                workload.hostname = format!("host{}", n % 2);
            }
            for (s, _) in services.iter().enumerate().filter(|(_, member)| **member) {
                workload = backs(workload, &service_name(u8::try_from(s).unwrap()), &[(80, 8080)]);
            }
            model.workload(workload.clone());
            world.add([address(workload)]);
        }
        Op::Service { n, vip, range, all, canonical, private } => {
            let key = service_name(n);
            let vip = if range { format!("10.9.{vip}.0/24") } else { format!("10.9.{vip}.1") };
            let mut added = service(&key, &[&vip], &[(80, 8080)]);
            added.load_balancing = all.then(|| wire::LoadBalancing { health_policy: 1, ..Default::default() });
            added.canonical = canonical;
            added.visibility = private.into();
            model.service(&key, added.clone());
            world.add([service_address(added)]);
        }
        Op::RemoveWorkload(n) => {
            model.remove_workload(&uid(n));
            world.remove(&[&uid(n)]);
        }
        Op::RemoveService(n) => {
            model.remove_service(&service_name(n));
            world.remove(&[&service_name(n)]);
        }
    }
}

fn check(snapshot: &Snapshot, model: &Model) {
    assert_eq!(snapshot.workloads().count(), model.workloads.len());
    assert_eq!(snapshot.services().count(), model.services.len());
    for ip in 0..3_u8 {
        let addr = NetworkAddr::new(NETWORK, [10, 0, 0, ip].into());
        let found = snapshot.workload_by_ip(&addr).map(|w| w.uid.to_string());
        assert_eq!(found, model.by_ip(&[10, 0, 0, ip]));
    }
    for client in ["ns0", "ns1", "ns2", "q"] {
        for vip in 0..3_u8 {
            let bytes = [10, 9, vip, 1];
            let exact =
                model.best(client, |s| s.addresses[0].length.is_none() && s.addresses[0].address[..] == bytes[..]);
            let range =
                || model.best(client, |s| s.addresses[0].length.is_some() && s.addresses[0].address[..3] == bytes[..3]);
            let addr = NetworkAddr::new(NETWORK, [10, 9, vip, 1].into());
            let found = snapshot.service_by_vip(Some(client), &addr).map(|s| s.key.to_string());
            assert_eq!(found, exact.or_else(range), "{client} {vip}");
        }
        for hostname in ["same", "other"] {
            let found = snapshot.service_by_hostname(Some(client), hostname).map(|s| s.key.to_string());
            assert_eq!(found, model.best(client, |s| s.hostname == hostname));
        }
    }
    for (key, service) in &model.services {
        let key_name: NamespacedName = key.parse().unwrap();
        let known = snapshot.service_by_key(&key_name).unwrap();
        let found: Vec<_> =
            snapshot.endpoints(known).into_iter().flat_map(|set| set.keys()).map(ToString::to_string).collect();
        let mut expected = model.endpoints[key].clone();
        expected.sort();
        assert_eq!(found, expected, "{key} {service:?}");
    }
    let staged: BTreeMap<_, _> = snapshot
        .staged()
        .map(|(key, set)| (key.to_string(), set.keys().map(ToString::to_string).collect::<Vec<_>>()))
        .collect();
    let expected = model.staged.iter().filter(|(_, uids)| !uids.is_empty()).map(|(key, uids)| {
        let mut uids = uids.clone();
        uids.sort();
        (key.clone(), uids)
    });
    assert_eq!(staged, expected.collect());
    for n in 0..5_u8 {
        let local = snapshot.local_workload(&format!("w{n}"), &format!("ns{}", n % 2), &format!("w{n}"));
        let expected = model.workloads.get(&uid(n)).filter(|w| w.node == NODE);
        assert_eq!(local.map(|w| w.uid.to_string()), expected.map(|w| w.uid.clone()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn the_snapshot_equals_a_plain_model(ops in proptest::collection::vec(op(), 0..40)) {
        let (mut world, mut model) = (World::new(), Model::default());
        for op in ops {
            apply(&mut world, &mut model, op);
            check(&world.snapshot(), &model);
        }
    }
}
