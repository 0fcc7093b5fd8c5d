//! Services that claim the same address or hostname at one gateway: who of them is meant by it.
//!
//! Whoever may write a ServiceEntry may write any address and any hostname into it. What another namespace was there first
//! with stays its own: calls for it are never taken over, and its policies never left out.

use std::net::IpAddr;

use mesh_core::names::NamespacedName;

use super::backend::ports_of;
use super::port::{addresses, serving};
use crate::world::{HostKey, HostSource, ServiceEntry, Visibility, Winner, World};

/// Who has an address and port at a gateway, where it is somebody else than the service itself.
pub(super) fn of_address<'a>(
    world: &'a World,
    gateway: &NamespacedName,
    winner: Winner<'_>,
    ip: IpAddr,
    port: u16,
) -> Option<&'a NamespacedName> {
    let Winner::Entry(entry) = winner else { return None };
    world.claims_of_address(ip).find_map(|source| match source {
        // Its addresses were given to it.
        HostSource::Service(service) => world.visible(&service.namespace).then_some(service),
        HostSource::Entry(key) => {
            let other = rival(world, gateway, entry, key)?;
            let claims = published(world, other).any(|host| {
                let winner = Winner::Entry(other);
                addresses(winner, &host.hostname).contains(&ip) && ports_of(winner).iter().any(|one| one.number == port)
            });
            // What was allocated was free.
            let first = (!is_allocated(other, ip), other.age()) < (!is_allocated(entry, ip), entry.age());
            (claims && first).then_some(key)
        }
    })
}

/// Who is meant by a hostname at a gateway, where it is somebody else than the service itself.
pub(super) fn of_hostname<'a>(
    world: &'a World,
    gateway: &NamespacedName,
    winner: Winner<'_>,
    host: &HostKey,
) -> Option<&'a NamespacedName> {
    let Winner::Entry(entry) = winner else { return None };
    let hostname = &host.hostname;
    world.claims(hostname).find_map(|source| match source {
        HostSource::Service(service) => world.visible(&service.namespace).then_some(service),
        HostSource::Entry(key) => {
            let other = rival(world, gateway, entry, key).filter(|other| world.wins(other, hostname))?;
            let canonical = |entry: &ServiceEntry| world.is_canonical(entry, hostname);
            let first = (!canonical(other), other.age()) < (!canonical(entry), entry.age());
            first.then_some(key)
        }
    })
}

/// What an entry does not get of what it claims, at any gateway that serves it: in words, for its status.
pub(in crate::translate) fn losses(world: &World, entry: &ServiceEntry) -> Vec<String> {
    let mut losses = Vec::new();
    for host in published(world, entry) {
        let Some(winner) = world.winner(&host) else { continue };
        for own in serving(world, winner) {
            let gateway = &own.gateway.key;
            for ip in addresses(winner, &host.hostname) {
                let ports = ports_of(winner);
                let mut holders = ports.iter().filter_map(|port| of_address(world, gateway, winner, ip, port.number));
                if let Some(holder) = holders.next() {
                    losses.push(format!("address {ip} is {holder}'s at {gateway}"));
                }
            }
            if world.settings().multi_network
                && let Some(holder) = of_hostname(world, gateway, winner, &host)
            {
                losses.push(format!("host {} is {holder}'s at {gateway}", host.hostname));
            }
        }
    }
    losses.sort();
    losses.dedup();
    losses
}

/// An entry of another namespace that is published and served by the same gateway. Those of one namespace share.
fn rival<'a>(
    world: &'a World,
    gateway: &NamespacedName,
    entry: &ServiceEntry,
    key: &NamespacedName,
) -> Option<&'a std::sync::Arc<ServiceEntry>> {
    let other = world.entry(key).filter(|other| other.key.namespace != entry.key.namespace)?;
    let seen = world.visible(&key.namespace) && world.entry_visibility(&key.namespace) != Visibility::None;
    let served = || serving(world, Winner::Entry(other)).iter().any(|own| own.gateway.key == *gateway);
    (seen && served()).then_some(other)
}

/// Hosts for which an entry is what is published in its namespace.
fn published<'a>(world: &'a World, entry: &'a ServiceEntry) -> impl Iterator<Item = HostKey> + 'a {
    let won = entry.hosts.iter().filter(|host| world.wins(entry, host));
    won.map(|host| HostKey::new(entry.key.namespace.clone(), host.clone()))
}

fn is_allocated(entry: &ServiceEntry, ip: IpAddr) -> bool {
    entry.hosts.iter().any(|host| entry.allocated(host).any(|own| own == ip))
}
