//! Which endpoint takes a request: session, then level, locality and balancer. One [`Picker`] per worker and pool, made
//! anew when endpoints or their health change; picking takes no lock and allocates nothing.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::backend::{Algorithm, BackendPolicy};
use super::balance::{Edf, less_busy_of_two};
use super::host::{Host, HostSet, Level};
use super::levels::{LevelHealth, shares};
use super::random::Random;
use super::session::Session;

/// What there is to pick by.
#[derive(Debug, Clone, Copy, Default)]
pub struct PickContext<'a> {
    /// For consistent hashing, of [`super::Cluster::hash`].
    pub hash: Option<u64>,
    /// Who failed already: avoided as long as there are others.
    pub tried: &'a [Picked],
    /// Retries leave the localities that were tried behind after every two attempts.
    pub remote_localities: bool,
    /// The client's address, for PROXY headers and hashing.
    pub source: Option<SocketAddr>,
    /// What the client called, for PROXY headers.
    pub destination: Option<SocketAddr>,
    /// Where the client wants back to.
    pub session: Option<Session>,
    /// The client speaks HTTP/2: some backends are called as their clients call.
    pub client_http2: bool,
    /// From here to the response's headers: the time of one attempt.
    pub timeout: Option<Duration>,
    /// Server name of TLS that is originated, where neither policy nor request has one.
    pub server_name: Option<&'a str>,
    /// Learns at once who was picked, for callers that may give up: see [`super::Cluster::timed_out`].
    pub chosen: Option<&'a RefCell<Option<Picked>>>,
}

/// Who was picked. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Picked {
    host: Arc<Host>,
    level: u32,
}

/// One worker's view of a pool's endpoints.
pub(super) struct Picker {
    set: Arc<HostSet>,
    algorithm: Algorithm,
    warmup: Option<super::warmup::Warmup>,
    levels: Vec<PickLevel>,
}

struct PickLevel {
    /// Of 100.
    percent: u32,
    panic: bool,
    groups: Vec<Group>,
    /// Of all groups.
    weight: u64,
}

/// Endpoints that may be used, of one locality where these have weights.
struct Group {
    weight: u64,
    hosts: Vec<u32>,
    /// All weigh the same.
    uniform: bool,
    /// Since when the oldest is healthy.
    oldest: Duration,
    next: Cell<u32>,
    schedule: RefCell<Option<Edf>>,
}

impl Picked {
    pub(super) fn new(host: Arc<Host>, level: u32) -> Self {
        Self { host, level }
    }

    /// The endpoint.
    #[must_use]
    pub fn host(&self) -> &Arc<Host> {
        &self.host
    }

    pub(super) fn tag(&self) -> u64 {
        self.host.tag
    }

    fn is_same(&self, host: &Host) -> bool {
        self.host.state.id == host.state.id
    }
}

impl Picker {
    /// For the endpoints and ejections of this moment.
    pub(super) fn new(set: Arc<HostSet>, policy: &BackendPolicy, random: &Random) -> Self {
        let usable = |position: &u32| set.host(*position).is_some_and(|host| is_usable(host));
        let health = |level: &Level| LevelHealth {
            healthy: count(level.members.iter().filter(|position| usable(position)).count()),
            total: count(level.members.len()),
        };
        let health: Vec<_> = set.levels.iter().map(health).collect();
        let shares = shares(&health, policy.panic_below);
        let levels = set.levels.iter().zip(shares).map(|(level, share)| {
            let groups: Vec<_> = level
                .groups
                .iter()
                .map(|(weight, members)| Group::new(&set, *weight, members, share.panic, random))
                .filter(|group| !group.hosts.is_empty())
                .collect();
            let weight = groups.iter().map(|group| group.weight).sum();
            PickLevel { percent: share.percent, panic: share.panic, groups, weight }
        });
        let levels = levels.collect();
        Self { algorithm: policy.algorithm, warmup: policy.warmup, levels, set }
    }

    pub(super) fn set(&self) -> &Arc<HostSet> {
        &self.set
    }

