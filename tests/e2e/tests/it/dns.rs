//! Names of an enrolled pod: those of the mesh are answered by its node proxy, the rest by the cluster's DNS through it.

use anyhow::{Context, Result, ensure};
use tests_support::eventually;

use crate::town::{SOON, Town};

#[test]
fn names_are_answered_by_the_node_proxy_and_the_rest_passes_through_it() -> Result<()> {
    let town = Town::found()?;
    town.lab.apply(
        "apiVersion: v1\nkind: Service\nmetadata: {name: elsewhere, namespace: town}\nspec: {type: ExternalName, externalName: web.town.svc.cluster.local}\n",
    )?;
    let vip = town.lab.field("town", "service/web", ".spec.clusterIP")?;
    for name in ["web", "web.town", "web.town.svc.cluster.local"] {
        for transport in ["", "use-vc"] {
            ensure!(addresses(&town, name, transport)? == [vip.clone()], "{name} ({transport})");
        }
    }
    let pods = town.lab.pods("town", "app=web")?;
    let mut ips: Vec<String> = pods.iter().map(|pod| Ok(town.ipv4("town", pod)?.to_string())).collect::<Result<_>>()?;
    ips.sort();
    ensure!(addresses(&town, "headless", "")? == ips, "headless");
    let proxy = town.lab.ztunnel("node-1")?;
    for (transport, why) in [("udp", "answered"), ("tcp", "answered over a connection")] {
        ensure!(counted(&town, &proxy, "istio_dns_requests_total", transport)? > 0, "no name was {why} by the proxy");
    }

    let before = counted(&town, &proxy, "istio_dns_upstream_requests_total", "udp")?;
    // Known to the cluster's DNS only, and not at once.
    eventually("a name that the mesh does not know passes through", SOON, || {
        let found = addresses(&town, "elsewhere", "")?;
        ensure!(found == [vip.clone()], "{found:?}");
        Ok(())
    })?;
    ensure!(addresses(&town, "nobody.example", "")?.is_empty(), "a name that does not exist");
    ensure!(counted(&town, &proxy, "istio_dns_upstream_requests_total", "udp")? > before, "nothing was passed on");
    ensure!(
        counted(&town, &proxy, "istio_dns_upstream_failures_total", "udp")? == 0,
        "the cluster's DNS was not reached"
    );
    Ok(())
}

/// What the client's own resolver makes of a name, sorted.
fn addresses(town: &Town, name: &str, options: &str) -> Result<Vec<String>> {
    let options = format!("RES_OPTIONS={options}");
    let ended = town.lab.exec("town", "deploy/client", &["env", &options, "getent", "ahostsv4", name])?;
    let mut found: Vec<String> =
        ended.stdout.lines().filter_map(|line| Some(line.split(' ').next()?.to_owned())).collect();
    found.sort();
    found.dedup();
    Ok(found)
}

/// Queries of the client by the metrics of its node proxy.
fn counted(town: &Town, proxy: &str, metric: &str, transport: &str) -> Result<u64> {
    let path = format!("/api/v1/namespaces/istio-system/pods/{proxy}:15020/proxy/metrics");
    let text = match town.lab.kubectl(&["get", "--raw", &path]) {
        Ok(text) => text,
        // The API server may not proxy: ask from inside the pod's own network.
        Err(_) => town.lab.exec("istio-system", proxy, &["load", "get", "http://127.0.0.1:15020/metrics"])?.ok()?,
    };
    let protocol = format!("request_protocol=\"{transport}\"");
    let wanted = [metric, &protocol, "source_canonical_service=\"client\""];
    let lines = text.lines().filter(|line| wanted.iter().all(|part| line.contains(part)));
    lines.map(|line| line.split(' ').next_back().context("no value")?.parse::<u64>().context("a count")).sum()
}
