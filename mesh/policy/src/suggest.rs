//! The nearest change that would allow a denied connection, in words a person can act on.

use std::fmt;
use std::sync::Arc;

use mesh_core::{Identity, NamespacedName, TrustDomain};

use crate::evaluate::{RuleRef, enforced, evaluate};
use crate::matching::{Attribute, Mismatch, Subject};
use crate::{Action, Clause, Connection, Match, Policy, Rule};

/// Changes that, made together, allow the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suggestion {
    /// In the order in which they matter.
    pub changes: Vec<Change>,
}

/// One change to a policy or to the client.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// Take a rule out of a deny policy.
    RemoveDenyRule {
        /// Which rule.
        rule: RuleRef,
        /// The client's principal, which could be exempted from it instead.
        principal: Option<String>,
    },
    /// The client has no identity; with one, the deny rule would not match.
    EnrolClient {
        /// The rule that refuses plaintext.
        rule: RuleRef,
    },
    /// The client has no identity and an allow rule lists identities.
    EnrolAndList {
        /// Which rule.
        rule: RuleRef,
        /// What it lists.
        attribute: Attribute,
    },
    /// List a value in an allow rule.
    AddEntry {
        /// Which rule.
        rule: RuleRef,
        /// Position of the clause in the rule.
        clause: usize,
        /// Position of the match in the clause.
        alternative: usize,
        /// Which list.
        attribute: Attribute,
        /// What to add.
        value: String,
    },
    /// Take an exclusion out of an allow rule.
    RemoveExclusion {
        /// Which rule.
        rule: RuleRef,
        /// Position of the clause in the rule.
        clause: usize,
        /// Position of the match in the clause.
        alternative: usize,
        /// Which list.
        attribute: Attribute,
        /// The entry that matches the connection.
        entry: String,
    },
    /// Add a rule to an allow policy: no rule of it is near.
    AddRule {
        /// Which policy.
        policy: NamespacedName,
        /// The rule's only attribute.
        attribute: Attribute,
        /// Its value.
        value: String,
    },
}

impl fmt::Display for Suggestion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, change) in self.changes.iter().enumerate() {
            write!(f, "{}{change}", if n == 0 { "" } else { "; and " })?;
        }
        Ok(())
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RemoveDenyRule { rule: RuleRef { policy, rule }, principal } => {
                write!(f, "remove rule {rule} of deny policy {policy}")?;
                match principal {
                    Some(principal) => write!(f, ", or exclude principal {principal} from it"),
                    None => Ok(()),
                }
            }
            Self::EnrolClient { rule: RuleRef { policy, rule } } => write!(
                f,
                "enrol the client in the mesh: rule {rule} of deny policy {policy} refuses clients without an identity"
            ),
            Self::EnrolAndList { rule: RuleRef { policy, rule }, attribute } => write!(
                f,
                "enrol the client in the mesh, which gives it an identity, and list its {attribute} in rule {rule} of \
                 allow policy {policy}"
            ),
            Self::AddEntry { rule: RuleRef { policy, rule }, attribute, value, .. } => {
                write!(f, "add {attribute} {value} to rule {rule} of allow policy {policy}")
            }
            Self::RemoveExclusion { rule: RuleRef { policy, rule }, attribute, entry, .. } => {
                write!(f, "stop excluding {attribute} {entry} in rule {rule} of allow policy {policy}")
            }
            Self::AddRule { policy, attribute, value } => {
                write!(f, "add a rule with {attribute} {value} to allow policy {policy}")
            }
        }
    }
}

/// The nearest change that would allow the connection; `None` when it is allowed already.
#[must_use]
pub fn nearest_allow(policies: &[Arc<Policy>], connection: &Connection) -> Option<Suggestion> {
    if evaluate(policies, connection).allowed {
        return None;
    }
    let subject = Subject::new(connection);
    let mut changes: Vec<_> = enforced(policies, Action::Deny).flat_map(|policy| undo_deny(policy, &subject)).collect();
    let allow: Vec<_> = enforced(policies, Action::Allow).collect();
    let matched = allow.iter().any(|policy| policy.matching_rule(&subject).is_some());
    if !allow.is_empty() && !matched {
        let nearest = allow.iter().flat_map(|policy| ways_in(policy, &subject)).min_by_key(|way| cost(way));
        changes.extend(nearest.unwrap_or_default());
    }
    Some(Suggestion { changes })
}

