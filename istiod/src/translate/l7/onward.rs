//! Policies of a service that routes of other services, or of gateways, lead to.
//!
//! A policy guards its service however traffic gets there: routes are written by others, and the service's node proxies
//! cannot tell a waypoint's calls on behalf of one service from those on behalf of another. So whoever is sent on to a
//! guarded service must be allowed to call it, and where nobody would ask its policies, nobody is sent on.

use mesh_core::addr::ip_to_bytes;
use mesh_wire::l7;

use super::authorization::{Guard, guard};
use super::backend::{Client, target, waits_for_ingress};
use super::port::addresses;
use crate::translate::required::required;
use crate::translate::waypoint::{self, Subject};
use crate::world::{HostKey, Winner, World};

/// What guards a port of a service that is called on the way of somebody else's traffic; nothing where all may pass.
/// `through_waypoint`: the service's own waypoint is in between, and asks.
///
/// # Source
/// DESIGN section 4 (`waypointRequired`).
pub(super) fn guard_of(
    world: &World,
    client: &Client,
    host: &HostKey,
    winner: Winner<'_>,
    port: u16,
    through_waypoint: bool,
) -> Option<l7::BackendGuard> {
    if !is_asked(world, through_waypoint) {
        return None;
    }
    if is_its_waypoint(world, client, winner) {
        let (kind, key) = target(winner);
        let Guard { authorizations, refuse_all, .. } = guard(world, world.policies_on(kind, key), Some(port));
        if authorizations.is_empty() && refuse_all.is_empty() {
            return None;
        }
        let address = addresses(winner, &host.hostname).first().map(|ip| ip_to_bytes(*ip)).unwrap_or_default();
        return Some(l7::BackendGuard { authorizations, refuse_all, address });
    }
    Some(l7::BackendGuard { refuse_all: elsewhere(world, client, host)?, ..l7::BackendGuard::default() })
}

/// Why somebody's proxies send nobody on to a service, if they do not.
pub(in crate::translate) fn closed_to(world: &World, client: &Client, host: &HostKey) -> Option<String> {
    let winner = world.winner(host)?;
    let through_waypoint = client.edge && waits_for_ingress(world, winner);
    if !is_asked(world, through_waypoint) || is_its_waypoint(world, client, winner) {
        return None;
    }
    elsewhere(world, client, host)
}

/// Whether anybody who sends on looks at what guards a service.
fn is_asked(world: &World, through_waypoint: bool) -> bool {
    !through_waypoint && world.settings().promises.waypoint_required.is_strict()
}

/// Why nobody is sent on to a service whose policies others ask; none where nothing guards it.
fn elsewhere(world: &World, client: &Client, host: &HostKey) -> Option<String> {
    required(world, host).then(|| {
        let what = format!("a policy guards {}, and calls to it go through its own waypoint only", host.hostname);
        if client.edge {
            format!("{what}: label it with istio.io/ingress-use-waypoint=true, and give it a waypoint if it has none")
        } else {
            format!("{what}: call it, and not a service whose route leads to it, or give both the same waypoint")
        }
    })
}

/// Whether the caller is a waypoint of the service, its canary included: policies that are attached to the waypoint are
/// asked anyway.
fn is_its_waypoint(world: &World, client: &Client, winner: Winner<'_>) -> bool {
    let subject = match winner {
        Winner::Service(service) => Subject::of_service(service),
        Winner::Entry(entry) => Subject::of_entry(world, entry),
    };
    !client.edge && waypoint::serving(world, subject).contains(&client.gateway)
}
