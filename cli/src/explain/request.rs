//! The layer-7 half of `meltemi explain`: what the waypoint on the way would do with a request.

use anyhow::{Context, Result, bail, ensure};
use http::{HeaderName, HeaderValue, Method, Uri};
use hyper::body::Bytes;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

use crate::dump::{entries, number, text, texts};
use crate::proxy;
use crate::proxy_config::tables;

/// A request as the command line describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    /// `<host>:<port>`, to be resolved.
    pub(super) destination: String,
    scheme: Scheme,
    port: u16,
    method: Method,
    path: String,
    headers: Vec<(String, String)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scheme {
    Http,
    Https,
}

impl Wanted {
    /// Reads `http://host[:port]/path`; `None` when the destination is not a URL.
    pub(super) fn read(url: &str, method: &Method, headers: &[(HeaderName, HeaderValue)]) -> Result<Option<Self>> {
        if !url.contains("://") {
            return Ok(None);
        }
        let uri: Uri = url.parse().with_context(|| format!("{url:?} is not a URL"))?;
        let scheme = match uri.scheme_str() {
            Some("http") => Scheme::Http,
            Some("https") => Scheme::Https,
            _ => bail!("{url:?}: expected http:// or https://"),
        };
        let host = uri.host().with_context(|| format!("{url:?} names no host"))?;
        let port = uri.port_u16().unwrap_or(if scheme == Scheme::Https { 443 } else { 80 });
        let destination = format!("{host}:{port}");
        let authority = uri.authority().map(ToString::to_string).unwrap_or_default();
        let mut shown = Vec::new();
        if !headers.iter().any(|(name, _)| name == http::header::HOST) {
            shown.push(("host".to_owned(), authority));
        }
        shown.extend(
            headers
                .iter()
                .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())),
        );
        let path = uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string);
        Ok(Some(Self { destination, scheme, port, method: method.clone(), path, headers: shown }))
    }

    /// Asks the waypoint that `answer`, which the node proxy gave, leads to. `None`: there is none on the way.
    ///
    /// # Errors
    /// The waypoint cannot be found or asked, or sees no requests because they are in TLS of their own.
    pub(super) async fn ask(
        &self,
        client: &Client,
        system_namespace: &str,
        answer: &Value,
        port: u16,
    ) -> Result<Option<Value>> {
        let text = |pointer: &str| answer.pointer(pointer).and_then(Value::as_str);
        if text("/path/kind") != Some("hbone-to-waypoint") {
            return Ok(None);
        }
        ensure!(
            self.scheme == Scheme::Http,
            "the application's own TLS hides requests from the waypoint: ask about {} instead, or about http://",
            self.destination
        );
        let dial = text("/path/dial").context("the node proxy does not say where the waypoint is")?;
        let ip = dial.rsplit_once(':').map_or(dial, |(ip, _)| ip).trim_matches(['[', ']']);
        let waypoint = pod_at(client, ip).await?;
        let question = self.question(text("/path/authority").unwrap_or_default(), text("/source/identity"));
        let mut said = put(client, &waypoint, port, "waypoint", &question).await?;
        last_hop(client, system_namespace, &waypoint, port, &mut said).await;
        Ok(Some(said))
    }

    /// Asks a gateway about a request from outside of the mesh.
    ///
    /// # Errors
    /// The gateway cannot be asked.
    pub(super) async fn ask_gateway(
        &self,
        client: &Client,
        system_namespace: &str,
        gateway: &Pod,
        port: u16,
    ) -> Result<Value> {
        let question = self.question(&format!("listener:{}", self.port), None);
        let mut said = put(client, gateway, port, "gateway", &question).await?;
        last_hop(client, system_namespace, gateway, port, &mut said).await;
        Ok(said)
    }

    fn question(&self, destination: &str, source: Option<&str>) -> Value {
        json!({
            "destination": destination,
            "method": self.method.as_str(),
            "path": self.path,
            "headers": self.headers,
            "sourceIdentity": source,
        })
    }
}

