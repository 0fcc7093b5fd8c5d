//! Chains of workloads that are called by address: the proxy's own policies, and exactly that endpoint.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use mesh_core::NamespacedName;
use mesh_wire::l7;

use super::Proxy;
use super::chain::{Backend, Chain, Entry, Protocol};
use super::compile;
use super::handle::ChainHandle;
use crate::endpoints::{Guarded, Peer, ServiceKey, ServiceView, Store};
use crate::limits::DIRECT_CHAINS_MAX;
use crate::report::Service;
use crate::upstream::UpstreamShared;

/// Chains of one worker, kept while workload and proxy stay as they are.
#[derive(Default)]
pub struct DirectChains(RefCell<HashMap<SocketAddr, Direct>>);

struct Direct {
    peer: Peer,
    proxy: Arc<Proxy>,
    /// A service of the workload that a policy guards: nothing passes.
    guard: Option<NamespacedName>,
    handle: ChainHandle,
}

impl DirectChains {
    /// The chain for a workload at one of its addresses.
    ///
    /// # Errors
    /// Why it cannot be served.
    pub fn get(
        &self,
        peer: &Peer,
        address: SocketAddr,
        proxy: &Arc<Proxy>,
        upstream: &Arc<UpstreamShared>,
    ) -> Result<ChainHandle, String> {
        let mut chains = self.0.borrow_mut();
        if let Some(known) = chains.get_mut(&address) {
            if !known.peer.is_same(peer) || !Arc::ptr_eq(&known.proxy, proxy) {
                // In place: connections that are open must not go on under what was in force before.
                known.handle.publish(Some(chain(peer, address, proxy, upstream)?));
                (known.peer, known.proxy, known.guard) = (peer.clone(), proxy.clone(), None);
            }
            return Ok(known.handle.clone());
        }
        if chains.len() >= DIRECT_CHAINS_MAX {
            // Those that a connection looks at must go on hearing of changes.
            chains.retain(|_, direct| direct.handle.is_shared());
        }
        if chains.len() >= DIRECT_CHAINS_MAX {
            return Err(format!(
                "connections to {DIRECT_CHAINS_MAX} addresses of workloads are open: there is no room"
            ));
        }
        let handle = ChainHandle::new(chain(peer, address, proxy, upstream)?);
        let (peer, proxy) = (peer.clone(), proxy.clone());
        chains.insert(address, Direct { peer, proxy, guard: None, handle: handle.clone() });
        Ok(handle)
    }

    /// After the proxy changed, or the services of workloads: connections that are open learn of it.
    pub fn refresh(&self, proxy: &Arc<Proxy>, store: &Store) {
        for (address, direct) in self.0.borrow_mut().iter_mut() {
            let peer = store.workload(address.ip());
            let guard = match store.guarded(peer.as_ref().unwrap_or(&direct.peer), address.port()) {
                Guarded::By(service) => Some(service),
                Guarded::No => None,
                Guarded::Unknown(_) => direct.guard.clone(),
            };
            if Arc::ptr_eq(&direct.proxy, proxy) && direct.guard == guard {
                continue;
            }
            let Some(chain) = direct.handle.current() else { continue };
            direct.handle.publish(Some(Arc::new(under(&chain, proxy, guard.as_ref()))));
            (direct.proxy, direct.guard) = (proxy.clone(), guard);
        }
    }
}

/// The same chain under another state of the proxy, and of the services of its workload.
fn under(chain: &Chain, proxy: &Arc<Proxy>, guard: Option<&NamespacedName>) -> Chain {
    let mut next = Chain { proxy: proxy.clone(), refuse_all: proxy.refuse_all.clone(), ..chain.clone() };
    match compile::policies(&proxy.authorizations, &[], &proxy.settings.trust_domains) {
        Ok(policies) => next.policies = Arc::new(policies),
        Err(error) => next.refuse_all = Some(error.to_string().into()),
    }
    if let Some(service) = guard {
        next.refuse_all =
            Some(format!("a policy guards {service}, which the workload serves: call the service").into());
    }
    next
}

/// The chain for a workload at one of its addresses; the bytes tell the protocol.
///
/// # Errors
/// Why it cannot be served.
fn chain(
    peer: &Peer,
    address: SocketAddr,
    proxy: &Arc<Proxy>,
    upstream: &Arc<UpstreamShared>,
) -> Result<Arc<Chain>, String> {
    let view = ServiceView::new(ServiceKey {
        namespace: peer.end().namespace.clone(),
        hostname: address.ip().to_string().into(),
        port: address.port(),
        via_waypoint: false,
    });
    view.publish(peer.endpoint_set(address));
    let config = Arc::new(l7::Backend {
        namespace: peer.end().namespace.to_string(),
        hostname: address.ip().to_string(),
        port: address.port().into(),
        http: l7::backend::Http::Same.into(),
        ..l7::Backend::default()
    });
    let view = Arc::new(view);
    let cluster = upstream.cluster(&config, view.clone()).map_err(|error| error.to_string())?;
    let policies = compile::policies(&proxy.authorizations, &[], &proxy.settings.trust_domains);
    let backend = Backend { cluster, view, service: Arc::new(Service::default()), config, guard: None };
    Ok(Arc::new(Chain {
        name: format!("{}/{}/workload/{address}", proxy.namespace, proxy.name).into(),
        entry: Entry::Workload(address),
        protocol: Protocol::Detect,
        backends: [backend].into(),
        default_backend: Some(0),
        http: None,
        tls_rules: [].into(),
        tcp_rules: [].into(),
        policies: Arc::new(policies.map_err(|error| error.to_string())?),
        refuse_all: proxy.refuse_all.clone(),
        proxy: proxy.clone(),
    }))
}

#[cfg(test)]
mod tests;
