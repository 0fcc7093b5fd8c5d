//! Waypoints: made by `kubectl apply` of a Gateway, and what they do with requests of the mesh.

use std::time::Duration;

use anyhow::{Result, ensure};
use tests_support::eventually;

use crate::features::{Want, answered, check_all, named, stall, stall_with_route};
use crate::market::Market;
use crate::town::SOON;

#[test]
fn waypoint_row_1_waypoint_row_2_waypoint_row_12_waypoint_row_20_and_what_else_passes_a_waypoint() -> Result<()> {
    let market = Market::with_waypoint()?;
    let features = vec![
        named!(waypoint_row_1_calls_of_a_service_go_through_its_waypoint_to_an_endpoint, ""),
        named!(
            waypoint_row_2_and_waypoint_row_20_only_ports_of_the_service_are_served_and_pods_are_not,
            stall_with_route("HTTPRoute", "marked", MARKED)
        ),
        named!(waypoint_row_12_a_service_without_endpoints_answers_503, ""),
        named!(
            a_canary_gets_a_tenth_and_a_header_chooses_the_new_version,
            stall_with_route("HTTPRoute", "canary", CANARY)
        ),
        named!(
            mesh_http_route_retry_heals_faults_and_timeouts_end_slow_answers,
            stall_with_route("HTTPRoute", "frail", FRAIL)
        ),
        named!(raw_tcp_and_what_speaks_first_pass_a_waypoint_unchanged, ""),
        named!(web_sockets_pass_a_waypoint, stall("sockets", "")),
    ];
    check_all(&market, features)
}

fn waypoint_row_1_calls_of_a_service_go_through_its_waypoint_to_an_endpoint(market: &Market) -> Result<()> {
    market.passed_waypoint("http://shop/")?;
    let said = market.call(&["http://shop/x?y=1", "-n", "20"])?;
    ensure!(said.statuses() == [("200".to_owned(), 20)], "{said:?}");
    ensure!(said.backend("v1") > 0 && said.backend("v2") > 0, "{said:?}");
    ensure!(said.seen("/path")? == "/x?y=1" && said.seen("/method")? == "GET", "{said:?}");
    // By HTTP/2 and gRPC too.
    let said = market.call(&["http://shop:82/", "--http2", "-n", "5"])?;
    ensure!(said.statuses() == [("200".to_owned(), 5)] && said.seen("/protocol")? == "HTTP/2.0", "{said:?}");
    let said = market.call(&["grpc://shop:81/shop.Till/Ping", "-n", "5"])?;
    ensure!(said.statuses() == [("grpc 0".to_owned(), 5)], "{said:?}");
    ensure!(said.seen("/path")? == "/shop.Till/Ping", "{said:?}");
    Ok(())
}

const MARKED: &str =
    "  - filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-route, value: taken}]}}]
    backendRefs: [{name: marked, port: 80}]";

fn waypoint_row_2_and_waypoint_row_20_only_ports_of_the_service_are_served_and_pods_are_not(
    market: &Market,
) -> Result<()> {
    market.soon("the route is in force", &["http://marked/"], |said| {
        Ok(said.seen_maybe("/headers/x-route").as_deref() == Some("taken"))
    })?;
    let said = market.call(&["http://marked:9999/", "--timeout", "3"])?;
    ensure!(said.statuses().is_empty() && said.errors().len() == 1, "{said:?}");
    // The pod itself: no waypoint, no route.
    let path = "jsonpath={.items[0].status.podIP}";
    let pod = market.lab.kubectl(&["get", "pods", "-n", "market", "-l", "app=shop,version=v1", "-o", path])?;
    let said = market.call(&[&format!("http://{pod}:8080/")])?;
    ensure!(said.statuses() == [("200".to_owned(), 1)], "{said:?}");
    ensure!(said.seen_maybe("/headers/x-route").is_none(), "{said:?}");
    Ok(())
}

fn waypoint_row_12_a_service_without_endpoints_answers_503(market: &Market) -> Result<()> {
    let said = &answered(market, &[("http://nobody/", Want::Status("503"))])?[0];
    let text = said.last()["text"].as_str().unwrap_or_default().to_owned();
    ensure!(text.contains("no healthy upstream"), "{said:?}");
    Ok(())
}

