//! Answers "what happens when SRC connects to DST": the very functions of the data path, run on
//! the current snapshot, with their reasons.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use mesh_core::{NamespacedName, NetworkAddr};
use mesh_policy::{Action, Connection, Policy, Reason, evaluate, nearest_allow};
use serde_json::{Value, json};

use crate::promises::Strict;
use crate::route::{self, Authority, Caller, Dial, Hop, Outbound, Path, Source};
use crate::state::{Protocol, Snapshot, Workload};

/// Why there is nothing to explain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExplainError {
    /// The source is no known workload.
    #[error("source {found:?} is not known to this proxy: expected <namespace>/<pod> or the address of a workload")]
    UnknownSource {
        /// As it was given.
        found: String,
    },
    /// The destination is not `host:port`.
    #[error("destination {found:?} is not <host or address>:<port>")]
    Destination {
        /// As it was given.
        found: String,
    },
    /// No service or workload has that name.
    #[error("host {found:?} is not known to this proxy: expected a service, <namespace>/<pod> or an address")]
    UnknownHost {
        /// As it was given.
        found: String,
    },
}

/// Before a source that needs no proxy to make tunnels.
const TUNNEL: &str = "tunnel:";
/// Source port of the connection that is imagined; no decision depends on it.
const SOME_PORT: u16 = 40_000;

/// Explains a connection as it would go while the promises in `strict` hold. A source that makes tunnels itself, as
/// waypoints and gateways do, is written `tunnel:<source>`.
///
/// # Errors
/// Source or destination mean nothing to this proxy.
pub fn explain(snapshot: &Snapshot, strict: Strict, domain: &str, src: &str, dst: &str) -> Result<Value, ExplainError> {
    let (src, makes_tunnels) = src.strip_prefix(TUNNEL).map_or((src, false), |src| (src, true));
    let source = find_source(snapshot, src)?;
    let target = find_destination(snapshot, domain, &source, dst)?;
    let source_ip = source_ip(&source, target.ip());
    let from = Source { workload: &source, addr: SocketAddr::new(source_ip, SOME_PORT) };
    let mut answer = json!({
        "source": party(&source),
        "destination": { "requested": dst, "address": target.to_string() },
    });
    let captured = makes_tunnels || source.protocol == Protocol::Hbone;
    // Without a proxy at the source nothing is decided there: the destination sees plaintext.
    let decided =
        if captured { route::outbound(snapshot, &from, target, &mut |_| 0) } else { Ok(uncaptured(snapshot, target)) };
    match decided {
        Err(refusal) => {
            set(
                &mut answer,
                "path",
                json!({"kind": "refused", "by": "ztunnel of the source", "reason": refusal.to_string()}),
            );
            set(&mut answer, "verdict", json!({"allowed": false, "reason": refusal.to_string()}));
        }
        Ok(outbound) => {
            set(&mut answer, "path", path(&outbound, captured));
            if let Some(service) = &outbound.service {
                set_in(&mut answer, "destination", "service", service.key.to_string().into());
            }
            if let Some(workload) = &outbound.workload {
                let key = match outbound.hop {
                    Hop::Direct => "workload",
                    Hop::Waypoint => "waypoint",
                    Hop::Gateway => "gateway",
                };
                set_in(&mut answer, "destination", key, party(workload));
                judge(&Case { snapshot, strict, from, target }, &mut answer, &outbound, workload);
            } else {
                let reason = "the destination is not known to the mesh: the connection goes there as it is";
                set(&mut answer, "verdict", json!({"allowed": true, "reason": reason}));
            }
        }
    }
    Ok(answer)
}

/// The connection that is imagined.
struct Case<'a> {
    snapshot: &'a Snapshot,
    strict: Strict,
    from: Source<'a>,
    target: SocketAddr,
}

