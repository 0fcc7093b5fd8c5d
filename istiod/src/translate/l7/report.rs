//! What the statuses of VirtualServices and DestinationRules say: what of them is not honoured.

use std::collections::BTreeSet;

use mesh_api::networking::TrafficPolicy;
use mesh_api::status::{REASON_ACCEPTED, REASON_UNSUPPORTED_VALUE, SERVED};
use mesh_core::names::NamespacedName;

use super::remarks::Board;
use super::rule::tls_of;
use super::tls::readable;
use super::traffic::{is_table_size, unusable_hash};
use super::virtual_service::{counts, is_for_mesh, is_subnet};
use crate::translate::conditions::Condition;
use crate::translate::gateway::Family;
use crate::translate::waypoint::{self, Subject};
use crate::world::{DestinationRule, HostKey, Kind, ParentKind, VirtualService, Winner, World, covers};

/// Of a VirtualService; `found` is what the making of resources found wrong with it.
pub(in crate::translate) fn virtual_service(world: &World, one: &VirtualService, found: BTreeSet<String>) -> Condition {
    let mut remarks = found;
    if one.spec.gateways.iter().any(|gateway| gateway != "mesh") {
        remarks.insert("gateways: Gateways of networking.istio.io are not served, use Gateway API routes".to_owned());
    }
    unserved_parts(one, &mut remarks);
    misnamed_tls(world, one, &mut remarks);
    if is_for_mesh(&one.spec.gateways) && !one.spec.hosts.is_empty() {
        remarks.extend(effect(world, one));
    } else if one.spec.hosts.is_empty() && world.roots_of(&one.key).next().is_none() {
        remarks.insert("no VirtualService delegates to it".to_owned());
    }
    condition(remarks)
}

/// Parts that a waypoint cannot honour.
fn unserved_parts(one: &VirtualService, remarks: &mut BTreeSet<String>) {
    for (number, route) in one.spec.http.iter().enumerate() {
        let mut add = |field: &str, why: &str| {
            remarks.insert(format!("http[{number}].{field}: {why}"));
        };
        for written in &route.matches {
            if !written.source_labels.is_empty() {
                add("match.sourceLabels", NEVER);
            }
            if written.source_namespace.as_deref().is_some_and(|one| !one.is_empty()) {
                add("match.sourceNamespace", NEVER);
            }
            if written.headers.keys().chain(written.without_headers.keys()).any(|name| name.starts_with("@request.")) {
                add("match.headers", "claims of tokens are not known yet");
            }
        }
        let fault = route.fault.as_ref();
        if fault.and_then(|one| one.delay.as_ref()).is_some_and(|delay| delay.exponential_delay.is_some()) {
            add("fault.delay.exponentialDelay", "is not served, nobody is delayed by it");
        }
        if fault.and_then(|one| one.abort.as_ref()).is_some_and(|abort| abort.http2_error.is_some()) {
            add("fault.abort.http2Error", "is not served, nobody is aborted by it");
        }
    }
    let of_tls = one.spec.tls.iter().flat_map(|route| &route.matches).flat_map(|one| &one.destination_subnets);
    let of_tcp = one.spec.tcp.iter().flat_map(|route| &route.matches).flat_map(|one| &one.destination_subnets);
    for text in of_tls.chain(of_tcp).filter(|text| !is_subnet(text)) {
        remarks
            .insert(format!("destinationSubnets: {text:?} is no range of addresses: connections are closed instead"));
    }
    for (number, route) in one.spec.tcp.iter().enumerate() {
        if route.matches.iter().any(|written| written.source_subnet.is_some()) {
            remarks.insert(format!("tcp[{number}].match.sourceSubnet: {NEVER}"));
        }
    }
}

/// Names of TLS routes that no waypoint has a use for: it judges connections to one service, by the name of that service.
fn misnamed_tls(world: &World, one: &VirtualService, remarks: &mut BTreeSet<String>) {
    let full = |host: &String| world.settings().full_host(host, &one.key.namespace);
    let hosts: BTreeSet<_> = one.spec.hosts.iter().map(full).collect();
    for (number, route) in one.spec.tls.iter().enumerate() {
        for (at, written) in route.matches.iter().enumerate() {
            let own = |name: &str| hosts.iter().any(|host| **host == *name || covers(host, name));
            let usable = matches!(&*written.sni_hosts, [name] if own(&name.to_ascii_lowercase()));
            if !usable && is_for_mesh(&written.gateways) {
                remarks.insert(format!(
                    "tls[{number}].match[{at}].sniHosts: {:?} is not one name that is also among hosts, so this match never \
                     holds: write one match for each host, with its full name",
                    written.sni_hosts
                ));
            }
        }
    }
}

