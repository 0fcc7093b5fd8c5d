//! Gateways at the edge: made by `kubectl apply` of a Gateway, reached from outside of the mesh.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests_support::eventually;

use crate::market::{Market, Said};
use crate::town::SOON;

const EDGE: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge, namespace: market}
spec:
  gatewayClassName: istio
  listeners:
  - {name: http, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}
";

const SHOP: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: shop, namespace: market}
spec:
  parentRefs: [{name: edge}]
  hostnames: [shop.example.com]
  rules:
  - matches: [{path: {value: /v2}}]
    backendRefs: [{name: shop-v2, port: 80}]
  - backendRefs: [{name: shop-v1, port: 80}]
";

/// The market with an edge; the address that its load balancer has.
fn with_edge(gateway: &str) -> Result<(Market, String)> {
    let market = Market::found()?;
    market.lab.apply(gateway)?;
    market.programmed("edge")?;
    let address = eventually("the edge has an address", SOON, || {
        let path = ".status.loadBalancer.ingress[0].ip";
        let said = market.lab.field("market", "service/edge-istio", path)?;
        ensure!(!said.is_empty(), "no address yet");
        Ok(said)
    })?;
    Ok((market, address))
}

/// A call of the stranger, who is no part of the mesh.
fn from_outside(market: &Market, args: &[&str]) -> Result<Said> {
    market.call_from("outside", "deploy/stranger", args)
}

fn soon_outside(market: &Market, status: &str, args: &[&str]) -> Result<Said> {
    eventually(&format!("{args:?} gets {status}"), SOON, || {
        let said = from_outside(market, args)?;
        ensure!(said.statuses().iter().any(|(found, _)| found == status), "{said:?}");
        Ok(said)
    })
    .map_err(|error| error.context(market.diagnosis()))
}

#[test]
fn http_route_simple_same_namespace_strangers_reach_the_shop_through_the_edge() -> Result<()> {
    let (market, address) = with_edge(EDGE)?;
    market.route(SHOP)?;
    let url = format!("http://{address}/a");
    let said = soon_outside(&market, "200", &[&url, "--host", "shop.example.com"])?;
    ensure!(said.backend("v1") == 1 && said.seen("/host")? == "shop.example.com", "{said:?}");
    let said = from_outside(&market, &[&format!("http://{address}/v2/b"), "--host", "shop.example.com"])?;
    ensure!(said.backend("v2") == 1, "{said:?}");
    soon_outside(&market, "404", &[&url, "--host", "other.example.com"])?;
    Ok(())
}

#[test]
fn gateway_row_2_a_waypoint_has_a_deployment_a_service_and_an_account() -> Result<()> {
    let market = Market::found()?;
    market.add_waypoint()?;
    let get = |object: &str| -> Result<Value> {
        Ok(serde_json::from_str(&market.lab.kubectl(&["get", "-n", "market", object, "-o", "json"])?)?)
    };
    let service = get("service/waypoint")?;
    ensure!(service["spec"]["type"] == "ClusterIP", "{service}");
    let ports = service["spec"]["ports"].as_array().context("no ports")?;
    ensure!(ports.iter().any(|port| port["port"] == 15008 && port["appProtocol"] == "hbone"), "{ports:?}");
    ensure!(
        service["metadata"]["annotations"]["networking.istio.io/traffic-distribution"] == "PreferClose",
        "{service}"
    );
    for object in ["deployment/waypoint", "service/waypoint", "serviceaccount/waypoint"] {
        let object = get(object)?;
        let labels = &object["metadata"]["labels"];
        ensure!(labels["gateway.istio.io/managed"] == "istio.io-mesh-controller", "{labels}");
        ensure!(labels["gateway.networking.k8s.io/gateway-name"] == "waypoint", "{labels}");
    }
    Ok(())
}

#[test]
fn gateway_row_10_and_gateway_row_11_addresses_come_with_the_pods_and_stay() -> Result<()> {
    let market = Market::found()?;
    market.add_waypoint()?;
    let addresses = || -> Result<Vec<(String, String)>> {
        let said = market.lab.kubectl(&["get", "-n", "market", "gateway/waypoint", "-o", "json"])?;
        let gateway: Value = serde_json::from_str(&said)?;
        let all = gateway["status"]["addresses"].as_array().cloned().unwrap_or_default();
        let text = |one: &Value, name: &str| one[name].as_str().unwrap_or_default().to_owned();
        Ok(all.iter().map(|one| (text(one, "type"), text(one, "value"))).collect())
    };
    let ip = market.lab.field("market", "service/waypoint", ".spec.clusterIP")?;
    let found = addresses()?;
    ensure!(found.contains(&("Hostname".to_owned(), "waypoint.market.svc.cluster.local".to_owned())), "{found:?}");
    ensure!(found.contains(&("IPAddress".to_owned(), ip)), "{found:?}");
    market.lab.kubectl(&["scale", "-n", "market", "deployment/waypoint", "--replicas=0"])?;
    // The controller has its say on the number of replicas: the pods go in any case when the template cannot start.
    market.lab.kubectl(&["delete", "pods", "-n", "market", "-l", "gateway.networking.k8s.io/gateway-name=waypoint"])?;
    eventually("addresses stay without pods", SOON, || {
        let now = addresses()?;
        ensure!(now == found, "{now:?}");
        Ok(())
    })
}

