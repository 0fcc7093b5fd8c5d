//! Routes of connections.

use mesh_api::networking::RouteDestination;
use mesh_wire::l7;

use super::matching::Applies;
use super::{At, Rules, origin};
use crate::translate::l7::backend::Backends;
use crate::world::VirtualService;

impl Rules<'_> {
    /// A rule applies only where the name that it is for is the service's own.
    ///
    /// # Source
    /// spec of layer-7 routing, section 5.6.
    pub(super) fn add_tls(&self, one: &VirtualService, rules: &mut Vec<l7::TlsRule>, backends: &mut Backends<'_>) {
        for (number, route) in one.spec.tls.iter().enumerate() {
            for written in &route.matches {
                let applies = Applies::of_connection(
                    &written.gateways,
                    &written.source_labels,
                    written.source_namespace.as_deref(),
                    written.port,
                );
                let named = match &*written.sni_hosts {
                    [name] => name.eq_ignore_ascii_case(&self.host.hostname),
                    _ => false,
                };
                if !named || !applies.here(self.port.number) {
                    continue;
                }
                let rule = self.l4(&At::new(one, format!("tls[{number}]")), &route.route, backends);
                let mut rule = within(rule, written.destination_subnets.clone());
                let origin = Some(origin(one, number, None));
                rule.origin.clone_from(&origin);
                let hostnames = vec![self.host.hostname.to_string()];
                rules.push(l7::TlsRule { origin, hostnames, rule: Some(rule) });
            }
        }
    }

    pub(super) fn add_tcp(&self, one: &VirtualService, rules: &mut Vec<l7::L4Rule>, backends: &mut Backends<'_>) {
        for (number, route) in one.spec.tcp.iter().enumerate() {
            let subnets: Vec<_> = if route.matches.is_empty() {
                vec![Vec::new()]
            } else {
                let here = route.matches.iter().filter(|written| {
                    let subnet = written.source_subnet.as_deref().is_some_and(|one| !one.is_empty());
                    let applies = Applies::of_connection(
                        &written.gateways,
                        &written.source_labels,
                        written.source_namespace.as_deref(),
                        written.port,
                    );
                    !subnet && applies.here(self.port.number)
                });
                here.map(|written| written.destination_subnets.clone()).collect()
            };
            for destination_subnets in subnets {
                let rule = within(
                    self.l4(&At::new(one, format!("tcp[{number}]")), &route.route, backends),
                    destination_subnets,
                );
                rules.push(l7::L4Rule { origin: Some(origin(one, number, None)), ..rule });
            }
        }
    }

    fn l4(&self, at: &At<'_>, route: &[RouteDestination], backends: &mut Backends<'_>) -> l7::L4Rule {
        let single = route.len() == 1;
        let share = |one: &RouteDestination| {
            let weight = one.weight.and_then(|weight| u32::try_from(weight).ok()).unwrap_or_default();
            if single { 1 } else { weight }
        };
        let taking = route.iter().enumerate().filter(|(_, one)| share(one) > 0).map(|(number, written)| {
            let at = at.within(&format!("route[{number}].destination"));
            l7::WeightedBackend {
                weight: share(written),
                target: Some(self.share(&at, &written.destination, backends)),
                ..l7::WeightedBackend::default()
            }
        });
        l7::L4Rule { backends: taking.collect(), ..l7::L4Rule::default() }
    }
}

/// The rule for these destinations. Where one of them means nothing, the rule keeps its place and closes what comes.
fn within(rule: l7::L4Rule, destination_subnets: Vec<String>) -> l7::L4Rule {
    match destination_subnets.iter().all(|text| is_subnet(text)) {
        true => l7::L4Rule { destination_subnets, ..rule },
        false => l7::L4Rule { backends: Vec::new(), ..rule },
    }
}

/// Whether it is an address, or a range of them.
pub(in crate::translate::l7) fn is_subnet(text: &str) -> bool {
    text.parse::<ipnet::IpNet>().is_ok() || text.parse::<std::net::IpAddr>().is_ok()
}