/// Adds to each backend whether the node proxy of one of its endpoints would let the waypoint in. Where no node proxy can
/// say, nothing is added.
async fn last_hop(client: &Client, system_namespace: &str, waypoint: &Pod, port: u16, said: &mut Value) {
    let (namespace, name) = (waypoint.namespace().unwrap_or_default(), waypoint.name_any());
    let which = proxy::Which::Pod { namespace: namespace.clone(), name: name.clone() };
    let Ok(found) = proxy::find(client, system_namespace, &which).await else { return };
    let backends = said.get_mut("backends").and_then(Value::as_array_mut);
    for backend in backends.into_iter().flatten().take(BACKENDS_ASKED_MAX) {
        let Some(address) = backend.get("tunnelTo").and_then(Value::as_str) else { continue };
        let address = address.replace('[', "%5B").replace(']', "%5D");
        let path = format!("/explain?src=tunnel:{namespace}/{name}&dst={address}");
        let Ok(answer) = proxy::get_json(client, &found.proxy, port, &path).await else { continue };
        if let (Some(fields), Some(verdict)) = (backend.as_object_mut(), answer.get("verdict")) {
            let advice = answer.get("nearestAllow").cloned().unwrap_or_default();
            fields.insert("admitted".to_owned(), verdict.clone());
            fields.insert("nearestAllow".to_owned(), advice);
        }
    }
}

/// Puts a question to a waypoint or gateway.
async fn put(client: &Client, pod: &Pod, port: u16, role: &str, question: &Value) -> Result<Value> {
    let body = Bytes::from(serde_json::to_vec(question)?);
    let (status, said) = proxy::exchange(client, pod, port, "POST", "/explain", body).await?;
    let name = format!("{role} {}.{}", pod.name_any(), pod.namespace().unwrap_or_default());
    ensure!(status == 200, "{name} answered {status}: {}", String::from_utf8_lossy(&said).trim());
    let mut said: Value =
        serde_json::from_slice(&said).with_context(|| format!("{name} answered something else than JSON"))?;
    if let Some(fields) = said.as_object_mut() {
        fields.insert("by".to_owned(), name.into());
    }
    Ok(said)
}

/// The pod with an address. Waypoints carry the label that names their Gateway.
async fn pod_at(client: &Client, ip: &str) -> Result<Pod> {
    let pods = Api::<Pod>::all(client.clone());
    let labelled = ListParams::default().labels("gateway.networking.k8s.io/gateway-name");
    let found = pods.list(&labelled).await.context("listing waypoints")?.items.into_iter().find(|pod| {
        let ips = pod.status.iter().flat_map(|status| status.pod_ips.iter().flatten());
        ips.into_iter().any(|one| one.ip == ip)
    });
    found.with_context(|| format!("no pod of a Gateway has the address {ip}; was it replaced just now? Try again"))
}

/// What becomes of the request, in a few words.
pub(super) fn outcome(said: &Value) -> String {
    let text = |pointer: &str| said.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let status = |pointer: &str| said.pointer(pointer).and_then(Value::as_u64);
    if said.pointer("/verdict/allowed").and_then(Value::as_bool) != Some(true) {
        return status("/verdict/status").map_or("REFUSED".to_owned(), |status| format!("REFUSED with {status}"));
    }
    match (text("/route/action"), status("/route/status")) {
        ("none", status) => format!("ANSWERED with {}: no route matches", status.unwrap_or(404)),
        ("redirect", Some(status)) => format!("REDIRECTED with {status} to {}", text("/route/location")),
        ("answer" | "error", Some(status)) => format!("ANSWERED with {status}"),
        _ if lost(said, |one| number(one, "healthy") == 0) => "ANSWERED with 503: no healthy endpoint".to_owned(),
        _ if lost(said, is_refused) => "ANSWERED with 503: the pods' own policies refuse the waypoint".to_owned(),
        _ => "ALLOWED".to_owned(),
    }
}

/// Whether `fails` holds of every backend that takes requests.
fn lost(said: &Value, fails: fn(&Value) -> bool) -> bool {
    let all = entries(said, "backends");
    let mut taking = all.iter().filter(|one| number(one, "weight") > 0).peekable();
    taking.peek().is_some() && taking.all(|one| one.get("host").is_some() && fails(one))
}

/// Whether the endpoint's own node proxy does not let the waypoint in.
fn is_refused(backend: &Value) -> bool {
    backend.pointer("/admitted/allowed").and_then(Value::as_bool) == Some(false)
}

