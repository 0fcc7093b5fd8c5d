//! Which DestinationRules say how a service is called, and what they say together.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mesh_api::networking::{ClientTls, PortTrafficPolicy, Subset, TrafficPolicy};
use mesh_api::security::WorkloadSelector;
use mesh_core::names::NamespacedName;

use super::backend::Client;
use super::proxy::Own;
use crate::world::{DestinationRule, HostKey, Labels, MeshSettings, World};

/// The rules of one host that count for one client, the oldest first.
#[derive(Clone, Debug)]
pub(super) struct Rules<'a>(Vec<&'a Arc<DestinationRule>>);

impl<'a> Rules<'a> {
    /// Looks in the client's namespace, then in the service's, then in the root namespace: the first that has a rule
    /// counts, with its most specific host. What the root namespace says is for everybody and comes last for clients of its
    /// own, too, but for rules that it keeps to itself. A rule for some clients stands before those for all.
    ///
    /// # Source
    /// spec of layer-7 routing, section 6.1; spec of the API surface, section 7.4.
    pub(super) fn find(world: &'a World, host: &HostKey, client: &Client) -> Self {
        let all = world.rules_for(&host.hostname);
        let here = &client.gateway.namespace;
        let root = &world.settings().root_namespace;
        let usual = &world.settings().l7.rules_export_to;
        for (namespace, private) in [(here, here == root), (&host.namespace, false), (root, false)] {
            let counts = |rule: &DestinationRule| {
                rule.key.namespace == *namespace
                    && world.visible(namespace)
                    && exported(&rule.spec.export_to, usual, namespace, here)
                    && (!private || is_private(&rule.spec.export_to, usual, namespace))
                    && selects(world, rule, client)
            };
            let mut found: Vec<_> = all.iter().filter(|(rule, _)| counts(rule)).collect();
            let Some(best) = found.iter().map(|(_, step)| *step).min() else { continue };
            found.retain(|(_, step)| *step == best);
            let selective = found.iter().find_map(|(rule, _)| rule.spec.workload_selector.as_ref());
            if let Some(selector) = selective {
                found.retain(|(rule, _)| rule.spec.workload_selector.as_ref() == Some(selector));
            }
            return Self(found.into_iter().map(|(rule, _)| *rule).collect());
        }
        Self(Vec::new())
    }

    /// The namespace that all of them are of.
    pub(super) fn namespace(&self) -> Option<&'a Arc<str>> {
        self.0.first().map(|rule| &rule.key.namespace)
    }

    /// Names of all of them.
    pub(super) fn keys(&self) -> impl Iterator<Item = &'a NamespacedName> {
        self.0.iter().map(|rule| &rule.key)
    }

    /// Those that say anything about TLS.
    pub(super) fn with_tls(&self) -> impl Iterator<Item = &'a Arc<DestinationRule>> {
        self.0.iter().copied().filter(|rule| tls_of(rule).next().is_some())
    }

    /// Labels of a subset's endpoints; of no subset, none. None where no rule defines the subset.
    pub(super) fn subset(&self, name: &str) -> Option<BTreeMap<String, String>> {
        if name.is_empty() { Some(BTreeMap::new()) } else { self.defined(name).map(|subset| subset.labels.clone()) }
    }

    /// The policy for a port: what a subset says comes before what the rule says, and what is said for the port before
    /// what is said for all.
    pub(super) fn policy(&self, subset: &str, port: u16, settings: &MeshSettings) -> TrafficPolicy {
        let wide = self.0.iter().find_map(|rule| rule.spec.traffic_policy.as_ref());
        let narrow = self.defined(subset).and_then(|subset| subset.traffic_policy.as_ref());
        let mut policy = TrafficPolicy::default();
        for level in [wide, narrow].into_iter().flatten() {
            apply(&mut policy, level);
            let own = level.port_level_settings.iter().find(|one| is_for(one, port));
            if let Some(own) = own {
                // It stands for itself: what it does not say is not inherited.
                policy.load_balancer.clone_from(&own.load_balancer);
                policy.connection_pool.clone_from(&own.connection_pool);
                policy.outlier_detection.clone_from(&own.outlier_detection);
                policy.tls.clone_from(&own.tls);
            }
        }
        if let Some(usual) = &settings.l7.default_policy {
            fill(&mut policy, usual);
        }
        policy
    }

    fn defined(&self, name: &str) -> Option<&'a Subset> {
        let subsets = self.0.iter().flat_map(|rule| &rule.spec.subsets);
        subsets.into_iter().find(|subset| subset.name == name && !name.is_empty())
    }
}

