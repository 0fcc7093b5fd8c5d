//! Every kind of traffic goes through the mesh as it would without one.

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::town::{SOON, Town};
use tests_support::eventually;

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn source_ip(seen: &Value) -> Result<std::net::IpAddr> {
    Ok(text(seen, "source").parse::<std::net::SocketAddr>()?.ip())
}

#[test]
fn every_kind_of_traffic_goes_through() -> Result<()> {
    let town = Town::found()?;
    let client = town.pod("town", "app=client")?;
    let client_ips = town.ips("town", &client)?;

    // IPv4 service, IPv6 service, headless service: the server sees the client's own address each time.
    for url in ["http://web/", "http://web6/", "http://headless:8080/"] {
        let seen = town.get(url)?;
        let source = source_ip(&seen)?;
        ensure!(client_ips.contains(&source), "{url}: the server saw {source}, the client is {client_ips:?}");
        ensure!(url != "http://web6/" || source.is_ipv6(), "{url}: went over IPv4");
    }
    // A pod by its address, both families.
    let web = town.pod("town", "app=web")?;
    for ip in town.ips("town", &web)? {
        let host = if ip.is_ipv6() { format!("[{ip}]") } else { ip.to_string() };
        let seen = town.get(&format!("http://{host}:8080/"))?;
        ensure!(text(&seen, "pod") == web, "{ip} answered as {}", text(&seen, "pod"));
    }

    let banner = town.check(&["banner", "web:9001"])?;
    ensure!(banner.starts_with("hello "), "the server speaks first, but said {banner:?}");
    let echoed = town.check(&["half-close", "web:9000"])?;
    ensure!(echoed.starts_with("half-closed\nbye "), "after the half-close came {echoed:?}");
    town.check(&["digest", "web:9002", "--mib", "64"])?;
    town.check(&["many", "web:9000", "--count", "500"])?;
    Ok(())
}

#[test]
fn a_pod_calls_its_own_service_and_its_own_address() -> Result<()> {
    let town = Town::found()?;
    town.lab.kubectl(&["scale", "-n", "town", "deploy/web", "--replicas=1"])?;
    eventually("one replica is left", SOON, || {
        let pods = town.lab.pods("town", "app=web")?;
        ensure!(pods.len() == 1, "{pods:?}");
        Ok(())
    })?;
    let web = town.pod("town", "app=web")?;
    let ip = town.ipv4("town", &web)?;
    for url in ["http://web/".to_owned(), format!("http://{ip}:8080/"), "http://127.0.0.1:8080/".to_owned()] {
        let seen = eventually("the call to itself", SOON, || town.get_from("town", &web, &url))?;
        ensure!(text(&seen, "pod") == web, "{url} answered as {}", text(&seen, "pod"));
    }
    Ok(())
}

#[test]
fn probes_and_strangers_under_strict_mutual_tls() -> Result<()> {
    let town = Town::found()?;
    // Permissive first: a caller without identity gets in, and is seen with its own address.
    let stranger = town.pod("outside", "app=stranger")?;
    let seen = town.get_from("outside", &stranger, "http://web.town/")?;
    ensure!(town.ips("outside", &stranger)?.contains(&source_ip(&seen)?), "the server saw {}", text(&seen, "source"));

    town.lab.apply(
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: strict, namespace: town}\nspec: {mtls: {mode: STRICT}}\n",
    )?;
    eventually("the stranger is refused", SOON, || {
        town.lab.exec("outside", &stranger, &["load", "get", "http://web.town/", "--timeout", "2"])?.failed()
    })?;
    town.proxy_says("node-2", "the log names the policy", |line| line.contains("istio_converted_static_strict"))?;
    town.get("http://web/")?;
    // Probes go on: a replica born under STRICT becomes ready, an old one is not restarted by its liveness probe.
    town.lab.kubectl(&["scale", "-n", "town", "deploy/web", "--replicas=3"])?;
    town.lab.rolled_out("town", "web")?;
    let restarts = town.lab.kubectl(&[
        "get",
        "pods",
        "-n",
        "town",
        "-l",
        "app=web",
        "-o",
        "jsonpath={.items[*].status.containerStatuses[0].restartCount}",
    ])?;
    ensure!(restarts.split_whitespace().all(|count| count == "0"), "restarts: {restarts}");
    Ok(())
}
