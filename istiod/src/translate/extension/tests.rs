//! What such an object would have guarded stays closed, and its status says so.

use mesh_wire::l7;

use crate::translate::fixture;
use crate::translate::l7::fixture::{port, proxy};
use crate::translate::{Model, ObjectStatus};
use crate::world::{Change, Kind, MeshSettings};

const WEB: &str = "ns/wp/ns/web.ns.svc.cluster.local:";

const WORLD: &str = r"
kind: Namespace
metadata: {name: ns}
---
kind: Gateway
metadata: {name: wp, namespace: ns}
spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
status: {addresses: [{type: IPAddress, value: 10.0.0.9}]}
---
kind: Gateway
metadata: {name: edge, namespace: ns}
spec: {gatewayClassName: istio, listeners: [{name: http, port: 80, protocol: HTTP}]}
---
kind: Service
metadata: {name: web, namespace: ns, labels: {istio.io/use-waypoint: wp}}
spec:
  clusterIP: 10.0.0.1
  clusterIPs: [10.0.0.1]
  selector: {app: web}
  ports: [{name: http, port: 80}, {name: http-b, port: 81}]
---
";

fn model(kind: &str, spec: &str) -> Model {
    let object = format!("kind: {kind}\nmetadata: {{name: one, namespace: ns, generation: 3}}\nspec: {spec}\n");
    fixture::model(&format!("{WORLD}{object}"), MeshSettings::default())
}

fn told(model: &Model, number: u16) -> l7::Port {
    port(model, &format!("{WEB}{number}")).unwrap()
}

fn status(model: &Model, kind: Kind) -> &ObjectStatus {
    let found = model.statuses().iter().find(|(target, _)| target.kind == kind);
    found.map(|(_, status)| &**status).expect("a status")
}

const SERVICE: &str = "targetRefs: [{group: '', kind: Service, name: web}]";

#[test]
fn a_service_with_a_module_that_nobody_runs_is_closed_until_the_module_is_gone() {
    let mut model = model("WasmPlugin", &format!("{{{SERVICE}, url: 'oci://x'}}"));
    for number in [80, 81] {
        let refused = told(&model, number).refuse_all;
        assert!(refused.contains("WasmPlugin ns/one") && refused.contains("nothing is let through"), "{refused}");
    }
    assert_eq!(proxy(&model, "ns/wp").unwrap().refuse_all, "", "only what it names");
    let status = status(&model, Kind::WasmPlugin);
    let condition = &status.conditions[0];
    assert_eq!((status.generation, condition.type_, condition.holds), (3, "WaypointAccepted", false));
    assert!(condition.message.contains("nothing is let through"), "{}", condition.message);
    model.apply(Change::Delete(Kind::WasmPlugin, "ns/one".parse().unwrap()));
    model.flush();
    assert_eq!(told(&model, 80).refuse_all, "");
    assert!(model.statuses().keys().all(|target| target.kind != Kind::WasmPlugin));
}

#[test]
fn a_module_for_one_port_closes_that_port() {
    let spec = format!("{{{SERVICE}, url: x, match: [{{ports: [{{number: 81}}]}}]}}");
    let model = model("WasmPlugin", &spec);
    assert_eq!(told(&model, 80).refuse_all, "");
    assert!(told(&model, 81).refuse_all.contains("WebAssembly"));
    assert!(status(&model, Kind::WasmPlugin).conditions[0].message.contains("on ports 81"));
}

#[test]
fn what_may_be_left_out_is_left_out_and_told() {
    for (kind, spec) in [
        (Kind::WasmPlugin, format!("{{{SERVICE}, url: x, failStrategy: FAIL_OPEN}}")),
        (Kind::TrafficExtension, format!("{{{SERVICE}, wasm: {{url: x, failStrategy: FAIL_OPEN}}}}")),
        (
            Kind::EnvoyFilter,
            format!("{{{SERVICE}, configPatches: [{{applyTo: CLUSTER, patch: {{operation: MERGE, value: {{}}}}}}]}}"),
        ),
        (
            Kind::EnvoyFilter,
            "{configPatches: [{applyTo: HTTP_FILTER, patch: {operation: INSERT_FIRST, value: {}}}]}".to_owned(),
        ),
    ] {
        let model = model(kind.name(), &spec);
        assert_eq!(told(&model, 80).refuse_all, "", "{spec}");
        assert_eq!(proxy(&model, "ns/edge").unwrap().refuse_all, "", "{spec}");
        let condition = &status(&model, kind).conditions[0];
        assert!(!condition.holds && condition.message.contains("no effect"), "{}", condition.message);
    }
}

#[test]
fn what_is_for_a_gateway_closes_it() {
    let gateway =
        |name: &str| format!("targetRefs: [{{group: gateway.networking.k8s.io, kind: Gateway, name: {name}}}]");
    let lua = |name: &str| format!("{{{}, lua: {{inlineCode: x}}}}", gateway(name));
    let closed = |model: &Model, name: &str| !proxy(model, name).unwrap().refuse_all.is_empty();
    let of_waypoint = model("TrafficExtension", &lua("wp"));
    assert!(closed(&of_waypoint, "ns/wp") && !closed(&of_waypoint, "ns/edge"));
    let filter = "configPatches: [{applyTo: HTTP_FILTER, patch: {operation: INSERT_BEFORE, value: {}}}]";
    let of_edge = model("EnvoyFilter", &format!("{{{}, {filter}}}", gateway("edge")));
    assert!(closed(&of_edge, "ns/edge") && !closed(&of_edge, "ns/wp"));
    // Without targets it is for gateways of its namespace, and never for waypoints.
    let wide = model("WasmPlugin", "{url: x}");
    assert!(closed(&wide, "ns/edge") && !closed(&wide, "ns/wp"));
    assert_eq!(told(&wide, 80).refuse_all, "");
    let others = model("WasmPlugin", "{url: x, selector: {matchLabels: {app: other}}}");
    assert!(!closed(&others, "ns/edge"));
}