/// A change for every rule of a deny policy that matches.
fn undo_deny(policy: &Policy, subject: &Subject<'_>) -> Vec<Change> {
    let stranger = Connection { identity: Some(some_identity()), ..subject.connection.clone() };
    let stranger = Subject::new(&stranger);
    let matching = policy.rules.iter().enumerate().filter(|(_, rule)| rule.matches(subject, Action::Deny));
    matching
        .map(|(index, rule)| {
            let reference = RuleRef { policy: policy.key.clone(), rule: index };
            if subject.principal.is_none() && !rule.matches(&stranger, Action::Deny) {
                Change::EnrolClient { rule: reference }
            } else {
                Change::RemoveDenyRule { rule: reference, principal: subject.principal.clone() }
            }
        })
        .collect()
}

/// An identity that no policy names, to ask what any identity would change.
fn some_identity() -> Identity {
    Identity::new(TrustDomain::default(), "-", "-")
}

/// Each rule's own way in, then that of a new rule.
fn ways_in(policy: &Policy, subject: &Subject<'_>) -> Vec<Vec<Change>> {
    let rules = policy.rules.iter().enumerate();
    let mut ways: Vec<_> = rules.filter_map(|(index, rule)| through_rule(policy, index, rule, subject)).collect();
    let attribute = if subject.principal.is_some() { Attribute::Principals } else { Attribute::SourceIps };
    let value = attribute.value(subject);
    ways.push(vec![Change::AddRule { policy: policy.key.clone(), attribute, value }]);
    ways
}

/// What it takes for every clause of a rule to match; `None` when some clause cannot be mended.
fn through_rule(policy: &Policy, index: usize, rule: &Rule, subject: &Subject<'_>) -> Option<Vec<Change>> {
    let reference = RuleRef { policy: policy.key.clone(), rule: index };
    let failing = rule.clauses.iter().enumerate().filter(|(_, clause)| !clause.matches(subject, Action::Allow));
    let ways: Option<Vec<_>> =
        failing.map(|(position, clause)| through_clause(&reference, position, clause, subject)).collect();
    ways.map(|ways| ways.into_iter().flatten().collect())
}

fn through_clause(rule: &RuleRef, position: usize, clause: &Clause, subject: &Subject<'_>) -> Option<Vec<Change>> {
    let mendable = clause.matches.iter().enumerate().filter(|(_, m)| can_be_mended(m, subject));
    let ways = mendable.map(|(alternative, m)| {
        let mismatches = Attribute::ALL.into_iter().flat_map(|attribute| {
            m.mismatches(attribute, subject).into_iter().map(move |mismatch| (attribute, mismatch))
        });
        let mut changes: Vec<_> = mismatches
            .map(|(attribute, mismatch)| mend(rule, (position, alternative), attribute, mismatch, subject))
            .collect();
        changes.dedup();
        changes
    });
    ways.min_by_key(|way| cost(way))
}

/// Whether a change of entries can make the match hold. One without entries never matches, so
/// exclusions that are all a match has cannot all go.
fn can_be_mended(m: &Match, subject: &Subject<'_>) -> bool {
    let excluded = Attribute::ALL.into_iter().flat_map(|attribute| m.mismatches(attribute, subject));
    let excluded = excluded.filter(|mismatch| matches!(mismatch, Mismatch::Excluded { .. })).count();
    !m.lost_attribute && m.entries() > excluded
}

fn mend(
    rule: &RuleRef,
    (clause, alternative): (usize, usize),
    attribute: Attribute,
    mismatch: Mismatch,
    subject: &Subject<'_>,
) -> Change {
    let rule = rule.clone();
    match mismatch {
        Mismatch::Excluded { entry } => Change::RemoveExclusion { rule, clause, alternative, attribute, entry },
        Mismatch::NotListed if attribute.needs_identity() && subject.principal.is_none() => {
            Change::EnrolAndList { rule, attribute }
        }
        Mismatch::NotListed => {
            let value = attribute.value(subject);
            Change::AddEntry { rule, clause, alternative, attribute, value }
        }
    }
}

/// How far away a set of changes is: fewer first; listing a caller in a rule is nearer than
/// opening a port or an address; a new rule is the last resort.
fn cost(changes: &[Change]) -> usize {
    let each = changes.iter().map(|change| match change {
        Change::AddEntry { attribute, .. } if attribute.needs_identity() => 2,
        Change::AddEntry { .. } | Change::RemoveDenyRule { .. } | Change::EnrolClient { .. } => 3,
        Change::EnrolAndList { .. } | Change::RemoveExclusion { .. } => 4,
        Change::AddRule { .. } => 7,
    });
    each.sum()
}