    /// A position in the set, and its level.
    pub(super) fn pick(&self, context: &PickContext<'_>, random: &Random, now: Duration) -> Option<(u32, u32)> {
        if let Some(position) = context.session.and_then(|session| self.of_session(&session, context.tried)) {
            return Some((position, 0));
        }
        if self.algorithm == Algorithm::AsCalled
            && let Some(called) = context.destination.and_then(|address| self.set.by_address(&address))
            && self.set.host(called).is_some_and(|host| is_usable(host))
        {
            return Some((called, 0));
        }
        let excluded = if context.remote_localities { excluded_levels(context.tried) } else { 0 };
        let hashed = context.hash.is_some() && self.is_hashing();
        for _ in 0..REPICKS_MAX {
            let level = self.choose_level(random, excluded)?;
            let position = self.in_level(level, context, random, now)?;
            if hashed || !self.was_tried(position, context.tried) {
                return Some((position, level));
            }
        }
        let level = self.choose_level(random, excluded)?;
        let anybody = || self.in_level(level, context, random, now);
        Some((self.untried(level, context.tried, random).or_else(anybody)?, level))
    }

    fn was_tried(&self, position: u32, tried: &[Picked]) -> bool {
        !tried.is_empty() && self.set.host(position).is_some_and(|host| tried.iter().any(|t| t.is_same(host)))
    }

    /// Chance alone would sometimes return to an endpoint that has just failed although another is left. Looks at no
    /// more endpoints than were tried, and one.
    fn untried(&self, level: u32, tried: &[Picked], random: &Random) -> Option<u32> {
        let groups = &self.levels.get(level as usize)?.groups;
        groups.iter().filter(|group| group.weight > 0).find_map(|group| {
            let start = random.below(count(group.hosts.len())) as usize;
            let from_start = group.hosts.iter().cycle().skip(start).take(group.hosts.len().min(tried.len() + 1));
            from_start.copied().find(|position| !self.was_tried(*position, tried))
        })
    }

    /// Whether a level that was picked uses endpoints that are not healthy.
    pub(super) fn panics(&self, level: u32) -> bool {
        self.levels.get(level as usize).is_some_and(|level| level.panic)
    }

    /// Unless it has failed, for everybody or for this very request.
    fn of_session(&self, session: &Session, tried: &[Picked]) -> Option<u32> {
        let position = self.set.by_tag(session.tag)?;
        let host = self.set.host(position)?;
        let failed = !is_usable(host) || tried.iter().any(|tried| tried.is_same(host));
        (!failed).then_some(position)
    }

    fn is_hashing(&self) -> bool {
        matches!(self.algorithm, Algorithm::Ring(_) | Algorithm::Maglev(_))
    }

    fn choose_level(&self, random: &Random, excluded: u64) -> Option<u32> {
        if let [only] = &*self.levels {
            return (only.percent > 0).then_some(0);
        }
        let allowed = |level: u32| excluded.checked_shr(level).unwrap_or(0) & 1 == 0;
        let shares = || (0..).zip(&self.levels).map(|(at, level)| (at, level.percent)).filter(|(at, _)| allowed(*at));
        let sum: u32 = shares().map(|(_, percent)| percent).sum();
        if sum == 0 && excluded > 0 {
            // Nobody's turn otherwise: the nearest that is left, or any again.
            let left = (0..).zip(&self.levels).find(|(at, level)| allowed(*at) && level.weight > 0);
            return left.map(|(at, _)| at).or_else(|| self.choose_level(random, 0));
        }
        let mut at = random.below(sum);
        for (level, percent) in shares() {
            if at < percent {
                return Some(level);
            }
            at -= percent;
        }
        None
    }

    fn in_level(&self, level: u32, context: &PickContext<'_>, random: &Random, now: Duration) -> Option<u32> {
        let picks = self.levels.get(level as usize)?;
        if let (Some(hash), Some(arranged)) = (context.hash, self.set.levels.get(level as usize))
            && let Some(table) = &arranged.table
        {
            let usable = |at: u32| {
                let position = arranged.members.get(at as usize);
                position
                    .and_then(|position| self.set.host(*position))
                    .is_some_and(|host| picks.panic || is_usable(host))
            };
            return arranged.members.get(table.find(hash, usable)? as usize).copied();
        }
        let group = picks.choose_group(random)?;
        let at = match self.algorithm {
            Algorithm::Random | Algorithm::AsCalled | Algorithm::Ring(_) | Algorithm::Maglev(_) => {
                random.below(count(group.hosts.len()))
            }
            Algorithm::RoundRobin if self.takes_turns(group, now) => {
                group.scheduled(random, |at| self.weight(group, at, now))?
            }
            Algorithm::RoundRobin => group.cyclic(),
            Algorithm::LeastRequest if self.takes_turns(group, now) => {
                group.scheduled(random, |at| self.weight(group, at, now) / f64::from(self.active(group, at) + 1))?
            }
            Algorithm::LeastRequest => less_busy_of_two(count(group.hosts.len()), random, |at| self.active(group, at))?,
        };
        group.hosts.get(at as usize).copied()
    }

