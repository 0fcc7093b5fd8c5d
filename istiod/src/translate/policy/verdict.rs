//! What the status of a policy says about its enforcement at the node.

use mesh_api::security::Action as ApiAction;
use mesh_api::status::{REASON_ACCEPTED, REASON_UNSUPPORTED_VALUE};
use mesh_wire::security::Action;

use super::attributes::Unsupported;

/// Status, reason and message of the condition `ZtunnelAccepted`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether the policy is enforced at all.
    pub accepted: bool,
    /// One word.
    pub reason: &'static str,
    /// For humans.
    pub message: String,
}

impl Verdict {
    /// The policy cannot be read.
    pub fn unreadable(reason: &str) -> Self {
        let message =
            format!("the policy cannot be read and its last readable version, if any, stays in force: {reason}");
        Self { accepted: false, reason: REASON_UNSUPPORTED_VALUE, message }
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
        Self { accepted: false, reason: REASON_UNSUPPORTED_VALUE, message }
    }

    pub(super) fn unsupported_dry_run() -> Self {
        let message = "ztunnel does not evaluate dry-run policies unless AMBIENT_ENABLE_DRY_RUN_AUTHORIZATION_POLICY \
                       is set; the policy has no effect";
        Self { accepted: false, reason: REASON_UNSUPPORTED_VALUE, message: message.to_owned() }
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
            return Verdict { accepted: true, reason: REASON_ACCEPTED, message };
        }
        let message = format!(
            "ztunnel cannot evaluate all of this policy: {} Attach it to a waypoint with targetRefs to have L7 attributes evaluated.",
            self.sentences.join(" ")
        );
        Verdict { accepted: true, reason: REASON_UNSUPPORTED_VALUE, message }
    }
}
