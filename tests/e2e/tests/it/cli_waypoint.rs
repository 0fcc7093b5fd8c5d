//! The command line asks waypoints and gateways what they do, and why.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests_support::eventually;

use crate::market::Market;
use crate::town::SOON;

const ROUTE: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: shop, namespace: market}
spec:
  parentRefs: [{group: '', kind: Service, name: shop, port: 80}]
  rules:
  - name: testers
    matches: [{headers: [{name: x-tester, value: 'yes'}]}]
    backendRefs: [{name: shop-v2, port: 80}]
  - matches: [{path: {value: /slow}}]
    timeouts: {request: 500ms}
    retry: {attempts: 2, codes: [503]}
    backendRefs: [{name: shop-v1, port: 80, weight: 90}, {name: shop-v2, port: 80, weight: 10}]
  - matches: [{path: {value: /old}}]
    filters: [{type: RequestRedirect, requestRedirect: {hostname: new.example.com, statusCode: 301}}]
  - matches: [{path: {value: /}}]
    backendRefs: [{name: shop-v1, port: 80}]
";

const POLICY: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: readers, namespace: market}
spec:
  targetRefs: [{group: '', kind: Service, name: shop}]
  rules: [{to: [{operation: {methods: [GET]}}]}]
";

const OUTLIERS: &str = "
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: shop-v1, namespace: market}
spec:
  host: shop-v1
  trafficPolicy:
    connectionPool: {http: {http2MaxRequests: 50}}
    outlierDetection: {consecutive5xxErrors: 1, interval: 60s, baseEjectionTime: 60s, maxEjectionPercent: 100}
";

/// The cells of a table, whose columns are five spaces or more apart.
fn table(said: &str) -> Vec<Vec<String>> {
    let cells = |line: &str| {
        let cells = line.split("     ").map(str::trim).filter(|cell| !cell.is_empty());
        cells.map(str::to_owned).collect()
    };
    said.lines().map(cells).collect()
}

/// What `meltemi proxy-config` says about the market's waypoint.
fn ask(market: &Market, args: &[&str]) -> Result<Vec<Vec<String>>> {
    let argv: Vec<&str> = ["proxy-config"].into_iter().chain(args.iter().copied()).collect();
    Ok(table(&market.lab.meltemi(&argv)?.ok()?))
}

/// Waits until a table is as wanted.
fn soon(market: &Market, args: &[&str], wanted: impl Fn(&[Vec<String>]) -> bool) -> Result<Vec<Vec<String>>> {
    eventually(&format!("proxy-config {args:?}"), SOON, || {
        let rows = ask(market, args)?;
        ensure!(wanted(&rows), "{rows:#?}");
        Ok(rows)
    })
    .map_err(|error| error.context(market.diagnosis()))
}

