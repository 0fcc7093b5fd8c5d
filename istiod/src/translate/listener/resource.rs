//! What the proxies of a gateway are told of its listeners. Pure.

use mesh_core::names::NamespacedName;
use mesh_wire::l7;

use super::ListenerProtocol;
use super::effective::{Effective, effective};
use super::tls::{self, TlsPart};
use crate::translate::gateway::{Family, is_own_port, target_port};
use crate::translate::l7::backend::{Backends, Collected};
use crate::translate::l7::layer::{Told, backends_of};
use crate::translate::l7::proxy::Own;
use crate::translate::l7::remarks::Remarks;
use crate::translate::l7::uses::Uses;
use crate::translate::route;
use crate::world::World;

/// One listener as it is told, and what it was made of.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// Name of the resource: `<namespace>/<gateway>/listener/<section>`.
    pub name: String,
    /// None: something that it needs has not been read yet, and what was told before stays.
    pub listener: Option<l7::Listener>,
    /// What it depends on.
    pub uses: Uses,
    /// What was found wrong with objects on the way.
    pub remarks: Remarks,
}

/// The listeners of a gateway that can be served, by the name of their resource. Those of waypoints, and of gateways between
/// networks, are known to their proxies.
///
/// # Source
/// spec of the gateway controller, sections 6, 8 and 11.
pub fn listeners(world: &World, gateway: &NamespacedName, told: &Told) -> Vec<Compiled> {
    let Some(own) = Own::find(world, gateway).filter(|own| own.family == Family::Edge) else { return Vec::new() };
    let listeners = effective(world, own.gateway);
    listeners.iter().filter_map(|one| compile(world, own, one, told)).collect()
}

fn compile(world: &World, own: Own<'_>, listener: &Effective<'_>, told: &Told) -> Option<Compiled> {
    let gateway = own.gateway;
    let protocol = protocol(listener)?;
    let section = listener.section();
    let name = format!("{}/listener/{section}", gateway.key);
    let target = target_port(world, gateway, own.family, listener.port);
    if is_own_port(target) {
        return None;
    }
    let tls = match tls::judge(world, gateway, listener) {
        Ok(tls) => tls,
        Err(problem) if problem.part == TlsPart::Unread => {
            return Some(Compiled { name, listener: None, uses: Uses::default(), remarks: Remarks::default() });
        }
        Err(_) => return None,
    };
    let mut backends = Backends::new(world, own.client());
    let routed = route::for_listener(world, &gateway.key, listener.place(), &mut backends);
    backends.keep(|| backends_of(told, &name, &own.audience()));
    let Collected { list: backends, uses, remarks } = backends.finish();
    Some(Compiled {
        name,
        listener: Some(l7::Listener {
            gateway: gateway.key.to_string(),
            section,
            port: listener.port.into(),
            protocol: protocol.into(),
            hostname: listener.hostname().to_ascii_lowercase(),
            tls,
            backends,
            http: routed.http,
            tls_rules: routed.tls_rules,
            tcp_rules: routed.tcp_rules,
            proxy_protocol: world.settings().l7.proxy_protocol,
            target_port: if target == listener.port { 0 } else { target.into() },
            ..l7::Listener::default()
        }),
        uses,
        remarks,
    })
}

/// What is told of the protocol; none where the listener cannot be served or has lost its place.
fn protocol(listener: &Effective<'_>) -> Option<l7::Protocol> {
    if listener.conflict.is_some() || listener.port == 0 || !listener.has_host() {
        return None;
    }
    match listener.protocol {
        ListenerProtocol::Http => Some(l7::Protocol::Http),
        ListenerProtocol::Https => Some(l7::Protocol::Https),
        ListenerProtocol::Tls => Some(l7::Protocol::Tls),
        ListenerProtocol::Tcp => Some(l7::Protocol::Tcp),
        ListenerProtocol::Hbone | ListenerProtocol::Proxy | ListenerProtocol::Udp | ListenerProtocol::Unknown => None,
    }
}