const CANARY: &str = "  - matches: [{headers: [{name: x-version, value: v2}]}]
    backendRefs: [{name: shop-v2, port: 80}]
  - backendRefs: [{name: shop-v1, port: 80, weight: 90}, {name: shop-v2, port: 80, weight: 10}]";

fn a_canary_gets_a_tenth_and_a_header_chooses_the_new_version(market: &Market) -> Result<()> {
    answered(market, &[("http://canary/ -H x-version:v2 -n 20", Want::From("v2"))])?;
    let said = market.call(&["http://canary/", "-n", "1000", "-c", "4"])?;
    ensure!(said.statuses() == [("200".to_owned(), 1000)], "{said:?}");
    ensure!((60..=145).contains(&said.backend("v2")), "{said:?}");
    Ok(())
}

const FRAIL: &str = "  - matches: [{path: {value: /frail}}]
    retry: {attempts: 3, codes: [503], backoff: 10ms}
    backendRefs: [{name: shop-v1, port: 80}]
  - matches: [{path: {value: /slow}}]
    timeouts: {request: 500ms}
    backendRefs: [{name: shop-v1, port: 80}]
  - backendRefs: [{name: shop, port: 80}]";

fn mesh_http_route_retry_heals_faults_and_timeouts_end_slow_answers(market: &Market) -> Result<()> {
    let said = answered(market, &[("http://frail/slow?echo-delay=3000", Want::Status("504"))])?;
    let took = said[0].longest();
    ensure!((Duration::from_millis(450)..Duration::from_millis(1500)).contains(&took), "{took:?}");
    answered(
        market,
        &[
            ("http://frail/frail?echo-statuses=503,503,200&echo-key=a", Want::From("v1")),
            // Without the rule a 503 is a 503.
            ("http://frail/other?echo-status=503", Want::Status("503")),
        ],
    )
    .map(drop)
}

fn raw_tcp_and_what_speaks_first_pass_a_waypoint_unchanged(market: &Market) -> Result<()> {
    for args in [&["load", "digest", "shop:9002", "--mib", "8"][..], &["load", "banner", "shop:9001"]] {
        eventually(&args.join(" "), SOON, || market.lab.exec("market", "deploy/client", args)?.ok())?;
    }
    Ok(())
}

fn web_sockets_pass_a_waypoint(market: &Market) -> Result<()> {
    let args = ["load", "ws", "http://sockets/ws", "--count", "50"];
    let said = eventually("a WebSocket is opened", SOON, || market.lab.exec("market", "deploy/client", &args)?.ok())?;
    ensure!(said.contains("50 texts came back"), "{said}");
    Ok(())
}

#[test]
fn waypoint_row_13_and_waypoint_row_15_refusals_of_node_proxies_and_rolling_restarts() -> Result<()> {
    let market = Market::with_waypoint()?;
    a_refusal_of_the_pods_node_proxy_is_a_503_without_a_storm(&market)?;
    a_rolling_restart_loses_no_request(&market).map_err(|error| error.context(market.diagnosis()))
}

fn a_refusal_of_the_pods_node_proxy_is_a_503_without_a_storm(market: &Market) -> Result<()> {
    market.lab.apply(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: nobody, namespace: market}\n\
         spec: {selector: {matchLabels: {app: shop}}}\n",
    )?;
    market.soon_status("503", &["http://shop/"])?;
    market.lab.kubectl(&["delete", "-n", "market", "authorizationpolicy/nobody"])?;
    market.soon_status("200", &["http://shop/"]).map(drop)
}

fn a_rolling_restart_loses_no_request(market: &Market) -> Result<()> {
    let calls = ["http://shop/?echo-delay=100", "-n", "600", "-c", "20", "--timeout", "20"];
    std::thread::scope(|scope| {
        let load = scope.spawn(|| market.call(&calls));
        market.lab.kubectl(&["rollout", "restart", "-n", "market", "deployment/waypoint"])?;
        market.lab.rolled_out("market", "waypoint")?;
        let said = load.join().map_err(|_| anyhow::anyhow!("the load panicked"))??;
        ensure!(said.statuses() == [("200".to_owned(), 600)] && said.errors().is_empty(), "{said:?}");
        Ok(())
    })
}
