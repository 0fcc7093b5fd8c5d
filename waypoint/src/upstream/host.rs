//! Endpoints with what we know of them, and how they are arranged.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::backend::{Algorithm, BackendPolicy};
use super::balance::{HashTable, Maglev, Member, Ring};
use super::failover::{Standing, standings};
use super::outlier::{Ejections, Streaks};
use super::shared::UpstreamShared;
use crate::endpoints::{Endpoint, EndpointSet, Place};

/// An endpoint of a pool.
#[derive(Debug)]
pub struct Host {
    endpoint: Endpoint,
    /// Same for the same endpoint in every proxy and at every time.
    pub(super) tag: u64,
    pub(super) state: Arc<HostState>,
}

/// What outlives changes of an endpoint's weight, health or labels. Shared by the workers.
#[derive(Debug)]
pub(super) struct HostState {
    pub(super) id: u64,
    /// Requests, or TCP connections.
    pub(super) active: AtomicU32,
    pub(super) streaks: Streaks,
    pub(super) ejected: AtomicBool,
    pub(super) ejections: Mutex<Ejections>,
    /// Gone from the service: nothing new, and connections close when idle.
    pub(super) removed: AtomicBool,
    /// On the pools' clock.
    healthy_since_ms: AtomicU64,
}

/// The endpoints of a pool, in order of preference. Immutable, shared by the workers.
#[derive(Debug, Default)]
pub(super) struct HostSet {
    /// Of the endpoints that it was made of.
    pub(super) version: u64,
    pub(super) place: Arc<Place>,
    pub(super) hosts: Vec<Arc<Host>>,
    pub(super) levels: Vec<Level>,
    /// By tag.
    tags: Vec<(u64, u32)>,
    /// By address, where that is what is asked for.
    addresses: HashMap<SocketAddr, u32>,
}

/// Endpoints that are preferred equally. Positions are those in [`HostSet::hosts`].
#[derive(Debug, Default)]
pub(super) struct Level {
    pub(super) members: Vec<u32>,
    /// By the weight of their locality; one group when localities have none.
    pub(super) groups: Vec<(u32, Vec<u32>)>,
    /// Over `members`.
    pub(super) table: Option<HashTable>,
}

impl Host {
    fn new(endpoint: Endpoint, state: Arc<HostState>) -> Arc<Self> {
        let tag = super::hash::of_bytes(format!("{}|{}", endpoint.id, endpoint.address).as_bytes());
        Arc::new(Self { endpoint, tag, state })
    }

    /// The endpoint as the control plane describes it.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Its address; of one with a name only the port is meant.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.endpoint.address
    }

    /// Requests, or TCP connections, that it serves for us now.
    #[must_use]
    pub fn active(&self) -> u32 {
        self.state.active.load(Ordering::Relaxed)
    }

    /// Left out because it failed.
    #[must_use]
    pub fn is_ejected(&self) -> bool {
        self.state.ejected.load(Ordering::Relaxed)
    }

    pub(super) fn healthy_since(&self) -> Duration {
        Duration::from_millis(self.state.healthy_since_ms.load(Ordering::Relaxed))
    }

    /// The same connections lead there.
    fn is_same_place(&self, endpoint: &Endpoint) -> bool {
        let own = &self.endpoint;
        own.id == endpoint.id
            && own.address == endpoint.address
            && own.hostname == endpoint.hostname
            && own.transport == endpoint.transport
    }
}

impl HostState {
    fn new(shared: &UpstreamShared, now: Duration) -> Arc<Self> {
        Arc::new(Self {
            id: shared.next_id(),
            active: AtomicU32::new(0),
            streaks: Streaks::default(),
            ejected: AtomicBool::new(false),
            ejections: Mutex::default(),
            removed: AtomicBool::new(false),
            healthy_since_ms: AtomicU64::new(millis(now)),
        })
    }
}

impl HostSet {
    /// Arranges `set` for a policy; endpoints that `before` has keep their state.
    pub(super) fn new(
        set: &EndpointSet,
        policy: &BackendPolicy,
        place: Arc<Place>,
        before: &Self,
        shared: &UpstreamShared,
        now: Duration,
    ) -> Self {
        let hidden = |endpoint: &Endpoint| policy.panic_below > 0 && !endpoint.healthy;
        let wanted = |endpoint: &&Endpoint| {
            let labelled = policy.subset.iter().all(|(key, value)| endpoint.labels.get(key) == Some(value));
            labelled && endpoint.weight > 0 && !hidden(endpoint)
        };
        let endpoints: Vec<&Endpoint> = set.list.iter().filter(wanted).collect();
        let hosts = adopt(&endpoints, set.preference.allow_unhealthy, before, shared, now);
        let standings = standings(&endpoints, &place, &policy.localities, &set.preference);
        let mut tags: Vec<(u64, u32)> = (0..).zip(&hosts).map(|(position, host)| (host.tag, position)).collect();
        tags.sort_unstable();
        let levels = levels(&hosts, &standings, policy.algorithm);
        let by_address = policy.algorithm == Algorithm::AsCalled;
        let addresses = (0..).zip(&hosts).filter(|_| by_address).map(|(at, host)| (host.address(), at)).collect();
        Self { version: set.version, place, hosts, levels, tags, addresses }
    }

