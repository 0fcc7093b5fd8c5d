//! What would happen to a request, and why: the same functions that serve real ones, on the configuration of now, and
//! nothing is sent anywhere.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use http::header::HOST;
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Request, Uri};
use mesh_core::Identity;
use mesh_policy::l7::{DryRun, Http, L7Request};
use mesh_route::header::{TemplateContext, apply};
use mesh_route::{Action, Candidate, Entry as MatchedEntry, Explanation, RequestView, Retry, Rule, Target, Weighted};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::connection::Destination;
use crate::describe;
use crate::dispatch::{self, Served};
use crate::http::{Canonical, authority, rewritten_target};
use crate::shared::Shared;
use crate::snapshot::{Backend, Chain, Entry, Plain, Protocol, Snapshot};

/// A request that nobody makes.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Question {
    /// What is called: `ip:port` or `host:port` of a service; of a gateway `listener:port`.
    pub destination: String,
    /// Method.
    #[serde(default = "get")]
    pub method: String,
    /// Path and query.
    #[serde(default = "slash")]
    pub path: String,
    /// In order; the host among them, if it is to be another than that of the destination.
    #[serde(default)]
    pub headers: Vec<(String, String)>,
    /// SPIFFE identity of the caller.
    pub source_identity: Option<String>,
    /// Address of the caller.
    pub source_ip: Option<IpAddr>,
}

/// A question that cannot be answered, or why the proxy would not take the request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unanswerable {
    /// A field is not what it should be.
    #[error("{field}: {value:?} is not {expected}")]
    Field {
        /// Which.
        field: &'static str,
        /// What it says.
        value: String,
        /// What was expected.
        expected: &'static str,
    },
}

/// Answers the question.
///
/// # Errors
/// The question makes no sense.
pub fn explain(shared: &Shared, question: &Question) -> Result<Value, Unanswerable> {
    let snapshot = shared.snapshots.current();
    let source = source(question)?;
    let (mut parts, ()) = request(question)?.into_parts();
    let chain = match chain(shared, &snapshot, question, authority(&parts.headers))? {
        Ok(chain) => chain,
        Err(refusal) => return Ok(json!({"verdict": {"allowed": false, "stage": "dispatch", "reason": refusal}})),
    };
    let mut answer = json!({
        "listener": describe::name(&chain),
        "resource": &*chain.name,
        "protocol": format!("{:?}", chain.protocol),
        "service": chain.service().map(|service| &*service.hostname),
    });
    let mut say = |name: &str, value: Value| {
        if let Some(fields) = answer.as_object_mut() {
            fields.insert(name.to_owned(), value);
        }
    };
    if !chain.protocol.is_http() && chain.protocol != Protocol::Detect {
        let reason = "the port carries bytes, not requests: name it http, or set appProtocol";
        say("verdict", json!({"allowed": true, "stage": "tcp", "reason": reason}));
        return Ok(answer);
    }
    let canonical = match Canonical::of(&mut parts, false, &chain.proxy.settings) {
        Ok(canonical) => canonical,
        Err(local) => {
            let status = local.status.as_u16();
            say("verdict", json!({"allowed": false, "stage": "request", "status": status, "reason": local.details}));
            return Ok(answer);
        }
    };
    say("path", canonical.path().into());
    let asked = Asked { source, ip: question.source_ip.unwrap_or(Ipv4Addr::UNSPECIFIED.into()), parts, canonical };
    let (allowed, verdict) = asked.judged(&chain);
    say("verdict", verdict);
    if allowed {
        for (name, value) in asked.routed(&chain) {
            say(name, value);
        }
    }
    Ok(answer)
}

/// A request as the stages see it.
struct Asked {
    source: Option<Identity>,
    ip: IpAddr,
    parts: Parts,
    canonical: Canonical,
}

