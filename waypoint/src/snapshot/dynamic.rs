//! Pools of wildcard services: the name that a client asks for is resolved, as long as the wildcard covers it.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use mesh_wire::l7;

use super::chain::Backend;
use crate::endpoints::{Endpoint, EndpointSet, ServiceKey, ServiceView, Transport};
use crate::limits::DYNAMIC_HOSTS_MAX;
use crate::report::End;
use crate::upstream::{Cluster, UpstreamShared};

/// Pools of one worker by backend and host.
#[derive(Default)]
pub struct DynamicClusters {
    known: RefCell<HashMap<(usize, Box<str>), Dynamic>>,
    /// Counts uses.
    uses: Cell<u64>,
}

struct Dynamic {
    /// Keeps the address, by which it is found, from being used again.
    _config: Arc<l7::Backend>,
    cluster: Arc<Cluster>,
    /// Number of its last use.
    used: u64,
}

impl DynamicClusters {
    /// The pool for `host`. `None`: the wildcard does not cover it.
    #[must_use]
    pub fn get(&self, backend: &Backend, host: &str, upstream: &Arc<UpstreamShared>) -> Option<Arc<Cluster>> {
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        if !covers(&backend.config.dynamic_wildcard, &host) {
            return None;
        }
        let key = (Arc::as_ptr(&backend.config) as usize, host.as_str().into());
        let used = self.uses.get() + 1;
        self.uses.set(used);
        let mut known = self.known.borrow_mut();
        if let Some(dynamic) = known.get_mut(&key) {
            dynamic.used = used;
            return Some(dynamic.cluster.clone());
        }
        if known.len() >= DYNAMIC_HOSTS_MAX {
            forget_oldest(&mut known);
        }
        let cluster = make(backend, &host, upstream)?;
        known.insert(key, Dynamic { _config: backend.config.clone(), cluster: cluster.clone(), used });
        Some(cluster)
    }
}

/// Half of them go, so that this happens seldom. Requests that are under way keep theirs.
fn forget_oldest(known: &mut HashMap<(usize, Box<str>), Dynamic>) {
    let mut uses: Vec<u64> = known.values().map(|dynamic| dynamic.used).collect();
    uses.sort_unstable();
    let median = uses.get(uses.len() / 2).copied().unwrap_or_default();
    known.retain(|_, dynamic| dynamic.used > median);
}

fn make(backend: &Backend, host: &str, upstream: &Arc<UpstreamShared>) -> Option<Arc<Cluster>> {
    let port = u16::try_from(backend.config.port).ok()?;
    let namespace: Arc<str> = backend.config.namespace.as_str().into();
    let view = ServiceView::new(ServiceKey { namespace, hostname: host.into(), port, via_waypoint: false });
    let endpoint = Endpoint {
        id: format!("{host}:{port}").into(),
        address: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port),
        hostname: Some(host.into()),
        transport: Transport::Plain,
        weight: 1,
        healthy: true,
        locality: Arc::default(),
        network: Arc::default(),
        cluster: Arc::default(),
        node: Arc::default(),
        labels: Arc::default(),
        identity: None,
        end: Arc::new(End::default()),
    };
    view.publish(EndpointSet { version: 0, exists: true, list: [endpoint].into(), ..EndpointSet::default() });
    let config = l7::Backend { hostname: host.to_owned(), ..(*backend.config).clone() };
    upstream.cluster(&config, Arc::new(view)).ok()
}

/// `*.suffix` covers names with one label or more in place of the star. Addresses are no names.
fn covers(wildcard: &str, host: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.' | b'_');
    let Some(suffix) = wildcard.strip_prefix('*').filter(|suffix| suffix.len() > 1 && suffix.starts_with('.')) else {
        return false;
    };
    host.strip_suffix(&suffix.to_ascii_lowercase()).is_some_and(|label| !label.is_empty() && !label.starts_with('.'))
        && host.bytes().all(plain)
        && !host.contains("..")
        && host.parse::<IpAddr>().is_err()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_under_the_wildcard_are_resolved() {
        for (host, expected) in [
            ("a.example.com", true),
            ("a.b.example.com", true),
            ("example.com", false),
            (".example.com", false),
            ("a..example.com", false),
            ("aexample.com", false),
            ("a.example.com.evil.org", false),
            ("127.0.0.1", false),
            ("a.example.com/", false),
            ("a@b.example.com", false),
            ("", false),
        ] {
            assert_eq!(covers("*.example.com", host), expected, "{host}");
        }
        assert!(!covers("*", "a.com") && !covers("a.com", "a.com"));
    }
}
