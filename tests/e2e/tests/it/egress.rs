//! Servers outside of the mesh, through a waypoint: ServiceEntries, their routes, and TLS that the waypoint begins.

use std::path::Path;

use anyhow::{Result, ensure};
use tests_support::eventually;

use crate::edge_pki::Pki;
use crate::features::{Feature, Want, answered, named};
use crate::market::Market;
use crate::servers::vault;
use crate::town::SOON;

/// Starts a server outside of the mesh, with a certificate for `vault.example.com`, and returns what is asked of it.
pub(crate) fn features(market: &Market) -> Result<Vec<Feature>> {
    let pki = Pki::make(market.lab.dir())?;
    let secret = |namespace: &str, name: &str, leaf: &str, authority: &str| -> Result<String> {
        let authority = pki.block(authority, "pem")?;
        Ok(format!("{}  ca.crt: |\n{authority}", pki.secret(namespace, name, leaf)?))
    };
    let secrets = [
        secret("outside", "vault", "vault", "good")?,
        secret("market", "good", "client", "good")?,
        secret("market", "other", "client", "other")?,
    ];
    market.lab.apply(&[secrets.join("---\n"), vault("outside", "v1")].join("---\n"))?;
    market.lab.rolled_out("outside", "vault-v1")?;
    let path = "jsonpath={.items[0].status.podIP}";
    let ip = market.lab.kubectl(&["get", "pods", "-n", "outside", "-l", "app=vault", "-o", path])?;
    let plain = |name: &str| entry(name, &ip, "8080");
    let secured = |name: &str, tls: &str| format!("{}---\n{}", entry(name, &ip, "8443"), with_tls(name, tls));
    Ok(vec![
        named!(service_entry_calls_go_through_the_waypoint, plain("plain")),
        named!(service_entry_as_the_parent_of_a_route, format!("{}---\n{ROUTE}", plain("routed"))),
        named!(service_entry_with_a_virtual_service, format!("{}---\n{RULES}", plain("ruled"))),
        named!(service_entry_wildcard_is_resolved_by_the_name_of_each_request, WILDCARD),
        named!(
            destination_rule_begins_tls_and_checks_the_server,
            [
                secured("simple", "{mode: SIMPLE, credentialName: good, sni: vault.example.com}"),
                secured("stranger", "{mode: SIMPLE, credentialName: other, sni: vault.example.com}"),
                secured(
                    "misnamed",
                    "{mode: SIMPLE, credentialName: good, sni: vault.example.com, subjectAltNames: [else.example.com]}"
                ),
                secured("trusting", "{mode: SIMPLE, insecureSkipVerify: true, sni: any.example.com}"),
            ]
            .join("---\n")
        ),
        named!(
            destination_rule_presents_a_certificate,
            secured("mutual", "{mode: MUTUAL, credentialName: good, sni: alias.example.com}")
        ),
    ])
}

/// A server outside, as `NAME.bank.example`.
fn entry(name: &str, ip: &str, port: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: {name}, namespace: market}}\n\
         spec:\n  hosts: [{name}.bank.example]\n  location: MESH_EXTERNAL\n  resolution: STATIC\n  \
         endpoints: [{{address: {ip}}}]\n  \
         ports: [{{number: 80, name: http, protocol: HTTP, targetPort: {port}}}]\n"
    )
}

fn with_tls(name: &str, tls: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: {name}, namespace: market}}\n\
         spec: {{host: {name}.bank.example, trafficPolicy: {{tls: {tls}}}}}\n"
    )
}

const ROUTE: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: routed-entry, namespace: market}
spec:
  parentRefs: [{group: networking.istio.io, kind: ServiceEntry, name: routed}]
  rules:
  - matches: [{path: {value: /old}}]
    filters:
    - {type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}}}
    backendRefs: [{group: networking.istio.io, kind: Hostname, name: routed.bank.example, port: 80}]
  - matches: [{path: {value: /at-home}}]
    backendRefs: [{name: shop-v2, port: 80}]
";

/// A name that only the cluster's DNS knows, below a wildcard that the mesh knows.
const WILDCARD: &str = "
apiVersion: v1
kind: Service
metadata: {name: bank, namespace: outside}
spec: {selector: {app: vault}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: far, namespace: outside}
spec: {type: ExternalName, externalName: bank.outside.svc.cluster.local}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: wildcard, namespace: market}
spec:
  hosts: ['*.outside.svc.cluster.local']
  location: MESH_EXTERNAL
  resolution: DYNAMIC_DNS
  ports: [{number: 80, name: http, protocol: HTTP}]
