//! Changes of configuration take effect for new requests, and those that are under way do not notice. They share the sandbox
//! of [`crate::destination_rules`].

use anyhow::{Result, anyhow, ensure};
use tests_support::eventually;

use crate::features::{Feature, Want, answered, named, stall};
use crate::market::{Market, Said};
use crate::town::SOON;
use crate::virtual_services::rules;

pub(crate) fn features() -> Vec<Feature> {
    vec![named!(changes_of_configuration_do_not_disturb_requests_under_way, stall("live", ""))]
}

/// Long answers, a WebSocket and a TCP connection go on through every change; new requests follow each of them at once.
fn changes_of_configuration_do_not_disturb_requests_under_way(market: &Market) -> Result<()> {
    answered(market, &[("http://live/ -n 5", Want::Status("200"))])?;
    std::thread::scope(|scope| {
        // Forty pieces, one each tenth of a second.
        let slow = "http://live/?echo-chunks=40&echo-pause=100&echo-record=live";
        let answers = scope.spawn(move || market.call(&[slow, "-n", "12", "-c", "12", "--timeout", "20"]));
        let more = scope.spawn(move || market.call(&[slow, "--http2", "-n", "4", "-c", "4", "--timeout", "20"]));
        let socket = ["load", "ws", "http://live/ws", "--count", "40", "--pause", "100"];
        let socket = scope.spawn(move || market.lab.exec("market", "deploy/client", &socket)?.ok());
        eventually("all requests are under way", SOON, || {
            let begun = |version: &str| -> Result<usize> {
                let said = market.call(&[&format!("http://shop-{version}/echo/recorded/live")])?;
                Ok(said.last()["json"].as_array().map_or(0, Vec::len))
            };
            let begun = begun("v1")? + begun("v2")?;
            ensure!(begun == 16, "{begun} of 16");
            Ok(())
        })?;
        let changed = changes(market);
        for said in [ended(answers)?, ended(more)?] {
            ensure!(said.errors().is_empty() && said.statuses().iter().all(|(status, _)| status == "200"), "{said:?}");
            let took = said.longest().as_secs_f64();
            ensure!(took > 3.8, "the answers were over after {took} s");
        }
        let text = socket.join().map_err(|_| anyhow!("the WebSocket panicked"))??;
        ensure!(text.contains("40 texts came back"), "{text}");
        changed
    })
}

fn ended(load: std::thread::ScopedJoinHandle<'_, Result<Said>>) -> Result<Said> {
    load.join().map_err(|_| anyhow!("the load panicked"))?
}

/// One change after the other, each seen by new requests.
fn changes(market: &Market) -> Result<()> {
    let direct =
        |status: u16| rules("live", &format!("  hosts: [live]\n  http: [{{directResponse: {{status: {status}}}}}]"));
    market.lab.apply(&direct(291))?;
    answered(market, &[("http://live/", Want::Status("291"))])?;
    market.lab.apply(&direct(292))?;
    answered(market, &[("http://live/", Want::Status("292"))])?;
    // A route of the other kind, which wins, to one version only.
    let route = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: live, namespace: market}\n\
                 spec:\n  parentRefs: [{group: '', kind: Service, name: live}]\n  rules:\n  \
                 - backendRefs: [{name: shop-v2, port: 80}]\n";
    market.lab.apply(route)?;
    answered(market, &[("http://live/ -n 5", Want::From("v2"))])?;
    // How the service is called, and its ports.
    market.lab.apply(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: live, namespace: market}\n\
         spec: {host: live, trafficPolicy: {connectionPool: {http: {h2UpgradePolicy: UPGRADE}}}}\n",
    )?;
    market.lab.kubectl(&["delete", "-n", "market", "httproute/live", "virtualservice/live"])?;
    market.soon("the upgrade is in force", &["http://live/"], |said| {
        Ok(said.seen_maybe("/protocol").as_deref() == Some("HTTP/2.0"))
    })?;
    let port = r#"[{"op": "add", "path": "/spec/ports/-", "value": {"name": "http-new", "port": 8090, "targetPort": "http"}}]"#;
    market.lab.kubectl(&["patch", "-n", "market", "service/live", "--type=json", "-p", port])?;
    answered(market, &[("http://live:8090/", Want::Status("200"))]).map(drop)
}
