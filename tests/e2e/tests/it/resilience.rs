//! What a waypoint and a gateway do about endpoints that are far, new, failing or behind a load balancer.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tests_support::eventually;

use crate::edge::outcome;
use crate::features::{Feature, Want, answered, check_all, named, outside, stall, stall_with_route};
use crate::market::Market;
use crate::town::SOON;

/// Each node has a zone of its own, and gateways stand behind load balancers that send PROXY headers.
#[test]
fn features_of_resilience() -> Result<()> {
    let market = Market::found()?;
    behind_balancers(&market)?;
    market.add_waypoint()?;
    market.add_edge(EDGE)?;
    check_all(&market, features())
}

fn features() -> Vec<Feature> {
    vec![
        named!(a_new_endpoint_gets_little_at_first, [aged("old", 1), aged("new", 0), WARM.to_owned()].join("---\n")),
        named!(
            the_nearest_zone_serves_and_the_next_one_when_it_fails_or_is_gone,
            [spread("node-1"), spread("node-2"), SPREAD.to_owned()].join("---\n")
        ),
        named!(
            retries_of_a_service_that_always_fails_stay_within_their_budget,
            [stall_with_route("HTTPRoute", "thrifty", THRIFTY), BUDGET.to_owned()].join("---\n")
        ),
        named!(
            http_route_session_persistence_keeps_a_client_at_its_server,
            stall_with_route("HTTPRoute", "seats", SEATS)
        ),
        named!(
            proxy_headers_tell_a_backend_and_a_gateway_who_the_client_is,
            [stall("told", "v1"), PROXIED.to_owned()].join("---\n")
        ),
    ]
}

/// A server of the market.
fn server(name: &str, app: &str, replicas: u32, node: &str) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}, namespace: market}}\nspec:\n  \
         replicas: {replicas}\n  selector: {{matchLabels: {{app: {app}, server: {name}}}}}\n  template:\n    \
         metadata: {{labels: {{app: {app}, server: {name}}}}}\n    spec:\n      terminationGracePeriodSeconds: 1\n      \
         nodeSelector: {{kubernetes.io/hostname: {node}}}\n      containers:\n      - name: server\n        \
         image: meltemi/echo\n        args: [\"--http\", \"8080\"]\n        \
         ports: [{{name: http, containerPort: 8080}}]\n        \
         readinessProbe: {{httpGet: {{path: /, port: http}}, periodSeconds: 1}}\n        \
         env: [{{name: BACKEND, value: {name}}}]\n"
    )
}

fn aged(name: &str, replicas: u32) -> String {
    server(name, "aged", replicas, "node-2")
}

const WARM: &str = "apiVersion: v1
kind: Service
metadata: {name: aged, namespace: market}
spec: {selector: {app: aged}, ports: [{name: http, port: 80, targetPort: http}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: aged, namespace: market}
spec:
  host: aged.market.svc.cluster.local
  trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN, warmup: {duration: 10s, minimumPercent: 10}}}
";

fn a_new_endpoint_gets_little_at_first(market: &Market) -> Result<()> {
    answered(market, &[("http://aged/ -n 5", Want::From("old"))])?;
    // Only who has been there for the whole time is warm, and a service of new endpoints has nobody to spare them.
    sleep(Duration::from_secs(10));
    market.lab.kubectl(&["scale", "-n", "market", "deploy/new", "--replicas=1"])?;
    market.soon("the new one is there", &["http://aged/", "-n", "40"], |said| Ok(said.backend("new") > 0))?;
    let said = &answered(market, &[("http://aged/ -n 40", Want::Status("200"))])?[0];
    // Twenty would be its share; it has had three seconds of ten at most.
    ensure!((1..=14).contains(&said.backend("new")), "{said:?}");
    let even = |said: &crate::market::Said| Ok((18..=22).contains(&said.backend("new")));
    market.soon("it has its share", &["http://aged/", "-n", "40"], even).map(drop)
}

fn spread(node: &str) -> String {
    server(&format!("at-{node}"), "spread", 1, node)
}