#[test]
fn routes_and_listeners_of_a_waypoint_are_shown_in_order() -> Result<()> {
    let market = Market::with_waypoint()?;
    market.route(ROUTE)?;
    market.lab.apply(POLICY)?;
    let routes = ["routes", "waypoint.market", "--fqdn", "shop.market", "--port", "80"];
    let rows =
        soon(&market, &routes, |rows| rows.len() == 5 && rows.iter().skip(1).all(|row| row[7] == "market/readers"))?;
    let shop = "shop.market.svc.cluster.local:80";
    ensure!(rows[0][..5] == ["NAME", "DOMAINS", "ORDER", "MATCH", "ROUTE"], "{:?}", rows[0]);
    ensure!(rows.iter().skip(1).all(|row| row[0] == shop), "{rows:#?}");
    ensure!(rows.iter().skip(1).map(|row| row[2].as_str()).eq(["1", "2", "3", "4"]), "{rows:#?}");
    // The longer path first, then the shorter; a header only helps among equal paths.
    let found = |wanted: &str| rows.iter().find(|row| row[3].contains(wanted)).with_context(|| wanted.to_owned());
    let slow = found("/slow")?;
    ensure!(slow[4] == "HTTPRoute market/shop rule 1", "{slow:?}");
    ensure!(slow[5] == "90% shop-v1.market.svc.cluster.local:80, 10% shop-v2.market.svc.cluster.local:80", "{slow:?}");
    ensure!(slow[6].contains("time-out: 500ms") && slow[6].contains("retries: 2 more after 503"), "{slow:?}");
    let testers = found("x-tester")?;
    ensure!(testers[4].ends_with("rule 0 (testers)"), "{testers:?}");
    ensure!(found("/old")?[5].starts_with("redirects with 301, host new.example.com"), "{rows:#?}");
    ensure!(rows[4][3] == "path is below \"/\"", "the catch-all comes last: {rows:#?}");

    let rows = ask(&market, &["listeners", "waypoint.market"])?;
    let tunnels = rows.iter().find(|row| row[2] == "HBONE").context("no tunnels")?;
    ensure!(tunnels[1] == "15008" && tunnels[4] == "spiffe://cluster.local/ns/market/sa/waypoint", "{tunnels:?}");
    let address = market.lab.field("market", "service/shop", ".spec.clusterIP")?;
    let of_port = |port: &str| rows.iter().find(|row| row[0].split(',').any(|ip| ip == address) && row[1] == port);
    let http = of_port("80").context("port 80 is missing")?;
    ensure!(http[2] == "HTTP" && http[6] == "4 routes" && http[7] == "market/readers", "{http:?}");
    let bytes = of_port("9000").context("port 9000 is missing")?;
    ensure!(bytes[2] == "TCP" && bytes[6] == "shop.market.svc.cluster.local:9000", "{bytes:?}");

    // The same for scripts, from a file, and for one who asks the wrong proxy.
    let dump = market.lab.meltemi(&["pc", "all", "deploy/waypoint", "-n", "market", "-o", "json"])?.ok()?;
    ensure!(!dump.contains("PRIVATE KEY"), "a key is in the dump");
    let file = market.lab.dir().join("dump.json");
    std::fs::write(&file, &dump)?;
    let file = file.display().to_string();
    let said =
        market.lab.meltemi(&["pc", "routes", "-f", &file, "--fqdn", "shop", "--port", "80", "-o", "json"])?.ok()?;
    let rows: Vec<Value> = serde_json::from_str(&said)?;
    ensure!(rows.len() == 4 && rows[0]["origin"]["name"] == "shop" && rows[0]["order"] == 1, "{said}");
    let client = market.lab.kubectl(&["get", "pods", "-n", "market", "-l", "app=client", "-o", "name"])?;
    let target = format!("{}.market", client.trim());
    ensure!(market.lab.meltemi(&["pc", "routes", &target])?.failed()?.contains("neither a waypoint nor a gateway"));
    let said = market.lab.meltemi(&["pc", "routes", "wegpunkt.market"])?.failed()?;
    ensure!(
        said.contains("no pod, gateway or deployment wegpunkt") && said.contains("gateways are waypoint"),
        "{said}"
    );
    let ztunnel = market.lab.kubectl(&["get", "pods", "-n", "istio-system", "-l", "app=ztunnel", "-o", "name"])?;
    let target = format!("{}.istio-system", ztunnel.lines().next().context("no ztunnel")?);
    ensure!(market.lab.meltemi(&["pc", "clusters", &target])?.failed()?.contains("ztunnel-config"));
    a_name_that_fits_no_label_is_found(&market)
}

fn a_name_that_fits_no_label_is_found(market: &Market) -> Result<()> {
    let long = "long-".repeat(14) + "way";
    let said = market.lab.meltemi(&["waypoint", "apply", "-n", "market", "--name", &long])?.failed()?;
    ensure!(said.contains("73 characters") && said.contains("istio.io/use-waypoint"), "{said}");
    // Others may make one all the same.
    market.lab.apply(&format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: {long}, namespace: market}}\n\
         spec: {{gatewayClassName: istio-waypoint, listeners: [{{name: mesh, port: 15008, protocol: HBONE}}]}}\n"
    ))?;
    for target in [format!("gateway/{long}.market"), format!("{long}.market")] {
        soon(market, &["listeners", &target], |rows| rows.iter().any(|row| row[2] == "HBONE"))?;
    }
    Ok(())
}

