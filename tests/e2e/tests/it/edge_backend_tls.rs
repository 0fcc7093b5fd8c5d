//! BackendTLSPolicies: gateways begin TLS towards backends, and check who is there.

use anyhow::{Context, Result, ensure};
use tests_support::eventually;

use crate::edge::{FINE, Site, address, outcome, patch, route_at, says};
use crate::features::{Feature, named};
use crate::market::Market;
use crate::town::SOON;

pub(crate) fn features() -> Vec<Feature> {
    vec![
        named!(backend_tls_policy, checked()),
        named!(backend_tls_policy_conflict_resolution, conflicts()),
        named!(backend_tls_policy_invalid_ca_certificate_ref, broken("absent-ca", "nothing-of-this-name", "ConfigMap")),
        named!(backend_tls_policy_invalid_kind, broken("odd-ca", "good", "Secret")),
        named!(backend_tls_policy_san_validation, alternatives()),
        named!(backend_tls_policy_observed_generation_bump, served("reconsidered", NAME, "")),
        named!(backend_tls_policy_grpc_route, grpc()),
        named!(backend_tls_policy_tls_route_terminate, terminated()),
    ]
}

/// A name that the vault's certificate has.
const NAME: &str = "vault.example.com";

/// A Service of the vault, of ports 443 and 444.
fn service(name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: market}}\nspec:\n  \
         selector: {{app: vault}}\n  ports:\n  - {{name: https, port: 443, targetPort: 8443}}\n  \
         - {{name: https-more, port: 444, targetPort: 8443}}\n---\n"
    )
}

/// A policy for a Service, or one of its ports.
fn policy(name: &str, target: &str, hostname: &str, authority: &str, more: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: BackendTLSPolicy\n\
         metadata: {{name: {name}, namespace: market}}\nspec:\n  \
         targetRefs: [{{group: '', kind: Service, {target}}}]\n  validation:\n    hostname: {hostname}\n    \
         caCertificateRefs: [{{group: '', {authority}}}]\n{more}---\n"
    )
}

/// A Service of the vault and its policy.
pub(crate) fn vault(name: &str, hostname: &str, authority: &str, more: &str) -> String {
    let authority = format!("kind: ConfigMap, name: {authority}");
    service(name) + &policy(name, &format!("name: {name}"), hostname, &authority, more)
}

/// Both, with a route at `relay` for host `<name>.example.com`.
fn served(name: &str, hostname: &str, more: &str) -> String {
    vault(name, hostname, "good", more) + &to(name)
}

fn to(name: &str) -> String {
    let backends = format!("backendRefs: [{{name: {name}, port: 443}}]");
    route_at(name, "{name: relay, sectionName: http}", &format!("[{name}.example.com]"), &[backends]) + "---\n"
}

/// The host of that name is answered by the vault, which was asked for this name.
fn is_sealed(market: &Market, name: &str, sni: &str) -> Result<()> {
    let site = Site::new(market, "relay", &format!("{name}.example.com"))?;
    let said = site.soon("GET /", |said| Ok(outcome(said) == "vault"))?;
    ensure!(said.seen("/tls/sni")? == sni, "{said:?}");
    Ok(())
}

/// No connection is made to the vault.
fn is_refused(market: &Market, name: &str) -> Result<()> {
    Site::new(market, "relay", &format!("{name}.example.com"))?.answers(&[("GET /", "503")])
}

/// Conditions of a policy that is in force: for its target, and for the Gateway that leads there.
fn is_in_force(market: &Market, name: &str) -> Result<()> {
    let object = format!("backendtlspolicy/{name}");
    says(market, ("market", &object), "ancestors/0", FINE)?;
    let policy = says(market, ("market", &object), "ancestors/1", FINE)?;
    let gateway = &policy["status"]["ancestors"][1]["ancestorRef"];
    ensure!(gateway["kind"] == "Gateway" && gateway["name"] == "relay", "{gateway}");
    Ok(())
}