";

const RULES: &str = "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: ruled, namespace: market}
spec:
  hosts: [ruled.bank.example]
  http:
  - match: [{uri: {prefix: /closed}}]
    directResponse: {status: 403}
  - timeout: 400ms
    route: [{destination: {host: ruled.bank.example, port: {number: 80}}}]
";

fn service_entry_calls_go_through_the_waypoint(market: &Market) -> Result<()> {
    eventually("the server outside sees the waypoint", SOON, || market.passed_waypoint("http://plain.bank.example/"))?;
    let said = answered(market, &[("http://plain.bank.example/a", Want::From("v1"))])?;
    ensure!(said[0].seen("/host")? == "plain.bank.example", "{said:?}");
    Ok(())
}

fn service_entry_wildcard_is_resolved_by_the_name_of_each_request(market: &Market) -> Result<()> {
    let url = "http://far.outside.svc.cluster.local/";
    eventually("the server outside sees the waypoint", SOON, || market.passed_waypoint(url))?;
    answered(
        market,
        &[
            ("http://far.outside.svc.cluster.local/", Want::From("v1")),
            // Not below the wildcard: nobody is asked for it. Below it, but nowhere: nobody answers.
            ("http://far.outside.svc.cluster.local/ --host shop.market.svc.cluster.local", Want::Status("404")),
            ("http://far.outside.svc.cluster.local/ --host missing.outside.svc.cluster.local", Want::Status("503")),
        ],
    )
    .map(drop)
}

fn service_entry_as_the_parent_of_a_route(market: &Market) -> Result<()> {
    market.condition("httproute/routed-entry", "Accepted", "True", "Accepted")?;
    market.condition("httproute/routed-entry", "ResolvedRefs", "True", "ResolvedRefs")?;
    let said = answered(
        market,
        &[
            ("http://routed.bank.example/old/a", Want::From("v1")),
            ("http://routed.bank.example/at-home", Want::From("v2")),
            ("http://routed.bank.example/", Want::Status("404")),
        ],
    )?;
    ensure!(said[0].seen("/path")? == "/new/a", "{said:?}");
    Ok(())
}

fn service_entry_with_a_virtual_service(market: &Market) -> Result<()> {
    answered(
        market,
        &[
            ("http://ruled.bank.example/closed", Want::Status("403")),
            ("http://ruled.bank.example/", Want::From("v1")),
            ("http://ruled.bank.example/?echo-delay=3000", Want::Status("504")),
        ],
    )
    .map(drop)
}

fn destination_rule_begins_tls_and_checks_the_server(market: &Market) -> Result<()> {
    let said = answered(
        market,
        &[
            ("http://simple.bank.example/a", Want::From("v1")),
            ("http://trusting.bank.example/a", Want::From("v1")),
            ("http://stranger.bank.example/a", Want::Status("503")),
            ("http://misnamed.bank.example/a", Want::Status("503")),
        ],
    )?;
    ensure!(said[0].seen("/tls/sni")? == "vault.example.com", "{said:?}");
    ensure!(said[1].seen("/tls/sni")? == "any.example.com", "{said:?}");
    for one in said.iter().skip(2) {
        let text = one.last()["text"].as_str().unwrap_or_default();
        ensure!(text.contains("upstream connect error"), "{said:?}");
    }
    Ok(())
}

fn destination_rule_presents_a_certificate(market: &Market) -> Result<()> {
    let said = answered(
        market,
        &[("http://mutual.bank.example/", Want::From("v1")), ("http://simple.bank.example/", Want::From("v1"))],
    )?;
    let digest = |path: &Path| -> Result<String> {
        let args = ["x509", "-noout", "-fingerprint", "-sha256", "-in"];
        let said = std::process::Command::new("openssl").args(args).arg(path).output()?;
        let text = String::from_utf8(said.stdout)?;
        Ok(text.trim().rsplit('=').next().unwrap_or_default().replace(':', "").to_lowercase())
    };
    let wanted = digest(&market.lab.dir().join("client.pem"))?;
    ensure!(said[0].seen("/tls/client_certificate")? == wanted, "wanted {wanted}, got {said:?}");
    ensure!(said[1].seen("/tls/client_certificate")? == "null", "{said:?}");
    Ok(())
}
