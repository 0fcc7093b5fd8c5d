//! AuthorizationPolicies become Authorization resources, and a judgement for their status.
//!
//! Rule of the house: what a node proxy enforces is never weaker than what was written. Where an attribute cannot be
//! seen at L4 or a value cannot be read, an ALLOW alternative then matches nothing, and a DENY alternative ignores that
//! attribute, so that more is denied.

mod attributes;
mod domains;
#[cfg(test)]
mod tests;
mod verdict;

use mesh_api::security::{Action as ApiAction, AuthorizationPolicySpec, Rule as ApiRule};
use mesh_core::names::NamespacedName;
use mesh_wire::security::{Action, Authorization, Clause, Match, Rule, Scope};

use super::conditions::Condition;
use crate::world::{AuthorizationPolicy, MeshSettings};
use attributes::Attributes;
use domains::Domains;
use verdict::Notes;
pub use verdict::{unreadable, unreadable_targets};

/// What becomes of one policy.
#[derive(Debug, Clone, PartialEq)]
pub struct Conversion {
    /// The resource, unless the policy is not for node proxies.
    pub authorization: Option<Authorization>,
    /// What its status says about node proxies; nothing where the policy is for waypoints.
    pub condition: Option<Condition>,
}

/// Converts one policy.
///
/// # Source
/// spec of the workload model, section 9; DESIGN section 4 (`l7DenyAtL4`).
pub fn authorization(policy: &AuthorizationPolicy, settings: &MeshSettings) -> Conversion {
    let spec = &*policy.spec;
    if spec.target_ref.is_some() || !spec.target_refs.is_empty() {
        return Conversion { authorization: None, condition: None };
    }
    let action = match spec.action.unwrap_or_default() {
        ApiAction::Allow => Action::Allow,
        ApiAction::Deny => Action::Deny,
        other => return refused(verdict::unsupported_action(other)),
    };
    if policy.dry_run && !settings.dry_run {
        return refused(verdict::unsupported_dry_run());
    }
    let mut notes = Notes::new(action, settings.l7_deny_at_l4);
    let rules = rules(spec, action, &policy.key, settings, &mut notes);
    let authorization = Authorization {
        name: policy.key.name.to_string(),
        namespace: policy.key.namespace.to_string(),
        scope: scope(policy, settings).into(),
        action: action.into(),
        rules,
        dry_run: policy.dry_run,
        ..Authorization::default()
    };
    Conversion { authorization: Some(authorization), condition: Some(notes.condition()) }
}

/// Whether the policy is sent to node proxies at all.
pub fn is_sent(policy: &AuthorizationPolicy, settings: &MeshSettings) -> bool {
    let spec = &*policy.spec;
    let attached = spec.target_ref.is_some() || !spec.target_refs.is_empty();
    let known = matches!(spec.action.unwrap_or_default(), ApiAction::Allow | ApiAction::Deny);
    !attached && known && (!policy.dry_run || settings.dry_run)
}

fn refused(condition: Condition) -> Conversion {
    Conversion { authorization: None, condition: Some(condition) }
}

/// A selector without labels counts as none: the documented intent, and never weaker.
fn scope(policy: &AuthorizationPolicy, settings: &MeshSettings) -> Scope {
    match &policy.selector {
        Some(_) => Scope::WorkloadSelector,
        None if *policy.key.namespace == *settings.root_namespace => Scope::Global,
        None => Scope::Namespace,
    }
}

fn rules(
    spec: &AuthorizationPolicySpec,
    action: Action,
    key: &NamespacedName,
    settings: &MeshSettings,
    notes: &mut Notes,
) -> Vec<Rule> {
    let domains = Domains::of(settings);
    let converter = Converter { action, strict: settings.l7_deny_at_l4, namespace: &key.namespace, domains };
    let rules = spec.rules.iter().enumerate();
    rules.filter_map(|(index, rule)| converter.rule(index, rule, notes)).collect()
}

/// How the rules of one policy are converted.
struct Converter<'a> {
    action: Action,
    /// Promise `l7DenyAtL4`.
    strict: bool,
    /// Namespace of the policy: bare service accounts belong to it.
    namespace: &'a str,
    /// Trust domains that mean the same.
    domains: Domains<'a>,
}

/// What is left of a clause at L4.
enum Reduced {
    /// Send it.
    Clause(Clause),
    /// It always holds, so it need not be sent.
    Holds,
    /// It can never hold, so neither can its rule.
    Never,
}

impl Converter<'_> {
    /// One rule; none when it can never match and is therefore left out.
    fn rule(&self, index: usize, rule: &ApiRule, notes: &mut Notes) -> Option<Rule> {
        let mut unsupported = Vec::new();
        let mut clauses = Vec::new();
        let to: Vec<_> = rule.to.iter().map(|to| Attributes::of_operation(&to.operation)).collect();
        let source =
            |from: &mesh_api::security::From| Attributes::of_source(&from.source, self.namespace, &self.domains);
        let from: Vec<_> = rule.from.iter().map(source).collect();
        let when = rule.when.iter().map(|condition| vec![Attributes::of_condition(condition, &self.domains)]);
        let mut never = false;
        for alternatives in [to, from].into_iter().chain(when).filter(|alternatives| !alternatives.is_empty()) {
            unsupported.extend(alternatives.iter().flat_map(|one| one.unsupported.iter().cloned()));
            match self.clause(alternatives) {
                Reduced::Clause(clause) => clauses.push(clause),
                Reduced::Holds => {}
                Reduced::Never => never = true,
            }
        }
        let l4_left = !clauses.is_empty();
        let omitted = self.action == Action::Allow && (never || unsupported.iter().any(|one| one.l7));
        let ineffective = clauses.iter().any(|clause| clause.matches.iter().all(|one| *one == Match::default()));
        notes.rule(index, unsupported, omitted, l4_left && !ineffective);
        (!omitted).then_some(Rule { clauses })
    }

    /// One clause: its alternatives, reduced to what L4 can see.
    fn clause(&self, alternatives: Vec<Attributes>) -> Reduced {
        let mut matches = Vec::with_capacity(alternatives.len());
        for alternative in alternatives {
            let l7 = alternative.unsupported.iter().any(|one| one.l7);
            match self.action {
                // Whatever cannot be judged allows nothing; such an alternative is left out, its siblings stay.
                Action::Allow if l7 || alternative.unmatchable || alternative.matcher == Match::default() => {}
                Action::Allow => matches.push(alternative.matcher),
                // Everything that could be judged is gone: as if it matched (strict), or as the reference sends it.
                Action::Deny if alternative.matcher == Match::default() && (self.strict || !l7) => {
                    return Reduced::Holds;
                }
                Action::Deny => matches.push(alternative.matcher),
            }
        }
        if matches.is_empty() { Reduced::Never } else { Reduced::Clause(Clause { matches }) }
    }
}
