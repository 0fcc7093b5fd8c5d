//! DestinationRules at a waypoint: how endpoints are chosen, given up and spared.

use anyhow::{Result, ensure};
use tests_support::eventually;

use crate::features::{Feature, Want, answered, check_all, named, stall};
use crate::market::{Market, Said};
use crate::town::SOON;
use crate::{egress, live_changes};

/// Everything about DestinationRules and ServiceEntries, and changes while requests are under way, in one sandbox.
#[test]
fn features_of_destination_rules_and_of_live_changes() -> Result<()> {
    let market = Market::with_waypoint()?;
    let features = [live_changes::features(), egress::features(&market)?, balancing(), limits()];
    check_all(&market, features.into_iter().flatten().collect())
}

/// A Service for both versions of the shop with a DestinationRule for it.
fn with_policy(name: &str, policy: &str) -> String {
    format!(
        "{}---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\n\
         metadata: {{name: {name}, namespace: market}}\nspec:\n  host: {name}.market.svc.cluster.local\n  \
         subsets: [{{name: v1, labels: {{version: v1}}}}]\n  trafficPolicy: {policy}\n",
        stall(name, "")
    )
}

fn balancing() -> Vec<Feature> {
    let hash = |name: &str, by: &str| with_policy(name, &format!("{{loadBalancer: {{consistentHash: {{{by}}}}}}}"));
    vec![
        named!(destination_rule_round_robin, with_policy("dr-turns", "{loadBalancer: {simple: ROUND_ROBIN}}")),
        named!(destination_rule_random, with_policy("dr-random", "{loadBalancer: {simple: RANDOM}}")),
        named!(
            destination_rule_least_request_spares_the_busy,
            with_policy("dr-least", "{loadBalancer: {simple: LEAST_REQUEST}}")
        ),
        named!(destination_rule_hash_of_a_header, hash("dr-header", "httpHeaderName: x-user")),
        named!(
            destination_rule_hash_of_a_parameter,
            hash("dr-query", "httpQueryParameterName: user, maglev: {tableSize: 1021}")
        ),
        named!(destination_rule_hash_of_a_cookie, hash("dr-cookie", "httpCookie: {name: seat, path: /, ttl: 600s}")),
        named!(destination_rule_hash_of_the_callers_address, hash("dr-source", "useSourceIp: true")),
        named!(
            destination_rule_outlier_detection_ejects_a_failing_pod_for_a_while,
            with_policy(
                "dr-outlier",
                "{loadBalancer: {simple: ROUND_ROBIN}, outlierDetection: {consecutive5xxErrors: 3, interval: 500ms, \
                 baseEjectionTime: 3s, maxEjectionPercent: 100}}"
            )
        ),
    ]
}

fn limits() -> Vec<Feature> {
    vec![
        named!(
            destination_rule_limit_of_requests,
            with_policy("dr-requests", "{connectionPool: {http: {http2MaxRequests: 3}}}")
        ),
        named!(
            destination_rule_limits_of_connections_and_of_waiting_requests,
            with_policy(
                "dr-waiting",
                "{connectionPool: {tcp: {maxConnections: 1}, http: {http1MaxPendingRequests: 1}}}"
            )
        ),
        named!(
            destination_rule_limit_of_tcp_connections,
            with_policy("dr-tcp", "{connectionPool: {tcp: {maxConnections: 2}}}")
        ),
        named!(
            destination_rule_requests_per_connection,
            with_policy("dr-fresh", "{connectionPool: {http: {maxRequestsPerConnection: 1}}}")
        ),
        named!(
            routing_row_16_settings_of_a_port_stand_for_themselves,
            with_policy(
                "dr-port",
                "{connectionPool: {http: {h2UpgradePolicy: UPGRADE}}, portLevelSettings: [{port: {number: 8080}, \
                 loadBalancer: {simple: RANDOM}}]}"
            )
        ),
        named!(
            destination_rule_the_clients_protocol_is_kept,
            with_policy("dr-same", "{connectionPool: {http: {useClientProtocol: true}}}")
        ),
    ]
}

/// Both versions of the shop answered, and all was well.
fn both(said: &Said, requests: u64) -> bool {
    said.statuses() == [("200".to_owned(), requests)] && said.backend("v1") > 0 && said.backend("v2") > 0
}

fn destination_rule_round_robin(market: &Market) -> Result<()> {
    let said = market.soon("both take turns", &["http://dr-turns/", "-n", "20"], |said| Ok(both(said, 20)))?;
    ensure!(said.backend("v1") == 10 && said.backend("v2") == 10, "{said:?}");
    Ok(())
}

