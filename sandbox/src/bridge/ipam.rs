//! Address leases of one node, kept as files so that every call of the plugin sees them.
//!
//! A lease is a host number used in every range, so that a pod's IPv4 and IPv6 addresses end alike.
//! Numbers are given out in a circle: an address is reused as late as possible.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use ipnet::IpNet;

/// Why no address could be given.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IpamError {
    /// The configuration's ranges cannot be used.
    #[error("ranges {found}: {reason}")]
    Ranges {
        /// The ranges as configured.
        found: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// All addresses are taken. Retry when a pod is gone.
    #[error("no free address: all {size} of the node are leased")]
    Exhausted {
        /// Number of addresses.
        size: u32,
    },
    /// The lease directory cannot be used.
    #[error("address leases in {path}")]
    Store {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

/// The subnets of a node: one per family.
#[derive(Debug)]
pub(crate) struct Ranges {
    nets: Vec<IpNet>,
    /// Host numbers run from 2 (1 is the node) to this.
    last: u32,
}

/// Addresses of one pod, IPv4 first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lease {
    /// One per range.
    pub(crate) addresses: Vec<IpAddr>,
}

/// Most pods one node can address, also where a range would allow more.
const HOSTS_MAX: u32 = 4096;

impl Ranges {
    pub(crate) fn new(nets: &[IpNet]) -> Result<Self, IpamError> {
        let error = |reason| {
            let found: Vec<String> = nets.iter().map(IpNet::to_string).collect();
            IpamError::Ranges { found: format!("[{}]", found.join(", ")), reason }
        };
        let (v4, v6) = (nets.iter().filter(|net| net.addr().is_ipv4()), nets.iter().filter(|net| net.addr().is_ipv6()));
        if nets.is_empty() || v4.count() > 1 || v6.count() > 1 {
            return Err(error("expected one subnet per family"));
        }
        let host_bits = nets.iter().map(|net| net.max_prefix_len() - net.prefix_len()).min().unwrap_or_default();
        if host_bits < 3 {
            return Err(error("a subnet has fewer than 3 host bits"));
        }
        // The last number of an IPv4 subnet is its broadcast address.
        let last = 1_u32.checked_shl(u32::from(host_bits)).map_or(HOSTS_MAX, |size| size - 2);
        let mut nets = nets.to_vec();
        nets.sort_by_key(|net| net.addr().is_ipv6());
        Ok(Self { nets, last: last.min(HOSTS_MAX) })
    }

    /// The node's own address and prefix in each subnet.
    pub(crate) fn subnets(&self) -> impl Iterator<Item = IpNet> {
        self.nets.iter().filter_map(|&net| IpNet::new(nth(net, 1)?, net.prefix_len()).ok())
    }

    /// The node's address in the subnet of `address`.
    pub(crate) fn gateway_for(&self, address: IpAddr) -> Option<IpAddr> {
        self.nets.iter().find(|net| net.contains(&address)).and_then(|&net| nth(net, 1))
    }

    fn lease(&self, host: u32) -> Lease {
        Lease { addresses: self.nets.iter().filter_map(|&net| nth(net, host)).collect() }
    }
}

/// The leases of a node; the directory is locked while this lives.
#[derive(Debug)]
pub(crate) struct Store {
    directory: PathBuf,
    _lock: File,
}

impl Store {
    /// Waits for the lock of the directory, which is created when missing.
    pub(crate) fn open(directory: &Path) -> Result<Self, IpamError> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| IpamError::Store { path, source }
        };
        fs::create_dir_all(directory).map_err(at(directory))?;
        let lock_path = directory.join("lock");
        let lock = File::create(&lock_path).map_err(at(&lock_path))?;
        lock.lock().map_err(at(&lock_path))?;
        Ok(Self { directory: directory.to_owned(), _lock: lock })
    }

    /// Leases addresses to a container; what it held before is given up.
    pub(crate) fn allocate(&self, ranges: &Ranges, container: &str) -> Result<Lease, IpamError> {
        self.release(container)?;
        let taken = self.hosts()?.into_iter().map(|(host, _)| host).collect();
        let latest = fs::read_to_string(self.latest_path()).ok().and_then(|text| text.trim().parse().ok());
        let host = next_free(&taken, latest, ranges.last)
            .ok_or(IpamError::Exhausted { size: ranges.last.saturating_sub(1) })?;
        self.write(&self.directory.join(host.to_string()), container)?;
        self.write(&self.latest_path(), &host.to_string())?;
        Ok(ranges.lease(host))
    }

    /// Gives up what a container holds; nothing happens when that is nothing.
    pub(crate) fn release(&self, container: &str) -> Result<(), IpamError> {
        for (host, holder) in self.hosts()? {
            if holder == container {
                let path = self.directory.join(host.to_string());
                fs::remove_file(&path).map_err(|source| IpamError::Store { path, source })?;
            }
        }
        Ok(())
    }

    /// All leased host numbers and who holds them.
    fn hosts(&self) -> Result<Vec<(u32, String)>, IpamError> {
        let entries = fs::read_dir(&self.directory)
            .map_err(|source| IpamError::Store { path: self.directory.clone(), source })?;
        let hosts = entries.filter_map(|entry| {
            let entry = entry.ok()?;
            let host = entry.file_name().to_str()?.parse().ok()?;
            Some((host, fs::read_to_string(entry.path()).ok()?))
        });
        Ok(hosts.collect())
    }

    fn latest_path(&self) -> PathBuf {
        self.directory.join("latest")
    }

    fn write(&self, path: &Path, text: &str) -> Result<(), IpamError> {
        fs::write(path, text).map_err(|source| IpamError::Store { path: path.to_owned(), source })
    }
}

