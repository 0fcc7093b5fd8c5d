//! The order in which policies decide.

use std::fmt;
use std::sync::Arc;

use mesh_core::NamespacedName;

use crate::matching::Subject;
use crate::{Action, Connection, Policy};

/// What a policy set says about a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether the connection may go on.
    pub allowed: bool,
    /// What decided.
    pub reason: Reason,
    /// What dry-run policies would have said; never influences `allowed`.
    pub notes: Vec<DryRunNote>,
}

/// What decided about a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A deny policy matched.
    Denied(RuleRef),
    /// No allow policy applies to the workload.
    NothingRequired,
    /// An allow policy matched.
    Allowed(RuleRef),
    /// Allow policies apply and none matched.
    NoneMatched {
        /// The allow policies that apply.
        policies: Vec<NamespacedName>,
    },
}

impl Reason {
    /// The policy that decided, where it is one.
    #[must_use]
    pub fn rule(&self) -> Option<&RuleRef> {
        match self {
            Self::Denied(rule) | Self::Allowed(rule) => Some(rule),
            Self::NothingRequired | Self::NoneMatched { .. } => None,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied(rule) => write!(f, "explicitly denied by policy {rule}"),
            Self::NothingRequired => f.write_str("no allow policies, so allowed"),
            Self::Allowed(rule) => write!(f, "allowed by policy {rule}"),
            Self::NoneMatched { policies } => {
                f.write_str("allow policies exist but none matched:")?;
                for (n, policy) in policies.iter().enumerate() {
                    write!(f, "{} {policy}", if n == 0 { "" } else { "," })?;
                }
                Ok(())
            }
        }
    }
}

/// A rule of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleRef {
    /// The policy.
    pub policy: NamespacedName,
    /// Position of the rule in the policy as the proxy received it, from 0.
    pub rule: usize,
}

impl fmt::Display for RuleRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} rule {}", self.policy, self.rule)
    }
}

/// What a dry-run policy would have done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DryRunNote {
    /// A deny policy matches.
    WouldDeny(RuleRef),
    /// An allow policy matches.
    WouldAllow(RuleRef),
    /// Only dry-run allow policies apply and none matches.
    WouldBeDenied,
}

impl fmt::Display for DryRunNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WouldDeny(rule) => write!(f, "dry run: would deny, policy {rule}"),
            Self::WouldAllow(rule) => write!(f, "dry run: would allow, policy {rule}"),
            Self::WouldBeDenied => f.write_str("dry run: would be denied, no allow policy matched"),
        }
    }
}

/// Evaluates the policies that apply to the destination workload, in any order.
#[must_use]
pub fn evaluate(policies: &[Arc<Policy>], connection: &Connection) -> Verdict {
    if policies.is_empty() {
        return Verdict { allowed: true, reason: Reason::NothingRequired, notes: Vec::new() };
    }
    let subject = Subject::new(connection);
    let notes = dry_run_notes(policies, &subject);
    let reason = decide(policies, &subject);
    let allowed = matches!(reason, Reason::NothingRequired | Reason::Allowed(_));
    Verdict { allowed, reason, notes }
}

fn decide(policies: &[Arc<Policy>], subject: &Subject<'_>) -> Reason {
    if let Some(rule) = enforced(policies, Action::Deny).find_map(|policy| matching(policy, subject)) {
        return Reason::Denied(rule);
    }
    if let Some(rule) = enforced(policies, Action::Allow).find_map(|policy| matching(policy, subject)) {
        return Reason::Allowed(rule);
    }
    let applying: Vec<_> = enforced(policies, Action::Allow).map(|policy| policy.key.clone()).collect();
    if applying.is_empty() { Reason::NothingRequired } else { Reason::NoneMatched { policies: applying } }
}

fn dry_run_notes(policies: &[Arc<Policy>], subject: &Subject<'_>) -> Vec<DryRunNote> {
    let mut notes = Vec::new();
    let mut allow_applies = false;
    let mut allow_matched = false;
    for policy in policies.iter().filter(|policy| policy.dry_run) {
        allow_applies |= policy.action == Action::Allow;
        match (matching(policy, subject), policy.action) {
            (Some(rule), Action::Deny) => notes.push(DryRunNote::WouldDeny(rule)),
            (Some(rule), Action::Allow) => {
                allow_matched = true;
                notes.push(DryRunNote::WouldAllow(rule));
            }
            (None, _) => {}
        }
    }
    let allow_enforced = enforced(policies, Action::Allow).next().is_some();
    if allow_applies && !allow_matched && !allow_enforced {
        notes.push(DryRunNote::WouldBeDenied);
    }
    notes
}

pub(crate) fn enforced(policies: &[Arc<Policy>], action: Action) -> impl Iterator<Item = &Policy> {
    policies.iter().map(AsRef::as_ref).filter(move |policy| policy.action == action && !policy.dry_run)
}

fn matching(policy: &Policy, subject: &Subject<'_>) -> Option<RuleRef> {
    policy.matching_rule(subject).map(|rule| RuleRef { policy: policy.key.clone(), rule })
}