    pub(super) fn host(&self, position: u32) -> Option<&Arc<Host>> {
        self.hosts.get(position as usize)
    }

    pub(super) fn by_address(&self, address: &SocketAddr) -> Option<u32> {
        self.addresses.get(address).copied()
    }

    pub(super) fn by_tag(&self, tag: u64) -> Option<u32> {
        let found = self.tags.binary_search_by_key(&tag, |(tag, _)| *tag).ok()?;
        self.tags.get(found).map(|(_, position)| *position)
    }
}

/// A host for each endpoint; those of `before` that are gone are told so.
fn adopt(
    endpoints: &[&Endpoint],
    all_healthy: bool,
    before: &HostSet,
    shared: &UpstreamShared,
    now: Duration,
) -> Vec<Arc<Host>> {
    let known: HashMap<(&str, SocketAddr), &Arc<Host>> =
        before.hosts.iter().map(|host| ((&*host.endpoint.id, host.endpoint.address), host)).collect();
    let adopt = |wanted: &&Endpoint| {
        let same = known.get(&(&*wanted.id, wanted.address)).filter(|host| host.is_same_place(wanted));
        let unchanged = same.filter(|host| host.endpoint == **wanted && (wanted.healthy || !all_healthy));
        if let Some(host) = unchanged.copied() {
            return host.clone();
        }
        let mut endpoint = Endpoint::clone(wanted);
        endpoint.healthy |= all_healthy;
        let Some(same) = same.copied() else {
            return Host::new(endpoint, HostState::new(shared, now));
        };
        if endpoint.healthy && !same.endpoint.healthy {
            same.state.healthy_since_ms.store(millis(now), Ordering::Relaxed);
        }
        Host::new(endpoint, same.state.clone())
    };
    let hosts: Vec<_> = endpoints.iter().map(adopt).collect();
    let kept: HashSet<u64> = hosts.iter().map(|host| host.state.id).collect();
    for host in before.hosts.iter().filter(|host| !kept.contains(&host.state.id)) {
        host.state.removed.store(true, Ordering::Relaxed);
    }
    hosts
}

fn levels(hosts: &[Arc<Host>], standings: &[Option<Standing>], algorithm: Algorithm) -> Vec<Level> {
    let count = standings.iter().flatten().map(|standing| standing.level as usize + 1).max().unwrap_or(0);
    let mut levels: Vec<Level> = (0..count).map(|_| Level::default()).collect();
    // Endpoints of one locality share its weight.
    let mut keys: Vec<Vec<Option<&crate::endpoints::Locality>>> = vec![Vec::new(); count];
    for ((position, host), standing) in (0..).zip(hosts).zip(standings) {
        let Some(standing) = standing else { continue };
        let (Some(level), Some(keys)) =
            (levels.get_mut(standing.level as usize), keys.get_mut(standing.level as usize))
        else {
            continue;
        };
        level.members.push(position);
        let key = standing.locality_weight.map(|_| &*host.endpoint.locality);
        let weight = standing.locality_weight.unwrap_or(1);
        match keys.iter().position(|known| *known == key).and_then(|at| level.groups.get_mut(at)) {
            Some((_, members)) => members.push(position),
            None => {
                keys.push(key);
                level.groups.push((weight, vec![position]));
            }
        }
    }
    for level in &mut levels {
        let member = |position: &u32| hosts.get(*position as usize).map(member);
        let members = || level.members.iter().filter_map(member).collect::<Vec<_>>();
        level.table = match algorithm {
            Algorithm::Ring(size) => Some(HashTable::Ring(Ring::new(&members(), size))),
            Algorithm::Maglev(size) => Some(HashTable::Maglev(Maglev::new(&members(), size))),
            _ => None,
        };
    }
    levels
}

fn member(host: &Arc<Host>) -> Member {
    let key = match &host.endpoint.hostname {
        Some(name) => format!("{name}:{}", host.address().port()),
        None => host.address().to_string(),
    };
    Member { key, weight: host.endpoint.weight }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
pub(super) mod testing;