/// The first number after `latest` that is free, going round from `last` to 2.
fn next_free(taken: &BTreeSet<u32>, latest: Option<u32>, last: u32) -> Option<u32> {
    let start = latest.map_or(2, |latest| latest.saturating_add(1)).clamp(2, last.saturating_add(1));
    (start..=last).chain(2..start.min(last.saturating_add(1))).find(|host| !taken.contains(host))
}

/// The address with number `host` in a subnet.
pub(crate) fn nth(net: IpNet, host: u32) -> Option<IpAddr> {
    let address: IpAddr = match net {
        IpNet::V4(net) => Ipv4Addr::from(u32::from(net.network()).checked_add(host)?).into(),
        IpNet::V6(net) => Ipv6Addr::from(u128::from(net.network()).checked_add(u128::from(host))?).into(),
    };
    net.contains(&address).then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(nets: &[&str]) -> Ranges {
        Ranges::new(&nets.iter().map(|net| net.parse().unwrap()).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn both_families_get_the_same_host_number() {
        let dir = tempfile::tempdir().unwrap();
        let ranges = ranges(&["fd00:10:244:1::/64", "10.244.1.0/24"]);
        let store = Store::open(dir.path()).unwrap();
        let texts = |lease: Lease| lease.addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>();
        assert_eq!(texts(store.allocate(&ranges, "a").unwrap()), ["10.244.1.2", "fd00:10:244:1::2"]);
        assert_eq!(texts(store.allocate(&ranges, "b").unwrap()), ["10.244.1.3", "fd00:10:244:1::3"]);
        store.release("a").unwrap();
        store.release("a").unwrap();
        let third = texts(store.allocate(&ranges, "c").unwrap());
        assert_eq!(third, ["10.244.1.4", "fd00:10:244:1::4"], "freed addresses are reused last");
    }

    #[test]
    fn numbers_go_round_and_run_out() {
        let taken = |hosts: &[u32]| hosts.iter().copied().collect::<BTreeSet<u32>>();
        assert_eq!(next_free(&taken(&[]), None, 6), Some(2));
        assert_eq!(next_free(&taken(&[2, 3]), Some(3), 6), Some(4));
        assert_eq!(next_free(&taken(&[6]), Some(6), 6), Some(2), "from the end to the start");
        assert_eq!(next_free(&taken(&[5]), Some(4), 6), Some(6), "taken ones are skipped");
        assert_eq!(next_free(&taken(&[2, 3, 4, 5, 6]), Some(4), 6), None);
        assert_eq!(next_free(&taken(&[]), Some(u32::MAX), 6), Some(2), "a broken memory is harmless");
    }

    #[test]
    fn exhaustion_is_reported_at_the_bound() {
        let dir = tempfile::tempdir().unwrap();
        let ranges = ranges(&["10.0.0.0/29"]);
        let store = Store::open(dir.path()).unwrap();
        for container in ["a", "b", "c", "d", "e"] {
            store.allocate(&ranges, container).unwrap();
        }
        let error = store.allocate(&ranges, "f").unwrap_err();
        assert!(matches!(error, IpamError::Exhausted { size: 5 }), "{error}");
    }

    #[test]
    fn unusable_ranges_are_refused() {
        for nets in [vec![], vec!["10.0.0.0/24", "10.1.0.0/24"], vec!["10.0.0.0/30"]] {
            let nets: Vec<IpNet> = nets.iter().map(|net| net.parse().unwrap()).collect();
            assert!(Ranges::new(&nets).is_err(), "{nets:?}");
        }
    }

    #[test]
    fn the_node_is_number_one() {
        let ranges = ranges(&["10.244.1.0/24", "fd00::/64"]);
        let own: Vec<String> = ranges.subnets().map(|net| net.to_string()).collect();
        assert_eq!(own, ["10.244.1.1/24", "fd00::1/64"]);
        assert_eq!(ranges.gateway_for("fd00::9".parse().unwrap()).unwrap().to_string(), "fd00::1");
        assert_eq!(ranges.gateway_for("1.1.1.1".parse().unwrap()), None);
    }
}
