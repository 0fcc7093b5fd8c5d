//! What the status of a policy says about its enforcement at the node.

use mesh_api::security::Action as ApiAction;
use mesh_api::security::{AuthorizationPolicySpec, TargetRef};
use mesh_api::status::{
    REASON_ACCEPTED, REASON_INVALID, REASON_TARGET_NOT_FOUND, REASON_UNSUPPORTED_VALUE, WAYPOINT_ACCEPTED,
    ZTUNNEL_ACCEPTED,
};
use mesh_wire::security::Action;

use super::attributes::Unsupported;

/// One condition of a policy: `ZtunnelAccepted`, or `WaypointAccepted` of a policy with targets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Type of the condition.
    pub condition: &'static str,
    /// Whether the policy is enforced at all.
    pub accepted: bool,
    /// One word.
    pub reason: &'static str,
    /// For humans.
    pub message: String,
}

impl Verdict {
    /// The policy cannot be read. `action` is that of what is in force instead, if anything is.
    pub fn unreadable(reason: &str, action: Option<ApiAction>, stand_in: bool) -> Self {
        let effect = match (action, stand_in) {
            (None, _) => "nothing of it is enforced",
            (Some(_), false) => "its last readable version stays in force",
            (Some(ApiAction::Deny), true) => "until it can be, every connection in its scope is denied",
            (Some(_), true) => "until it can be, it allows nothing in its scope",
        };
        let message = format!("the policy cannot be read; {effect}: {reason}");
        Self { condition: ZTUNNEL_ACCEPTED, accepted: false, reason: REASON_UNSUPPORTED_VALUE, message }
    }

    pub(super) fn unsupported_action(action: ApiAction) -> Self {
        let name = match action {
            ApiAction::Audit => "AUDIT",
            ApiAction::Custom => "CUSTOM",
            ApiAction::Allow | ApiAction::Deny => "",
        };
        let message = format!(
            "ztunnel does not support action {name}; attach the policy to a waypoint with targetRefs to have it enforced"
        );
        Self { condition: ZTUNNEL_ACCEPTED, accepted: false, reason: REASON_UNSUPPORTED_VALUE, message }
    }

    pub(super) fn unsupported_dry_run() -> Self {
        let message = "ztunnel does not evaluate dry-run policies unless AMBIENT_ENABLE_DRY_RUN_AUTHORIZATION_POLICY \
                       is set; the policy has no effect";
        Self {
            condition: ZTUNNEL_ACCEPTED,
            accepted: false,
            reason: REASON_UNSUPPORTED_VALUE,
            message: message.to_owned(),
        }
    }

    /// The policy names targets, and there are no waypoints yet that could be bound to them.
    pub(super) fn no_waypoint(spec: &AuthorizationPolicySpec, namespace: &str) -> Self {
        let name = |one: &TargetRef| {
            let group = if one.group.is_empty() { "core" } else { &one.group };
            format!("{}.{group}:{namespace}/{}", one.kind, one.name)
        };
        let names: Vec<_> = spec.target_ref.iter().chain(&spec.target_refs).map(name).collect();
        let reason = if names.len() > 1 { REASON_INVALID } else { REASON_TARGET_NOT_FOUND };
        let message = format!("no waypoint enforces this policy; not bound: {}", names.join(", "));
        Self { condition: WAYPOINT_ACCEPTED, accepted: false, reason, message }
    }
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

    pub(super) fn verdict(self) -> Verdict {
        if self.sentences.is_empty() {
            let message = "attached to ztunnel".to_owned();
            return Verdict { condition: ZTUNNEL_ACCEPTED, accepted: true, reason: REASON_ACCEPTED, message };
        }
        let message = format!(
            "ztunnel cannot evaluate all of this policy: {} Attach it to a waypoint with targetRefs to have L7 attributes evaluated.",
            self.sentences.join(" ")
        );
        Verdict { condition: ZTUNNEL_ACCEPTED, accepted: true, reason: REASON_UNSUPPORTED_VALUE, message }
    }
}