fn checked() -> String {
    [
        served("sealed", NAME, ""),
        served("misnamed", "other.example.com", ""),
        vault("mistrusted", NAME, "other", ""),
        to("mistrusted"),
    ]
    .concat()
}

fn backend_tls_policy(market: &Market) -> Result<()> {
    is_sealed(market, "sealed", NAME)?;
    is_in_force(market, "sealed")?;
    // A certificate of another name, or of an authority that is not trusted.
    is_refused(market, "misnamed")?;
    is_refused(market, "mistrusted")?;
    // Without the policy the gateway speaks no TLS, and the vault nothing else.
    market.lab.kubectl(&["delete", "-n", "market", "backendtlspolicy/sealed"])?;
    let site = Site::new(market, "relay", "sealed.example.com")?;
    site.soon("GET /", |said| Ok(outcome(said) != "vault")).map(drop)
}

fn conflicts() -> String {
    let good = "kind: ConfigMap, name: good";
    [
        service("contested"),
        // Of the same second, or earlier: by their names.
        policy("contested-a", "name: contested", NAME, good, ""),
        policy("contested-b", "name: contested", "other.example.com", good, ""),
        // For one port it counts more than those for all.
        policy("contested-c", "name: contested, sectionName: https-more", "alias.example.com", good, ""),
        to("contested"),
        route_at(
            "contested-more",
            "{name: relay, sectionName: http}",
            "[contested-more.example.com]",
            &["backendRefs: [{name: contested, port: 444}]"],
        ),
    ]
    .concat()
}

fn backend_tls_policy_conflict_resolution(market: &Market) -> Result<()> {
    is_sealed(market, "contested", NAME)?;
    is_sealed(market, "contested-more", "alias.example.com")?;
    for name in ["backendtlspolicy/contested-a", "backendtlspolicy/contested-c"] {
        says(market, ("market", name), "ancestors/0", FINE)?;
    }
    let other = ("market", "backendtlspolicy/contested-b");
    says(market, other, "ancestors/0", &["Accepted=False/Conflicted"])?;
    // When the first one goes, the second is in force; the vault does not have its name.
    market.lab.kubectl(&["delete", "-n", "market", "backendtlspolicy/contested-a"])?;
    says(market, other, "ancestors/0", FINE)?;
    is_refused(market, "contested")?;
    is_sealed(market, "contested-more", "alias.example.com")
}

fn broken(name: &str, authority: &str, kind: &str) -> String {
    let authority = format!("kind: {kind}, name: {authority}");
    [service(name), policy(name, &format!("name: {name}"), NAME, &authority, ""), to(name)].concat()
}

/// A policy that cannot be honoured lets nothing through.
fn is_broken(market: &Market, name: &str, reason: &str) -> Result<()> {
    let unresolved = format!("ResolvedRefs=False/{reason}");
    let wanted = ["Accepted=False/NoValidCACertificate", &unresolved];
    for ancestor in ["ancestors/0", "ancestors/1"] {
        says(market, ("market", &format!("backendtlspolicy/{name}")), ancestor, &wanted)?;
    }
    is_refused(market, name)
}

fn backend_tls_policy_invalid_ca_certificate_ref(market: &Market) -> Result<()> {
    is_broken(market, "absent-ca", "InvalidCACertificateRef")?;
    // An authority that is none.
    let map = |text: &str| {
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: nothing-of-this-name, namespace: market}}\n\
             data: {{ca.crt: {text}}}\n"
        )
    };
    market.lab.apply(&map("no certificate"))?;
    is_broken(market, "absent-ca", "InvalidCACertificateRef")?;
    let pem = std::fs::read_to_string(market.lab.dir().join("good.pem"))?;
    market.lab.apply(&map(&serde_json::to_string(&pem)?))?;
    is_sealed(market, "absent-ca", NAME)?;
    is_in_force(market, "absent-ca")
}

fn backend_tls_policy_invalid_kind(market: &Market) -> Result<()> {
    is_broken(market, "odd-ca", "InvalidKind")
}

