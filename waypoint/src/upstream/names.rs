//! Addresses of endpoints that have only a name, as one worker knows them: looked up a few at a time, and remembered for a
//! while.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use mesh_core::addr::canonical_ip;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::random::Random;
use crate::dispatch::is_never_a_workload;
use crate::endpoints::Endpoint;
use crate::limits::{LOOKUPS_MAX, NAMES_KEPT, NAMES_MAX};

/// What one worker knows of names.
pub(super) struct Names {
    known: RefCell<HashMap<Arc<str>, Known>>,
    /// The system looks up on threads of its own, of which there are not many.
    turns: Semaphore,
}

#[derive(Clone)]
struct Known {
    until: Instant,
    addresses: Arc<[IpAddr]>,
}

impl Default for Names {
    fn default() -> Self {
        Self { known: RefCell::default(), turns: Semaphore::new(LOOKUPS_MAX) }
    }
}

impl Names {
    /// Where an endpoint is; one of its addresses, if it has only a name. One that a client chose (`by_client`) leads
    /// neither to this machine nor to its neighbours on the link, whatever it says.
    ///
    /// # Errors
    /// In words.
    pub(super) async fn resolve(
        &self,
        endpoint: &Endpoint,
        by_client: bool,
        random: &Random,
    ) -> Result<SocketAddr, String> {
        let Some(name) = &endpoint.hostname else {
            return Ok(endpoint.address);
        };
        let addresses = match self.remembered(name) {
            Some(addresses) => addresses,
            None => self.look_up(name).await?,
        };
        choose(name, &addresses, by_client, random).map(|ip| SocketAddr::new(ip, endpoint.address.port()))
    }

    fn remembered(&self, name: &str) -> Option<Arc<[IpAddr]>> {
        let known = self.known.borrow();
        known.get(name).filter(|known| known.until > Instant::now()).map(|known| known.addresses.clone())
    }

    async fn look_up(&self, name: &Arc<str>) -> Result<Arc<[IpAddr]>, String> {
        // Never closed.
        let _turn = self.turns.acquire().await;
        // Somebody who was before us may have asked the same.
        if let Some(addresses) = self.remembered(name) {
            return Ok(addresses);
        }
        let found = tokio::net::lookup_host((&**name, 0)).await.map_err(|error| error.to_string())?;
        let addresses: Arc<[IpAddr]> = found.map(|address| canonical_ip(address.ip())).collect();
        let now = Instant::now();
        let mut known = self.known.borrow_mut();
        if known.len() >= NAMES_MAX {
            known.retain(|_, known| known.until > now);
        }
        if known.len() < NAMES_MAX {
            known.insert(name.clone(), Known { until: now + NAMES_KEPT, addresses: addresses.clone() });
        }
        Ok(addresses)
    }
}

fn choose(name: &str, addresses: &[IpAddr], by_client: bool, random: &Random) -> Result<IpAddr, String> {
    if addresses.is_empty() {
        return Err(format!("{name} has no address"));
    }
    let usable: Vec<IpAddr> = addresses.iter().copied().filter(|ip| !by_client || !is_never_a_workload(*ip)).collect();
    let at = random.below(u32::try_from(usable.len()).unwrap_or(u32::MAX));
    usable.get(at as usize).copied().ok_or_else(|| format!("{name} has only addresses that no client may choose"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::host::testing::endpoint;

    fn ips(all: &[&str]) -> Vec<IpAddr> {
        all.iter().map(|ip| ip.parse().unwrap()).collect()
    }

    #[test]
    fn what_a_client_chose_leads_neither_here_nor_to_the_neighbours() {
        let random = Random::new(1);
        for bad in ["127.0.0.1", "169.254.169.254", "0.0.0.0", "::1", "fe80::1", "224.0.0.1", "255.255.255.255"] {
            assert!(choose("a.example", &ips(&[bad]), true, &random).is_err(), "{bad}");
            assert!(choose("a.example", &ips(&[bad]), false, &random).is_ok(), "{bad}");
            for _ in 0..20 {
                let chosen = choose("a.example", &ips(&[bad, "192.0.2.1"]), true, &random).unwrap();
                assert_eq!(chosen, ips(&["192.0.2.1"])[0]);
            }
        }
        assert!(choose("a.example", &[], true, &random).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn names_are_looked_up_once_in_a_while() {
        let names = Names::default();
        let random = Random::new(1);
        let mut named = endpoint("0.0.0.0:80");
        named.hostname = Some("localhost".into());
        let found = names.resolve(&named, false, &random).await.unwrap();
        assert!(found.ip().is_loopback() && found.port() == 80);
        assert!(names.resolve(&named, true, &random).await.is_err());
        assert!(names.remembered("localhost").is_some());
        tokio::time::advance(NAMES_KEPT).await;
        assert!(names.remembered("localhost").is_none());
    }
}
