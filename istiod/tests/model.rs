//! The must-pass rows of the workload model: YAML in, resources out. What needs several changes in a row is here too;
//! everything else of the model is in the golden tests.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a test may

use std::sync::Arc;

use istiod::debug::view;
use istiod::source::convert;
use istiod::translate::Model;
use istiod::world::{Change, Kind, MeshSettings};
use kube::api::DynamicObject;
use mesh_core::identity::TrustDomain;
use mesh_core::names::NamespacedName;
use serde_json::{Value, json};

/// What these documents mean.
fn changes(yaml: &str) -> Vec<Change> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(yaml).unwrap();
    let read = |mut document: Value| {
        let kind = document["kind"].as_str().unwrap().to_owned();
        let kind = Kind::ALL.into_iter().find(|one| one.name() == kind).unwrap();
        document["apiVersion"] = "v1".into();
        let object: DynamicObject = serde_json::from_value(document).unwrap();
        convert::change(kind, object, "default")
    };
    documents.into_iter().map(read).collect()
}

/// Tells the model, and names what became different.
fn tell(model: &mut Model, yaml: &str) -> Vec<String> {
    changes(yaml).into_iter().for_each(|change| model.apply(change));
    model.flush().changes.into_iter().map(|change| change.name.to_string()).collect()
}

fn remove(model: &mut Model, kind: Kind, namespace: &str, name: &str) -> Vec<String> {
    model.apply(Change::Delete(kind, NamespacedName::new(namespace, name)));
    model.flush().changes.into_iter().map(|change| change.name.to_string()).collect()
}

fn model(yaml: &str) -> Model {
    let mut model = Model::default();
    tell(&mut model, yaml);
    model
}

fn address(model: &Model, name: &str) -> Value {
    model.addresses().get(name).map(|resource| view::address(resource)).unwrap_or_default()
}

fn aliases(model: &Model, name: &str) -> Vec<String> {
    model.addresses()[name].aliases.iter().map(|alias| alias.to_string()).collect()
}

fn pod(name: &str, metadata: &str, spec: &str) -> String {
    let ip = name.bytes().map(u32::from).sum::<u32>() % 250;
    format!(
        "kind: Pod\nmetadata: {{name: {name}, namespace: ns, uid: u-{name}, {metadata}}}\nspec: {{{spec}}}\n\
         status: {{phase: Running, podIP: 10.1.0.{ip}, conditions: [{{type: Ready, status: 'True'}}]}}\n---\n"
    )
}

fn workload(model: &Model, pod: &str) -> Value {
    address(model, &format!("Kubernetes//Pod/ns/{pod}"))
}

#[test]
fn model_row_1_the_name_of_a_deployment_is_told_from_its_replica_set() {
    let metadata = "generateName: web-7d9f6-, labels: {pod-template-hash: 7d9f6}, \
                    ownerReferences: [{apiVersion: apps/v1, kind: ReplicaSet, name: web-7d9f6, uid: r, controller: true}]";
    let one = workload(&model(&pod("web-7d9f6-x2", metadata, "")), "web-7d9f6-x2");
    assert_eq!([&one["workloadName"], &one["canonicalName"], &one["canonicalRevision"]], ["web", "web", "latest"]);
    assert_eq!(one["workloadType"], "POD");
}

#[test]
fn model_row_2_a_terminating_pod_stays_and_is_unhealthy() {
    let one = workload(&model(&pod("p", "deletionTimestamp: '2026-01-01T00:00:00Z'", "")), "p");
    assert_eq!((&one["status"], &one["addresses"]), (&json!("UNHEALTHY"), &json!(["10.1.0.112"])));
}

#[test]
fn model_row_3_a_pending_pod_with_an_address_is_there_and_unhealthy() {
    let yaml = "kind: Pod\nmetadata: {name: p, namespace: ns}\nstatus: {phase: Pending, podIPs: [{ip: 10.1.0.9}]}\n";
    let one = workload(&model(yaml), "p");
    assert_eq!((&one["status"], &one["addresses"]), (&json!("UNHEALTHY"), &json!(["10.1.0.9"])));
}

