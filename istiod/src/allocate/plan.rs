//! Which hostname gets which address. Pure, apart from remembering what was decided and is not told back yet.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use mesh_core::names::NamespacedName;

use super::Allocations;
use crate::world::{ServiceEntry, World};

/// Blocks that addresses come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pools {
    /// For IPv4.
    pub v4: Ipv4Net,
    /// For IPv6.
    pub v6: Ipv6Net,
}

impl Default for Pools {
    fn default() -> Self {
        Self {
            v4: Ipv4Net::new_assert(Ipv4Addr::new(240, 240, 0, 0), 16),
            v6: Ipv6Net::new_assert(Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0, 0), 48),
        }
    }
}

/// What the status of one ServiceEntry should become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Allocation {
    /// Object that was looked at.
    pub(super) uid: Arc<str>,
    /// Its generation.
    pub(super) generation: i64,
    /// What it had.
    pub(super) old: Box<[HostAddress]>,
    /// What it is to have.
    pub(super) new: Box<[HostAddress]>,
}

/// A hostname and an address of it.
pub(super) type HostAddress = (Arc<str>, IpAddr);

/// Decides, and remembers what was decided until the world says so too.
#[derive(Debug)]
pub(super) struct Planner {
    v4: Cursor,
    v6: Cursor,
    /// Written, or about to be.
    pending: Allocations,
}

impl Planner {
    pub(super) fn new(pools: Pools) -> Self {
        Self { v4: Cursor::new(pools.v4.into()), v6: Cursor::new(pools.v6.into()), pending: BTreeMap::new() }
    }

    /// The allocation was not written.
    pub(super) fn forget(&mut self, key: &NamespacedName) {
        self.pending.remove(key);
    }

    /// Every ServiceEntry whose status must change.
    ///
    /// # Source
    /// spec of the workload model, section 5.1.
    pub(super) fn plan(&mut self, world: &World) -> Allocations {
        self.pending.retain(|key, one| {
            world.entry(key).is_some_and(|entry| entry.uid == one.uid && entry.auto_addresses == one.old)
        });
        let mut entries: Vec<_> = world.entries().collect();
        entries.sort_by(|one, other| age(one, other));
        let mut used = Used::default();
        for entry in &entries {
            used.reserve(entry, &self.v4, &self.v6);
        }
        // What was given stays, unless somebody has the better claim; the older object first.
        let pending = &self.pending;
        let kept: Vec<_> = entries
            .iter()
            .map(|entry| {
                let have = pending.get(&entry.key).map_or(&entry.auto_addresses, |pending| &pending.new);
                used.keep(entry, have, world.visible(&entry.key.namespace))
            })
            .collect();
        let mut allocations = Allocations::new();
        for (entry, kept) in entries.into_iter().zip(kept) {
            if !world.visible(&entry.key.namespace) {
                continue;
            }
            let new = self.complete(entry, kept, &mut used);
            let decided = self.pending.get(&entry.key).map_or(&entry.auto_addresses, |pending| &pending.new);
            if sorted(&new) == sorted(decided) {
                continue;
            }
            let (uid, old) = (entry.uid.clone(), entry.auto_addresses.clone());
            let allocation = Allocation { uid, generation: entry.generation, old, new: new.into() };
            self.pending.insert(entry.key.clone(), allocation.clone());
            allocations.insert(entry.key.clone(), allocation);
        }
        allocations
    }

    /// One address of each family for every hostname that takes some.
    fn complete(&mut self, entry: &ServiceEntry, kept: Vec<HostAddress>, used: &mut Used) -> Vec<HostAddress> {
        let mut all = Vec::new();
        for host in entry.hosts.iter().filter(|host| entry.takes_address_for(host)) {
            for cursor in [&mut self.v4, &mut self.v6] {
                let have = kept.iter().find(|(one, ip)| one == host && ip.is_ipv4() == cursor.is_ipv4());
                let ip = have.map(|(_, ip)| *ip).or_else(|| cursor.next(used));
                match ip {
                    Some(ip) => all.push((host.clone(), ip)),
                    None => tracing::warn!(
                        entry = %entry.key, %host, pool = %cursor.pool,
                        "no address is left for a host of a ServiceEntry; enlarge the pool"
                    ),
                }
            }
        }
        all
    }
}

