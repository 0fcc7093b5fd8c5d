//! Where traffic comes in, one row per entry point.

use mesh_wire::l7::server_tls::ClientCertificate;
use serde_json::{Value, json};

use super::{certificate, policies};
use crate::config::Start;
use crate::describe;
use crate::shared::Shared;
use crate::snapshot::{Chain, Entry, Listened, Protocol, Role, ServerTls, Snapshot};

/// The port of the tunnels first, where there is one; then service ports and listeners by name.
pub(super) fn rows<'a>(shared: &'a Shared, snapshot: &'a Snapshot) -> impl Iterator<Item = Value> + 'a {
    let entries = snapshot.chains().values().map(|chain| entry(chain, snapshot.listened(&chain.name)));
    tunnels(shared, snapshot).into_iter().chain(entries)
}

fn tunnels(shared: &Shared, snapshot: &Snapshot) -> Option<Value> {
    let proxy = snapshot.proxy.as_ref()?;
    if proxy.role == Role::Gateway && shared.config.start != Start::Waypoint {
        return None;
    }
    let own = shared.own.certificates().list();
    let leaf = own.into_iter().find(|(identity, _)| identity == shared.own.identity()).and_then(|(_, state)| {
        let mesh_identity::CertState::Available { cert, .. } = state else { return None };
        cert.chain_info().first().map(|leaf| certificate::of_der(&leaf.der))
    });
    let tls = json!({
        "mode": "terminate",
        "identity": "mesh",
        "clientCertificate": "required",
        "certificates": leaf.into_iter().collect::<Vec<_>>(),
    });
    Some(json!({
        "kind": "tunnel",
        "name": format!("tunnels:{}", shared.config.hbone_port),
        "addresses": ["*"],
        "port": shared.config.hbone_port,
        "podPort": shared.config.hbone_port,
        "protocol": "HBONE",
        "hostname": "",
        "tls": tls,
        "destination": "the ports below, by the address that a tunnel names",
        "policies": proxy.authorizations.iter().map(|one| format!("{}/{}", one.namespace, one.name)).collect::<Vec<_>>(),
        "refuseAll": proxy.refuse_all.as_deref(),
    }))
}

fn entry(chain: &Chain, listened: Option<&Listened>) -> Value {
    let mut shown = json!({
        "name": describe::name(chain),
        "resource": &*chain.name,
        "protocol": protocol(chain.protocol),
        "destination": destination(chain),
        "policies": policies(chain),
        "refuseAll": chain.refuse_all.as_deref(),
    });
    let more = match &chain.entry {
        Entry::Port(port) => json!({
            "kind": "service",
            "addresses": port.addresses.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "port": port.port,
            "hostname": &*port.service.hostname,
            "namespace": &*port.service.namespace,
            "byHostname": port.by_hostname,
        }),
        Entry::Listener(listener) => json!({
            "kind": "listener",
            "addresses": ["*"],
            "section": &*listener.section,
            "port": listener.port,
            "podPort": listened.map(|one| one.port),
            "proxyProtocol": listened.map(|one| one.proxy_protocol),
            "hostname": &*listener.hostname,
            "tls": listened.and_then(|one| one.tls.as_deref()).map(tls),
        }),
        Entry::Workload(address) => {
            json!({"kind": "workload", "addresses": [address.ip().to_string()], "port": address.port()})
        }
    };
    if let (Some(fields), Value::Object(more)) = (shown.as_object_mut(), more) {
        fields.extend(more);
    }
    shown
}

fn tls(tls: &ServerTls) -> Value {
    if tls.is_passthrough() {
        return json!({"mode": "passthrough", "certificates": []});
    }
    let client = match tls.client_certificate() {
        ClientCertificate::None => "none",
        ClientCertificate::Optional => "optional",
        ClientCertificate::Required => "required",
        ClientCertificate::Unverified => "unverified",
    };
    json!({
        "mode": "terminate",
        "identity": if tls.is_mesh() { "mesh" } else { "own" },
        "clientCertificate": client,
        "certificates": tls.leaves().map(|leaf| certificate::of_der(leaf)).collect::<Vec<_>>(),
    })
}

/// Where an entry point leads, in a few words.
fn destination(chain: &Chain) -> String {
    let plural = |count: usize, what: &str| match count {
        0 => None,
        1 => Some(format!("1 {what}")),
        count => Some(format!("{count} {what}s")),
    };
    let rules = [
        chain.http.as_ref().and_then(|table| plural(table.entries(), "route")),
        plural(chain.tls_rules.len(), "TLS rule"),
        plural(chain.tcp_rules.len(), "TCP rule"),
    ];
    let rules: Vec<String> = rules.into_iter().flatten().collect();
    if !rules.is_empty() {
        return rules.join(", ");
    }
    let backend = chain.default_backend.and_then(|index| chain.backend(index));
    backend.map_or_else(|| "nothing: no route is attached".to_owned(), ToString::to_string)
}

pub(super) fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Detect => "detected",
        Protocol::Http => "HTTP",
        Protocol::Http2 => "HTTP2",
        Protocol::Grpc => "GRPC",
        Protocol::GrpcWeb => "GRPC-Web",
        Protocol::Tls => "TLS",
        Protocol::Tcp => "TCP",
        Protocol::Https => "HTTPS",
    }
}
