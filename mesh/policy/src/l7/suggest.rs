//! The nearest change that would allow a request, in words a person can act on.

use super::rule::Field;
use super::subject::Subject;
use super::{Action, L7Request, Policies, Policy, RuleRef};

impl Policies {
    /// What to change so that the request is allowed; `None` when it is.
    #[must_use]
    pub fn nearest_allow(&self, request: &L7Request<'_>) -> Option<String> {
        if self.evaluate(request).allowed() {
            return None;
        }
        let subject = Subject::new(request);
        let denying = self.enforced(Action::Deny).filter_map(|policy| policy.matching(&subject));
        let mut changes: Vec<String> = denying.map(|rule| undo(&rule, &subject)).collect();
        let mut allowing = self.enforced(Action::Allow).peekable();
        let first = allowing.peek().map(|policy| &policy.key);
        let matched = self.enforced(Action::Allow).any(|policy| policy.matching(&subject).is_some());
        if let Some(first) = first
            && !matched
        {
            let nearest = allowing.flat_map(|policy| ways_in(policy, &subject)).min_by_key(|way| way.cost);
            changes.push(nearest.map_or_else(|| format!("add a rule to allow policy {first}"), |way| way.text));
        }
        Some(changes.join("; and "))
    }
}

fn undo(rule: &RuleRef<'_>, subject: &Subject<'_>) -> String {
    let RuleRef { policy, rule } = rule;
    match subject.request.source {
        Some(source) => {
            format!("remove rule {rule} of deny policy {policy}, or exclude principal {} from it", source.principal())
        }
        None => format!("remove rule {rule} of deny policy {policy}"),
    }
}

/// One way to match a rule of an allow policy.
struct Way {
    text: String,
    /// Fewer is nearer.
    cost: usize,
}

fn ways_in(policy: &Policy, subject: &Subject<'_>) -> Vec<Way> {
    let ways = policy.rules.iter().enumerate().flat_map(|(position, rule)| {
        let rule_ref = RuleRef { policy: &policy.key, rule: position };
        rule.ways().filter_map(move |fields| way_in(rule_ref, fields, subject))
    });
    ways.collect()
}

/// `None` when no change of the rule's lists can help.
fn way_in<'a>(rule: RuleRef<'_>, fields: impl Iterator<Item = &'a Field>, subject: &Subject<'_>) -> Option<Way> {
    let RuleRef { policy, rule } = rule;
    let mut way = Way { text: String::new(), cost: 0 };
    for field in fields {
        let attribute = &field.attribute;
        if attribute.is_of_http() && subject.request.http.is_none() {
            return None;
        }
        let mut change = |text: String, cost: usize| {
            let and = if way.text.is_empty() { "" } else { " and " };
            way.text = format!("{}{and}{text}", way.text);
            way.cost += cost;
        };
        if !field.is_listed(subject, Action::Allow) {
            match subject.value(attribute) {
                Some(value) => {
                    // Listing a caller is nearer than opening an address or a port.
                    let cost = if attribute.needs_identity() { 2 } else { 3 };
                    change(format!("add {attribute} {value} to rule {rule} of allow policy {policy}"), cost);
                }
                None if attribute.needs_identity() => change(
                    format!(
                        "enrol the client in the mesh and list its {attribute} in rule {rule} of allow policy {policy}"
                    ),
                    4,
                ),
                None if attribute.needs_token() => {
                    change(
                        format!("send a token with the {attribute} that rule {rule} of allow policy {policy} lists"),
                        4,
                    );
                }
                None => change(format!("send a {attribute} that rule {rule} of allow policy {policy} lists"), 4),
            }
        }
        if let Some(entry) = field.excluded_by(subject, Action::Allow) {
            change(format!("stop excluding {attribute} {entry} in rule {rule} of allow policy {policy}"), 4);
        }
    }
    (way.cost > 0).then_some(way)
}