#[test]
fn gateway_row_14_a_grant_lets_a_backend_of_another_namespace_be_used() -> Result<()> {
    let (market, address) = with_edge(EDGE)?;
    market.lab.apply(
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: street}\n---\n\
         apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: stall, namespace: street}\n\
         spec:\n  parentRefs: [{name: edge, namespace: market}]\n  hostnames: [stall.example.com]\n  \
         rules: [{backendRefs: [{name: shop-v1, namespace: market, port: 80}]}]\n",
    )?;
    let url = format!("http://{address}/");
    soon_outside(&market, "500", &[&url, "--host", "stall.example.com"])?;
    market.lab.apply(
        "apiVersion: gateway.networking.k8s.io/v1beta1\nkind: ReferenceGrant\nmetadata: {name: stall, namespace: market}\n\
         spec:\n  from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: street}]\n  \
         to: [{group: '', kind: Service}]\n",
    )?;
    soon_outside(&market, "200", &[&url, "--host", "stall.example.com"])?;
    market.lab.kubectl(&["delete", "-n", "market", "referencegrant/stall"])?;
    soon_outside(&market, "500", &[&url, "--host", "stall.example.com"])?;
    Ok(())
}

#[test]
fn http_route_https_listener_the_edge_ends_tls_with_the_secrets_certificate() -> Result<()> {
    let https = format!(
        "{EDGE}  - name: https\n    port: 443\n    protocol: HTTPS\n    hostname: shop.example.com\n    \
         tls: {{certificateRefs: [{{name: shop}}]}}\n"
    );
    let market = Market::found()?;
    let dir = market.lab.dir();
    let (chain, key) = (dir.join("shop.pem"), dir.join("shop.key"));
    let made = std::process::Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=shop.example.com", "-addext", "subjectAltName=DNS:shop.example.com"])
        .arg("-out")
        .arg(&chain)
        .arg("-keyout")
        .arg(&key)
        .output()
        .context("openssl")?;
    ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let (cert, key) = (format!("--cert={}", chain.display()), format!("--key={}", key.display()));
    market.lab.kubectl(&["create", "secret", "tls", "shop", "-n", "market", &cert, &key])?;
    market.lab.apply(&https)?;
    market.programmed("edge")?;
    market.route(SHOP)?;
    let path = ".status.loadBalancer.ingress[0].ip";
    let address = market.lab.field("market", "service/edge-istio", path)?;
    let url = format!("https://{address}/");
    for version in [&[][..], &["--http2"]] {
        let args = [&[&*url, "--host", "shop.example.com"][..], version].concat();
        let said = soon_outside(&market, "200", &args)?;
        ensure!(said.backend("v1") == 1, "{said:?}");
    }
    // Another name is not served: there is no certificate for it.
    let said = from_outside(&market, &[&url, "--host", "other.example.com", "--timeout", "3"])?;
    ensure!(said.statuses().is_empty(), "{said:?}");
    Ok(())
}

/// What happens to a stranger's call through the edge while the shop's waypoint lets nobody pass: without and with the
/// label that sends the edge to the waypoint.
fn past_a_closed_waypoint(market: &Market, address: &str, without: &str) -> Result<()> {
    market.add_waypoint()?;
    market.route(SHOP)?;
    market.lab.apply(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: closed, namespace: market}\n\
         spec: {targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: waypoint}]}\n",
    )?;
    market.soon_status("403", &["http://shop-v1/"])?;
    let url = format!("http://{address}/");
    soon_outside(market, without, &[&url, "--host", "shop.example.com"])?;
    market.lab.kubectl(&["label", "-n", "market", "service/shop-v1", "istio.io/ingress-use-waypoint=true"])?;
    soon_outside(market, "403", &[&url, "--host", "shop.example.com"])?;
    Ok(())
}

#[test]
fn waypoint_row_18_the_edge_skips_the_waypoint_until_the_service_asks_for_it() -> Result<()> {
    // As the reference has it: what skips a waypoint skips its policies.
    let (market, address) = with_edge(EDGE)?;
    let mesh = market.lab.field("istio-system", "configmap/istio", ".data.mesh")?;
    let mesh = format!("{}\npromises: {{waypointRequired: reference}}\n", mesh.trim_end());
    let patch = serde_json::json!({"data": {"mesh": mesh}}).to_string();
    market.lab.kubectl(&["patch", "configmap/istio", "-n", "istio-system", "--type=merge", "-p", &patch])?;
    past_a_closed_waypoint(&market, &address, "200")
}

#[test]
fn by_default_the_edge_cannot_skip_a_waypoint_whose_policies_need_it() -> Result<()> {
    let (market, address) = with_edge(EDGE)?;
    past_a_closed_waypoint(&market, &address, "403")
}