#[test]
fn clusters_and_endpoints_tell_who_was_left_out_and_why() -> Result<()> {
    let market = Market::with_waypoint()?;
    market.lab.apply(OUTLIERS)?;
    let json = ["clusters", "waypoint.market", "--fqdn", "shop-v1", "--port", "80", "-o", "json"];
    eventually("the rule is in force", SOON, || {
        let said = market.lab.meltemi(&[&["pc"][..], &json].concat())?.ok()?;
        let clusters: Vec<Value> = serde_json::from_str(&said)?;
        ensure!(clusters.len() == 1 && clusters[0]["outlierDetection"]["consecutive5xx"] == 1, "{said}");
        ensure!(clusters[0]["limits"]["requests"] == 50, "{said}");
        Ok(())
    })?;
    let clusters = ["clusters", "waypoint.market", "--fqdn", "shop-v1", "--port", "80"];
    let rows = soon(&market, &clusters, |rows| rows.len() == 2 && rows[1][3] == "1/1")?;
    ensure!(rows[1][..3] == ["shop-v1.market.svc.cluster.local", "80", "-"], "{rows:?}");
    ensure!(rows[1][4..8] == ["0", "HBONE", "least request", "-"], "{rows:?}");
    let endpoints = ["endpoints", "waypoint.market", "--fqdn", "shop-v1", "--port", "80"];
    let rows = ask(&market, &endpoints)?;
    let pod = market.lab.kubectl(&["get", "pods", "-n", "market", "-l", "app=shop,version=v1", "-o", "json"])?;
    let pod: Value = serde_json::from_str(&pod)?;
    let text = |pointer: &str| pod.pointer(pointer).and_then(Value::as_str).context(pointer.to_owned());
    let (name, ip) = (text("/items/0/metadata/name")?, text("/items/0/status/podIP")?);
    ensure!(rows.len() == 2 && rows[1][0] == format!("{ip}:8080"), "{rows:?}");
    ensure!(rows[1][1..3] == ["HEALTHY", "OK"] && rows[1][4] == format!("{name}.market"), "{rows:?}");
    ensure!(rows[1][5] == format!("HBONE to {ip}:15008"), "{rows:?}");
    // One error, and it is left out.
    let said = market.call(&["http://shop-v1/?echo-status=503"])?;
    ensure!(said.statuses() == [("503".to_owned(), 1)], "{said:?}");
    let rows = soon(&market, &[&endpoints[..], &["--status", "ejected"]].concat(), |rows| rows.len() == 2)?;
    ensure!(rows[1][1..3] == ["HEALTHY", "EJECTED"], "{rows:?}");
    let rows = ask(&market, &clusters)?;
    ensure!(rows[1][3] == "0/1" && rows[1][4] == "1", "{rows:?}");
    let client = market.lab.kubectl(&["get", "pods", "-n", "market", "-l", "app=client", "-o", "name"])?;
    let client = format!("{}.market", client.trim().trim_start_matches("pod/"));
    let said = market.lab.meltemi(&["explain", &client, "http://shop-v1.market/"])?.ok()?;
    ensure!(said.contains("ANSWERED with 503: no healthy endpoint") && said.contains("1 left out"), "{said}");
    Ok(())
}

#[test]
fn explain_names_route_backend_effects_and_policy_of_a_request_and_why_no_other() -> Result<()> {
    let market = Market::with_waypoint()?;
    market.route(ROUTE)?;
    market.lab.apply(POLICY)?;
    let client = market.lab.kubectl(&["get", "pods", "-n", "market", "-l", "app=client", "-o", "name"])?;
    let client = format!("{}.market", client.trim().trim_start_matches("pod/"));
    let explain = |args: &[&str], parts: &[&str]| -> Result<String> {
        let argv = [&["explain", &client][..], args].concat();
        eventually(&argv.join(" "), SOON, || {
            let said = market.lab.meltemi(&argv)?.ok()?;
            for part in parts {
                ensure!(said.contains(part), "{part:?} is missing in\n{said}");
            }
            Ok(said)
        })
    };
    explain(
        &["http://shop.market/slow/x?y=1"],
        &[
            "http://shop.market/slow/x?y=1: ALLOWED\n",
            "request at   waypoint waypoint-",
            "listener     shop.market.svc.cluster.local:80",
            "policy       lets it pass: ",
            "market/readers",
            "route        HTTPRoute market/shop rule 1, because path is \"/slow\" or below",
            "does         time-out: 500ms",
            "does         retries: 2 more after 503",
            "backend      90% shop-v1.market.svc.cluster.local:80, 1 of 1 endpoints healthy",
            "backend      10% shop-v2.market.svc.cluster.local:80, 1 of 1 endpoints healthy",
            "HTTPRoute market/shop rule 0 (testers): wants header x-tester is \"yes\", has none",
            "rule 2: wants path is \"/old\" or below, has \"/slow/x\"",
        ],
    )?;
    explain(
        &["http://shop.market/cart", "-H", "x-tester: yes"],
        &["ALLOWED\n", "route        HTTPRoute market/shop rule 0 (testers)", "backend      shop-v2.market"],
    )?;
    explain(&["http://shop.market/old"], &["REDIRECTED with 301 to http://new.example.com/old"])?;
    let said = explain(
        &["http://shop.market/cart", "-X", "POST"],
        &["REFUSED with 403", "policy       REFUSED with 403", "to allow it  "],
    )?;
    ensure!(!said.contains("\n  route "), "what is refused takes no route: {said}");
    // A policy of the pods that does not let the waypoint in: the mistake that everybody makes once.
    market.lab.apply(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: pods, namespace: market}\n\
         spec:\n  selector: {matchLabels: {app: shop}}\n  \
         rules: [{from: [{source: {principals: [cluster.local/ns/market/sa/client]}}]}]\n",
    )?;
    explain(
        &["http://shop.market/cart"],
        &[
            "ANSWERED with 503: the pods' own policies refuse the waypoint",
            "at the pod   REFUSED by ztunnel of market/shop-v1-",
            "to allow it  add principal cluster.local/ns/market/sa/waypoint",
        ],
    )?;
    market.soon_status("503", &["http://shop/cart"])?;
    market.lab.kubectl(&["delete", "-n", "market", "authorizationpolicy/pods"])?;
    explain(&["http://shop.market/cart"], &["ALLOWED\n"])?;
    market.soon_status("200", &["http://shop/cart"])?;
    // It says what really happens.
    let refused = market.soon_status("403", &["http://shop/cart", "--method", "POST"])?;
    ensure!(refused.statuses() == [("403".to_owned(), 1)], "{refused:?}");
    Ok(())
}

