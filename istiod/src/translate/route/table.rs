//! HTTPRoutes and GRPCRoutes become one table: entries by host, in the order of precedence.
//!
//! # Source
//! spec of the gateway controller, section 11; spec of routing, section 2.3.

use std::collections::BTreeMap;
use std::sync::Arc;

use mesh_wire::l7;

use super::backend::Sink;
use super::convert::{Item, convert};
use super::view::Route;
use crate::world::World;

/// The table of these routes, each with the hosts that it is for; none without routes. `granted` tells whether references
/// to other namespaces need grants.
pub(super) fn http(
    world: &World,
    routes: Vec<(Route<'_>, Vec<Arc<str>>)>,
    granted: bool,
    sink: &mut Sink<'_>,
) -> Option<l7::HttpTable> {
    if routes.is_empty() {
        return None;
    }
    let mut rules = Vec::new();
    let mut entries: Vec<Vec<Item>> = Vec::new();
    // Routes of a host, by their positions.
    let mut hosts: BTreeMap<Arc<str>, Vec<usize>> = BTreeMap::new();
    for (route, names) in routes {
        if names.is_empty() {
            continue;
        }
        let converted = convert(world, route, granted, sink);
        let first = rules.len();
        rules.extend(converted.rules);
        for name in names {
            hosts.entry(name).or_default().push(entries.len());
        }
        entries.push(converted.entries.into_iter().map(|item| Item { rule: item.rule + first, ..item }).collect());
    }
    // Hosts with the same routes share their entries.
    let mut groups: BTreeMap<Vec<usize>, Vec<String>> = BTreeMap::new();
    for (host, routes) in hosts {
        groups.entry(routes).or_default().push(host.to_string());
    }
    let mut hosts: Vec<_> = groups
        .into_iter()
        .map(|(routes, hostnames)| l7::VirtualHost { hostnames, entries: sorted(&entries, &routes) })
        .collect();
    hosts.sort_by(|a, b| a.hostnames.cmp(&b.hostnames));
    Some(l7::HttpTable { hosts, rules })
}

fn sorted(entries: &[Vec<Item>], routes: &[usize]) -> Vec<l7::HttpEntry> {
    let mut items: Vec<&Item> = routes.iter().filter_map(|route| entries.get(*route)).flatten().collect();
    items.sort_by(|a, b| a.rank.cmp(&b.rank));
    let entry = |item: &Item| l7::HttpEntry {
        r#match: Some(item.matching.clone()),
        rule: u32::try_from(item.rule).unwrap_or(u32::MAX),
    };
    items.into_iter().map(entry).collect()
}