/// Addresses that nobody else may get.
#[derive(Debug, Default)]
struct Used {
    /// Written by users.
    written: HashSet<IpAddr>,
    /// Blocks written by users, as far as they meet the pools.
    blocks: Vec<IpNet>,
    allocated: HashSet<IpAddr>,
}

impl Used {
    fn reserve(&mut self, entry: &ServiceEntry, v4: &Cursor, v6: &Cursor) {
        for block in &entry.addresses {
            let meets = |pool: &IpNet| pool.contains(block) || block.contains(pool);
            if block.prefix_len() == block.max_prefix_len() {
                self.written.insert(block.addr());
            } else if meets(&v4.pool) || meets(&v6.pool) {
                self.blocks.push(*block);
            }
        }
    }

    /// What an entry may keep of what it has. One that is not looked at keeps all.
    fn keep(&mut self, entry: &ServiceEntry, have: &[HostAddress], visible: bool) -> Vec<HostAddress> {
        let mut kept: Vec<HostAddress> = Vec::new();
        for (host, ip) in have {
            let wanted = !visible || (entry.hosts.contains(host) && entry.takes_address_for(host));
            let first = !kept.iter().any(|(other, have)| other == host && have.is_ipv4() == ip.is_ipv4());
            if wanted && first && !self.is_written(*ip) && self.allocated.insert(*ip) {
                kept.push((host.clone(), *ip));
            }
        }
        kept
    }

    fn is_written(&self, ip: IpAddr) -> bool {
        self.written.contains(&ip) || self.blocks.iter().any(|block| block.contains(&ip))
    }
}

/// Goes through a pool, and starts again only at its end: a freed address is not given to another host at once, because
/// clients may still have it from a lookup.
#[derive(Debug)]
struct Cursor {
    pool: IpNet,
    first: u128,
    last: u128,
    next: Option<u128>,
}

impl Cursor {
    fn new(pool: IpNet) -> Self {
        let pool = pool.trunc();
        let number = |ip| match ip {
            IpAddr::V4(ip) => u128::from(u32::from(ip)),
            IpAddr::V6(ip) => u128::from(ip),
        };
        // The address of the network itself is not used, nor is the broadcast address.
        let first = number(pool.network()).saturating_add(1);
        let last = number(pool.broadcast()).saturating_sub(1);
        Self { pool, first, last, next: None }
    }

    fn is_ipv4(&self) -> bool {
        self.pool.addr().is_ipv4()
    }

    /// The next free address, which is then used.
    fn next(&mut self, used: &mut Used) -> Option<IpAddr> {
        let start = self.next.unwrap_or_else(|| self.after_used(used));
        let wrapped = self.first..start.min(self.last.saturating_add(1));
        let free = (start..=self.last).chain(wrapped).map(|number| (number, self.address(number)));
        let taken = |ip: IpAddr| used.allocated.contains(&ip) || used.is_written(ip);
        let (number, ip) = free.take(TRIES_MAX).find(|(_, ip)| !taken(*ip))?;
        self.next = Some(number + 1);
        used.allocated.insert(ip);
        Some(ip)
    }

    /// Where to start when nothing was allocated yet: behind all that is in use.
    fn after_used(&self, used: &Used) -> u128 {
        let number = |ip: &IpAddr| match ip {
            IpAddr::V4(ip) => u128::from(u32::from(*ip)),
            IpAddr::V6(ip) => u128::from(*ip),
        };
        let inside = used.allocated.iter().filter(|ip| self.pool.contains(*ip)).map(number);
        inside.max().map_or(self.first, |highest| highest + 1)
    }

    fn address(&self, number: u128) -> IpAddr {
        match u32::try_from(number) {
            Ok(number) if self.is_ipv4() => Ipv4Addr::from(number).into(),
            _ => Ipv6Addr::from(number).into(),
        }
    }
}

fn age(one: &ServiceEntry, other: &ServiceEntry) -> Ordering {
    (one.created_s, &one.key).cmp(&(other.created_s, &other.key))
}

fn sorted(addresses: &[HostAddress]) -> Vec<&HostAddress> {
    let mut sorted: Vec<_> = addresses.iter().collect();
    sorted.sort();
    sorted
}

/// Addresses looked at for one that is free; more than a pool of the usual size has.
const TRIES_MAX: usize = 1 << 20;

#[cfg(test)]
mod tests;
