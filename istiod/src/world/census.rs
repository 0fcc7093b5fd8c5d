//! How many endpoints a hostname has.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::{Dirty, Kind, Labels, Object, Resolution, Service, ServiceEntry, Winner, World};

impl World {
    /// Number of endpoints of a service, ready or not. None where it cannot be known here: names are resolved elsewhere,
    /// other clusters may have more, and workloads may be selected.
    pub fn endpoint_count(&self, winner: Winner<'_>) -> Option<usize> {
        if self.settings.multi_network {
            return None;
        }
        match winner {
            Winner::Service(service) => Some(self.count_of_service(service)),
            Winner::Entry(entry) => of_entry(entry),
        }
    }

    fn count_of_service(&self, service: &Service) -> usize {
        let mut pods = BTreeSet::new();
        let mut others = BTreeSet::<IpAddr>::new();
        for slice in self.slices_of(&service.key) {
            // Of two address families each has its slices.
            pods.extend(slice.pods.iter().map(|(pod, _)| pod));
            others.extend(slice.addresses.iter().map(|(address, _)| address));
        }
        let all = self.settings.services_select_workload_entries;
        let selects =
            |labels: &Labels| all && service.selector.as_ref().is_some_and(|selector| labels.contains(selector));
        let entries = self.workload_entries_in(&service.key.namespace).filter(|entry| selects(&entry.labels));
        pods.len() + others.len() + entries.count()
    }

    /// Statuses of the destination rules that tell of a number of endpoints. Called for what an object was and for what it
    /// is.
    pub(super) fn reach_counted(&self, object: &Object, dirty: &mut Dirty) {
        if self.destination_rules.is_empty() {
            return;
        }
        match object {
            Object::Slice(slice) => self.reach_counting_rules(&self.settings.hostname(&slice.service), dirty),
            Object::WorkloadEntry(entry) => {
                for service in self.services_selecting(&entry.key.namespace, &entry.labels) {
                    self.reach_counting_rules(&self.settings.hostname(&service.key), dirty);
                }
            }
            _ => {}
        }
    }

    fn reach_counting_rules(&self, hostname: &str, dirty: &mut Dirty) {
        for key in self.index.l7.rules.of(hostname) {
            let Some(rule) = self.destination_rules.get(key) else { continue };
            let wide = rule.spec.traffic_policy.iter();
            let narrow = rule.spec.subsets.iter().filter_map(|subset| subset.traffic_policy.as_ref());
            let counts = |policy: &mesh_api::networking::TrafficPolicy| {
                let mut ports = policy.port_level_settings.iter();
                policy.outlier_detection.is_some() || ports.any(|port| port.outlier_detection.is_some())
            };
            if wide.chain(narrow).any(counts) {
                dirty.conditions.insert((Kind::DestinationRule, key.clone()));
            }
        }
    }
}

fn of_entry(entry: &ServiceEntry) -> Option<usize> {
    (entry.resolution == Resolution::Static && entry.selector.is_none()).then_some(entry.endpoints.len())
}