impl Asked {
    /// Whether policies let it pass, and which.
    fn judged(&self, chain: &Chain) -> (bool, Value) {
        if let Some(reason) = chain.refuse_all.as_ref().or(chain.proxy.refuse_all.as_ref()) {
            return (false, json!({"allowed": false, "stage": "policy", "status": 403, "reason": &**reason}));
        }
        let request = L7Request {
            source: self.source.as_ref(),
            source_ip: self.ip,
            remote_ip: self.ip,
            destination_ip: Some(destination(chain).ip()),
            destination_port: destination(chain).port(),
            sni: None,
            http: Some(Http {
                host: authority(&self.parts.headers),
                method: self.parts.method.as_str(),
                path: self.canonical.path(),
                headers: &self.parts.headers,
                token: None,
            }),
        };
        let verdict = chain.policies.evaluate(&request);
        let allowed = verdict.allowed();
        let answer = json!({
            "allowed": allowed,
            "stage": "policy",
            "status": if allowed { Value::Null } else { 403.into() },
            "policy": verdict.decision.rule().map(|rule| rule.id()),
            "reason": verdict.decision.to_string(),
            "policies": chain.policies.names().take(POLICIES_MAX).map(ToString::to_string).collect::<Vec<_>>(),
            "dryRun": dry_run(&verdict.dry_run),
            "nearestAllow": if allowed { None } else { chain.policies.nearest_allow(&request) },
        });
        (allowed, answer)
    }

    /// Which rule it takes, where that leads, and why not another.
    fn routed(&self, chain: &Chain) -> Vec<(&'static str, Value)> {
        let view = RequestView {
            method: self.parts.method.as_str(),
            scheme: if chain.protocol == Protocol::Https { "https" } else { "http" },
            authority: authority(&self.parts.headers),
            path: self.canonical.path(),
            query: self.canonical.query(),
            headers: &self.parts.headers,
            port: destination(chain).port(),
            claims: None,
        };
        let Some(table) = &chain.http else {
            let backend = chain.default_backend.and_then(|index| chain.backend(index));
            let retries = format!("retries: {}", Retry::default());
            return vec![
                ("route", json!({"action": "forward", "reason": describe::NO_ROUTE, "effects": [retries]})),
                ("backends", backend.map(describe::only).into_iter().collect()),
            ];
        };
        let explanation = table.explain(&view);
        let left_out = explanation.candidates.len().saturating_sub(CANDIDATES_MAX);
        let mut said = vec![("candidates", candidates(&explanation)), ("candidatesLeftOut", left_out.into())];
        match table.find(&view) {
            Some(found) => {
                let mut route = rule(chain, found.rule);
                if let (Action::Redirect(redirect), Some(fields)) = (&found.rule.action, route.as_object_mut()) {
                    let location = mesh_route::redirect::location(redirect, &view, found.entry);
                    fields.insert("location".to_owned(), location.ok().into());
                }
                said.push(("route", route));
                said.extend(self.sent_on(chain, found.rule, found.entry));
            }
            None => {
                said.push((
                    "route",
                    json!({"action": "none", "status": 404, "reason": "no route matches", "host": explanation.host}),
                ));
            }
        }
        said
    }
}

impl Asked {
    /// Where a rule leads, and whether policies of other services than the one that was called let it get there. The verdict
    /// is another one where they let it get nowhere.
    fn sent_on(&self, chain: &Chain, rule: &Rule, entry: &MatchedEntry) -> Vec<(&'static str, Value)> {
        let mut shown = describe::backends(chain, rule);
        let Action::Forward(forward) = &rule.action else { return vec![("backends", shown.into())] };
        let mut denials = Vec::new();
        let mut others = false;
        for (n, one) in forward.backends().iter().enumerate().filter(|(_, one)| one.weight > 0) {
            let denial = match &one.target {
                Target::Backend(index) => {
                    chain.backend(*index).and_then(|backend| self.kept_from(chain, backend, rule, one, entry))
                }
                _ => None,
            };
            others |= denial.is_none();
            let fields = shown.get_mut(n).and_then(Value::as_object_mut);
            if let (Some(fields), Some(denial)) = (fields, &denial) {
                fields.insert("error".to_owned(), 403.into());
                fields.insert("refuse".to_owned(), denial.as_str().into());
            }
            denials.extend(denial);
        }
        let mut said = vec![("backends", shown.into())];
        if let Some(first) = denials.into_iter().next().filter(|_| !others) {
            said.push(("verdict", json!({"allowed": false, "stage": "policy", "status": 403, "reason": first})));
        }
        said
    }