    /// Whether endpoints weigh differently, by themselves or because some have just started.
    fn takes_turns(&self, group: &Group, now: Duration) -> bool {
        !group.uniform || self.warms_up(group, now)
    }

    /// While all have just started, none is preferred.
    fn warms_up(&self, group: &Group, now: Duration) -> bool {
        self.warmup.is_some_and(|warmup| now.saturating_sub(group.oldest) >= warmup.window)
    }

    fn weight(&self, group: &Group, at: u32, now: Duration) -> f64 {
        let Some(host) = group.hosts.get(at as usize).and_then(|position| self.set.host(*position)) else {
            return 1.0;
        };
        let weight = f64::from(host.endpoint().weight);
        match &self.warmup {
            Some(warmup) if self.warms_up(group, now) => {
                weight * warmup.factor(now.saturating_sub(host.healthy_since()))
            }
            _ => weight,
        }
    }

    fn active(&self, group: &Group, at: u32) -> u32 {
        let host = group.hosts.get(at as usize).and_then(|position| self.set.host(*position));
        host.map_or(0, |host| host.state.active.load(Ordering::Relaxed))
    }
}

impl PickLevel {
    fn choose_group(&self, random: &Random) -> Option<&Group> {
        if let [only] = &*self.groups {
            return Some(only);
        }
        let mut at = random.next() % self.weight.max(1);
        for group in &self.groups {
            if at < group.weight {
                return Some(group);
            }
            at -= group.weight;
        }
        None
    }
}

impl Group {
    fn new(set: &HostSet, weight: u32, members: &[u32], panic: bool, random: &Random) -> Self {
        let known = |position: &&u32| set.host(**position).is_some_and(|host| panic || is_usable(host));
        let hosts: Vec<u32> = members.iter().filter(known).copied().collect();
        let of = |position: &u32| set.host(*position).map(|host| host.endpoint().weight);
        let first = hosts.first().and_then(of);
        let uniform = hosts.iter().all(|position| of(position) == first);
        let oldest = hosts.iter().filter_map(|position| set.host(*position)).map(|host| host.healthy_since()).min();
        // Fewer healthy endpoints, less traffic, unless there is enough to spare.
        let available = (140 * hosts.len() as u64).checked_div(members.len() as u64).unwrap_or(0).min(100);
        Self {
            weight: u64::from(weight) * available,
            uniform,
            oldest: oldest.unwrap_or_default(),
            next: Cell::new(random.below(count(hosts.len()))),
            schedule: RefCell::default(),
            hosts,
        }
    }

    fn cyclic(&self) -> u32 {
        let at = self.next.get();
        let next = at + 1;
        self.next.set(if next as usize >= self.hosts.len() { 0 } else { next });
        at
    }

    fn scheduled(&self, random: &Random, weight: impl Fn(u32) -> f64) -> Option<u32> {
        let mut schedule = self.schedule.borrow_mut();
        let weights = (0..count(self.hosts.len())).map(&weight);
        schedule.get_or_insert_with(|| Edf::new(weights, || random.fraction())).pick(weight)
    }
}

fn is_usable(host: &Host) -> bool {
    host.endpoint().healthy && !host.is_ejected()
}

/// A bit for each level that was tried twice.
fn excluded_levels(tried: &[Picked]) -> u64 {
    let whole = tried.len() - tried.len() % 2;
    let (considered, _) = tried.split_at_checked(whole).unwrap_or((tried, &[]));
    considered.iter().fold(0, |bits, picked| bits | 1_u64.checked_shl(picked.level).unwrap_or(0))
}

fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

/// Picks so often until it is somebody who was not tried yet, then looks for one.
const REPICKS_MAX: u32 = 6;

#[cfg(test)]
mod tests;