#[test]
fn model_row_4_redirection_that_is_pending_is_no_tunnel() {
    let tunnel = |state: &str| {
        let pod = pod("p", &format!("annotations: {{ambient.istio.io/redirection: {state}}}"), "");
        workload(&model(&pod), "p")["tunnelProtocol"].clone()
    };
    assert_eq!((tunnel("pending"), tunnel("enabled")), (json!("NONE"), json!("HBONE")));
}

#[test]
fn model_row_5_a_named_port_is_each_pods_own() {
    let service = "kind: Service\nmetadata: {name: s, namespace: ns}\n\
                   spec: {clusterIP: 10.96.0.1, selector: {app: s}, ports: [{port: 443, targetPort: tls}]}\n---\n";
    let with = pod("a", "labels: {app: s}", "containers: [{ports: [{name: tls, containerPort: 8443}]}]");
    let without = pod("b", "labels: {app: s}", "containers: [{ports: [{name: tls, containerPort: 1, protocol: UDP}]}]");
    let model = model(&[service, &with, &without].concat());
    let key = "ns/s.ns.svc.cluster.local";
    assert_eq!(workload(&model, "a")["services"][key], json!(["443:8443"]));
    assert_eq!(workload(&model, "b")["services"][key], json!([]));
    assert_eq!(address(&model, key)["ports"], json!(["443:0"]));
}

#[test]
fn model_row_6_a_headless_service_has_members_and_no_address() {
    let service = "kind: Service\nmetadata: {name: db, namespace: ns}\n\
                   spec: {clusterIP: None, clusterIPs: [None], selector: {app: db}, ports: [{port: 5432}]}\n---\n";
    let model =
        model(&[service, &pod("db-0", "labels: {app: db}", ""), &pod("db-1", "labels: {app: db}", "")].concat());
    let key = "ns/db.ns.svc.cluster.local";
    assert_eq!(address(&model, key)["addresses"], Value::Null);
    for pod in ["db-0", "db-1"] {
        assert_eq!(workload(&model, pod)["services"][key], json!(["5432:5432"]));
    }
}

#[test]
fn model_row_7_local_traffic_policy_comes_before_distribution() {
    let yaml = "kind: Service\nmetadata: {name: s, namespace: ns}\nspec: {clusterIP: 10.96.0.1, \
                internalTrafficPolicy: Local, trafficDistribution: PreferClose}\n";
    let service = address(&model(yaml), "ns/s.ns.svc.cluster.local");
    assert_eq!(
        service["loadBalancing"],
        json!({"healthPolicy": "ONLY_HEALTHY", "mode": "STRICT", "routingPreference": ["NODE"]})
    );
}

#[test]
fn model_row_8_an_unknown_distribution_hides_that_of_the_namespace() {
    let annotated = |value: &str| format!("annotations: {{networking.istio.io/traffic-distribution: {value}}}");
    let yaml = |service: &str| {
        format!(
            "kind: Namespace\nmetadata: {{name: ns, {}}}\n---\nkind: Service\nmetadata: {{name: s, namespace: ns, {service}}}\n\
             spec: {{clusterIP: 10.96.0.1}}\n",
            annotated("PreferClose")
        )
    };
    let balancing =
        |service: &str| address(&model(&yaml(service)), "ns/s.ns.svc.cluster.local")["loadBalancing"].clone();
    assert_eq!(balancing(&annotated("bogus")), Value::Null);
    assert_eq!(balancing("labels: {}")["mode"], "FAILOVER");
}

