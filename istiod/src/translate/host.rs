//! The service of a hostname: what its winner says, and what waypoints add.

use mesh_wire::meltemi;
use mesh_wire::workload::{Extension, Service as WireService};
use prost_types::Any;

use super::{entry, member, required, service, waypoint};
use crate::world::{HostKey, Winner, World};

/// The service that is published for a hostname in a namespace.
///
/// # Source
/// spec of the workload model, sections 4, 5 and 8.
pub fn service(world: &World, key: &HostKey) -> Option<WireService> {
    let (wire, subject) = match world.winner(key)? {
        Winner::Service(one) => {
            let subject = waypoint::Subject::new(&one.key.namespace, one.binding.as_deref());
            (service::service(world, one), subject)
        }
        Winner::Entry(one) => {
            (entry::service(world, one, &key.hostname), member::subject(world, one, one.binding.as_deref()))
        }
    };
    let bound = waypoint::for_service(world, subject);
    let marks = required::required(world, key).then(waypoint_required);
    Some(WireService {
        waypoint: bound.waypoint,
        weighted_waypoints: bound.weighted,
        ingress_use_waypoint: bound.ingress,
        extensions: marks.into_iter().collect(),
        ..wire
    })
}

/// Says that the service takes traffic only from its waypoint. The message is empty: it is there or not.
fn waypoint_required() -> Extension {
    let config = Any { type_url: meltemi::WAYPOINT_REQUIRED_TYPE.to_owned(), value: Vec::new() };
    Extension { name: meltemi::WAYPOINT_REQUIRED.to_owned(), config: Some(config) }
}
