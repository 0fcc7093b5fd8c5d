//! Statuses and Events: what becomes of an object is written on it, and taken away again when it no longer holds.

use anyhow::{Result, ensure};
use serde_json::Value;
use tests_support::{Lab, eventually};

use crate::town::{SOON, Town};

const WAYPOINT: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio.io/use-waypoint: wp}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: istio-waypoint}
spec: {controllerName: istio.io/mesh-controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: wp, namespace: shop}
spec:
  gatewayClassName: istio-waypoint
  listeners: [{name: mesh, port: 15008, protocol: HBONE}]
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {ports: [{port: 80}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: readers, namespace: shop}
spec:
  targetRefs: [{group: '', kind: Service, name: web}]
  rules: [{to: [{operation: {methods: [GET]}}]}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: half, namespace: shop}
spec: {selector: {matchLabels: {app: web}}, rules: [{to: [{operation: {methods: [GET]}}]}]}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: shop}
spec: {mtls: {mode: STRICT}}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: wild, namespace: shop, labels: {istio.io/use-waypoint: none}}
spec: {hosts: ['*.example.com'], resolution: NONE, ports: [{number: 443, name: tls, protocol: TLS}]}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: vm, namespace: shop, labels: {istio.io/use-waypoint: wp}}
spec: {address: 192.0.2.7}
";

/// Conditions of an object of `shop`: type, status and reason, with the message last.
fn conditions(lab: &Lab, object: &str) -> Result<Vec<[String; 4]>> {
    let said = lab.kubectl(&["get", "-n", "shop", object, "-o", "json"])?;
    let object: Value = serde_json::from_str(&said)?;
    let all = object.pointer("/status/conditions").and_then(Value::as_array).cloned().unwrap_or_default();
    let field = |one: &Value, name: &str| one.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    Ok(all.iter().map(|one| ["type", "status", "reason", "message"].map(|name| field(one, name))).collect())
}

/// Waits for the only condition of an object.
fn says(lab: &Lab, object: &str, wanted: [&str; 3], part: &str) -> Result<()> {
    eventually(&format!("{object} says {wanted:?}"), SOON, || {
        let found = conditions(lab, object)?;
        let [[type_, status, reason, message]] = &*found else { anyhow::bail!("{found:?}") };
        ensure!([type_, status, reason] == wanted && message.contains(part), "{found:?}");
        Ok(())
    })
}

fn says_nothing(lab: &Lab, object: &str) -> Result<()> {
    eventually(&format!("{object} says nothing"), SOON, || {
        let found = conditions(lab, object)?;
        ensure!(found.is_empty(), "{found:?}");
        Ok(())
    })
}

fn gateway_api(lab: &Lab) -> Result<()> {
    for file in ["gatewayclasses", "gateways"] {
        let path = format!(
            "{}/../../deploy/crds/gateway-api/{file}.gateway.networking.k8s.io.yaml",
            env!("CARGO_MANIFEST_DIR")
        );
        lab.kubectl(&["apply", "-f", &path])?;
    }
    lab.kubectl(&["wait", "crd/gateways.gateway.networking.k8s.io", "--for=condition=Established", "--timeout=10s"])?;
    Ok(())
}

const BOUND: &str = "istio.io/WaypointBound";

#[test]
fn statuses_say_what_became_of_waypoints_and_policies() -> Result<()> {
    let lab = Lab::with_mesh()?;
    gateway_api(&lab)?;
    lab.apply(WAYPOINT)?;
    says(&lab, "service/web", [BOUND, "False", "WaypointIsNotReady"], "shop/wp")?;
    says(&lab, "workloadentry/vm", [BOUND, "False", "WaypointIsNotReady"], "shop/wp")?;
    says(
        &lab,
        "authorizationpolicy/readers",
        ["WaypointAccepted", "False", "AncestorNotBound"],
        "Service.core:shop/web",
    )?;
    says(&lab, "authorizationpolicy/half", ["ZtunnelAccepted", "True", "UnsupportedValue"], "rule 1 uses methods")?;
    says(&lab, "peerauthentication/default", ["ZtunnelAccepted", "True", "Accepted"], "STRICT")?;
    let missing = ["istio.io/WaypointMissing", "True", "NoWaypointForWildcardService"];
    says(&lab, "serviceentry/wild", missing, "*.example.com")?;
    eventually("an Event tells of the refusal", SOON, || {
        let said = lab.kubectl(&[
            "get",
            "events",
            "-n",
            "shop",
            "--field-selector",
            "reason=WaypointIsNotReady",
            "-o",
            "yaml",
        ])?;
        ensure!(said.contains("shop/wp") && said.contains("name: web"), "{said}");
        Ok(())
    })?;
    // There is no controller that gives the Gateway its address yet.
    let address = r#"{"status": {"addresses": [{"type": "IPAddress", "value": "10.96.0.99"}]}}"#;
    lab.kubectl(&["patch", "gateway/wp", "-n", "shop", "--subresource=status", "--type=merge", "-p", address])?;
    says(&lab, "service/web", [BOUND, "True", "WaypointAccepted"], "shop/wp")?;
    says(&lab, "workloadentry/vm", [BOUND, "False", "UnsupportedTrafficType"], "workload")?;
    says(&lab, "authorizationpolicy/readers", ["WaypointAccepted", "True", "Accepted"], "bound")?;
    let owner = r#"{.metadata.managedFields[?(@.manager=="istio-ambient-service")].subresource}"#;
    let owner = lab.kubectl(&[
        "get",
        "service/web",
        "-n",
        "shop",
        "--show-managed-fields",
        "-o",
        &format!("jsonpath={owner}"),
    ])?;
    ensure!(owner.contains("status"), "the field manager owns {owner:?}");
    // What nobody wants any more goes, also where it went while nobody was there to take it away.
    lab.kubectl(&["label", "workloadentry/vm", "-n", "shop", "istio.io/use-waypoint=none", "--overwrite"])?;
    says_nothing(&lab, "workloadentry/vm")?;
    lab.kubectl(&["scale", "-n", "istio-system", "deploy/istiod", "--replicas=0"])?;
    eventually("istiod is gone", SOON, || {
        ensure!(lab.pods("istio-system", "app=istiod")?.is_empty(), "it is not");
        Ok(())
    })?;
    lab.kubectl(&["label", "service/web", "-n", "shop", "istio.io/use-waypoint=none"])?;
    ensure!(!conditions(&lab, "service/web")?.is_empty(), "somebody else writes statuses");
    lab.kubectl(&["scale", "-n", "istio-system", "deploy/istiod", "--replicas=1"])?;
    lab.rolled_out("istio-system", "istiod")?;
    says_nothing(&lab, "service/web")?;
    says(&lab, "authorizationpolicy/readers", ["WaypointAccepted", "False", "AncestorNotBound"], "shop/web")
}

#[test]
fn a_policy_that_needs_a_waypoint_is_not_weaker_without_one() -> Result<()> {
    let town = Town::found()?;
    let policy = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: readers, namespace: town}\n\
                  spec: {targetRefs: [{group: '', kind: Service, name: web}], rules: [{to: [{operation: {methods: [GET]}}]}]}\n";
    town.lab.apply(policy)?;
    eventually("what skips the waypoint is refused", SOON, || town.refused("http://web/"))?;
    town.proxy_says("node-2", "the log says why", |line| line.contains("only from its waypoint"))?;
    town.lab.kubectl(&["delete", "authorizationpolicy/readers", "-n", "town"])?;
    eventually("without the policy everybody is welcome", SOON, || town.get("http://web/"))?;
    Ok(())
}