#[test]
fn model_row_9_a_resolved_entry_has_allocated_addresses_and_a_workload_to_look_up() {
    let yaml = |status: &str| {
        format!(
            "kind: ServiceEntry\nmetadata: {{name: vendor, namespace: ns}}\n\
             spec: {{hosts: [api.vendor.io], resolution: DNS, ports: [{{name: https, number: 443, protocol: TLS}}]}}\n\
             status: {{addresses: [{status}]}}\n"
        )
    };
    let mut model = model(&yaml(""));
    assert_eq!(address(&model, "ns/api.vendor.io")["addresses"], Value::Null);
    let uid = "Kubernetes/networking.istio.io/ServiceEntry/ns/vendor/api.vendor.io";
    let one = address(&model, uid);
    assert_eq!((&one["hostname"], &one["addresses"]), (&json!("api.vendor.io"), &Value::Null));
    assert_eq!(one["services"], json!({"ns/api.vendor.io": ["443:443"]}));
    let status = "{host: api.vendor.io, value: 240.240.0.1}, {host: api.vendor.io, value: '2001:2::1'}";
    // Only the service says so.
    assert_eq!(tell(&mut model, &yaml(status)), ["ns/api.vendor.io"]);
    assert_eq!(address(&model, "ns/api.vendor.io")["addresses"], json!(["/240.240.0.1", "/2001:2::1"]));
}

#[test]
fn model_row_10_a_block_is_masked_and_found_by_its_length() {
    let yaml = "kind: Namespace\nmetadata: {name: istio-system, labels: {topology.istio.io/network: net}}\n---\n\
                kind: ServiceEntry\nmetadata: {name: e, namespace: ns}\n\
                spec: {hosts: [e.io], addresses: [10.9.8.7/24, 10.1.1.1/32], resolution: STATIC}\n";
    let model = model(yaml);
    assert_eq!(address(&model, "ns/e.io")["addresses"], json!(["net/10.9.8.0/24", "net/10.1.1.1"]));
    assert_eq!(aliases(&model, "ns/e.io"), ["net/10.9.8.0/24", "net/10.1.1.1"]);
}

#[test]
fn model_row_16_references_are_ordered_by_name_with_converted_ones_last() {
    let policy = |namespace: &str, name: &str| {
        format!(
            "kind: AuthorizationPolicy\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
             spec: {{selector: {{matchLabels: {{app: web}}}}, rules: [{{}}]}}\n---\n"
        )
    };
    let strict = "kind: PeerAuthentication\nmetadata: {name: default, namespace: istio-system}\nspec: {mtls: {mode: STRICT}}\n---\n";
    let pod = pod("web", "labels: {app: web}", "").replace("namespace: ns", "namespace: zeta");
    let model = model(&[&policy("zeta", "a"), &policy("istio-system", "z"), strict, &pod].concat());
    let references = &address(&model, "Kubernetes//Pod/zeta/web")["authorizationPolicies"];
    assert_eq!(*references, json!(["istio-system/z", "zeta/a", "istio-system/istio_converted_static_strict"]));
}

#[test]
fn model_row_17_an_unrelated_label_is_no_push() {
    let mut model = model(&pod("p", "labels: {app: web}", ""));
    assert_eq!(tell(&mut model, &pod("p", "labels: {app: web, build: '7'}", "")), Vec::<String>::new());
    assert_eq!(tell(&mut model, &pod("p", "labels: {app: db}", "")), ["Kubernetes//Pod/ns/p"]);
}

#[test]
fn model_row_18_a_slice_means_the_pod_of_its_uid_only() {
    let service = "kind: Service\nmetadata: {name: s, namespace: ns}\nspec: {clusterIP: 10.96.0.1, ports: [{name: p, port: 80}]}\n---\n";
    let slice = |uid: &str| {
        format!(
            "kind: EndpointSlice\nmetadata: {{name: s-1, namespace: ns, labels: {{kubernetes.io/service-name: s}}}}\n\
             addressType: IPv4\nports: [{{name: p, port: 8080}}]\n\
             endpoints: [{{addresses: [10.1.0.112], targetRef: {{kind: Pod, namespace: ns, name: p, uid: {uid}}}}}]\n---\n"
        )
    };
    let mut model = model(&[service, &slice("u-other"), &pod("p", "", "")].concat());
    assert_eq!(workload(&model, "p")["services"], Value::Null);
    assert_eq!(tell(&mut model, &slice("u-p")), ["Kubernetes//Pod/ns/p"]);
    assert_eq!(workload(&model, "p")["services"], json!({"ns/s.ns.svc.cluster.local": ["80:8080"]}));
}

