//! Objects that name another revision: it may be a tag, and a tag may come to stand for ours at any time.

use std::collections::BTreeMap;
use std::sync::Arc;

use mesh_core::names::NamespacedName;

use crate::world::{Change, Kind, Object, World};

/// What such objects mean where their revision is ours. They are few.
#[derive(Clone, Debug, Default)]
pub(super) struct Tagged(BTreeMap<(Kind, NamespacedName), (Arc<str>, Change)>);

impl Tagged {
    /// Keeps an object, and tells what it means now.
    pub(super) fn add(&mut self, world: &World, revision: Arc<str>, change: Change) -> Option<Change> {
        let subject = change.subject()?;
        let told = meaning(world, &subject, &revision, &change);
        self.0.insert(subject, (revision, change));
        Some(told)
    }

    /// Forgets what another change replaces. Tells whether tags may stand for something else after it.
    pub(super) fn note(&mut self, world: &World, change: &Change) -> bool {
        if self.0.is_empty() {
            return false;
        }
        if let Some(subject) = change.subject() {
            self.0.remove(&subject);
        }
        let system = &world.settings().system_namespace;
        match change {
            Change::Upsert(Object::Service(service)) => service.key.namespace == *system,
            Change::Delete(Kind::Service, key) => key.namespace == *system,
            Change::Retain(kind, keep) => {
                self.0.retain(|(have, key), _| have != kind || keep.contains(key));
                *kind == Kind::Service
            }
            Change::Settings(_) => true,
            _ => false,
        }
    }

    /// What all of them mean now.
    pub(super) fn again(&self, world: &World) -> Vec<Change> {
        let all = self.0.iter();
        all.map(|(subject, (revision, change))| meaning(world, subject, revision, change)).collect()
    }
}

fn meaning(world: &World, subject: &(Kind, NamespacedName), revision: &str, change: &Change) -> Change {
    match world.is_own_revision(revision) {
        true => change.clone(),
        false => Change::Delete(subject.0, subject.1.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::translate::{Model, fixture};
    use crate::world::MeshSettings;

    const TAG: &str = "kind: Service\nmetadata: {name: tag, namespace: istio-system, labels: {istio.io/tag: prod, istio.io/rev: REV}}\nspec: {ports: []}\n";

    fn tell(model: &mut Model, yaml: &str) {
        fixture::changes(yaml).into_iter().for_each(|change| model.apply(change));
        model.flush();
    }

    #[test]
    fn a_policy_is_ours_while_its_tag_stands_for_our_revision() {
        let policy = "kind: AuthorizationPolicy\nmetadata: {name: p, namespace: ns, labels: {istio.io/rev: prod}}\nspec: {action: DENY, rules: [{}]}\n";
        let mut model = fixture::model(policy, MeshSettings::default());
        let sent = |model: &Model| model.authorizations().contains_key("ns/p");
        assert!(!sent(&model), "nobody knows the tag");
        tell(&mut model, &TAG.replace("REV", "default"));
        assert!(sent(&model));
        tell(&mut model, &TAG.replace("REV", "other"));
        assert!(!sent(&model) && model.statuses().is_empty());
        tell(&mut model, &TAG.replace("REV", "default"));
        model.apply(Change::Delete(Kind::Service, "istio-system/tag".parse().unwrap()));
        model.flush();
        assert!(!sent(&model));
        tell(&mut model, &policy.replace("prod", "default"));
        assert!(sent(&model), "it names the revision itself");
        model.apply(Change::Retain(Kind::Authorization, Default::default()));
        tell(&mut model, &TAG.replace("REV", "default"));
        assert!(!sent(&model), "it is gone, and stays so");
    }
}
