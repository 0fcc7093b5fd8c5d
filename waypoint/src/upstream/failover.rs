//! Which endpoints are near: levels of priority and weights of localities. Pure.

use mesh_wire::l7;

use crate::endpoints::{Endpoint, Locality, Place, Preference, PreferenceMode, Scope};

/// What the backend's policy says about localities.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Rules {
    pub(super) disabled: bool,
    /// From a pattern, to patterns with their weights.
    pub(super) distribute: Vec<(String, Vec<(String, u32)>)>,
    pub(super) failover: Vec<(String, String)>,
    pub(super) failover_priority: Vec<(String, Option<String>)>,
    /// Without it, priorities have no effect: nobody would notice that an endpoint fails.
    pub(super) outlier_detection: bool,
}

/// Where one endpoint stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Standing {
    /// Zero is preferred; dense.
    pub(super) level: u32,
    /// Weight of its locality, shared by the endpoints of that locality; `None`: localities play no part.
    pub(super) locality_weight: Option<u32>,
}

/// A standing for each endpoint; `None`: it may not be used at all.
pub(super) fn standings(
    endpoints: &[&Endpoint],
    place: &Place,
    rules: &Rules,
    preference: &Preference,
) -> Vec<Option<Standing>> {
    if let Some(weights) = distribution(place, rules) {
        let weigh = |endpoint: &&Endpoint| {
            let found = weights.iter().find(|(pattern, _)| matches(pattern, &endpoint.locality));
            found
                .filter(|(_, weight)| *weight > 0)
                .map(|(_, weight)| Standing { level: 0, locality_weight: Some(*weight) })
        };
        return endpoints.iter().map(weigh).collect();
    }
    let ranks: Vec<Option<u32>> = endpoints.iter().map(|endpoint| rank(endpoint, place, rules, preference)).collect();
    let mut known: Vec<u32> = ranks.iter().flatten().copied().collect();
    known.sort_unstable();
    known.dedup();
    let dense = |rank: Option<u32>| {
        let level = known.binary_search(&rank?).ok()?;
        Some(Standing { level: u32::try_from(level).ok()?, locality_weight: None })
    };
    ranks.into_iter().map(dense).collect()
}

/// The greater, the farther. `None`: out of bounds.
fn rank(endpoint: &Endpoint, place: &Place, rules: &Rules, preference: &Preference) -> Option<u32> {
    match preference.mode {
        PreferenceMode::Strict => {
            return preference.scopes.iter().all(|scope| equal(*scope, endpoint, place)).then_some(0);
        }
        PreferenceMode::Failover => return Some(preference_rank(endpoint, place, &preference.scopes)),
        PreferenceMode::Standard | PreferenceMode::Passthrough => {}
    }
    if rules.disabled || !rules.outlier_detection {
        return Some(0);
    }
    let by_labels = u32::try_from(labels_missed(endpoint, place, &rules.failover_priority)).unwrap_or(u32::MAX);
    if rules.failover.is_empty() && !rules.failover_priority.is_empty() {
        return Some(by_labels);
    }
    if place.locality.region.is_empty() {
        return Some(by_labels);
    }
    Some(by_labels.saturating_mul(LOCALITY_RANKS).saturating_add(locality_rank(endpoint, place, &rules.failover)))
}

/// Number of leading scopes that match, turned round. A network that comes first counts more than all the others, and
/// does not stop the count.
fn preference_rank(endpoint: &Endpoint, place: &Place, scopes: &[Scope]) -> u32 {
    let count = u32::try_from(scopes.len()).unwrap_or(u32::MAX);
    let leading = |scopes: &[Scope]| {
        let matching = scopes.iter().take_while(|scope| equal(**scope, endpoint, place)).count();
        u32::try_from(matching).unwrap_or(u32::MAX)
    };
    let (matched, most) = match scopes {
        [Scope::Network, rest @ ..] if equal(Scope::Network, endpoint, place) => (leading(rest) + count, 2 * count),
        [Scope::Network, rest @ ..] => (leading(rest), 2 * count),
        scopes => (leading(scopes), count),
    };
    most.saturating_sub(matched)
}

fn equal(scope: Scope, endpoint: &Endpoint, place: &Place) -> bool {
    let (theirs, ours) = (&endpoint.locality, &place.locality);
    match scope {
        Scope::Region => theirs.region == ours.region,
        Scope::Zone => theirs.zone == ours.zone,
        Scope::Subzone => theirs.subzone == ours.subzone,
        Scope::Node => endpoint.node == place.node,
        Scope::Cluster => endpoint.cluster == place.cluster,
        Scope::Network => endpoint.network == place.network,
    }
}