#[test]
fn a_gateway_tells_its_certificates_but_no_key_and_explains_requests_from_outside() -> Result<()> {
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
    let (cert, key_file) = (format!("--cert={}", chain.display()), format!("--key={}", key.display()));
    market.lab.kubectl(&["create", "secret", "tls", "shop", "-n", "market", &cert, &key_file])?;
    market.lab.apply(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: edge, namespace: market}\nspec:\n  \
         gatewayClassName: istio\n  listeners:\n  - {name: http, port: 80, protocol: HTTP}\n  \
         - {name: https, port: 443, protocol: HTTPS, hostname: shop.example.com, tls: {certificateRefs: [{name: shop}]}}\n",
    )?;
    market.programmed("edge")?;
    market.route(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: edge, namespace: market}\nspec:\n  \
         parentRefs: [{name: edge}]\n  hostnames: [shop.example.com]\n  rules:\n  \
         - matches: [{path: {value: /v2}}]\n    backendRefs: [{name: shop-v2, port: 80}]\n  \
         - backendRefs: [{name: shop-v1, port: 80}]\n",
    )?;
    let rows = soon(&market, &["listeners", "gateway/edge.market", "--port", "443"], |rows| {
        rows.len() == 2 && rows[1][6] == "2 routes"
    })?;
    ensure!(rows[1][2..5] == ["HTTPS", "shop.example.com", "shop.example.com"], "{rows:?}");
    let day = |when: &str| -> Result<String> {
        let made =
            std::process::Command::new("date").args(["-u", "-d", when, "+%Y-%m-%dT"]).output().context("date")?;
        Ok(String::from_utf8(made.stdout)?.trim().to_owned())
    };
    let days = [day("2 days")?, day("2 days 10 minutes ago")?];
    ensure!(days.iter().any(|day| rows[1][5].starts_with(day.as_str())), "{rows:?}, not {days:?}");
    // Neither the key nor anything that looks like one.
    let dump = market.lab.meltemi(&["pc", "all", "gateway/edge.market", "-o", "json"])?.ok()?;
    let key = std::fs::read_to_string(key)?;
    let secret = key.lines().find(|line| !line.starts_with("-----")).context("no key")?;
    ensure!(!dump.contains(secret) && !dump.contains("PRIVATE KEY"), "a key is in the dump");

    let explain = |url: &str, args: &[&str]| -> Result<String> {
        market.lab.meltemi(&[&["explain", "gateway/edge.market", url][..], args].concat())?.ok()
    };
    let said = explain("https://shop.example.com/v2/x", &[])?;
    for part in
        ["outside -> https://shop.example.com/v2/x: ALLOWED", "listener     https:443", "backend      shop-v2.market"]
    {
        ensure!(said.contains(part), "{part:?} is missing in\n{said}");
    }
    let said = explain("http://other.example.com/", &[])?;
    ensure!(said.contains("ANSWERED with 404: no route matches"), "{said}");
    Ok(())
}