/// Adds what the policies of the first enforcing proxy say.
fn judge(case: &Case<'_>, answer: &mut Value, outbound: &Outbound, at: &Workload) {
    let Case { snapshot, strict, from, target } = case;
    if at.protocol != Protocol::Hbone && outbound.hop == Hop::Direct {
        let reason = "the destination is not enrolled: nothing enforces policies there";
        set(answer, "verdict", json!({"allowed": true, "reason": reason}));
        return;
    }
    if outbound.hop == Hop::Gateway {
        let reason = "the destination is on another network: its policies are known there, not here";
        set(answer, "verdict", json!({"allowed": Value::Null, "reason": reason}));
        return;
    }
    let destination = match &outbound.path {
        Path::Hbone { authority: Authority::Addr(addr), .. } if outbound.hop == Hop::Direct => *addr,
        // A workload that is known by name only has an address once it is looked up.
        Path::Hbone { authority: Authority::Name { port, .. }, .. } => SocketAddr::new(target.ip(), *port),
        path => path.addr().unwrap_or(*target),
    };
    let tunnelled = outbound.path.is_tunnel();
    let connection = Connection {
        source_ip: from.addr.ip(),
        identity: tunnelled.then(|| from.workload.identity.clone()),
        destination,
    };
    let policies = snapshot.policies_for(at);
    let verdict = evaluate(&policies.applied, &connection);
    let each: Vec<_> = policies.applied.iter().map(|policy| one(policy, &connection)).collect();
    set(answer, "policies", each.into());
    let rule = verdict.reason.rule();
    let waits = strict.policy_before_traffic && !policies.missing.is_empty();
    let mut shown = json!({
        "allowed": verdict.allowed && !waits,
        "by": format!("ztunnel of {}/{}", at.namespace, at.name),
        "reason": verdict.reason.to_string(),
        "policy": rule.map(|rule| rule.policy.to_string()),
        "rule": rule.map(|rule| rule.rule),
        "identitySeen": connection.identity.as_ref().map(ToString::to_string),
        "notes": verdict.notes.iter().map(ToString::to_string).collect::<Vec<_>>(),
    });
    if !policies.missing.is_empty() {
        let missing = policies.missing.join(", ");
        if waits {
            set(&mut shown, "reason", format!("policy {missing} is attached to the workload but not known yet").into());
        }
        set(&mut shown, "missingPolicies", json!(policies.missing));
    }
    let caller = Caller { identity: connection.identity.as_ref(), ip: connection.source_ip };
    if let Err(bypass) = route::required(snapshot, at, destination.port(), caller)
        && verdict.allowed
        && strict.waypoint_required
    {
        set(&mut shown, "allowed", false.into());
        set(&mut shown, "reason", bypass.to_string().into());
        set(&mut shown, "waypointRequiredBy", bypass.service.to_string().into());
    }
    set(answer, "verdict", shown);
    if let Some(change) = nearest_allow(&policies.applied, &connection) {
        set(answer, "nearestAllow", change.to_string().into());
    }
    if outbound.hop == Hop::Waypoint {
        let note = "the waypoint applies its own policies and then connects as itself; those are not evaluated here";
        set(answer, "note", note.into());
    }
}

/// What one policy says by itself.
fn one(policy: &Arc<Policy>, connection: &Connection) -> Value {
    let enforced = Arc::new(Policy { dry_run: false, ..Policy::clone(policy) });
    let matched = match evaluate(&[enforced], connection).reason {
        Reason::Denied(rule) | Reason::Allowed(rule) => Some(rule.rule),
        Reason::NothingRequired | Reason::NoneMatched { .. } => None,
    };
    let action = match policy.action {
        Action::Allow => "ALLOW",
        Action::Deny => "DENY",
    };
    json!({"policy": policy.key.to_string(), "action": action, "dryRun": policy.dry_run, "matchedRule": matched})
}

fn path(outbound: &Outbound, captured: bool) -> Value {
    let by = |text: &str| if captured { json!([text]) } else { json!([]) };
    match &outbound.path {
        Path::Hbone { dial, authority, expected } => json!({
            "kind": if outbound.hop == Hop::Waypoint { "hbone-to-waypoint" } else { "hbone" },
            "dial": dial.to_string(),
            "authority": authority.to_string(),
            "encrypted": true,
            "expectedIdentities": expected.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "proxies": ["ztunnel of the source", if outbound.hop == Hop::Waypoint { "waypoint" } else { "ztunnel of the destination" }],
        }),
        Path::DoubleHbone { gateway, authority, outer, inner } => json!({
            "kind": "double-hbone",
            "dial": gateway.to_string(),
            "authority": authority.to_string(),
            "encrypted": true,
            "expectedIdentities": inner.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "gatewayIdentities": outer.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "proxies": ["ztunnel of the source", "gateway of the other network", "ztunnel or waypoint of the destination"],
        }),
        Path::Plain { dial } => json!({
            "kind": "plaintext", "dial": dial.to_string(), "encrypted": false, "proxies": by("ztunnel of the source"),
            "reason": if captured { "the destination is not enrolled" } else { "the source is not enrolled" },
        }),
        Path::Passthrough { dial } => json!({
            "kind": "passthrough", "dial": dial.to_string(), "encrypted": false, "proxies": by("ztunnel of the source"),
            "reason": "the destination is not known to the mesh",
        }),
    }
}