fn destination_rule_random(market: &Market) -> Result<()> {
    let said = &answered(market, &[("http://dr-random/ -n 200", Want::Status("200"))])?[0];
    // Five standard deviations are 35; turns would be exactly 100.
    ensure!((65..=135).contains(&said.backend("v1")) && said.backend("v1") + said.backend("v2") == 200, "{said:?}");
    Ok(())
}

fn destination_rule_least_request_spares_the_busy(market: &Market) -> Result<()> {
    let call = "http://dr-least/?echo-only=v1&echo-delay=100 -n 200 -c 8";
    let said = &answered(market, &[(call, Want::Status("200"))])?[0];
    // By chance it would be half of them, 135 at most; of two that are drawn, the slow one is busier nearly always.
    ensure!(said.backend("v2") > 135, "{said:?}");
    Ok(())
}

/// Each of twenty users has one server, whatever connection is used, and not all have the same.
fn one_server_each(market: &Market, call: impl Fn(u32) -> String) -> Result<()> {
    let lines: Vec<String> = (0..20).map(|user| format!("{} -n 6 -c 3", call(user))).collect();
    let words: Vec<Vec<&str>> = lines.iter().map(|line| line.split(' ').collect()).collect();
    let calls: Vec<&[&str]> = words.iter().map(Vec::as_slice).collect();
    eventually("every user has one server", SOON, || {
        let all = market.calls_from("market", "deploy/client", &calls)?;
        let of = |backend: &str| all.iter().filter(|said| said.backend(backend) == 6).count();
        ensure!(of("v1") + of("v2") == 20, "{} and {} of 20 stay at one server", of("v1"), of("v2"));
        ensure!(of("v1") > 0 && of("v2") > 0, "all have the same server");
        Ok(())
    })
}

fn destination_rule_hash_of_a_header(market: &Market) -> Result<()> {
    one_server_each(market, |user| format!("http://dr-header/ -H x-user:user-{user}"))
}

fn destination_rule_hash_of_a_parameter(market: &Market) -> Result<()> {
    one_server_each(market, |user| format!("http://dr-query/?a=b&user=user-{user}"))
}

fn destination_rule_hash_of_a_cookie(market: &Market) -> Result<()> {
    let said =
        market.soon("a cookie is given", &["http://dr-cookie/"], |said| Ok(!said.header("set-cookie").is_empty()))?;
    let cookie = said.header("set-cookie").join("; ");
    ensure!(cookie.starts_with("seat=") && cookie.contains("Max-Age=600") && cookie.contains("Path=/"), "{cookie}");
    let seat = cookie.split(';').next().unwrap_or_default();
    let (server, call) = (said.seen("/backend")?, format!("http://dr-cookie/ -n 12 -c 3 -H cookie:{seat}"));
    let said = &answered(market, &[(&call, Want::From(&server))])?[0];
    ensure!(said.header("set-cookie").is_empty(), "a second cookie: {said:?}");
    one_server_each(market, |user| format!("http://dr-cookie/ -H cookie:seat=user-{user}"))
}

fn destination_rule_hash_of_the_callers_address(market: &Market) -> Result<()> {
    let call = ["http://dr-source/", "-n", "20", "-c", "4", "--new-connections"];
    market.soon("one caller has one server", &call, |said| Ok(said.backend("v1") == 20 || said.backend("v2") == 20))?;
    Ok(())
}

fn destination_rule_outlier_detection_ejects_a_failing_pod_for_a_while(market: &Market) -> Result<()> {
    market.soon("both take turns", &["http://dr-outlier/", "-n", "10"], |said| Ok(both(said, 10)))?;
    let all = market.calls_from(
        "market",
        "deploy/client",
        &[&["http://dr-outlier/?echo-only=v2&echo-status=503", "-n", "20"], &["http://dr-outlier/", "-n", "20"]],
    )?;
    // Three failures, then it is left alone.
    ensure!(all[0].statuses() == [("200".to_owned(), 17), ("503".to_owned(), 3)], "{:?}", all[0]);
    ensure!(all[1].backend("v1") == 20, "{:?}", all[1]);
    market.soon("it is asked again", &["http://dr-outlier/", "-n", "10"], |said| Ok(both(said, 10))).map(drop)
}