#[test]
fn model_row_19_a_workload_entry_with_a_name_is_found_by_no_address() {
    let yaml = "kind: WorkloadEntry\nmetadata: {name: vm, namespace: ns}\nspec: {address: vm.example.com}\n";
    let model = model(yaml);
    let uid = "Kubernetes/networking.istio.io/WorkloadEntry/ns/vm";
    let one = address(&model, uid);
    assert_eq!((&one["hostname"], &one["addresses"]), (&json!("vm.example.com"), &Value::Null));
    assert!(aliases(&model, uid).is_empty());
}

#[test]
fn model_row_20_the_default_trust_domain_is_left_out() {
    let trust_domain = |name: &str| {
        let mut model = model(&pod("p", "", ""));
        let settings = MeshSettings { trust_domain: TrustDomain::new(name).unwrap(), ..MeshSettings::default() };
        model.apply(Change::Settings(Arc::new(settings)));
        model.flush();
        workload(&model, "p")["trustDomain"].clone()
    };
    assert_eq!((trust_domain("td.acme"), trust_domain("cluster.local")), (json!("td.acme"), Value::Null));
}

/// Section 5.2: who is published for a hostname, as objects come and go.
#[test]
fn deleting_the_winner_of_a_hostname_promotes_the_next() {
    let entry = |name: &str, day: u32| {
        format!(
            "kind: ServiceEntry\nmetadata: {{name: {name}, namespace: ns, creationTimestamp: '2026-01-0{day}T00:00:00Z'}}\n\
             spec: {{hosts: [web.ns.svc.cluster.local], resolution: STATIC, endpoints: [{{address: 10.5.0.{day}}}]}}\n---\n"
        )
    };
    let service = "kind: Service\nmetadata: {name: web, namespace: ns}\nspec: {clusterIP: 10.96.0.1}\n---\n";
    let key = "ns/web.ns.svc.cluster.local";
    let endpoint = |name: &str, day: u32| format!("Kubernetes/networking.istio.io/ServiceEntry/ns/{name}/10.5.0.{day}");
    let mut model = model(&[&entry("young", 2), service, &entry("old", 1)].concat());
    assert_eq!(address(&model, key)["name"], "web");
    assert_eq!(model.addresses().len(), 1, "endpoints of the losers are not published");
    assert_eq!(remove(&mut model, Kind::Service, "ns", "web"), [key, &endpoint("old", 1)]);
    assert_eq!((&address(&model, key)["name"], &address(&model, key)["canonical"]), (&json!("old"), &json!(true)));
    assert_eq!(remove(&mut model, Kind::ServiceEntry, "ns", "old"), [key, &endpoint("old", 1), &endpoint("young", 2)]);
    assert_eq!(address(&model, key)["name"], "young");
    tell(&mut model, service);
    assert_eq!(address(&model, key)["name"], "web");
    assert_eq!(model.addresses().len(), 1);
}

/// Section 12.1: what a change recomputes does not grow with what else there is.
#[test]
fn a_pod_that_changes_recomputes_itself_only() {
    let crowd = |count: u32| {
        let mut model = Model::default();
        for number in 0..count {
            let yaml = format!(
                "kind: Pod\nmetadata: {{name: p{number}, namespace: ns, labels: {{app: 'a{}'}}}}\n\
                 status: {{phase: Running, podIP: 10.2.{}.{}}}\n",
                number % 10,
                number / 250,
                number % 250 + 1
            );
            changes(&yaml).into_iter().for_each(|change| model.apply(change));
        }
        tell(&mut model, "kind: Service\nmetadata: {name: s, namespace: ns}\nspec: {selector: {app: a1}}\n");
        model
    };
    for mut model in [crowd(20), crowd(400)] {
        let moved = "kind: Pod\nmetadata: {name: p1, namespace: ns, labels: {app: 'a2'}}\n\
                     status: {phase: Running, podIP: 10.2.0.2}\n";
        changes(moved).into_iter().for_each(|change| model.apply(change));
        assert_eq!(model.dirtiness(), 1);
        let node = "kind: Node\nmetadata: {name: node-1, labels: {topology.kubernetes.io/zone: z}}\n";
        model.flush();
        changes(node).into_iter().for_each(|change| model.apply(change));
        assert_eq!(model.dirtiness(), 0, "nobody runs on it");
    }
}
