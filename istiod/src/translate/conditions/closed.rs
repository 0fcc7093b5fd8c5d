//! What lets nothing through: gateways at the edge that a policy without targets is for, and the policy itself.

use mesh_api::status::WAYPOINT_ACCEPTED;
use mesh_core::names::NamespacedName;

use super::{Condition, ObjectStatus, words};
use crate::translate::l7::remarks::Board;
use crate::world::Kind;

/// What is said of a policy without targets that closes gateways; none where it closes none.
pub(super) fn by(remarks: &Board, kind: Kind, key: &NamespacedName) -> Option<Condition> {
    let gateways = remarks.gateways(kind, key);
    if gateways.is_empty() {
        return None;
    }
    let mut names = gateways.iter().take(SHOWN_MAX).map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if let Some(more) = gateways.len().checked_sub(SHOWN_MAX).filter(|more| *more > 0) {
        names.push_str(&format!(" and {more} more"));
    }
    let reasons: Vec<_> = remarks.texts(kind, key).into_iter().collect();
    let message = format!(
        "not enforced as written: {} by gateway {names}; a selector that leaves their pods out opens them again, as does \
         deleting the policy",
        reasons.join("; ")
    );
    Some(Condition::unsupported(WAYPOINT_ACCEPTED, false, message))
}

/// A Gateway that is reached and lets nothing through says so.
pub(super) fn gateway(remarks: &Board, key: &NamespacedName, mut status: ObjectStatus) -> ObjectStatus {
    let reasons: Vec<_> = remarks.texts(Kind::Gateway, key).into_iter().collect();
    let programmed = status.conditions.iter_mut().find(|one| one.type_ == words::PROGRAMMED);
    if let Some(programmed) = programmed.filter(|_| !reasons.is_empty()) {
        programmed.message.push_str(&format!("; all traffic is refused: {}", reasons.join("; ")));
    }
    status
}

/// Gateways that a message names.
const SHOWN_MAX: usize = 5;
