//! VirtualServices at a waypoint: what a user of Istio expects of each of their fields.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests_support::eventually;

use crate::features::{Feature, Want, answered, check_all, named, stall};
use crate::market::Market;
use crate::servers::{secret, vault};
use crate::town::SOON;
use crate::virtual_service_effects;

/// Everything about VirtualServices, in one sandbox.
#[test]
fn features_of_virtual_services() -> Result<()> {
    let market = Market::with_waypoint()?;
    secret(&market, "market", "vault", &["*.market.svc.cluster.local"])?;
    market.lab.apply(&[vault("market", "v1"), vault("market", "v2")].join("---\n"))?;
    for version in ["v1", "v2"] {
        market.lab.rolled_out("market", &format!("vault-{version}"))?;
    }
    let features = [choice(), connections(), virtual_service_effects::features()].into_iter().flatten().collect();
    check_all(&market, features)
}

/// A Service for both versions of the shop with subsets `v1` and `v2`, and a VirtualService for it.
pub(crate) fn with_rules(name: &str, spec: &str) -> String {
    format!(
        "{}---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\n\
         metadata: {{name: {name}, namespace: market}}\nspec:\n  host: {name}\n  \
         subsets: [{{name: v1, labels: {{version: v1}}}}, {{name: v2, labels: {{version: v2}}}}]\n---\n{}",
        stall(name, ""),
        rules(name, &format!("  hosts: [{name}]\n{}", spec.trim_start_matches('\n')))
    )
}

/// A VirtualService.
pub(crate) fn rules(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}, namespace: market}}\n\
         spec:\n{spec}\n"
    )
}

fn choice() -> Vec<Feature> {
    vec![
        named!(routing_row_14_virtual_service_rules_are_tried_in_their_written_order, with_rules("vs-order", ORDER)),
        named!(virtual_service_matches_by_every_kind_of_condition, with_rules("vs-match", MATCH)),
        named!(virtual_service_weights_and_subsets, with_rules("vs-weights", WEIGHTS)),
        named!(virtual_service_destinations_that_do_not_exist, with_rules("vs-lost", LOST)),
        named!(virtual_service_delegates_to_others, delegates()),
        named!(virtual_services_that_do_not_count_at_a_waypoint, with_rules("vs-elsewhere", ELSEWHERE)),
        named!(virtual_service_loses_against_routes_of_the_gateway_api, contested()),
        named!(virtual_services_of_one_host_are_tried_one_after_the_other, String::new()),
    ]
}

fn connections() -> Vec<Feature> {
    vec![
        named!(virtual_service_tcp_routes_and_their_weights, with_rules("vs-tcp", TCP)),
        named!(virtual_service_tls_routes_for_the_services_own_name, TLS),
    ]
}

const ORDER: &str = "
  http:
  - match: [{uri: {prefix: /a}}]
    route: [{destination: {host: vs-order, subset: v1}}]
  - route: [{destination: {host: vs-order, subset: v2}}]
  - match: [{uri: {prefix: /a/b}}]
    directResponse: {status: 418}";

fn routing_row_14_virtual_service_rules_are_tried_in_their_written_order(market: &Market) -> Result<()> {
    answered(
        market,
        &[
            ("http://vs-order/a/b", Want::From("v1")),
            // A prefix is one of the text, not of segments.
            ("http://vs-order/apple", Want::From("v1")),
            ("http://vs-order/c", Want::From("v2")),
        ],
    )
    .map(drop)
}

const MATCH: &str = "
  http:
  - match: [{uri: {exact: /exact}, ignoreUriCase: true}, {uri: {regex: '/v[0-9]+/.*'}}]
    route: [{destination: {host: vs-match, subset: v1}}]
  - match: [{method: {exact: PUT}, uri: {prefix: /verb}}]
    route: [{destination: {host: vs-match, subset: v1}}]
  - match: [{headers: {x-user: {prefix: a}, x-any: {}}, uri: {prefix: /header}}]
    route: [{destination: {host: vs-match, subset: v1}}]
  - match: [{withoutHeaders: {x-user: {exact: bob}}, uri: {prefix: /without}}]
    route: [{destination: {host: vs-match, subset: v1}}]
  - match: [{queryParams: {q: {exact: one}}, uri: {prefix: /query}}]
    route: [{destination: {host: vs-match, subset: v1}}]
  - match: [{authority: {regex: '.*\\.example\\.com'}, uri: {prefix: /host}}]
    route: [{destination: {host: vs-match, subset: v1}}]
  - match: [{port: 8080, uri: {prefix: /port}}]
    route: [{destination: {host: vs-match, subset: v1, port: {number: 80}}}]
  - match: [{sourceLabels: {app: client}, uri: {prefix: /labels}}]
    route: [{destination: {host: vs-match, subset: v1}}]
  - route: [{destination: {host: vs-match, subset: v2}}]";

