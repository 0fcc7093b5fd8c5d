//! Addresses of Services of type LoadBalancer: what a cloud gives them, here out of a range of documentation.
//!
//! A node translates these addresses like cluster IPs (`services`), so that everything in the sandbox reaches them.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use k8s_openapi::api::core::v1::{LoadBalancerIngress, LoadBalancerStatus, Service, ServiceSpec};
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::{ApiContext, Cluster, ControllerError, is_not_found};
use crate::informer::{Key, KeyQueue, key_of};

/// Runs the controller for ever.
pub(super) async fn run(cluster: Cluster) {
    let queue = KeyQueue::default();
    let keys = queue.clone();
    let services = cluster.cache.services.clone();
    cluster.cache.services.on_change(move |change| {
        match (&change.old, &change.new) {
            (Some(old), None) if is_balanced(old) => {
                // Its address is free: others may wait for one.
                services.list().iter().filter(|one| is_balanced(one)).for_each(|one| keys.push(key_of(one.as_ref())));
            }
            (_, Some(service)) => keys.push(key_of(service.as_ref())),
            _ => {}
        }
    });
    super::work("load-balancer", queue, |key| reconcile(&cluster, key)).await;
}

async fn reconcile(cluster: &Cluster, key: Key) -> Result<(), ControllerError> {
    let Some(service) = cluster.cache.services.get(&key.namespace, &key.name) else { return Ok(()) };
    let others = cluster.cache.services.list();
    let taken = others.iter().filter(|other| key_of(other.as_ref()) != key).flat_map(|other| ingress_ips(other));
    let wanted = wanted(&service, &taken.collect());
    if wanted == ingress_ips(&service) {
        return Ok(());
    }
    let ingress: Vec<_> = wanted.iter().map(|ip| ingress(*ip)).collect();
    let status = LoadBalancerStatus { ingress: (!ingress.is_empty()).then_some(ingress) };
    let body = if status.ingress.is_some() { json!(status) } else { json!({"ingress": null}) };
    let patch = Patch::Merge(json!({"status": {"loadBalancer": body}}));
    let api = cluster.api::<Service>(&key.namespace);
    match api.patch_status(&key.name, &PatchParams::default(), &patch).await {
        Ok(patched) => {
            // Before the next one is given an address, which must be another.
            cluster.cache.services.observe(patched);
            Ok(())
        }
        Err(error) if is_not_found(&error) => Ok(()),
        Err(error) => Err(error).context(|| format!("writing the addresses of service {key}")),
    }
}

fn ingress(ip: IpAddr) -> LoadBalancerIngress {
    LoadBalancerIngress { ip: Some(ip.to_string()), ip_mode: Some("VIP".to_owned()), ..LoadBalancerIngress::default() }
}

/// Addresses that the Service's status names.
pub(crate) fn ingress_ips(service: &Service) -> Vec<IpAddr> {
    let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = status.and_then(|status| status.ingress.as_ref());
    ingress.into_iter().flatten().filter_map(|one| one.ip.as_ref()?.parse().ok()).collect()
}

fn is_balanced(service: &Service) -> bool {
    let spec = service.spec.as_ref();
    spec.and_then(|spec| spec.type_.as_deref()) == Some("LoadBalancer")
        // Another implementation was asked for.
        && spec.is_some_and(|spec| spec.load_balancer_class.is_none())
}

/// The addresses that a Service shall have: one a family of its cluster IPs, kept where it has one.
fn wanted(service: &Service, taken: &BTreeSet<IpAddr>) -> Vec<IpAddr> {
    let Some(spec) = service.spec.as_ref().filter(|_| is_balanced(service)) else { return Vec::new() };
    let has = ingress_ips(service);
    let asked: Option<IpAddr> = spec.load_balancer_ip.as_ref().and_then(|ip| ip.parse().ok());
    if let Some(asked) = asked {
        // Only that, and only if it can be had; else the Service waits.
        let free = in_range(asked) && !taken.contains(&asked);
        return free.then_some(asked).into_iter().collect();
    }
    let mut all = Vec::new();
    for v4 in families(spec) {
        let kept = has.iter().copied().find(|ip| ip.is_ipv4() == v4 && in_range(*ip) && !taken.contains(ip));
        let found = kept.or_else(|| (1..ADDRESSES_MAX).map(|host| nth(v4, host)).find(|ip| !taken.contains(ip)));
        all.extend(found);
    }
    all
}

/// Whether each of the Service's families is IPv4.
fn families(spec: &ServiceSpec) -> Vec<bool> {
    spec.ip_families.iter().flatten().map(|family| family == "IPv4").collect()
}

fn in_range(ip: IpAddr) -> bool {
    (1..ADDRESSES_MAX).any(|host| nth(ip.is_ipv4(), host) == ip)
}

fn nth(v4: bool, host: u8) -> IpAddr {
    if v4 {
        Ipv4Addr::new(203, 0, 113, host).into()
    } else {
        Ipv6Addr::new(0x2001, 0xdb8, 0x113, 0, 0, 0, 0, u16::from(host)).into()
    }
}

/// Addresses of a family: 203.0.113.1 to 203.0.113.254, and 2001:db8:113::1 to 2001:db8:113::fe.
const ADDRESSES_MAX: u8 = 255;

#[cfg(test)]
mod tests {
    use super::*;

    fn service(spec: serde_json::Value, ips: &[&str]) -> Service {
        let ingress: Vec<_> = ips.iter().map(|ip| json!({"ip": ip})).collect();
        serde_json::from_value(json!({
            "metadata": {"name": "edge", "namespace": "web"},
            "spec": spec,
            "status": {"loadBalancer": {"ingress": ingress}}
        }))
        .unwrap()
    }

    fn texts(ips: &[IpAddr]) -> Vec<String> {
        ips.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn each_family_gets_an_address_that_is_free_and_keeps_it() {
        let taken: BTreeSet<IpAddr> = ["203.0.113.1".parse().unwrap()].into();
        let both = json!({"type": "LoadBalancer", "ipFamilies": ["IPv4", "IPv6"]});
        assert_eq!(texts(&wanted(&service(both.clone(), &[]), &taken)), ["203.0.113.2", "2001:db8:113::1"]);
        assert_eq!(texts(&wanted(&service(both, &["203.0.113.9"]), &taken)), ["203.0.113.9", "2001:db8:113::1"]);
    }

    #[test]
    fn others_get_none() {
        for spec in [
            json!({"type": "ClusterIP", "ipFamilies": ["IPv4"]}),
            json!({"type": "LoadBalancer", "loadBalancerClass": "x.io/y", "ipFamilies": ["IPv4"]}),
            json!({"type": "LoadBalancer", "loadBalancerIP": "10.1.2.3", "ipFamilies": ["IPv4"]}),
        ] {
            assert_eq!(wanted(&service(spec, &["203.0.113.1"]), &BTreeSet::new()), Vec::<IpAddr>::new());
        }
        let asked = json!({"type": "LoadBalancer", "loadBalancerIP": "203.0.113.77", "ipFamilies": ["IPv4"]});
        assert_eq!(texts(&wanted(&service(asked.clone(), &[]), &BTreeSet::new())), ["203.0.113.77"]);
        let taken: BTreeSet<IpAddr> = ["203.0.113.77".parse().unwrap()].into();
        assert_eq!(wanted(&service(asked, &[]), &taken), Vec::<IpAddr>::new());
    }
}