/// Where a connection goes that no proxy of ours takes at its source: a Service address is resolved
/// by the cluster, so that any endpoint may be meant; the first stands for all.
fn uncaptured(snapshot: &Snapshot, target: SocketAddr) -> Outbound {
    let addr = NetworkAddr::new(Arc::clone(&snapshot.local.network), target.ip());
    let direct = |workload: Option<Arc<Workload>>, dial: SocketAddr, service| Outbound {
        path: Path::Plain { dial: Dial::Addr(dial) },
        hop: Hop::Direct,
        workload,
        service,
    };
    if let Some(workload) = snapshot.workload_by_ip(&addr) {
        return direct(Some(Arc::clone(workload)), target, None);
    }
    let service = snapshot.service_by_vip(None, &addr).cloned();
    let endpoint = service.as_ref().and_then(|service| snapshot.endpoints(service)?.values().next().cloned());
    let dial = endpoint.as_ref().and_then(|endpoint| {
        let declared = service.as_ref().and_then(|service| service.ports.target(target.port()));
        let port = endpoint.ports.target(target.port()).or(declared)?;
        Some(SocketAddr::new(*endpoint.workload.ips.first()?, port))
    });
    match (endpoint, dial) {
        (Some(endpoint), Some(dial)) => direct(Some(endpoint.workload), dial, service),
        _ => Outbound { path: Path::Passthrough { dial: target }, hop: Hop::Direct, workload: None, service },
    }
}

fn find_source(snapshot: &Snapshot, text: &str) -> Result<Arc<Workload>, ExplainError> {
    workload(snapshot, text).ok_or_else(|| ExplainError::UnknownSource { found: text.to_owned() })
}

/// By address on the own network or by `namespace/name`; a pod before anything else of that name.
fn workload(snapshot: &Snapshot, text: &str) -> Option<Arc<Workload>> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        let addr = NetworkAddr::new(Arc::clone(&snapshot.local.network), ip);
        return snapshot.workload_by_ip(&addr).cloned();
    }
    let name: NamespacedName = text.parse().ok()?;
    let named = snapshot.workloads().filter(|w| w.namespace == name.namespace && w.name == name.name);
    named.max_by_key(|workload| (workload.rank(), std::cmp::Reverse(Arc::clone(&workload.uid)))).cloned()
}

fn find_destination(
    snapshot: &Snapshot,
    domain: &str,
    source: &Workload,
    text: &str,
) -> Result<SocketAddr, ExplainError> {
    let bad = || ExplainError::Destination { found: text.to_owned() };
    if let Ok(addr) = text.parse::<SocketAddr>() {
        return Ok(mesh_core::addr::canonical(addr));
    }
    let (host, port) = text.rsplit_once(':').ok_or_else(bad)?;
    let port: u16 = port.parse().map_err(|_| bad())?;
    let unknown = || ExplainError::UnknownHost { found: host.to_owned() };
    let ip = if host.contains('/') {
        workload(snapshot, host).and_then(|workload| workload.ips.first().copied())
    } else {
        host_address(snapshot, domain, source, host)
    };
    ip.map(|ip| SocketAddr::new(ip, port)).ok_or_else(unknown)
}

/// As the cluster's DNS would resolve the name for a pod of the source's namespace.
fn host_address(snapshot: &Snapshot, domain: &str, source: &Workload, host: &str) -> Option<IpAddr> {
    let namespace = &source.namespace;
    let candidates = [
        host.trim_end_matches('.').to_owned(),
        format!("{host}.{namespace}.svc.{domain}"),
        format!("{host}.svc.{domain}"),
        format!("{host}.{domain}"),
    ];
    let find = |name: &String| snapshot.service_by_hostname(Some(namespace), name);
    let service = candidates.iter().find_map(find)?;
    let vips = || service.vips.iter().filter(|vip| vip.network == snapshot.local.network).map(|vip| vip.ip);
    let vip = vips().find(IpAddr::is_ipv4).or_else(|| vips().next());
    vip.or_else(|| snapshot.endpoints(service)?.values().find_map(|endpoint| endpoint.workload.ips.first().copied()))
}

/// The source's address of the family that is dialled.
fn source_ip(source: &Workload, target: IpAddr) -> IpAddr {
    let same_family = source.ips.iter().find(|ip| ip.is_ipv4() == target.is_ipv4());
    same_family.or_else(|| source.ips.first()).copied().unwrap_or(IpAddr::from([0, 0, 0, 0]))
}

fn party(workload: &Workload) -> Value {
    json!({
        "name": workload.name,
        "namespace": workload.namespace,
        "identity": workload.identity.to_string(),
        "addresses": workload.ips,
        "node": workload.node,
        "enrolled": workload.protocol == Protocol::Hbone,
    })
}

fn set(object: &mut Value, key: &str, value: Value) {
    if let Some(object) = object.as_object_mut() {
        object.insert(key.to_owned(), value);
    }
}

fn set_in(object: &mut Value, outer: &str, key: &str, value: Value) {
    if let Some(inner) = object.get_mut(outer) {
        set(inner, key, value);
    }
}

#[cfg(test)]
mod tests;