/// What the waypoint said, for people, in the order in which the request meets it.
pub(super) fn render(said: &Value) -> Vec<String> {
    let at = |pointer: &str| said.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let mut out = Vec::new();
    let mut field = |title: &str, value: String| {
        if !value.is_empty() {
            out.push(format!("  {title:<12} {value}"));
        }
    };
    field("request at", at("/by").to_owned());
    field("listener", at("/listener").to_owned());
    field("path is", at("/path").to_owned());
    let allowed = said.pointer("/verdict/allowed").and_then(Value::as_bool).unwrap_or(false);
    let status = said.pointer("/verdict/status").and_then(Value::as_u64);
    let status = status.map(|status| format!(" with {status}")).unwrap_or_default();
    let reason = at("/verdict/reason");
    field("policy", if allowed { format!("lets it pass: {reason}") } else { format!("REFUSED{status}: {reason}") });
    field("on trial", at("/verdict/dryRun").to_owned());
    if !allowed {
        field("to allow it", at("/verdict/nearestAllow").to_owned());
    }
    field("route", route(said));
    for effect in said.pointer("/route/effects").and_then(Value::as_array).into_iter().flatten() {
        field("does", effect.as_str().unwrap_or_default().to_owned());
    }
    for backend in entries(said, "backends") {
        field("backend", self::backend(backend));
        if is_refused(backend) {
            let admitted = backend.get("admitted").unwrap_or(&Value::Null);
            field("at the pod", format!("REFUSED by {}: {}", text(admitted, "by"), text(admitted, "reason")));
            field("to allow it", text(backend, "nearestAllow").to_owned());
        }
    }
    let candidates = entries(said, "candidates");
    let taken = candidates.iter().position(|one| is_taken(one)).unwrap_or(candidates.len());
    for (position, candidate) in candidates.iter().enumerate().filter(|(_, one)| !is_taken(one)) {
        field(if position < taken { "not" } else { "not (later)" }, missed(candidate));
    }
    let left_out = number(said, "candidatesLeftOut");
    if left_out > 0 {
        field("not", format!("{left_out} others, which miss more"));
    }
    out
}

fn is_taken(candidate: &Value) -> bool {
    candidate.get("taken").and_then(Value::as_bool) == Some(true)
}

/// The rule, why it is this one, and what answers where nothing is forwarded.
fn route(said: &Value) -> String {
    let Some(route) = said.get("route") else { return String::new() };
    let mut parts = vec![match (text(route, "rule"), text(route, "reason")) {
        ("", reason) => reason.to_owned(),
        (rule, _) => rule.to_owned(),
    }];
    let taken = entries(said, "candidates").into_iter().find(|one| is_taken(one));
    parts.extend(taken.map(|one| format!("because {}", text(one, "wants"))));
    parts.extend(Some(text(route, "answer").to_owned()).filter(|answer| !answer.is_empty()));
    if text(route, "action") == "none" {
        parts.push("answered with 404".to_owned());
    }
    parts.join(", ")
}

fn backend(backend: &Value) -> String {
    let share = match text(backend, "share") {
        "" | "100%" => String::new(),
        share => format!("{share} "),
    };
    if backend.get("host").is_none() {
        return format!("{share}{}", tables::target(backend));
    }
    let (all, healthy, ejected) =
        (number(backend, "endpoints"), number(backend, "healthy"), number(backend, "ejected"));
    let mut line = format!("{share}{}, {healthy} of {all} endpoints healthy", text(backend, "service"));
    if ejected > 0 {
        line.push_str(&format!(", {ejected} left out because they failed"));
    }
    if healthy == 0 {
        line.push_str(": answered with 503");
    }
    let refused = text(backend, "refuse");
    if !refused.is_empty() {
        line.push_str(&format!("; never called: {refused}"));
    }
    for effect in texts(backend, "effects") {
        line.push_str(&format!("; {effect}"));
    }
    line
}

fn missed(candidate: &Value) -> String {
    let reasons: Vec<String> = entries(candidate, "misses")
        .into_iter()
        .map(|miss| match miss.get("found").and_then(Value::as_str) {
            Some(found) => format!("wants {}, has {found:?}", text(miss, "wanted")),
            None => format!("wants {}, has none", text(miss, "wanted")),
        })
        .collect();
    let why = if reasons.is_empty() {
        format!("matches too ({}), comes after the one that is taken", text(candidate, "wants"))
    } else {
        reasons.join("; ")
    };
    format!("{}: {why}", text(candidate, "rule"))
}

