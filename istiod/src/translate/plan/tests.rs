//! Rows of the specification, as objects that would be applied.

use serde_json::{Value, json};

use super::*;
use crate::translate::fixture;
use crate::world::{AccessLog, L7Settings, MeshSettings};

/// What is planned for the first Gateway.
fn planned(yaml: &str) -> Option<Plan> {
    let model = fixture::model(yaml, MeshSettings::default());
    let gateway = model.world().gateways().next().expect("a Gateway").clone();
    plan(model.world(), &gateway)
}

fn deployed(yaml: &str) -> Arc<Deployment> {
    match planned(yaml) {
        Some(Plan::Deploy(deployment)) => deployment,
        other => panic!("{other:?}"),
    }
}

fn waypoint(metadata: &str, spec: &str) -> String {
    format!(
        "kind: Gateway\nmetadata: {{name: wp, namespace: web, uid: u1, {metadata}}}\nspec:\n  gatewayClassName: istio-waypoint\n  \
         listeners: [{{name: mesh, port: 15008, protocol: HBONE}}]\n  {spec}\n"
    )
}

fn ports(deployment: &Deployment) -> Vec<(String, u64, String)> {
    let ports = deployment.objects[&Kinds::Service]["spec"]["ports"].as_array().unwrap().clone();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    ports.iter().map(|port| (text(&port["name"]), port["port"].as_u64().unwrap(), text(&port["appProtocol"]))).collect()
}

fn port(name: &str, number: u64, protocol: &str) -> (String, u64, String) {
    (name.to_owned(), number, protocol.to_owned())
}

const EDGE: &str = "
kind: Gateway
metadata: {name: edge, namespace: web, uid: u1}
spec:
  gatewayClassName: istio
  listeners:
  - {name: http, port: 80, protocol: HTTP}
  - {name: https, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: cert}]}}
";

