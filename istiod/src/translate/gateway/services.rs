//! The Services that lead to a Gateway. Pure.

use std::sync::Arc;

use mesh_core::names::NamespacedName;

use super::{Family, infrastructure};
use crate::world::{Gateway, Service, TargetPort, World};

/// Port of the pods that a listener's port leads to, as the Service says.
pub(crate) fn target_port(world: &World, gateway: &Gateway, family: Family, port: u16) -> u16 {
    let services = hosts(world, gateway, family).into_iter().filter_map(|host| service(world, &host));
    let mut ports = services.flat_map(|service| service.ports.iter()).filter(|one| one.port == port);
    ports.find_map(|one| if let TargetPort::Number(number) = one.target { Some(number) } else { None }).unwrap_or(port)
}

/// Hosts of the Services that lead to a Gateway: ours, or those that it names.
pub(crate) fn hosts(world: &World, gateway: &Gateway, family: Family) -> Vec<Arc<str>> {
    let named = |name: &str| world.settings().hostname(&NamespacedName::new(gateway.key.namespace.clone(), name));
    if infrastructure::is_managed(gateway) {
        return vec![named(&infrastructure::name(gateway, family))];
    }
    if !world.settings().proxies.manual {
        return Vec::new();
    }
    let written = gateway.spec.addresses.iter().filter(|one| one.type_.as_deref() == Some(HOSTNAME));
    let written = written.filter_map(|one| one.value.as_deref());
    written.map(|host| if host.contains('.') { host.into() } else { named(host) }).collect()
}

/// The Kubernetes Service of a hostname.
pub(crate) fn service<'a>(world: &'a World, host: &str) -> Option<&'a Arc<Service>> {
    let rest = host.strip_suffix(&*world.settings().domain)?.strip_suffix(".svc.")?;
    let (name, namespace) = rest.split_once('.')?;
    world.service(&NamespacedName::new(namespace, name)).filter(|_| world.visible(namespace))
}

/// Type of an address that is a host name.
pub(crate) const HOSTNAME: &str = "Hostname";
