//! Addresses of workloads that are known by name only. One for the process, with a cache.

mod cache;

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::seq::IndexedRandom;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use super::answer::Transport;
use super::message::{self, Addresses, Header, NotAnswered, RecordType, Request};
use super::name_servers::NameServers;
use super::place::Place;
use super::upstream::{Upstream, UpstreamError};
use crate::limits::{DNS_QUERY_BUDGET, RESOLVER_QUERIES_MAX};
use cache::{Cache, Key};

/// Which addresses are of use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Families {
    /// IPv4.
    pub v4: bool,
    /// IPv6.
    pub v6: bool,
    /// Which of them to take when there are both.
    pub prefer_v4: bool,
}

/// Why a name gives no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ResolveError {
    /// Not a name that could be asked for.
    #[error("{host:?} is not a host name")]
    BadName {
        /// The name.
        host: String,
    },
    /// The name servers know no address of it.
    #[error("{host} has no address of a family that can be used")]
    NoAddress {
        /// The name.
        host: String,
    },
    /// The name servers did not say. Asking again may help.
    #[error("resolving {host}: {reason}")]
    Failed {
        /// The name.
        host: String,
        /// What happened.
        reason: Arc<str>,
    },
}

/// What is remembered of a question.
type Known = Result<Arc<[IpAddr]>, Arc<str>>;

/// Asks the name servers of the process, from its own network namespace.
#[derive(Debug)]
pub struct Resolver {
    upstream: Upstream,
    cache: Mutex<Cache>,
    queries: Semaphore,
}

impl Resolver {
    /// Asks `servers`.
    #[must_use]
    pub fn new(servers: NameServers) -> Self {
        Self {
            upstream: Upstream::new(servers, Place::default()),
            cache: Mutex::default(),
            queries: Semaphore::new(RESOLVER_QUERIES_MAX),
        }
    }

    /// One address of `host`, chosen at random among those of the preferred family, else among the others. No search
    /// domain is appended.
    ///
    /// # Errors
    /// See [`ResolveError`].
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn lookup(&self, host: &str, families: Families) -> Result<IpAddr, ResolveError> {
        if let Ok(ip) = host.parse::<IpAddr>() {
            let wanted = if ip.is_ipv4() { families.v4 } else { families.v6 };
            return if wanted { Ok(ip) } else { Err(ResolveError::NoAddress { host: host.to_owned() }) };
        }
        let host: Arc<str> = host.trim_end_matches('.').to_ascii_lowercase().into();
        let of = async |wanted: bool, kind| if wanted { Some(self.known(&host, kind).await) } else { None };
        let (v4, v6) = tokio::join!(of(families.v4, RecordType::A), of(families.v6, RecordType::AAAA));
        let both = if families.prefer_v4 { [v4, v6] } else { [v6, v4] };
        let mut error = ResolveError::NoAddress { host: host.to_string() };
        for known in both.into_iter().flatten() {
            match known {
                Ok(ips) => {
                    if let Some(ip) = ips.choose(&mut rand::rng()) {
                        return Ok(*ip);
                    }
                }
                Err(failed) => error = failed,
            }
        }
        Err(error)
    }

    async fn known(&self, host: &Arc<str>, kind: RecordType) -> Result<Arc<[IpAddr]>, ResolveError> {
        let query = query(host, kind).ok_or_else(|| ResolveError::BadName { host: host.to_string() })?;
        let key = Key { host: host.clone(), kind };
        let failed = |reason| ResolveError::Failed { host: host.to_string(), reason };
        let turn = match self.cache().get(&key, Instant::now()) {
            Ok(known) => return known.map_err(failed),
            Err(turn) => turn,
        };
        // One asks, the others wait for what it learns.
        let _turn = turn.lock().await;
        if let Ok(known) = self.cache().get(&key, Instant::now()) {
            return known.map_err(failed);
        }
        let (known, life) = self.ask(&query, &key).await;
        self.cache().put(key, known.clone(), Instant::now() + life);
        known.map_err(failed)
    }

    async fn ask(&self, query: &Request, key: &Key) -> (Known, Duration) {
        let asking = async {
            // Never closed.
            let _room = self.queries.acquire().await;
            let answer = self.upstream.ask(query, Transport::Udp).await?;
            if Header::read(&answer).is_some_and(|header| header.is_truncated()) {
                return self.upstream.ask(query, Transport::Tcp).await;
            }
            Ok::<_, UpstreamError>(answer)
        };
        let answer = match timeout(DNS_QUERY_BUDGET, asking).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return (Err(error.to_string().into()), FAILURE_LIFE),
            Err(_) => return (Err("no answer in time".into()), FAILURE_LIFE),
        };
        match message::addresses(&answer, &key.host, key.kind) {
            Ok(Addresses { ips, .. }) if ips.is_empty() => (Ok(Arc::default()), NOTHING_LIFE),
            Ok(Addresses { ips, ttl }) => (Ok(ips.into()), ttl.clamp(LIFE_MIN, LIFE_MAX)),
            Err(NotAnswered::NoName) => (Ok(Arc::default()), NOTHING_LIFE),
            Err(error) => (Err(error.to_string().into()), FAILURE_LIFE),
        }
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A query for a name that was written down, not read from a message.
fn query(host: &str, kind: RecordType) -> Option<Request> {
    let mut bytes = Vec::with_capacity(64);
    let flags = message::FLAG_RECURSION_DESIRED;
    let words = [rand::random(), flags, 1, 0, 0, 0];
    bytes.extend(words.into_iter().flat_map(u16::to_be_bytes));
    for label in host.split('.') {
        let length = u8::try_from(label.len()).ok().filter(|length| (1..=LABEL_BYTES_MAX).contains(length))?;
        bytes.push(length);
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes.extend([kind.0, message::CLASS_IN].into_iter().flat_map(u16::to_be_bytes));
    // Refuses names that are too long.
    Request::read(&bytes).ok().filter(|request| request.question().is_some_and(|question| question.name == *host))
}

/// RFC 1035 section 2.3.4.
const LABEL_BYTES_MAX: u8 = 63;
/// An answer that may not be kept at all is kept for the connections of one moment.
const LIFE_MIN: Duration = Duration::from_secs(1);
const LIFE_MAX: Duration = Duration::from_secs(3600);
/// How long a name without addresses is believed to have none.
const NOTHING_LIFE: Duration = Duration::from_secs(5);
/// How long nobody asks again after a failure.
const FAILURE_LIFE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
