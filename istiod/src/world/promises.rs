//! Promises that an operator may relax to what the reference does.

use serde::Deserialize;

/// How a promise is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Promise {
    /// To the letter.
    #[default]
    Strict,
    /// As the reference does.
    Reference,
}

impl Promise {
    /// Whether it is kept to the letter.
    pub fn is_strict(self) -> bool {
        self == Self::Strict
    }

    /// As users write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Strict => "strict",
            Self::Reference => "reference",
        }
    }
}

/// Every promise that has a switch.
///
/// # Source
/// DESIGN section 4, "Where a promise and the reference disagree".
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Promises {
    /// A DENY rule with L7 attributes is applied at L4 as if those matched.
    pub l7_deny_at_l4: Promise,
    /// A service that an L7 policy guards takes traffic only through its waypoint.
    pub waypoint_required: Promise,
    /// A policy is sent before any workload that names it, and proxies wait for one that they do not know.
    pub policy_before_traffic: Promise,
    /// Fields that ambient cannot honour are reported.
    pub unserved_fields: Promise,
}
