//! The status of a ListenerSet. Pure.

use super::{LISTENERS_NOT_VALID, accepted, address, condition, judge};
use crate::translate::conditions::{ObjectStatus, Parts, words};
use crate::translate::listener::effective::{SetRefusal, parent, refusal};
use crate::translate::plan;
use crate::world::{ListenerSet, World};

/// What the status of a ListenerSet should say; none where it is not ours to write.
///
/// # Source
/// spec of the gateway controller, section 7.
pub(in crate::translate::conditions) fn listener_set(world: &World, set: &ListenerSet) -> Option<ObjectStatus> {
    let (gateway, family) = parent(world, set)?;
    if !world.settings().proxies.statuses || !plan::owns(world, gateway) {
        return None;
    }
    let refused = |reason: &'static str, message: String| {
        let conditions = [words::ACCEPTED, words::PROGRAMMED];
        let conditions = conditions.map(|type_| condition(type_, Err(reason), message.clone())).into();
        let parts = Parts::Listeners(Vec::new());
        Some(ObjectStatus { generation: set.generation, conditions, parts })
    };
    match refusal(world, set) {
        Some(SetRefusal::Foreign) => return None,
        Some(SetRefusal::Class) => {
            let message = format!("gateways of class {} take no ListenerSets", gateway.class);
            return refused(NOT_ALLOWED, message);
        }
        Some(SetRefusal::Namespace) => {
            let (namespace, gateway) = (&set.key.namespace, &gateway.key);
            let message = format!("allowedListeners of Gateway {gateway} do not admit namespace {namespace}");
            return refused(NOT_ALLOWED, message);
        }
        None => {}
    }
    let judged = judge(world, gateway, family);
    let of_gateway: Vec<_> = judged.iter().filter(|(one, _)| one.owner.is_gateway()).collect();
    let parent = accepted(world, gateway, &of_gateway);
    let own: Vec<_> = judged.iter().filter(|(one, _)| one.owner.is_set(&set.key)).cloned().collect();
    let parts = Parts::Listeners(own.iter().map(|(_, verdict)| verdict.part.clone()).collect());
    let conditions = if !parent.holds {
        let message = format!("parent not accepted: {}", parent.message);
        [words::ACCEPTED, words::PROGRAMMED].map(|type_| condition(type_, Err(parent.reason), message.clone())).into()
    } else if own.iter().all(|(_, verdict)| !verdict.valid) {
        let message = "none of the listeners is valid".to_owned();
        [words::ACCEPTED, words::PROGRAMMED]
            .map(|type_| condition(type_, Err(LISTENERS_NOT_VALID), message.clone()))
            .into()
    } else {
        let partly = own.iter().any(|(_, verdict)| !verdict.valid);
        let reason = if partly { LISTENERS_NOT_VALID } else { words::ACCEPTED };
        let text = if partly { "accepted, but not all listeners are valid" } else { "accepted" };
        let programmed = address::find(world, gateway, family, &own).condition;
        vec![condition(words::ACCEPTED, Ok(reason), text.to_owned()), programmed]
    };
    Some(ObjectStatus { generation: set.generation, conditions, parts })
}

const NOT_ALLOWED: &str = "NotAllowed";