/// Backends whose endpoints are asked about.
const BACKENDS_ASKED_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_a_request_and_anything_else_a_connection() {
        let read = |url: &str| Wanted::read(url, &Method::POST, &[]);
        assert_eq!(read("web.demo:80").unwrap(), None);
        let wanted = read("http://web.demo/a?b=c").unwrap().unwrap();
        assert_eq!((wanted.destination.as_str(), wanted.path.as_str()), ("web.demo:80", "/a?b=c"));
        assert_eq!(wanted.headers, [("host".to_owned(), "web.demo".to_owned())]);
        assert_eq!(read("http://web:8080").unwrap().unwrap().destination, "web:8080");
        assert_eq!(read("https://web/").unwrap().unwrap().destination, "web:443");
        assert!(read("ftp://web/").unwrap_err().to_string().contains("expected http://"));
    }

    fn said() -> Value {
        json!({
            "by": "waypoint waypoint-1.demo",
            "listener": "web.demo.svc.cluster.local:80",
            "path": "/cart",
            "verdict": {"allowed": true, "reason": "no policy requires anything"},
            "route": {"rule": "HTTPRoute demo/web rule 3 (canary)", "action": "forward",
                      "effects": ["time-out: 300ms", "retries: 2 more after 503; back-off from 25ms"]},
            "backends": [
                {"host": "web.demo.svc.cluster.local", "service": "web.demo.svc.cluster.local:80", "weight": 90,
                 "share": "90%", "endpoints": 2, "healthy": 1, "ejected": 1},
                {"error": 500, "reason": "no service web-v9", "weight": 10, "share": "10%"},
            ],
            "candidates": [
                {"rule": "HTTPRoute demo/web rule 0", "taken": false, "misses": [{"wanted": "header x-tester is \"yes\"", "found": null}]},
                {"rule": "HTTPRoute demo/web rule 3 (canary)", "wants": "any path", "taken": true, "misses": []},
                {"rule": "HTTPRoute demo/other rule 0", "wants": "any path", "taken": false, "misses": []},
            ],
        })
    }

    #[test]
    fn the_route_its_backends_and_the_others_are_named() {
        let text = render(&said()).join("\n");
        for part in [
            "request at   waypoint waypoint-1.demo",
            "path is      /cart",
            "policy       lets it pass: no policy requires anything",
            "route        HTTPRoute demo/web rule 3 (canary), because any path",
            "does         time-out: 300ms",
            "does         retries: 2 more after 503",
            "backend      90% web.demo.svc.cluster.local:80, 1 of 2 endpoints healthy, 1 left out because they failed",
            "backend      10% answers with 500: no service web-v9",
            "not          HTTPRoute demo/web rule 0: wants header x-tester is \"yes\", has none",
            "not (later)  HTTPRoute demo/other rule 0: matches too (any path), comes after the one that is taken",
        ] {
            assert!(text.contains(part), "{part:?} is missing in\n{text}");
        }
    }

    #[test]
    fn the_first_line_says_what_becomes_of_the_request() {
        let with = |pointer: &str, value: Value| {
            let mut said = said();
            *said.pointer_mut(pointer).unwrap() = value;
            outcome(&said)
        };
        assert_eq!(outcome(&said()), "ALLOWED");
        assert_eq!(with("/verdict", json!({"allowed": false, "status": 403})), "REFUSED with 403");
        assert_eq!(with("/verdict", json!({"allowed": false})), "REFUSED");
        assert_eq!(with("/route", json!({"action": "none", "status": 404})), "ANSWERED with 404: no route matches");
        let redirect = json!({"action": "redirect", "status": 302, "location": "https://a/"});
        assert_eq!(with("/route", redirect), "REDIRECTED with 302 to https://a/");
        assert_eq!(with("/route", json!({"action": "error", "status": 500})), "ANSWERED with 500");
        let lost = json!([{"host": "a", "weight": 1, "healthy": 0}, {"host": "b", "weight": 0, "healthy": 3}]);
        assert_eq!(with("/backends", lost), "ANSWERED with 503: no healthy endpoint");
        let half = json!([{"host": "a", "weight": 1, "healthy": 0}, {"host": "b", "weight": 1, "healthy": 3}]);
        assert_eq!(with("/backends", half), "ALLOWED");
        let refused = json!([{"host": "a", "weight": 1, "healthy": 1, "admitted": {"allowed": false, "by": "ztunnel of demo/a-1",
                              "reason": "none matched"}, "nearestAllow": "add principal x"}]);
        let said = json!({"verdict": {"allowed": true}, "route": {"action": "forward"}, "backends": refused});
        assert_eq!(outcome(&said), "ANSWERED with 503: the pods' own policies refuse the waypoint");
        let text = render(&said).join("\n");
        assert!(text.contains("at the pod   REFUSED by ztunnel of demo/a-1: none matched"), "{text}");
        assert!(text.contains("to allow it  add principal x"), "{text}");
    }
}
