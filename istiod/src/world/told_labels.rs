//! Labels of workloads that proxies of layer 7 choose endpoints by. Only these are told: a cluster without subsets and
//! failover priorities tells none.

use std::collections::{BTreeMap, BTreeSet};

use mesh_api::networking::{DestinationRuleSpec, LocalityLoadBalancing};

use super::{DestinationRule, Dirty, Labels, World};

impl World {
    /// Those of these labels that some destination rule, or the mesh configuration, chooses by.
    pub fn told_labels(&self, labels: &Labels) -> BTreeMap<String, String> {
        let mesh = self.settings.l7.locality.as_ref().map(|locality| priorities(locality).collect::<Vec<_>>());
        let chosen = |key: &str| {
            self.index.l7.chosen_by.of(key).next().is_some() || mesh.as_ref().is_some_and(|keys| keys.contains(&key))
        };
        let told = labels.iter().filter(|(key, _)| chosen(key));
        told.map(|(key, value)| (key.to_string(), value.to_string())).collect()
    }

    /// Every workload with some label by which this rule alone chooses.
    pub(super) fn reach_told_labels(&self, rule: &DestinationRule, dirty: &mut Dirty) {
        let alone = |key: &&&str| self.index.l7.chosen_by.of(**key).all(|other| *other == rule.key);
        let keys = label_keys(&rule.spec);
        let keys: Vec<_> = keys.iter().filter(alone).collect();
        if keys.is_empty() {
            return;
        }
        let told = |labels: &Labels| keys.iter().any(|key| labels.get(key).is_some());
        dirty.pods.extend(self.pods.values().filter(|one| told(&one.labels)).map(|one| one.key.clone()));
        let entries = self.workload_entries.values().filter(|one| told(&one.labels));
        dirty.workload_entries.extend(entries.map(|one| one.key.clone()));
        dirty.entries.extend(self.entries.keys().cloned());
    }
}

/// Keys of the labels that a rule chooses endpoints by.
pub(super) fn label_keys(rule: &DestinationRuleSpec) -> BTreeSet<&str> {
    let mut keys: BTreeSet<&str> =
        rule.subsets.iter().flat_map(|subset| subset.labels.keys()).map(String::as_str).collect();
    let policies = rule.subsets.iter().filter_map(|subset| subset.traffic_policy.as_ref()).chain(&rule.traffic_policy);
    for policy in policies {
        let ports = policy.port_level_settings.iter().filter_map(|port| port.load_balancer.as_ref());
        for balancer in ports.chain(&policy.load_balancer) {
            keys.extend(balancer.locality_lb_setting.iter().flat_map(priorities));
        }
    }
    keys
}

/// `failoverPriority` holds `key` or `key=value`.
fn priorities(locality: &LocalityLoadBalancing) -> impl Iterator<Item = &str> {
    locality.failover_priority.iter().map(|one| one.split_once('=').map_or(one.as_str(), |(key, _)| key))
}