/// Every TLS setting of a rule, with the field that it is in.
pub(super) fn tls_of(rule: &DestinationRule) -> impl Iterator<Item = (String, &ClientTls)> {
    let wide = rule.spec.traffic_policy.iter().map(|policy| ("trafficPolicy".to_owned(), policy));
    let subsets = rule.spec.subsets.iter().enumerate().filter_map(|(number, subset)| {
        Some((format!("subsets[{number}].{}.trafficPolicy", subset.name), subset.traffic_policy.as_ref()?))
    });
    wide.chain(subsets).flat_map(|(at, policy)| {
        let ports = policy.port_level_settings.iter().enumerate();
        let of_ports: Vec<_> = ports
            .filter_map(|(number, port)| Some((format!("{at}.portLevelSettings[{number}]"), port.tls.as_ref()?)))
            .collect();
        policy.tls.iter().map(move |tls| (at.clone(), tls)).chain(of_ports)
    })
}

fn is_for(one: &PortTrafficPolicy, port: u16) -> bool {
    one.port.as_ref().and_then(|port| port.number) == Some(port.into())
}

/// A rule for some clients is for those that carry the labels.
fn selects(world: &World, rule: &DestinationRule, client: &Client) -> bool {
    let Some(selector) = &rule.spec.workload_selector else { return true };
    if rule.key.namespace != client.gateway.namespace {
        return false;
    }
    Own::find(world, &client.gateway).is_some_and(|own| selects_pods(selector, &own.pod_labels(world)))
}

fn selects_pods(selector: &WorkloadSelector, pods: &[Labels]) -> bool {
    let wanted = &selector.match_labels;
    let wanted: Labels = wanted.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    pods.iter().any(|labels| labels.contains(&wanted))
}

/// Rules for some clients that are for the pods of a gateway.
pub(super) fn selecting(world: &World, own: Own<'_>) -> BTreeSet<NamespacedName> {
    let rules = world.destination_rules_in(&own.gateway.key.namespace);
    let mut rules = rules.filter_map(|rule| Some((rule, rule.spec.workload_selector.as_ref()?))).peekable();
    if rules.peek().is_none() {
        return BTreeSet::new();
    }
    let pods = own.pod_labels(world);
    rules.filter(|(_, selector)| selects_pods(selector, &pods)).map(|(rule, _)| rule.key.clone()).collect()
}

/// Whether what is written in `namespace` is for clients of `reader`.
pub(super) fn exported(written: &[String], usual: &[String], namespace: &str, reader: &str) -> bool {
    let list = if written.is_empty() { usual } else { written };
    list.is_empty() || list.iter().any(|one| one == "*" || (one == "." && *namespace == *reader) || **one == *reader)
}

/// Whether what is written in `namespace` is for clients of it and for no others.
fn is_private(written: &[String], usual: &[String], namespace: &str) -> bool {
    let list = if written.is_empty() { usual } else { written };
    matches!(list, [only] if only == "." || *only == *namespace)
}

/// Blocks that are there replace those before.
fn apply(policy: &mut TrafficPolicy, level: &TrafficPolicy) {
    replace(&mut policy.load_balancer, &level.load_balancer);
    replace(&mut policy.connection_pool, &level.connection_pool);
    replace(&mut policy.outlier_detection, &level.outlier_detection);
    replace(&mut policy.tls, &level.tls);
    replace(&mut policy.tunnel, &level.tunnel);
    replace(&mut policy.proxy_protocol, &level.proxy_protocol);
    replace(&mut policy.retry_budget, &level.retry_budget);
}

fn replace<T: Clone>(have: &mut Option<T>, new: &Option<T>) {
    if new.is_some() {
        have.clone_from(new);
    }
}

/// Blocks that are missing are those of the mesh.
fn fill(policy: &mut TrafficPolicy, usual: &TrafficPolicy) {
    let mut merged = usual.clone();
    apply(&mut merged, policy);
    *policy = merged;
}