fn alternatives() -> String {
    let names =
        |name: &str, names: &str| served(name, "asked.example.com", &format!("    subjectAltNames: [{names}]\n"));
    let host = |name: &str| format!("{{type: Hostname, hostname: {name}}}");
    let uri = |uri: &str| format!("{{type: URI, uri: '{uri}'}}");
    let (good, bad) = ("spiffe://example.com/vault", "spiffe://example.com/other");
    [
        names("by-host", &host("alias.example.com")),
        names("by-uri", &uri(good)),
        names("by-either", &[host("other.example.com"), uri(good)].join(", ")),
        names("by-other-host", &host("other.example.com")),
        names("by-other-uri", &uri(bad)),
        names("by-neither", &[host("asked.example.com"), uri(bad)].join(", ")),
    ]
    .concat()
}

fn backend_tls_policy_san_validation(market: &Market) -> Result<()> {
    for name in ["by-host", "by-uri", "by-either"] {
        is_sealed(market, name, "asked.example.com")?;
    }
    for name in ["by-other-host", "by-other-uri", "by-neither"] {
        is_in_force(market, name)?;
        is_refused(market, name)?;
    }
    Ok(())
}

fn backend_tls_policy_observed_generation_bump(market: &Market) -> Result<()> {
    is_in_force(market, "reconsidered")?;
    let name = "backendtlspolicy/reconsidered";
    let before = says(market, ("market", name), "ancestors/0", FINE)?;
    patch(market, name, r#"{"spec": {"validation": {"hostname": "alias.example.com"}}}"#)?;
    is_in_force(market, "reconsidered")?;
    let after = says(market, ("market", name), "ancestors/0", FINE)?;
    let generation = |object: &serde_json::Value| object["metadata"]["generation"].as_u64();
    ensure!(generation(&after) > generation(&before), "{after}");
    eventually("the new name is asked for", SOON, || is_sealed(market, "reconsidered", "alias.example.com"))
}

fn grpc() -> String {
    let route = "apiVersion: gateway.networking.k8s.io/v1\nkind: GRPCRoute\nmetadata: {name: calls, namespace: market}\n\
                 spec:\n  parentRefs: [{name: relay, sectionName: http}]\n  hostnames: [calls.example.com]\n  \
                 rules: [{backendRefs: [{name: calls, port: 443}]}]\n";
    vault("calls", NAME, "good", "") + route
}

fn backend_tls_policy_grpc_route(market: &Market) -> Result<()> {
    let url = format!("grpc://{}:80/shop.Till/Ping", address(market, "market", "relay")?);
    eventually("calls go through TLS", SOON, || {
        let said = market.call_from("outside", "deploy/stranger", &[&url, "--host", "calls.example.com"])?;
        ensure!(said.statuses() == [("grpc 0".to_owned(), 1)], "{said:?}");
        ensure!(said.seen("/tls/sni")? == NAME && said.seen("/tls/alpn")? == "h2", "{said:?}");
        Ok(())
    })?;
    is_in_force(market, "calls")
}

fn terminated() -> String {
    let route = "apiVersion: gateway.networking.k8s.io/v1\nkind: TLSRoute\nmetadata: {name: ended, namespace: market}\n\
                 spec:\n  parentRefs: [{name: relay, sectionName: tls}]\n  hostnames: [ended.example.com]\n  \
                 rules: [{backendRefs: [{name: ended, port: 443}]}]\n";
    vault("ended", NAME, "good", "") + route
}

fn backend_tls_policy_tls_route_terminate(market: &Market) -> Result<()> {
    let site =
        Site::new(market, "relay", "ended.example.com")?.tls(8443).visited(&["--cacert", "/certificates/good.pem"]);
    let said = site.soon("GET /", |said| Ok(outcome(said) == "vault"))?;
    // TLS of the client ended at the gateway; that towards the vault is another.
    ensure!(said.seen("/tls/sni")? == NAME && said.seen("/host")? == "ended.example.com", "{said:?}");
    let shown = said.last()["tls"]["certificate"].as_str().context("no certificate")?;
    ensure!(shown.len() == 64, "{said:?}");
    is_in_force(market, "ended")
}