/// What keeps it from having an effect on hosts that it is for.
fn effect(world: &World, one: &VirtualService) -> BTreeSet<String> {
    let mut remarks = BTreeSet::new();
    let settings = world.settings();
    for written in &one.spec.hosts {
        let host = settings.full_host(written, &one.key.namespace);
        let found: Vec<HostKey> = match host.strip_prefix('*') {
            // Of a wildcard there may be many.
            Some(_) => continue,
            None => world.resolve_host(&host, &one.key.namespace).map(|(key, _)| key).into_iter().collect(),
        };
        let Some(key) = found.first() else {
            remarks.insert(format!("host {written:?} is no service that is known"));
            continue;
        };
        let Some(winner) = world.winner(key) else { continue };
        let (kind, object) = match winner {
            Winner::Service(service) => (ParentKind::Service, &service.key),
            Winner::Entry(entry) => (ParentKind::ServiceEntry, &entry.key),
        };
        let ours = own_waypoints(world, winner);
        if ours.is_empty() {
            remarks.insert(format!("host {written:?} has no waypoint (label istio.io/use-waypoint): no effect"));
        } else if !ours.iter().any(|gateway| counts(world, one, key, gateway)) {
            remarks.insert(format!(
                "host {written:?}: its waypoint honours VirtualServices of namespaces {} and {} only: no effect",
                key.namespace,
                ours.iter().map(|gateway| &*gateway.namespace).collect::<Vec<_>>().join(", ")
            ));
        } else if world
            .routes_of(kind, object)
            .any(|(kind, key)| routes_same(one, *kind) && world.visible(&key.namespace))
        {
            remarks.insert(format!("host {written:?} has routes of the Gateway API, which win: no effect"));
        }
    }
    remarks
}

/// Waypoints of ours that take what addresses a service.
fn own_waypoints(world: &World, winner: Winner<'_>) -> Vec<NamespacedName> {
    let subject = match winner {
        Winner::Service(service) => Subject::of_service(service),
        Winner::Entry(entry) => Subject::of_entry(world, entry),
    };
    let ours = |key: &NamespacedName| {
        world.gateway(key).is_some_and(|one| Family::of_class(world, &one.class) == Some(Family::Waypoint))
    };
    waypoint::serving(world, subject).into_iter().filter(ours).collect()
}

/// Whether a route of that kind is about what the VirtualService is about.
fn routes_same(one: &VirtualService, kind: Kind) -> bool {
    match kind {
        Kind::HttpRoute | Kind::GrpcRoute => !one.spec.http.is_empty(),
        _ => !one.spec.tls.is_empty() || !one.spec.tcp.is_empty(),
    }
}

