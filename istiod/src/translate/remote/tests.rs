//! Decisions about several clusters, by example; `property` checks that the way to them does not matter.
#![allow(clippy::indexing_slicing)] // a test may

mod property;

use std::sync::Arc;

use mesh_wire::workload::address::Type;
use mesh_wire::workload::gateway_address::Destination;
use mesh_wire::workload::{Address, Service, TunnelProtocol, Workload};
use prost::Message;

use crate::translate::{Model, fixture};
use crate::world::{Change, MeshSettings, RemoteChange, Scope, ScopeRule, Selector};

fn settings() -> MeshSettings {
    let label = [("istio.io/global".to_owned(), "true".to_owned())].into();
    let services_selector = Selector { match_labels: label, ..Selector::default() };
    let scopes = vec![ScopeRule { services_selector, scope: Scope::Global, ..ScopeRule::default() }];
    MeshSettings { cluster_id: "c1".into(), multi_network: true, scopes, ..MeshSettings::default() }
}

/// Tells everything of another cluster over a connection.
fn connect(model: &mut Model, cluster: &str, epoch: u64, yaml: &str) {
    for change in fixture::changes(yaml) {
        tell(model, cluster, RemoteChange::Told { epoch, change });
    }
    tell(model, cluster, RemoteChange::Complete { epoch });
}

fn tell(model: &mut Model, cluster: &str, change: RemoteChange) {
    model.apply(Change::Remote(cluster.into(), Box::new(change)));
}

fn workload(model: &Model, name: &str) -> Workload {
    match decoded(model, name) {
        Some(Type::Workload(workload)) => workload,
        other => panic!("{name}: {other:?} in {:?}", model.addresses().keys()),
    }
}

fn service(model: &Model, name: &str) -> Service {
    match decoded(model, name) {
        Some(Type::Service(service)) => service,
        other => panic!("{name}: {other:?} in {:?}", model.addresses().keys()),
    }
}

fn decoded(model: &Model, name: &str) -> Option<Type> {
    Address::decode(model.addresses().get(&Arc::<str>::from(name))?.body.clone()).unwrap().r#type
}

fn has(model: &Model, name: &str) -> bool {
    model.addresses().contains_key(&Arc::<str>::from(name))
}

fn system(network: &str) -> String {
    format!(
        "kind: Namespace\nmetadata: {{name: istio-system, labels: {{topology.istio.io/network: {network}}}}}\n---\n"
    )
}

fn web(global: bool, ip: &str) -> String {
    format!(
        "kind: Service\nmetadata: {{name: web, namespace: shop, labels: {{istio.io/global: '{global}'}}}}\n\
         spec: {{clusterIP: {ip}, selector: {{app: web}}, ports: [{{name: http, port: 80, targetPort: 8080}}]}}\n---\n"
    )
}

fn pod(name: &str, ip: &str, account: &str, ready: bool) -> String {
    let ready = if ready { "True" } else { "False" };
    format!(
        "kind: Pod\nmetadata: {{name: {name}, namespace: shop, labels: {{app: web}}, annotations: \
         {{ambient.istio.io/redirection: enabled}}}}\nspec: {{serviceAccountName: {account}}}\n\
         status: {{phase: Running, podIP: {ip}, conditions: [{{type: Ready, status: '{ready}'}}]}}\n---\n"
    )
}

fn east_west(class: &str, network: &str, address: &str) -> String {
    format!(
        "kind: Gateway\nmetadata: {{name: east-west, namespace: istio-system, labels: \
         {{topology.istio.io/network: {network}}}, annotations: {{gateway.istio.io/service-account: ew}}}}\n\
         spec: {{gatewayClassName: {class}, listeners: [{{name: mesh, port: 15008, protocol: HBONE, tls: {{mode: \
         Terminate}}}}]}}\nstatus: {{addresses: [{{type: IPAddress, value: {address}}}]}}\n---\n"
    )
}

const WEB: &str = "shop/web.shop.svc.cluster.local";
const SPLIT: &str = "n2/SplitHorizonWorkload/istio-system/east-west/203.0.113.2/shop/web.shop.svc.cluster.local";

/// Ours in network `n1`, one of network `n2` with two pods of two accounts and a gateway.
fn two_networks(ours_global: bool, theirs_global: bool) -> Model {
    let ours = system("n1") + &web(ours_global, "10.96.0.1") + &pod("web-1", "10.1.0.1", "web", true);
    let mut model = fixture::model(&ours, settings());
    let theirs = system("n2")
        + &web(theirs_global, "10.97.0.1")
        + &pod("web-a", "10.1.0.1", "web", true)
        + &pod("web-b", "10.1.0.2", "other", false)
        + &east_west("istio-east-west", "n2", "203.0.113.2");
    connect(&mut model, "c2", 1, &theirs);
    model.flush();
    model
}

#[test]
fn a_global_service_of_another_network_is_one_workload_behind_its_gateway() {
    let model = two_networks(true, true);
    let split = workload(&model, SPLIT);
    assert!(split.addresses.is_empty() && split.tunnel_protocol() == TunnelProtocol::Hbone);
    assert_eq!((split.network.as_str(), split.cluster_id.as_str(), split.capacity), ("n2", "c2", Some(2)));
    let gateway = split.network_gateway.unwrap();
    assert_eq!(gateway.hbone_mtls_port, 15008);
    assert!(
        matches!(gateway.destination, Some(Destination::Address(at)) if at.network == "n2" && at.address == [203, 0, 113, 2])
    );
    let ports = &split.services[WEB].ports;
    assert_eq!((ports[0].service_port, ports[0].target_port), (80, 8080));
    assert!(!has(&model, "c2//Pod/shop/web-a"), "not sent one by one");
    let merged = service(&model, WEB);
    let addresses: Vec<_> = merged.addresses.iter().map(|at| (at.network.as_str(), at.address.clone())).collect();
    assert_eq!(addresses, [("n1", vec![10, 96, 0, 1]), ("n2", vec![10, 97, 0, 1])]);
    let accounts = ["other", "web"].map(|account| format!("spiffe://cluster.local/ns/shop/sa/{account}"));
    assert_eq!(merged.subject_alt_names, accounts);
}

