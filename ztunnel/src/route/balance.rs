//! Choosing one endpoint of a service.

use crate::route::Pick;
use crate::state::{Endpoint, LbScope, LoadBalancer, Mode, Service, Workload};

/// One of the candidates, by the service's balancing mode and the endpoints' weights.
pub(super) fn choose<'a>(
    service: &Service,
    source: &Workload,
    candidates: Vec<&'a Endpoint>,
    pick: &mut Pick<'_>,
) -> Option<&'a Endpoint> {
    let candidates = match service.load_balancer.as_deref() {
        Some(balancer) => preferred(balancer, source, candidates),
        None => candidates,
    };
    let total: u64 = candidates.iter().map(|endpoint| u64::from(endpoint.workload.capacity)).sum();
    if total == 0 {
        return None;
    }
    let mut at = pick(total);
    candidates.into_iter().find(|endpoint| {
        let weight = u64::from(endpoint.workload.capacity);
        let found = at < weight;
        at = at.saturating_sub(weight);
        found
    })
}

fn preferred<'a>(balancer: &LoadBalancer, source: &Workload, mut candidates: Vec<&'a Endpoint>) -> Vec<&'a Endpoint> {
    let scopes = &balancer.routing_preferences;
    match balancer.mode {
        Mode::Standard => {}
        Mode::Passthrough => candidates.clear(),
        Mode::Strict => {
            candidates.retain(|endpoint| scopes.iter().all(|scope| shared(*scope, source, &endpoint.workload)));
        }
        Mode::Failover => {
            let best = candidates.iter().map(|endpoint| rank(scopes, source, &endpoint.workload)).max();
            candidates.retain(|endpoint| Some(rank(scopes, source, &endpoint.workload)) == best);
        }
    }
    candidates
}

/// How many leading scopes match. When the network comes first, every endpoint of the own network
/// outranks all others, and those of other networks are still told apart by the later scopes.
fn rank(scopes: &[LbScope], source: &Workload, target: &Workload) -> usize {
    let leading = |scopes: &[LbScope]| scopes.iter().take_while(|scope| shared(**scope, source, target)).count();
    match scopes.split_first() {
        Some((LbScope::Network, rest)) if shared(LbScope::Network, source, target) => scopes.len() + leading(rest),
        Some((LbScope::Network, rest)) => leading(rest),
        _ => leading(scopes),
    }
}

/// Two empty values are equal.
fn shared(scope: LbScope, source: &Workload, target: &Workload) -> bool {
    match scope {
        LbScope::Region => source.locality.region == target.locality.region,
        LbScope::Zone => source.locality.zone == target.locality.zone,
        LbScope::Subzone => source.locality.subzone == target.locality.subzone,
        LbScope::Node => source.node == target.node,
        LbScope::Cluster => source.cluster_id == target.cluster_id,
        LbScope::Network => source.network == target.network,
    }
}