/// Of a DestinationRule; `found` is what the making of resources found.
pub(in crate::translate) fn destination_rule(world: &World, rule: &DestinationRule, found: &Board) -> Condition {
    let mut remarks = found.texts(Kind::DestinationRule, &rule.key);
    let host = world.settings().full_host(&rule.spec.host, &rule.key.namespace);
    let known = host.starts_with('*') || world.claims(&host).next().is_some();
    if !known {
        remarks.insert(format!("host {:?} is no service that is known", rule.spec.host));
    }
    let winner = if host.starts_with('*') { None } else { world.resolve_host(&host, &rule.key.namespace) };
    if known && !found.mentions(Kind::DestinationRule, &rule.key) {
        remarks.insert(idle_rule(world, rule, winner.as_ref()));
    }
    let endpoints = winner.as_ref().and_then(|(_, winner)| world.endpoint_count(*winner));
    for (at, tls) in tls_of(rule) {
        if let Err(reason) = readable(tls) {
            remarks.insert(format!("{at}.{reason}: nothing is sent"));
        }
    }
    let own = rule.spec.traffic_policy.iter().map(|policy| (String::new(), policy));
    let subsets = rule.spec.subsets.iter();
    let of_subset =
        |(number, one): (usize, &'_ mesh_api::networking::Subset)| format!("subsets[{number}].{}", one.name);
    for (at, policy) in own {
        unserved_policy(&at, policy, endpoints, &mut remarks);
    }
    for (number, subset) in subsets.enumerate() {
        if let Some(policy) = &subset.traffic_policy {
            unserved_policy(&of_subset((number, subset)), policy, endpoints, &mut remarks);
        }
    }
    condition(remarks)
}

/// Why no proxy goes by a rule: node proxies never do.
fn idle_rule(world: &World, rule: &DestinationRule, winner: Option<&(HostKey, Winner<'_>)>) -> String {
    let (host, namespace) = (&rule.spec.host, &rule.key.namespace);
    let Some((key, winner)) = winner else {
        return format!(
            "host {host:?}: no waypoint or gateway calls such a service by this rule: takes effect when one has a waypoint"
        );
    };
    if !own_waypoints(world, *winner).is_empty() {
        return format!(
            "host {host:?}: its waypoint does not go by this rule (namespace, exportTo or workloadSelector leave it out, \
             another rule comes first, or routes lead elsewhere): no effect"
        );
    }
    let anywhere = *namespace == key.namespace || *namespace == world.settings().root_namespace;
    let place = if anywhere { String::new() } else { format!(" in namespace {namespace}") };
    format!(
        "host {host:?} has no waypoint (label istio.io/use-waypoint), and no gateway calls it by this rule: takes effect \
         when the service has a waypoint{place}"
    )
}

/// Whether the status of a rule tells this reason of its TLS settings without knowing who calls whom.
pub(super) fn tells(rule: &DestinationRule, reason: &str) -> bool {
    tls_of(rule).any(|(_, tls)| readable(tls).is_err_and(|known| known == reason))
}

fn unserved_policy(at: &str, policy: &TrafficPolicy, endpoints: Option<usize>, remarks: &mut BTreeSet<String>) {
    let at = if at.is_empty() { "trafficPolicy".to_owned() } else { format!("{at}.trafficPolicy") };
    let mut add = |field: &str, why: &str| {
        remarks.insert(format!("{at}.{field}: {why}"));
    };
    if policy.tunnel.is_some() {
        add("tunnel", "is not served: no connection is made to ports of TCP and TLS");
    }
    let ports = policy.port_level_settings.iter();
    let balancers = ports.clone().filter_map(|port| port.load_balancer.as_ref()).chain(&policy.load_balancer);
    if balancers.into_iter().any(|one| one.zone_aware_lb_setting.is_some()) {
        add("loadBalancer.zoneAwareLbSetting", "is not served, use localityLbSetting");
    }
    let balancers = ports.clone().filter_map(|port| port.load_balancer.as_ref()).chain(&policy.load_balancer);
    for hash in balancers.filter_map(|one| one.consistent_hash.as_ref()) {
        if let Some(why) = unusable_hash(hash) {
            add("loadBalancer.consistentHash", &format!("{why}: endpoints are chosen without it"));
        }
        if hash.maglev.as_ref().and_then(|one| one.table_size).is_some_and(|size| !is_table_size(size)) {
            add("loadBalancer.consistentHash.maglev.tableSize", "is no prime number below 5000011: it is 65537");
        }
    }
    let detections = ports.filter_map(|port| port.outlier_detection.as_ref()).chain(&policy.outlier_detection);
    for detection in detections {
        let percent = u64::try_from(detection.max_ejection_percent.unwrap_or(PERCENT)).unwrap_or_default();
        if let Some(why) = idle_detection(percent, endpoints) {
            add("outlierDetection.maxEjectionPercent", &why);
        }
    }
}

/// Why so many percent of the endpoints are none, if they are. The limit is strict.
///
/// # Source
/// spec of resilience, section 6.
fn idle_detection(percent: u64, endpoints: Option<usize>) -> Option<String> {
    let least = if percent == 0 { None } else { Some(100_u64.div_ceil(percent)) };
    let what = "so no endpoint is ever left out";
    match (endpoints.and_then(|count| u64::try_from(count).ok()), least) {
        (Some(0), _) => None,
        (_, None) => Some(format!("is 0, {what}: write at least 1")),
        (Some(count), Some(least)) => (count < least).then(|| {
            let enough = 100_u64.div_ceil(count);
            format!("{percent} % of {count} endpoints are less than one, {what}: write at least {enough}")
        }),
        // Those of a wildcard, or of other clusters, are not counted.
        (None, Some(least)) => (percent <= u64::from(PERCENT.unsigned_abs())).then(|| {
            format!(
                "{percent} % of fewer than {least} endpoints are less than one, {what} of a service that has no more"
            )
        }),
    }
}

fn condition(remarks: BTreeSet<String>) -> Condition {
    let holds = remarks.is_empty();
    let reason = if holds { REASON_ACCEPTED } else { REASON_UNSUPPORTED_VALUE };
    let mut message = if holds { "honoured as written".to_owned() } else { String::new() };
    let shown: Vec<_> = remarks.iter().take(SHOWN_MAX).map(String::as_str).collect();
    message.push_str(&shown.join("; "));
    if remarks.len() > SHOWN_MAX {
        message.push_str(&format!("; and {} more", remarks.len() - SHOWN_MAX));
    }
    Condition { type_: SERVED, holds, reason, message }
}

const NEVER: &str = "a waypoint does not know it, so this match never holds";
/// What `maxEjectionPercent` is where it is not written.
const PERCENT: i32 = 10;
/// Remarks that a status tells.
const SHOWN_MAX: usize = 8;