const SPREAD: &str = "apiVersion: v1
kind: Service
metadata: {name: spread-rule, namespace: market}
spec: {selector: {app: spread}, ports: [{name: http, port: 80, targetPort: http}]}
---
apiVersion: v1
kind: Service
metadata: {name: spread-close, namespace: market}
spec:
  selector: {app: spread}
  trafficDistribution: PreferClose
  ports: [{name: http, port: 80, targetPort: http}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: spread-rule, namespace: market}
spec:
  host: spread-rule.market.svc.cluster.local
  trafficPolicy:
    loadBalancer: {localityLbSetting: {enabled: true}}
    outlierDetection: {consecutive5xxErrors: 3, interval: 500ms, baseEjectionTime: 3s, maxEjectionPercent: 100}
";

fn the_nearest_zone_serves_and_the_next_one_when_it_fails_or_is_gone(market: &Market) -> Result<()> {
    let path = "jsonpath={.items[0].spec.nodeName}";
    let selector = "gateway.networking.k8s.io/gateway-name=waypoint";
    let node = market.lab.kubectl(&["get", "pods", "-n", "market", "-l", selector, "-o", path])?;
    let (near, far) = if node == "node-1" { ("at-node-1", "at-node-2") } else { ("at-node-2", "at-node-1") };
    let both_from = |name| {
        let calls = ["http://spread-rule/ -n 20 -c 4", "http://spread-close/ -n 20 -c 4"];
        answered(market, &calls.map(|call| (call, Want::From(name))))
    };
    for name in [near, far] {
        market.lab.rolled_out("market", name)?;
    }
    both_from(near).context("the nearest")?;
    // Three failures, then the next zone.
    let said = market.call(&[&format!("http://spread-rule/?echo-only={near}&echo-status=503"), "-n", "20"])?;
    ensure!(said.statuses() == [("200".to_owned(), 17), ("503".to_owned(), 3)], "{said:?}");
    ensure!(said.backend(far) == 17, "{said:?}");
    both_from(near).context("the nearest, which is well again")?;
    let scale = |replicas: &str| {
        let replicas = format!("--replicas={replicas}");
        market.lab.kubectl(&["scale", "-n", "market", &format!("deploy/{near}"), &replicas]).map(drop)
    };
    scale("0")?;
    both_from(far).context("the nearest is gone")?;
    scale("1")?;
    both_from(near).context("the nearest is back").map(drop)
}

const THRIFTY: &str = "  - retry: {attempts: 3, codes: [503], backoff: 1ms}
    backendRefs: [{name: thrifty, port: 80}]";

const BUDGET: &str = "apiVersion: gateway.networking.x-k8s.io/v1alpha1
kind: XBackendTrafficPolicy
metadata: {name: thrifty, namespace: market}
spec:
  targetRefs: [{group: '', kind: Service, name: thrifty}]
  retryConstraint: {budget: {percent: 20, interval: 10s}, minRetryRate: {count: 1, interval: 1s}}
";

fn retries_of_a_service_that_always_fails_stay_within_their_budget(market: &Market) -> Result<()> {
    let healed = "http://thrifty/?echo-statuses=503,200&echo-key=thrifty -n 1";
    answered(market, &[(healed, Want::Status("200"))]).context("a retry")?;
    let count = |name: &str| -> Result<usize> {
        let calls = ["v1", "v2"].map(|version| format!("http://shop-{version}/echo/recorded/{name}"));
        let calls: Vec<[&str; 1]> = calls.iter().map(|call| [call.as_str()]).collect();
        let calls: Vec<&[&str]> = calls.iter().map(<[&str; 1]>::as_slice).collect();
        let said = market.calls_from("market", "deploy/client", &calls)?;
        Ok(said.iter().map(|said| said.last()["json"].as_array().map_or(0, Vec::len)).sum())
    };
    let mut round = 0;
    eventually("the budget holds", SOON, || {
        round += 1;
        let name = format!("thrifty-{round}");
        let said = market.call(&[&format!("http://thrifty/?echo-status=503&echo-record={name}"), "-n", "100"])?;
        ensure!(said.statuses() == [("503".to_owned(), 100)], "{said:?}");
        let asked = count(&name)?;
        // A fifth more, and one a second. Without a budget it would be 400.
        ensure!((101..=130).contains(&asked), "100 requests became {asked}");
        Ok(())
    })
}