    /// Why it is not sent on to a backend, if it is not: what the backend would get is judged.
    fn kept_from(
        &self,
        chain: &Chain,
        backend: &Backend,
        rule: &Rule,
        weighted: &Weighted,
        entry: &MatchedEntry,
    ) -> Option<String> {
        let guard = backend.guard.as_deref()?;
        let nothing = |why: &str| Some(format!("a route leads to {backend}: {why}"));
        if let Some(reason) = &guard.refuse_all {
            return nothing(&format!("nothing may pass: {reason}"));
        }
        let rewrite = weighted.rewrite.as_ref().or(rule.rewrite.as_ref());
        let normalization = chain.proxy.settings.normalization;
        let target =
            rewrite.map(|rewrite| rewritten_target(rewrite, &self.canonical.target, Some(entry), normalization));
        let target = match target.transpose() {
            Ok(target) => target.flatten(),
            Err(local) => return nothing(&local.details),
        };
        let host = rewrite.and_then(|rewrite| rewrite.authority.as_deref());
        let mut headers = self.parts.headers.clone();
        let mut new_host = None;
        for edits in [&rule.request_headers, &weighted.request_headers] {
            apply(edits, &mut headers, &mut new_host, &TemplateContext::default());
        }
        let http = Http {
            host: host.or(new_host.as_deref()).unwrap_or_else(|| authority(&headers)),
            method: self.parts.method.as_str(),
            path: target.as_ref().unwrap_or(&self.canonical.target).path(),
            headers: &headers,
            token: None,
        };
        let request = guard.request_of(self.source.as_ref(), self.ip, self.ip, Some(http));
        let verdict = guard.policies.evaluate(&request);
        if verdict.allowed() {
            return None;
        }
        let nearest = guard.policies.nearest_allow(&request).map(|nearest| format!("; {nearest}")).unwrap_or_default();
        nothing(&format!("{}{nearest}", verdict.decision))
    }
}

fn candidates(explanation: &Explanation) -> Value {
    let shown = nearest(explanation).into_iter().map(|(index, one)| {
        json!({
            "order": index + 1,
            "rule": one.origin.to_string(),
            "wants": one.wants,
            "taken": explanation.chosen == Some(index),
            "misses": one.misses.iter().map(|miss| json!({"wanted": miss.wanted, "found": miss.found})).collect::<Vec<_>>(),
        })
    });
    shown.collect()
}

/// What policies on trial would have done.
fn dry_run(dry: &DryRun<'_>) -> Option<String> {
    match dry {
        DryRun { would_deny: Some(rule), .. } => Some(format!("{rule} would refuse it")),
        DryRun { would_allow: Some(rule), .. } => Some(format!("{rule} would let it pass")),
        DryRun { none_matched: true, .. } => Some("it would be refused: no rule of the allow policies matches".into()),
        DryRun { .. } => None,
    }
}

/// Candidates in the order in which they count: all of them, or where there are too many, those that miss the least.
fn nearest(explanation: &Explanation) -> Vec<(usize, &Candidate)> {
    let mut all: Vec<(usize, &Candidate)> = explanation.candidates.iter().enumerate().collect();
    if all.len() > CANDIDATES_MAX {
        all.sort_by_key(|(index, one)| (explanation.chosen != Some(*index), one.misses.len(), *index));
        all.truncate(CANDIDATES_MAX);
        all.sort_by_key(|(index, _)| *index);
    }
    all
}

fn rule(chain: &Chain, rule: &Rule) -> Value {
    let (action, answer) = describe::action(rule);
    let status = match &rule.action {
        Action::Forward(_) => None,
        Action::Redirect(redirect) => Some(redirect.status.as_u16()),
        Action::Direct(direct) => Some(direct.status.as_u16()),
        Action::Unusable(unusable) => Some(unusable.status.as_u16()),
    };
    json!({
        "rule": describe::route(rule),
        "action": action,
        "answer": answer,
        "status": status,
        "effects": describe::effects(chain, rule),
        "timeoutMs": rule.timeout.map(|timeout| timeout.as_millis()),
        "retries": rule.retry.as_ref().map(|retry| retry.attempts),
    })
}