/// Labels from the first that differs on.
fn labels_missed(endpoint: &Endpoint, place: &Place, labels: &[(String, Option<String>)]) -> usize {
    let matched = labels.iter().take_while(|(key, value)| {
        let theirs = label_of_endpoint(endpoint, key);
        match value {
            Some(value) => theirs == Some(value),
            None => theirs == label_of_place(place, key),
        }
    });
    labels.len() - matched.count()
}

fn label_of_endpoint<'a>(endpoint: &'a Endpoint, key: &str) -> Option<&'a str> {
    let derived = topology(key, &endpoint.locality, &endpoint.network, &endpoint.cluster, &endpoint.node);
    derived.or_else(|| endpoint.labels.get(key).map(|value| &**value))
}

fn label_of_place<'a>(place: &'a Place, key: &str) -> Option<&'a str> {
    let derived = topology(key, &place.locality, &place.network, &place.cluster, &place.node);
    derived.or_else(|| place.labels.get(key).map(|value| &**value))
}

fn topology<'a>(
    key: &str,
    locality: &'a Locality,
    network: &'a str,
    cluster: &'a str,
    node: &'a str,
) -> Option<&'a str> {
    let value = match key {
        "topology.kubernetes.io/region" => &*locality.region,
        "topology.kubernetes.io/zone" => &*locality.zone,
        "topology.istio.io/subzone" => &*locality.subzone,
        "topology.istio.io/network" => network,
        "topology.istio.io/cluster" => cluster,
        "kubernetes.io/hostname" => node,
        _ => return None,
    };
    (!value.is_empty()).then_some(value)
}

fn locality_rank(endpoint: &Endpoint, place: &Place, failover: &[(String, String)]) -> u32 {
    let (theirs, ours) = (&endpoint.locality, &place.locality);
    if theirs.region != ours.region {
        let preferred = failover.iter().any(|(from, to)| **from == *ours.region && **to == *theirs.region);
        return if preferred { 3 } else { LOCALITY_RANKS - 1 };
    }
    match (theirs.zone == ours.zone, theirs.subzone == ours.subzone) {
        (true, true) => 0,
        (true, false) => 1,
        (false, _) => 2,
    }
}

/// Weights by pattern, when there is a rule for where we are.
fn distribution<'a>(place: &Place, rules: &'a Rules) -> Option<&'a [(String, u32)]> {
    if rules.disabled || place.locality.region.is_empty() {
        return None;
    }
    let found = rules.distribute.iter().find(|(from, _)| matches(from, &place.locality));
    found.map(|(_, to)| &**to)
}

/// `region/zone/subzone`, where the last part may be `*`, and parts that are left out match everything.
fn matches(pattern: &str, locality: &Locality) -> bool {
    let mut parts = pattern.split('/');
    for value in [&locality.region, &locality.zone, &locality.subzone] {
        match parts.next() {
            None | Some("*") => return true,
            Some(part) if *part == **value => {}
            Some(_) => return false,
        }
    }
    true
}

impl Rules {
    pub(super) fn of(locality: Option<&l7::Locality>, outlier_detection: bool) -> Self {
        let Some(locality) = locality else {
            return Self { outlier_detection, ..Self::default() };
        };
        let to = |to: &l7::locality::Distribute| {
            let mut weights: Vec<_> = to.to.iter().map(|(to, weight)| (to.clone(), *weight)).collect();
            // The most specific pattern first: longer ones, and "*" last.
            weights.sort_by_key(|(pattern, _)| {
                (pattern.ends_with('*'), std::cmp::Reverse(pattern.len()), pattern.clone())
            });
            (to.from.clone(), weights)
        };
        let label = |label: &String| match label.split_once('=') {
            Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
            None => (label.clone(), None),
        };
        Self {
            disabled: locality.disabled,
            distribute: locality.distribute.iter().map(to).collect(),
            failover: locality.failover.iter().map(|rule| (rule.from.clone(), rule.to.clone())).collect(),
            failover_priority: locality.failover_priority.iter().map(label).collect(),
            outlier_detection,
        }
    }
}

/// Same subzone, zone, region, the region to fail over to, others.
const LOCALITY_RANKS: u32 = 5;

#[cfg(test)]
mod tests;