#[test]
fn gateway_row_1_an_ingress_gateway_gets_a_load_balancer() {
    let deployment = deployed(EDGE);
    assert_eq!(deployment.manager, "istio.io/gateway-controller");
    let kinds: Vec<_> = deployment.objects.keys().copied().collect();
    assert_eq!(kinds, [Kinds::ServiceAccount, Kinds::Deployment, Kinds::Service]);
    for object in deployment.objects.values() {
        assert_eq!(object["metadata"]["name"], "edge-istio");
        assert_eq!(object["metadata"]["labels"]["gateway.istio.io/managed"], "istio.io-gateway-controller");
        assert_eq!(object["metadata"]["labels"]["istio.io/dataplane-mode"], "none");
        let owner =
            json!([{"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "name": "edge", "uid": "u1"}]);
        assert_eq!(object["metadata"]["ownerReferences"], owner);
    }
    let expected = [port("status-port", 15021, "tcp"), port("http", 80, "http"), port("https", 443, "https")];
    assert_eq!(ports(&deployment), expected);
    assert_eq!(deployment.objects[&Kinds::Service]["spec"]["type"], "LoadBalancer");
    let pod = &deployment.objects[&Kinds::Deployment]["spec"]["template"];
    assert_eq!(pod["spec"]["containers"][0]["args"][1], "router");
    assert_eq!(pod["spec"]["serviceAccountName"], "edge-istio");
}

#[test]
fn gateway_row_2_a_waypoint_gets_a_service_of_the_cluster() {
    let deployment = deployed(&waypoint("", ""));
    assert_eq!(deployment.manager, "istio.io/mesh-controller");
    for object in deployment.objects.values() {
        assert_eq!((&object["metadata"]["name"], &object["metadata"]["namespace"]), (&json!("wp"), &json!("web")));
        let labels = json!({
            "gateway.networking.k8s.io/gateway-name": "wp",
            "gateway.networking.k8s.io/gateway-class-name": "istio-waypoint",
            "gateway.istio.io/managed": "istio.io-mesh-controller",
        });
        assert_eq!(object["metadata"]["labels"], labels);
    }
    let service = &deployment.objects[&Kinds::Service];
    assert_eq!(ports(&deployment), [port("status-port", 15021, "tcp"), port("mesh", 15008, "hbone")]);
    assert_eq!(service["spec"]["type"], "ClusterIP");
    assert_eq!(service["metadata"]["annotations"], json!({"networking.istio.io/traffic-distribution": "PreferClose"}));
    let pod = &deployment.objects[&Kinds::Deployment]["spec"]["template"];
    let labels = &pod["metadata"]["labels"];
    assert_eq!(
        (&labels["sidecar.istio.io/inject"], &labels["istio.io/dataplane-mode"]),
        (&json!("false"), &json!("none"))
    );
    assert_eq!(labels["service.istio.io/canonical-name"], "wp");
    assert_eq!(pod["metadata"]["annotations"]["istio.io/rev"], "default");
    let container = &pod["spec"]["containers"][0];
    let variable = |name: &str| {
        let all = container["env"].as_array().unwrap().iter();
        all.clone().find(|one| one["name"] == name).unwrap_or_else(|| panic!("no {name}"))["value"].clone()
    };
    assert_eq!(variable("MELTEMI_GATEWAY"), "web/wp");
    assert_eq!(variable("CA_ADDR"), "istiod.istio-system.svc:15012");
    assert_eq!(variable("ISTIO_META_OWNER"), "kubernetes://apis/apps/v1/namespaces/web/deployments/wp");
    let numbers: Vec<_> =
        container["ports"].as_array().unwrap().iter().map(|one| one["containerPort"].clone()).collect();
    assert_eq!(numbers, [15020, 15021, 15090]);
    assert_eq!(container["resources"]["limits"], json!({"cpu": "2", "memory": "1Gi"}));
}

#[test]
fn proxies_of_every_kind_are_given_the_revocation_lists_where_there_are_any() {
    for yaml in [EDGE.to_owned(), waypoint("", "")] {
        let deployment = deployed(&yaml);
        let pod = &deployment.objects[&Kinds::Deployment]["spec"]["template"]["spec"];
        let named = |list: &Value, name: &str| {
            let found = list.as_array().unwrap().iter().find(|one| one["name"] == name);
            found.unwrap_or_else(|| panic!("no {name} in {list}")).clone()
        };
        let volume = named(&pod["volumes"], "istio-ca-crl");
        assert_eq!(volume["configMap"], json!({"name": "istio-ca-crl", "optional": true}));
        let container = &pod["containers"][0];
        let mount = named(&container["volumeMounts"], "istio-ca-crl")["mountPath"].as_str().unwrap().to_owned();
        assert_eq!(named(&container["env"], "CRL_PATH")["value"], format!("{mount}/ca-crl.pem"));
    }
}

#[test]
fn what_the_mesh_configuration_says_of_logs_and_settings_is_in_the_environment_of_proxies() {
    let environment = |l7: L7Settings| {
        let model = fixture::model(&waypoint("", ""), MeshSettings { l7, ..MeshSettings::default() });
        let gateway = model.world().gateways().next().unwrap().clone();
        let Some(Plan::Deploy(deployment)) = plan(model.world(), &gateway) else { panic!("nothing is deployed") };
        let pod = &deployment.objects[&Kinds::Deployment]["spec"]["template"]["spec"];
        let all = pod["containers"][0]["env"].as_array().unwrap().clone();
        move |name: &str| {
            let found: Vec<_> = all.iter().filter(|one| one["name"] == name).map(|one| one["value"].clone()).collect();
            assert!(found.len() < 2, "{name} is set twice");
            found.into_iter().next()
        }
    };
    let plain = environment(L7Settings::default());
    assert_eq!((plain("WAYPOINT_ACCESS_LOG"), plain("LOG_FORMAT")), (None, None), "as proxies do by themselves");
    let metadata = [("RUST_LOG", "trace"), ("OWN", "x")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    let log = Some(AccessLog::All);
    let said = environment(L7Settings {
        access_log: log,
        log_json: Some(true),
        proxy_metadata: metadata.into(),
        ..L7Settings::default()
    });
    assert_eq!((said("WAYPOINT_ACCESS_LOG"), said("LOG_FORMAT")), (Some(json!("all")), Some(json!("json"))));
    assert_eq!((said("RUST_LOG"), said("OWN")), (Some(json!("info")), Some(json!("x"))), "what has a setting keeps it");
    let silent = environment(L7Settings { access_log: Some(AccessLog::Nothing), ..L7Settings::default() });
    assert_eq!(silent("WAYPOINT_ACCESS_LOG"), Some(json!("nothing")));
}

#[test]
fn gateway_row_3_a_name_override_does_not_rename_the_account() {
    let deployment = deployed(&waypoint("annotations: {gateway.istio.io/name-override: edge-wp}", ""));
    let name = |kind| deployment.objects[&kind]["metadata"]["name"].clone();
    assert_eq!((name(Kinds::Deployment), name(Kinds::Service)), (json!("edge-wp"), json!("edge-wp")));
    assert_eq!(name(Kinds::ServiceAccount), "wp");
    let pod = &deployment.objects[&Kinds::Deployment]["spec"]["template"];
    assert_eq!(
        (&pod["spec"]["serviceAccountName"], &pod["metadata"]["labels"]["service.istio.io/canonical-name"]),
        (&json!("wp"), &json!("edge-wp"))
    );
    assert_eq!(
        deployment.objects[&Kinds::Service]["metadata"]["annotations"].get("gateway.istio.io/name-override"),
        None
    );
    let account = deployed(&waypoint("annotations: {gateway.istio.io/service-account: mine}", ""));
    assert_eq!(account.objects[&Kinds::ServiceAccount]["metadata"]["name"], "mine");
    assert_eq!(account.objects[&Kinds::Deployment]["metadata"]["name"], "wp");
}

#[test]
fn gateway_row_4_own_labels_are_copied_where_no_infrastructure_is_asked_for() {
    let deployment = deployed(&waypoint("labels: {team: a, gateway.networking.k8s.io/x: z}", ""));
    for object in deployment.objects.values() {
        let labels = &object["metadata"]["labels"];
        assert_eq!((&labels["team"], labels.get("gateway.networking.k8s.io/x")), (&json!("a"), None));
    }
    assert_eq!(deployment.objects[&Kinds::Deployment]["spec"]["template"]["metadata"]["labels"]["team"], "a");
}

#[test]
fn gateway_row_5_infrastructure_hides_own_labels() {
    let deployment = deployed(&waypoint("labels: {team: a, x: z}", "infrastructure: {labels: {team: b}}"));
    for object in deployment.objects.values() {
        let labels = &object["metadata"]["labels"];
        assert_eq!((&labels["team"], labels.get("x")), (&json!("b"), None));
    }
}

const PARAMETERS: &str = "infrastructure: {parametersRef: {group: '', kind: ConfigMap, name: params}}";

fn with_map(data: &str) -> String {
    let map = format!("kind: ConfigMap\nmetadata: {{name: params, namespace: web}}\ndata:\n{data}");
    format!("{}---\n{map}\n", waypoint("", PARAMETERS))
}

#[test]
fn gateway_row_8_parameters_patch_and_ask_for_more() {
    let data = "  deployment: |\n    spec: {replicas: 3}\n  podDisruptionBudget: |\n    spec: {minAvailable: 1}\n";
    let deployment = deployed(&with_map(data));
    assert_eq!(deployment.objects[&Kinds::Deployment]["spec"]["replicas"], 3);
    let budget = &deployment.objects[&Kinds::PodDisruptionBudget];
    assert_eq!(
        budget["spec"],
        json!({"minAvailable": 1, "selector": {"matchLabels": {"gateway.networking.k8s.io/gateway-name": "wp"}}})
    );
    assert!(!deployment.objects.contains_key(&Kinds::HorizontalPodAutoscaler));
}

#[test]
fn gateway_row_9_parameters_that_cannot_be_used_apply_nothing() {
    for (data, told) in [
        ("  foo: bar\n", "foo"),
        ("  deployment: 'spec: ['\n", "not YAML"),
        ("  service: 'metadata: {name: other}'\n", "metadata.name"),
    ] {
        match planned(&with_map(data)) {
            Some(Plan::Refused(reason)) => assert!(reason.contains(told), "{reason}"),
            other => panic!("{other:?}"),
        }
    }
    let missing = planned(&waypoint("", PARAMETERS));
    assert!(matches!(&missing, Some(Plan::Refused(reason)) if reason.contains("web/params")), "{missing:?}");
    let other = waypoint("", "infrastructure: {parametersRef: {group: '', kind: Secret, name: params}}");
    assert!(matches!(planned(&other), Some(Plan::Refused(reason)) if reason.contains("Secret")));
}

#[test]
fn class_defaults_come_before_the_gateways_own_parameters() {
    let defaults = |name: &str, age: u32, replicas: u32| {
        format!(
            "---\nkind: ConfigMap\nmetadata: {{name: {name}, namespace: istio-system, creationTimestamp: '1970-01-01T00:0{age}:00Z', \
             labels: {{gateway.istio.io/defaults-for-class: istio-waypoint}}}}\ndata:\n  deployment: |\n    spec: {{replicas: {replicas}, \
             minReadySeconds: 7}}\n  horizontalPodAutoscaler: |\n    spec: {{maxReplicas: 5}}\n"
        )
    };
    let yaml = with_map("  deployment: 'spec: {replicas: 3}'\n") + &defaults("newer", 2, 9) + &defaults("older", 1, 2);
    let deployment = deployed(&yaml);
    let spec = &deployment.objects[&Kinds::Deployment]["spec"];
    assert_eq!((&spec["replicas"], &spec["minReadySeconds"]), (&json!(3), &json!(7)));
    let scaler = &deployment.objects[&Kinds::HorizontalPodAutoscaler]["spec"];
    assert_eq!((&scaler["maxReplicas"], &scaler["scaleTargetRef"]["name"]), (&json!(5), &json!("wp")));
    // Of another class they say nothing.
    assert_eq!(
        deployed(&(EDGE.to_owned() + &defaults("older", 1, 2))).objects[&Kinds::Deployment]["spec"].get("replicas"),
        None
    );
}

#[test]
fn who_deploys_is_decided_by_class_revision_and_addresses() {
    let class = "---\nkind: GatewayClass\nmetadata: {name: CLASS}\nspec: {controllerName: CONTROLLER}\n";
    let of = |class_name: &str, controller: &str| {
        let gateway = waypoint("", "").replace("istio-waypoint", "mine");
        gateway + &class.replace("CLASS", class_name).replace("CONTROLLER", controller)
    };
    assert_eq!(planned(&of("other", "istio.io/mesh-controller")), None, "no such class");
    assert_eq!(planned(&of("mine", "example.com/other")), None);
    let mine = deployed(&of("mine", "istio.io/mesh-controller"));
    assert_eq!(
        mine.objects[&Kinds::Service]["metadata"]["labels"]["gateway.networking.k8s.io/gateway-class-name"],
        "mine"
    );
    assert_eq!(planned(&waypoint("labels: {istio.io/rev: blue}", "")), None);
    let namespace = "---\nkind: Namespace\nmetadata: {name: web, labels: {istio.io/rev: blue}}\n";
    assert_eq!(planned(&(waypoint("", "") + namespace)), None);
    assert!(matches!(planned(&(waypoint("labels: {istio.io/rev: default}", "") + namespace)), Some(Plan::Deploy(_))));
    assert_eq!(planned(&waypoint("", "addresses: [{type: Hostname, value: mine}]")), Some(Plan::Nothing));
    assert_eq!(planned(&waypoint("", "addresses: [{value: 1.2.3.4}, {value: 1.2.3.5}]")), Some(Plan::Nothing));
    assert_eq!(planned(&waypoint("", "").replace("istio-waypoint", "istio-remote")), Some(Plan::Nothing));
    let address = EDGE.replace("spec:\n", "spec:\n  addresses: [{value: 1.2.3.4}]\n");
    assert_eq!(deployed(&address).objects[&Kinds::Service]["spec"]["loadBalancerIP"], "1.2.3.4");
}

#[test]
fn ports_of_services_are_distinct_in_number_and_name() {
    let listeners = "
  - {name: a.b, port: 80, protocol: HTTP}
  - {name: other, port: 80, protocol: HTTP, hostname: x.com}
  - {name: a-b, port: 81, protocol: HTTP}
  - {name: status-port, port: 82, protocol: TCP}
  - {name: probe, port: 15021, protocol: TCP}
  - {name: udp, port: 53, protocol: UDP}
";
    let (head, _) = EDGE.split_once("  - {name: http,").unwrap();
    let long = format!("  - {{name: {}, port: 83, protocol: TLS, tls: {{mode: Passthrough}}}}\n", "x".repeat(70));
    let deployment = deployed(&format!("{head}{}{long}", listeners.trim_start_matches('\n')));
    let expected = [
        port("status-port", 15021, "tcp"),
        port("a-b", 80, "http"),
        port("a-b-81", 81, "http"),
        port("status-port-82", 82, "tcp"),
        port(&"x".repeat(63), 83, "tls"),
    ];
    assert_eq!(ports(&deployment), expected);
}

#[test]
fn a_chosen_dataplane_mode_is_kept() {
    let mode = |deployment: &Deployment| {
        deployment.objects[&Kinds::Deployment]["spec"]["template"]["metadata"]["labels"]
            .get("istio.io/dataplane-mode")
            .cloned()
    };
    assert_eq!(mode(&deployed(&waypoint("labels: {istio.io/dataplane-mode: ambient}", ""))), Some(json!("ambient")));
    let hidden = waypoint("labels: {istio.io/dataplane-mode: ambient}", "infrastructure: {labels: {a: b}}");
    assert_eq!(mode(&deployed(&hidden)), None);
}

#[test]
fn a_gateway_follows_its_revision_or_the_tag_that_stands_for_one() {
    let owned = |label: &str, tag: &str, revision: &str| {
        let service = "kind: Service\nmetadata: {name: istiod-revision-tag-prod, namespace: istio-system, labels: {TAG}}\nspec: {ports: []}\n";
        let yaml = format!("{}---\n{}", waypoint(label, ""), service.replace("TAG", tag));
        let model = fixture::model(&yaml, MeshSettings { revision: revision.into(), ..MeshSettings::default() });
        let gateway = model.world().gateways().next().unwrap().clone();
        owns(model.world(), &gateway)
    };
    let tag = "istio.io/tag: prod, istio.io/rev: v2";
    assert!(owned("labels: {istio.io/rev: prod}", tag, "v2"));
    assert!(!owned("labels: {istio.io/rev: prod}", tag, "v1"));
    assert!(owned("labels: {istio.io/rev: v1}", tag, "v1") && !owned("labels: {istio.io/rev: v1}", tag, "v2"));
    assert!(owned("generation: 1", tag, "default") && !owned("generation: 1", tag, "v2"), "without label");
    let default = "istio.io/tag: default, istio.io/rev: v2";
    assert!(owned("generation: 1", default, "v2") && !owned("generation: 1", default, "default"));
}