/// What was called, as policies see it.
fn destination(chain: &Chain) -> SocketAddr {
    match &chain.entry {
        Entry::Port(port) => {
            (port.addresses.first().copied().unwrap_or(Ipv4Addr::UNSPECIFIED.into()), port.port).into()
        }
        Entry::Listener(listener) => (Ipv4Addr::UNSPECIFIED, listener.port).into(),
        Entry::Workload(address) => *address,
    }
}

/// What serves the destination; the inner error is what the client would be told.
fn chain(
    shared: &Shared,
    snapshot: &Snapshot,
    question: &Question,
    host: &str,
) -> Result<Result<Arc<Chain>, String>, Unanswerable> {
    if let Some(port) = question.destination.strip_prefix("listener:") {
        let port: u16 = port.parse().map_err(|_| field("destination", &question.destination, "listener:<port>"))?;
        return Ok(of_listener(snapshot, port, host));
    }
    let destination: Destination = dispatch::parse(Some(&question.destination))
        .map_err(|_| field("destination", &question.destination, "<ip>:<port>, <host>:<port> or listener:<port>"))?;
    Ok(match dispatch::look_up(snapshot, &shared.endpoints, &destination) {
        Ok(Served::Port(handle)) => handle.current().ok_or_else(|| format!("{destination} is not served any more")),
        Ok(Served::Workload(..)) => {
            Err(format!("{destination} is a workload: no routes apply to calls by its address"))
        }
        Err(Some(refusal)) => Err(refusal.to_string()),
        Err(None) => {
            Err(format!("{destination} is not known to this proxy; a call would ask the control plane about it"))
        }
    })
}

fn of_listener(snapshot: &Snapshot, port: u16, host: &str) -> Result<Arc<Chain>, String> {
    let called = |socket: &&Arc<crate::snapshot::Socket>| socket.called == port;
    let socket = snapshot.sockets().get(&port).or_else(|| snapshot.sockets().values().find(called));
    let socket = socket.ok_or_else(|| format!("no listener has port {port}"))?;
    let handle = match &socket.plain {
        Some(Plain::Http(handle)) => handle.clone(),
        Some(Plain::Bytes(handle)) => return handle.current().ok_or_else(|| "the listener is gone".to_owned()),
        None => {
            let name = mesh_route::host::name(host);
            let secured = socket.secured(&name).ok_or_else(|| format!("no listener of port {port} is for {name:?}"))?;
            socket.https(secured, Some((&*name).into()))
        }
    };
    handle.for_host(host).map_err(|_| format!("no listener of port {port} serves host {host:?}"))
}

fn source(question: &Question) -> Result<Option<Identity>, Unanswerable> {
    let parse = |text: &String| text.parse().map_err(|_| field("sourceIdentity", text, "a SPIFFE identity"));
    question.source_identity.as_ref().map(parse).transpose()
}

fn request(question: &Question) -> Result<Request<()>, Unanswerable> {
    let method: Method = question.method.parse().map_err(|_| field("method", &question.method, "a method"))?;
    let uri: Uri = question.path.parse().map_err(|_| field("path", &question.path, "a path"))?;
    let mut request = Request::new(());
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    for (name, value) in &question.headers {
        let parsed: HeaderName = name.parse().map_err(|_| field("headers", name, "a header name"))?;
        let value: HeaderValue = value.parse().map_err(|_| field("headers", value, "a header value"))?;
        request.headers_mut().append(parsed, value);
    }
    if !request.headers().contains_key(HOST) {
        let host = question.destination.parse().map_err(|_| field("destination", &question.destination, "a host"))?;
        request.headers_mut().insert(HOST, host);
    }
    Ok(request)
}

fn field(field: &'static str, value: &str, expected: &'static str) -> Unanswerable {
    Unanswerable::Field { field, value: value.to_owned(), expected }
}

fn get() -> String {
    "GET".to_owned()
}

fn slash() -> String {
    "/".to_owned()
}

/// Candidates that are shown; a table may have ten thousand.
const CANDIDATES_MAX: usize = 100;
/// Policies that are named.
const POLICIES_MAX: usize = 50;