fn virtual_service_matches_by_every_kind_of_condition(market: &Market) -> Result<()> {
    let (yes, no) = (|| Want::From("v1"), || Want::From("v2"));
    answered(
        market,
        &[
            ("http://vs-match/EXACT", yes()),
            ("http://vs-match/exact/more", no()),
            ("http://vs-match/v12/x", yes()),
            ("http://vs-match/x/v12/x", no()),
            ("http://vs-match/verb -X PUT", yes()),
            ("http://vs-match/verb -X POST", no()),
            ("http://vs-match/header -H X-User:alice -H x-any:1", yes()),
            ("http://vs-match/header -H X-User:alice", no()),
            ("http://vs-match/header -H x-user:bob -H x-any:1", no()),
            ("http://vs-match/without -H x-user:alice", yes()),
            ("http://vs-match/without", yes()),
            ("http://vs-match/without -H x-user:bob", no()),
            ("http://vs-match/query?p=0&q=one", yes()),
            ("http://vs-match/query?q=ones", no()),
            ("http://vs-match/host --host a.example.com", yes()),
            ("http://vs-match/host", no()),
            ("http://vs-match:8080/port", yes()),
            ("http://vs-match/port", no()),
            // Who calls is not known by labels at a waypoint.
            ("http://vs-match/labels", no()),
        ],
    )
    .map(drop)
}

const WEIGHTS: &str = "
  http:
  - route:
    - {destination: {host: vs-weights, subset: v1}, weight: 80}
    - {destination: {host: vs-weights, subset: v2}, weight: 20}
    - {destination: {host: nobody, port: {number: 80}}, weight: 0}";

fn virtual_service_weights_and_subsets(market: &Market) -> Result<()> {
    let said = &answered(market, &[("http://vs-weights/ -n 500 -c 4", Want::Status("200"))])?[0];
    // Five standard deviations are 45.
    ensure!((55..=145).contains(&said.backend("v2")) && said.backend("v1") + said.backend("v2") == 500, "{said:?}");
    Ok(())
}

const LOST: &str = "
  http:
  - match: [{uri: {prefix: /subset}}]
    route: [{destination: {host: vs-lost, subset: v3}}]
  - match: [{uri: {prefix: /host}}]
    route: [{destination: {host: not-there}}]
  - match: [{uri: {prefix: /empty}}]
    route: [{destination: {host: nobody, port: {number: 80}}}]
  - route: [{destination: {host: vs-lost, subset: v1}}]";

fn virtual_service_destinations_that_do_not_exist(market: &Market) -> Result<()> {
    let said = answered(
        market,
        &[
            ("http://vs-lost/subset", Want::Status("503")),
            ("http://vs-lost/host", Want::Status("503")),
            ("http://vs-lost/empty", Want::Status("503")),
            ("http://vs-lost/", Want::From("v1")),
        ],
    )?;
    let text = said[2].last()["text"].as_str().unwrap_or_default();
    ensure!(text == "no healthy upstream", "{said:?}");
    Ok(())
}

fn delegates() -> String {
    let root = with_rules(
        "vs-root",
        "
  http:
  - match: [{uri: {prefix: /orders}}]
    delegate: {name: vs-orders}
  - match: [{uri: {prefix: /gone}}]
    delegate: {name: vs-nobody}
  - route: [{destination: {host: vs-root, subset: v2}}]",
    );
    let orders = rules(
        "vs-orders",
        "  http:\n  - match: [{uri: {prefix: /orders/old}}]\n    directResponse: {status: 410}\n  \
         - match: [{uri: {prefix: /other}}]\n    directResponse: {status: 418}\n  \
         - route: [{destination: {host: vs-root, subset: v1}}]",
    );
    format!("{root}---\n{orders}")
}

fn virtual_service_delegates_to_others(market: &Market) -> Result<()> {
    answered(
        market,
        &[
            ("http://vs-root/orders/1", Want::From("v1")),
            ("http://vs-root/orders/old", Want::Status("410")),
            // Not a part of what was delegated.
            ("http://vs-root/other", Want::From("v2")),
            ("http://vs-root/gone", Want::Status("503")),
        ],
    )
    .map(drop)
}

const ELSEWHERE: &str = "
  gateways: [some-gateway]
  http: [{directResponse: {status: 418}}]";