/// How many of these requests were served, and how many were refused for a limit.
fn limited(said: &Said) -> Result<(u64, u64)> {
    let statuses = said.statuses();
    let [(ok, served), (no, refused)] = &*statuses else { anyhow::bail!("{said:?}") };
    ensure!(ok == "200" && no == "503" && said.errors().is_empty(), "{said:?}");
    Ok((*served, *refused))
}

fn destination_rule_limit_of_requests(market: &Market) -> Result<()> {
    let slow = ["http://dr-requests/?echo-delay=600", "-n", "10", "-c", "10"];
    let said = market.soon("some are refused", &slow, |said| Ok(said.statuses().len() == 2))?;
    let (served, refused) = limited(&said)?;
    // A worker may let one more in before it has heard of the others.
    ensure!((3..=5).contains(&served) && served + refused == 10, "{said:?}");
    // A quick check of what the refused see, and of what the log says.
    let said = eventually("the last one is refused", SOON, || {
        let said = market.call(&["http://dr-requests/?echo-delay=300", "-n", "12", "-c", "12"])?;
        ensure!(said.statuses().len() == 2, "{said:?}");
        Ok(said)
    })?;
    limited(&said)?;
    let selector = "gateway.networking.k8s.io/gateway-name=waypoint";
    eventually("the log has the flag UO", SOON, || {
        let log = market.lab.kubectl(&["logs", "-n", "market", "-l", selector, "--tail=2000"])?;
        let mut lines = log.lines().filter(|line| line.contains("dr-requests") && line.contains("UO"));
        ensure!(lines.next().is_some(), "no line of dr-requests has the flag");
        Ok(())
    })?;
    // With fewer at a time nobody is refused.
    answered(market, &[("http://dr-requests/ -n 30 -c 2", Want::Status("200"))]).map(drop)
}

fn destination_rule_limits_of_connections_and_of_waiting_requests(market: &Market) -> Result<()> {
    let slow = ["http://dr-waiting/?echo-delay=400", "-n", "12", "-c", "12"];
    let said = market.soon("some are refused", &slow, |said| Ok(said.statuses().len() == 2))?;
    let (served, refused) = limited(&said)?;
    // What waits for the first connection counts as waiting; a worker may let one more in than there is room for.
    ensure!((1..=4).contains(&served) && served + refused == 12, "{said:?}");
    Ok(())
}

fn destination_rule_limit_of_tcp_connections(market: &Market) -> Result<()> {
    let many =
        |count: &str| market.lab.exec("market", "deploy/client", &["load", "many", "dr-tcp:9000", "--count", count]);
    eventually("a third connection is refused", SOON, || many("3")?.failed())?;
    eventually("two at a time are served", SOON, || many("2")?.ok()).map(drop)
}

fn destination_rule_requests_per_connection(market: &Market) -> Result<()> {
    // Of one version, so that a connection could be used again.
    let route = "http: [{route: [{destination: {host: dr-fresh, subset: v1, port: {number: 80}}}]}]";
    market.lab.apply(&crate::virtual_services::rules("dr-fresh", &format!("  hosts: [dr-fresh]\n  {route}")))?;
    eventually("every request has a connection of its own", SOON, || {
        let calls: [&[&str]; 4] = [&["http://dr-fresh/"]; 4];
        let all = market.calls_from("market", "deploy/client", &calls)?;
        let sources = all.iter().map(|said| said.seen("/source")).collect::<Result<std::collections::BTreeSet<_>>>()?;
        ensure!(all.iter().all(|said| said.backend("v1") == 1) && sources.len() == 4, "{sources:?}");
        Ok(())
    })
}

fn routing_row_16_settings_of_a_port_stand_for_themselves(market: &Market) -> Result<()> {
    market.soon("port 80 is upgraded", &["http://dr-port/"], |said| Ok(said.seen("/protocol")? == "HTTP/2.0"))?;
    let said = answered(market, &[("http://dr-port:8080/", Want::Status("200"))])?;
    ensure!(said[0].seen("/protocol")? == "HTTP/1.1", "{said:?}");
    Ok(())
}

fn destination_rule_the_clients_protocol_is_kept(market: &Market) -> Result<()> {
    market.soon(
        "HTTP/2 stays so",
        &["http://dr-same/", "--http2"],
        |said| Ok(said.seen("/protocol")? == "HTTP/2.0"),
    )?;
    let said = answered(market, &[("http://dr-same/", Want::Status("200"))])?;
    ensure!(said[0].seen("/protocol")? == "HTTP/1.1", "{said:?}");
    Ok(())
}