const SEATS: &str = "  - sessionPersistence: {sessionName: seat, type: Cookie}
    backendRefs: [{name: seats, port: 80}]";

fn http_route_session_persistence_keeps_a_client_at_its_server(market: &Market) -> Result<()> {
    let mut met = Vec::new();
    eventually("clients have seats at both servers", SOON, || {
        let said = market.call(&["http://seats/"])?;
        let cookie = said.header("set-cookie").join("; ");
        ensure!(cookie.starts_with("seat=") && cookie.contains("HttpOnly"), "{said:?}");
        let (server, seat) = (said.seen("/backend")?, cookie.split(';').next().unwrap_or_default().to_owned());
        if met.iter().all(|(other, _)| *other != server) {
            met.push((server, seat));
        }
        ensure!(met.len() == 2, "only one server so far: {met:?}");
        Ok(())
    })?;
    for (server, seat) in &met {
        let call = format!("http://seats/ -n 20 -c 4 -H cookie:{seat}");
        let said = &answered(market, &[(&call, Want::From(server))])?[0];
        ensure!(said.header("set-cookie").is_empty(), "a second cookie: {said:?}");
    }
    // A cookie of somewhere else is as good as none.
    let said = &answered(market, &[("http://seats/ -H cookie:seat=bm9ib2R5", Want::Status("200"))])?[0];
    ensure!(said.header("set-cookie").len() == 1, "{said:?}");
    Ok(())
}

const EDGE: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge, namespace: market}
spec:
  gatewayClassName: istio
  listeners: [{name: http, port: 80, protocol: HTTP}]
";

/// The waypoint plays the load balancer: it sends PROXY headers to a server, and to the edge as an endpoint of a service.
const PROXIED: &str = "apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: told, namespace: market}
spec: {host: told.market.svc.cluster.local, trafficPolicy: {proxyProtocol: {version: V1}}}
---
apiVersion: v1
kind: Service
metadata: {name: balancer, namespace: market}
spec:
  selector: {gateway.networking.k8s.io/gateway-name: edge}
  ports: [{name: http, port: 80}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: balancer, namespace: market}
spec: {host: balancer.market.svc.cluster.local, trafficPolicy: {proxyProtocol: {version: V2}}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: balanced, namespace: market}
spec:
  parentRefs: [{name: edge}]
  rules: [{backendRefs: [{name: shop-v1, port: 80}]}]
";

fn behind_balancers(market: &Market) -> Result<()> {
    let map = "configmap/istio";
    let mesh = market.lab.field("istio-system", map, ".data.mesh")?;
    let mesh = format!("{mesh}\ndefaultConfig: {{gatewayTopology: {{proxyProtocol: {{}}}}}}\n");
    let patch = json!({"data": {"mesh": mesh}}).to_string();
    market.lab.kubectl(&["patch", "-n", "istio-system", map, "--type=merge", "-p", &patch]).map(drop)
}

fn proxy_headers_tell_a_backend_and_a_gateway_who_the_client_is(market: &Market) -> Result<()> {
    let path = "jsonpath={.items[0].status.podIP}";
    let client = market.lab.kubectl(&["get", "pods", "-n", "market", "-l", "app=client", "-o", path])?;
    let said = eventually("a header comes back", SOON, || {
        let said = market.lab.exec("market", "deploy/client", &["load", "half-close", "told:9000"])?.ok()?;
        ensure!(said.starts_with(&format!("PROXY TCP4 {client} ")), "{said:?}");
        Ok(said)
    })?;
    let words: Vec<&str> = said.lines().next().unwrap_or_default().split(' ').collect();
    ensure!(words.len() == 6 && words[5] == "9000" && said.contains("\r\nhalf-closed\nbye "), "{said:?}");
    let said = answered(market, &[("http://balancer/ -n 5 -c 2", Want::From("v1"))])?;
    let seen = said[0].request_header("x-forwarded-for");
    ensure!(seen.ends_with(&client), "the gateway takes {seen:?} for the client, not {client}");
    // Who sends no header is not served.
    let said = outside(market, &[("http://EDGE/ --timeout 3", Want::Nothing)])?;
    ensure!(outcome(&said[0]) == "nothing", "{said:?}");
    Ok(())
}