fn virtual_services_that_do_not_count_at_a_waypoint(market: &Market) -> Result<()> {
    // Of another namespace than the service's and the waypoint's.
    market.lab.apply(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: foreign, namespace: outside}\n\
         spec:\n  hosts: [vs-elsewhere.market.svc.cluster.local]\n  http: [{directResponse: {status: 418}}]\n",
    )?;
    // What was applied after them is in force, so they would be.
    market.lab.apply(&with_rules("vs-after", "  http: [{directResponse: {status: 299}}]"))?;
    answered(market, &[("http://vs-after/", Want::Status("299"))])?;
    answered(market, &[("http://vs-elsewhere/ -n 10", Want::Status("200"))]).map(drop)
}

fn contested() -> String {
    format!(
        "{}---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n\
         metadata: {{name: vs-contested, namespace: market}}\nspec:\n  \
         parentRefs: [{{group: '', kind: Service, name: vs-contested}}]\n  rules:\n  \
         - backendRefs: [{{name: shop-v2, port: 80}}]\n",
        with_rules("vs-contested", "  http: [{directResponse: {status: 418}}]")
    )
}

fn virtual_service_loses_against_routes_of_the_gateway_api(market: &Market) -> Result<()> {
    answered(market, &[("http://vs-contested/ -n 10", Want::From("v2"))])?;
    let status = eventually("the status says why it has no effect", SOON, || {
        let said = market.lab.field("market", "virtualservice/vs-contested", ".status")?;
        ensure!(said.contains("routes of the Gateway API, which win"), "{said:?}");
        Ok(said)
    })?;
    ensure!(status.contains("vs-contested"), "{status}");
    market.lab.kubectl(&["delete", "-n", "market", "httproute/vs-contested"])?;
    answered(market, &[("http://vs-contested/", Want::Status("418"))]).map(drop)
}

fn virtual_services_of_one_host_are_tried_one_after_the_other(market: &Market) -> Result<()> {
    let first = with_rules("vs-many", "  http: [{match: [{uri: {prefix: /one}}], directResponse: {status: 291}}]");
    market.lab.apply(&first)?;
    answered(market, &[("http://vs-many/one", Want::Status("291")), ("http://vs-many/", Want::Status("404"))])?;
    // The name decides between those of one second.
    let later = "  hosts: [vs-many]\n  http:\n  - match: [{uri: {prefix: /one}}]\n    directResponse: {status: 418}\n  \
                 - route: [{destination: {host: vs-many, subset: v2}}]";
    market.lab.apply(&rules("vs-many-later", later))?;
    answered(market, &[("http://vs-many/", Want::From("v2")), ("http://vs-many/one", Want::Status("291"))]).map(drop)
}

const TCP: &str = "
  tcp:
  - match: [{port: 9001}]
    route:
    - {destination: {host: vs-tcp, subset: v1, port: {number: 9001}}, weight: 3}
    - {destination: {host: vs-tcp, subset: v2, port: {number: 9001}}, weight: 1}";

fn virtual_service_tcp_routes_and_their_weights(market: &Market) -> Result<()> {
    let script = "for i in $(seq 120); do load banner vs-tcp:9001; done";
    eventually("connections are shared out three to one", SOON, || {
        let said = market.lab.exec("market", "deploy/client", &["sh", "-ec", script])?.ok()?;
        let of = |version: &str| said.matches(&format!("from shop-{version}-")).count();
        // Five standard deviations are 24.
        ensure!((6..=54).contains(&of("v2")) && of("v1") + of("v2") == 120, "v1 {} v2 {}", of("v1"), of("v2"));
        Ok(())
    })
}

const TLS: &str = "
apiVersion: v1
kind: Service
metadata: {name: vs-vault, namespace: market}
spec: {selector: {app: vault}, ports: [{name: tls, port: 443, targetPort: 8443}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: vs-vault, namespace: market}
spec:
  hosts: [vs-vault.market.svc.cluster.local]
  tls:
  - match: [{port: 443, sniHosts: [vs-vault.market.svc.cluster.local]}]
    route: [{destination: {host: vault-v2.market.svc.cluster.local, port: {number: 443}}}]
";

fn virtual_service_tls_routes_for_the_services_own_name(market: &Market) -> Result<()> {
    let said = answered(
        market,
        &[
            ("https://vs-vault/ --host vs-vault.market.svc.cluster.local -n 8 --new-connections", Want::From("v2")),
            ("https://vs-vault/ --host other.example.com -n 20 --new-connections", Want::Status("200")),
        ],
    )?;
    let sni = said[0].seen("/tls/sni").context("the server ends TLS itself")?;
    ensure!(sni == "vs-vault.market.svc.cluster.local", "{sni}");
    ensure!(said[1].backend("v1") > 0 && said[1].longest() < Duration::from_secs(5), "{said:?}");
    Ok(())
}
