//! What the status of a policy says about its enforcement at the node.

use mesh_api::security::Action as ApiAction;
use mesh_api::status::{WAYPOINT_ACCEPTED, ZTUNNEL_ACCEPTED};
use mesh_wire::security::Action;

use super::attributes::Unsupported;
use crate::translate::conditions::{Condition, accepted};

/// The policy cannot be read. `action` is that of what is in force instead, if anything is.
pub fn unreadable(reason: &str, action: Option<ApiAction>, stand_in: bool) -> Condition {
    let effect = match (action, stand_in) {
        (None, _) => "nothing of it is enforced",
        (Some(_), false) => "its last readable version stays in force",
        (Some(ApiAction::Deny), true) => "until it can be, every connection in its scope is denied",
        (Some(_), true) => "until it can be, it allows nothing in its scope",
    };
    refused(format!("the policy cannot be read; {effect}: {reason}"))
}

/// A policy with targets cannot be read. What is in force instead keeps guarding them, if there is anything.
pub fn unreadable_targets(reason: &str, stand_in: bool) -> Condition {
    let effect = match stand_in {
        true => {
            "until it can be, the targets that can be read are closed to what does not come through their waypoints"
        }
        false => "its last readable version stays in force",
    };
    Condition::unsupported(WAYPOINT_ACCEPTED, false, format!("the policy cannot be read; {effect}: {reason}"))
}

pub(super) fn unsupported_action(action: ApiAction) -> Condition {
    let text = match action {
        ApiAction::Custom => {
            "action CUSTOM is not served yet, neither by node proxies nor by waypoints and gateways, where it closes \
             what it is for: use ALLOW or DENY"
        }
        _ => {
            "ztunnel does not support action AUDIT, the policy has no effect there; attach it to a waypoint with \
             targetRefs to have it evaluated"
        }
    };
    refused(text.to_owned())
}

pub(super) fn unsupported_dry_run() -> Condition {
    let message = "ztunnel does not evaluate dry-run policies unless AMBIENT_ENABLE_DRY_RUN_AUTHORIZATION_POLICY \
                   is set; the policy has no effect";
    refused(message.to_owned())
}

fn refused(message: String) -> Condition {
    Condition::unsupported(ZTUNNEL_ACCEPTED, false, message)
}

/// Collects what could not be converted, rule by rule.
#[derive(Debug)]
pub(super) struct Notes {
    action: Action,
    strict: bool,
    /// One sentence a rule.
    sentences: Vec<String>,
}

impl Notes {
    pub(super) fn new(action: Action, strict: bool) -> Self {
        Self { action, strict, sentences: Vec::new() }
    }

    /// Notes one rule: what it uses that L4 cannot evaluate, whether it is left out, and whether an L4 part remains.
    pub(super) fn rule(&mut self, index: usize, unsupported: Vec<Unsupported>, omitted: bool, l4_left: bool) {
        if unsupported.is_empty() {
            return;
        }
        let names: Vec<_> = unsupported.iter().map(|one| one.what.as_str()).collect();
        let l7 = unsupported.iter().any(|one| one.l7);
        let effect = match (self.action, omitted, l4_left) {
            (Action::Allow, true, _) => "the rule is omitted, so it allows nothing (more restrictive than requested)",
            (Action::Allow, false, _) => "what cannot be read matches nothing (more restrictive than requested)",
            (Action::Deny, _, true) => "only its L4 part is enforced (more restrictive than requested)",
            (Action::Deny, ..) if self.strict || !l7 => {
                "nothing of it remains at L4, so it denies every connection that its other parts match \
                 (more restrictive than requested)"
            }
            (Action::Deny, ..) => "it has no effect at ztunnel",
        };
        self.sentences.push(format!("rule {} uses {}: {effect}.", index + 1, names.join(", ")));
    }

    pub(super) fn condition(self) -> Condition {
        if self.sentences.is_empty() {
            return accepted("attached to ztunnel");
        }
        let message = format!(
            "ztunnel cannot evaluate all of this policy: {} Attach it to a waypoint with targetRefs to have L7 attributes evaluated.",
            self.sentences.join(" ")
        );
        Condition::unsupported(ZTUNNEL_ACCEPTED, true, message)
    }
}