#[test]
fn a_gateway_of_another_cluster_is_a_workload_with_its_account() {
    let gateway = workload(&two_networks(true, true), "NetworkGateway/n2/203.0.113.2/15008");
    assert_eq!((gateway.namespace.as_str(), gateway.service_account.as_str()), ("istio-system", "ew"));
    assert_eq!((gateway.network.as_str(), gateway.cluster_id.as_str()), ("n2", "c2"));
    assert_eq!((gateway.tunnel_protocol(), gateway.addresses), (TunnelProtocol::Hbone, vec![vec![203, 0, 113, 2]]));
}

#[test]
fn a_service_that_is_local_anywhere_is_not_shared() {
    for (ours, theirs) in [(false, true), (true, false)] {
        let model = two_networks(ours, theirs);
        let service = service(&model, WEB);
        assert_eq!(service.addresses.len(), 1, "ours global: {ours}");
        assert!(service.subject_alt_names.is_empty() && !has(&model, SPLIT));
    }
}

#[test]
fn workloads_of_our_own_network_are_sent_one_by_one() {
    let ours = system("n1") + &web(true, "10.96.0.1");
    let mut model = fixture::model(&ours, settings());
    connect(&mut model, "c2", 1, &(system("n1") + &web(true, "10.97.0.1") + &pod("web-a", "10.1.0.9", "web", true)));
    model.flush();
    let near = workload(&model, "c2//Pod/shop/web-a");
    assert_eq!((near.cluster_id.as_str(), near.network.as_str()), ("c2", "n1"));
    assert!(near.services.contains_key(WEB));
    assert_eq!(service(&model, WEB).addresses.len(), 2);
    // Once ours is for this cluster only, theirs is another service.
    fixture::changes(&web(false, "10.96.0.1")).into_iter().for_each(|change| model.apply(change));
    model.flush();
    assert!(workload(&model, "c2//Pod/shop/web-a").services.is_empty());
    assert_eq!(service(&model, WEB).addresses.len(), 1);
}

#[test]
fn a_service_that_only_another_cluster_has_is_known_here() {
    let mut model = fixture::model(&system("n1"), settings());
    let theirs = system("n2") + &web(true, "10.97.0.1") + &pod("web-a", "10.1.0.1", "web", true);
    connect(&mut model, "c2", 1, &theirs);
    model.flush();
    assert_eq!(service(&model, WEB).addresses[0].network, "n2");
    assert!(!has(&model, SPLIT), "no gateway leads there");
    // A gateway that we define ourselves does too, and wins over theirs at the same address.
    let ours = east_west("istio-remote", "n2", "203.0.113.2");
    fixture::changes(&ours).into_iter().for_each(|change| model.apply(change));
    model.flush();
    assert_eq!(workload(&model, SPLIT).capacity, Some(1));
}

#[test]
fn when_the_last_member_or_the_gateway_goes_so_does_what_stands_for_them() {
    let mut model = two_networks(true, true);
    let mut gone = |yaml: &str| {
        for change in fixture::changes(yaml) {
            let Change::Upsert(object) = change else { panic!() };
            let change = Change::Delete(object.kind(), object.key());
            tell(&mut model, "c2", RemoteChange::Told { epoch: 1, change });
        }
        model.flush();
        (has(&model, SPLIT), service(&model, WEB).subject_alt_names.len())
    };
    assert_eq!(gone(&pod("web-b", "", "", true)), (true, 1));
    assert_eq!(gone(&pod("web-a", "", "", true)), (false, 0));
    let mut model = two_networks(true, true);
    tell(&mut model, "c2", RemoteChange::Gone);
    model.flush();
    assert!(!has(&model, SPLIT) && !has(&model, "NetworkGateway/n2/203.0.113.2/15008"));
    let service = service(&model, WEB);
    assert!(service.addresses.len() == 1 && service.subject_alt_names.is_empty());
    assert_eq!(model.remote_clusters().count(), 0);
}

#[test]
fn a_new_connection_is_used_when_it_is_complete_and_the_old_one_until_then() {
    let mut model = two_networks(true, true);
    let object = |yaml: &str| fixture::changes(yaml).pop().unwrap();
    let told = |epoch, change| RemoteChange::Told { epoch, change };
    tell(&mut model, "c2", told(2, object(&system("n2"))));
    tell(&mut model, "c2", told(2, object(&web(true, "10.97.0.2"))));
    assert!(model.flush().changes.is_empty(), "nothing of it is used yet");
    tell(&mut model, "c2", RemoteChange::Complete { epoch: 2 });
    // Too late: this connection is no longer used.
    tell(&mut model, "c2", told(1, object(&pod("web-z", "10.1.0.9", "web", true))));
    model.flush();
    assert!(!has(&model, SPLIT));
    assert_eq!(service(&model, WEB).addresses[1].address, [10, 97, 0, 2]);
}

#[test]
fn without_the_feature_other_clusters_mean_nothing() {
    let off = MeshSettings { multi_network: false, ..settings() };
    let mut model = fixture::model(&(system("n1") + &web(true, "10.96.0.1")), off);
    connect(&mut model, "c2", 1, &(system("n1") + &web(true, "10.97.0.1") + &pod("web-a", "10.1.0.9", "web", true)));
    assert!(model.flush().changes.is_empty());
}
