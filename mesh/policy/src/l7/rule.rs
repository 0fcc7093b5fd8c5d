//! A rule: who, to what, when.

use super::Action;
use super::attribute::Attribute;
use super::entry::Entry;
use super::subject::Subject;

/// Matches when one of `from`, one of `to` and all of `when` do; what is empty always does.
#[derive(Clone, Debug, Default)]
pub(super) struct Rule {
    pub(super) from: Vec<Fields>,
    pub(super) to: Vec<Fields>,
    pub(super) when: Vec<Field>,
}

/// All must hold.
pub(super) type Fields = Vec<Field>;

/// A list of values and one of exclusions for one attribute: one value must match where there are any, and no exclusion.
#[derive(Clone, Debug)]
pub(super) struct Field {
    pub(super) attribute: Attribute,
    pub(super) values: Vec<Entry>,
    pub(super) exclusions: Vec<Entry>,
}

impl Rule {
    pub(super) fn matches(&self, subject: &Subject<'_>, action: Action) -> bool {
        let any = |alternatives: &[Fields]| {
            let holds = |fields: &Fields| fields.iter().all(|field| field.holds(subject, action));
            alternatives.is_empty() || alternatives.iter().any(holds)
        };
        any(&self.from) && any(&self.to) && self.when.iter().all(|field| field.holds(subject, action))
    }

    /// Everything that must hold in one of the ways to match, for each way.
    pub(super) fn ways(&self) -> impl Iterator<Item = impl Iterator<Item = &Field>> {
        let (froms, tos) = (self.from.len().max(1), self.to.len().max(1));
        (0..froms).flat_map(move |from| (0..tos).map(move |to| (from, to))).map(|(from, to)| {
            let from = self.from.get(from).into_iter().flatten();
            let to = self.to.get(to).into_iter().flatten();
            from.chain(to).chain(&self.when)
        })
    }
}

impl Field {
    /// What only requests have holds of a connection for policies that refuse, and does not for those that allow.
    fn holds(&self, subject: &Subject<'_>, action: Action) -> bool {
        if self.attribute.is_of_http() && subject.request.http.is_none() {
            return action != Action::Allow;
        }
        self.is_listed(subject, action) && self.excluded_by(subject, action).is_none()
    }

    pub(super) fn is_listed(&self, subject: &Subject<'_>, action: Action) -> bool {
        self.values.is_empty() || self.values.iter().any(|entry| subject.is_listed(&self.attribute, entry, action))
    }

    pub(super) fn excluded_by(&self, subject: &Subject<'_>, action: Action) -> Option<&Entry> {
        self.exclusions.iter().find(|entry| subject.is_excluded(&self.attribute, entry, action))
    }
}
