//! Policies by key and by the workloads that they apply to.

use std::collections::HashMap;
use std::sync::Arc;

use mesh_policy::{Policy, Scope};

use super::workload::Workload;

/// All policies. Part of a snapshot; copied when a policy changes, which is rare.
#[derive(Clone, Debug, Default)]
pub(crate) struct PolicyIndex {
    by_key: HashMap<Arc<str>, Arc<Policy>>,
    /// Namespace to the policies with namespace scope; the empty name holds the global ones.
    by_namespace: HashMap<Arc<str>, Vec<Arc<Policy>>>,
}

/// What applies to a workload.
#[derive(Clone, Debug, Default)]
pub struct Policies {
    /// Policies to evaluate.
    pub applied: Vec<Arc<Policy>>,
    /// Keys that the workload names and that are not known.
    pub missing: Vec<Arc<str>>,
}

impl PolicyIndex {
    pub(crate) fn insert(&mut self, policy: Arc<Policy>) {
        let key: Arc<str> = policy.key.to_string().into();
        self.remove(&key);
        if let Some(namespace) = index_key(&policy) {
            self.by_namespace.entry(namespace).or_default().push(Arc::clone(&policy));
        }
        self.by_key.insert(key, policy);
    }

    pub(crate) fn remove(&mut self, key: &str) -> bool {
        let Some(old) = self.by_key.remove(key) else { return false };
        if let Some(namespace) = index_key(&old)
            && let Some(list) = self.by_namespace.get_mut(&namespace)
        {
            list.retain(|policy| policy.key != old.key);
            if list.is_empty() {
                self.by_namespace.remove(&namespace);
            }
        }
        true
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Arc<Policy>> {
        self.by_key.get(key)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Policy>> {
        self.by_key.values()
    }

    /// The union of namespace policies, global policies and those that the workload names.
    pub(crate) fn applying_to(&self, workload: &Workload) -> Policies {
        let of = |namespace: &str| self.by_namespace.get(namespace).into_iter().flatten();
        let mut policies = Policies::default();
        if !workload.namespace.is_empty() {
            policies.applied.extend(of(&workload.namespace).cloned());
        }
        policies.applied.extend(of(GLOBAL).cloned());
        for key in &workload.authorization_policies {
            match self.get(key) {
                Some(policy) if policies.applied.iter().any(|known| Arc::ptr_eq(known, policy)) => {}
                Some(policy) => policies.applied.push(Arc::clone(policy)),
                None => policies.missing.push(Arc::clone(key)),
            }
        }
        policies
    }
}

fn index_key(policy: &Policy) -> Option<Arc<str>> {
    match policy.scope {
        Scope::Global => Some(GLOBAL.into()),
        Scope::Namespace => Some(Arc::clone(&policy.key.namespace)),
        Scope::WorkloadSelector => None,
    }
}

const GLOBAL: &str = "";
