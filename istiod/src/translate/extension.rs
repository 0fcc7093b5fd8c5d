//! What the statuses of WasmPlugins, TrafficExtensions and EnvoyFilters say: that no proxy of the mesh runs them, and what
//! comes of it.

use mesh_api::status::WAYPOINT_ACCEPTED;

use super::attach;
use super::conditions::{Condition, ObjectStatus, Unreadable};
use crate::world::{Demand, Extension, Kind, TargetKind, World};

/// The status of an extension.
///
/// # Source
/// spec of the API surface, sections 7.7 and 8; of layer-7 policy, sections 1 and 7.
pub(super) fn status(world: &World, one: &Extension, unreadable: Option<&Unreadable>) -> ObjectStatus {
    let what = what(one.kind);
    let needed = match &one.demand {
        Demand::Dispensable(why) => {
            let message = format!("{what} is not run by the mesh: it has no effect, {why}");
            return ObjectStatus::new(one.generation, vec![unsupported(message)]);
        }
        // What is for a whole proxy closes the whole of it.
        Demand::Needed { ports } if ports.is_empty() || !of_services(one) => "nothing is let through".to_owned(),
        Demand::Needed { ports } => {
            let ports: Vec<_> = ports.iter().map(ToString::to_string).collect();
            format!("nothing is let through on ports {}", ports.join(", "))
        }
    };
    let mut condition = if one.targets.is_empty() {
        unsupported(format!("{what} is not run by the mesh; {needed} by gateways that it is for"))
    } else {
        attach::waypoint_accepted(world, &one.key.namespace, &one.targets, true)
    };
    if condition.holds {
        condition = unsupported(format!("{}; {what} is not run by the mesh, so {needed} there", condition.message));
    }
    let mut generation = one.generation;
    if let Some(unreadable) = unreadable {
        generation = generation.max(unreadable.generation);
        condition.message.push_str(&format!("; it cannot be read: {}", unreadable.reason));
    }
    ObjectStatus::new(generation, vec![condition])
}

/// Whether it is attached to services alone.
fn of_services(one: &Extension) -> bool {
    let mut targets = one.targets().peekable();
    targets.peek().is_some() && targets.all(|one| matches!(one.kind, TargetKind::Service | TargetKind::ServiceEntry))
}

/// What is refused to all traffic because an extension is not run.
pub(super) fn refusal(one: &Extension) -> String {
    format!("{} is not run by the mesh, so nothing is let through", what(one.kind))
}

fn what(kind: Kind) -> &'static str {
    match kind {
        Kind::EnvoyFilter => "a filter of Envoy",
        Kind::WasmPlugin => "WebAssembly",
        _ => "code of extensions",
    }
}

fn unsupported(message: String) -> Condition {
    Condition::unsupported(WAYPOINT_ACCEPTED, false, message)
}

#[cfg(test)]
mod tests;
