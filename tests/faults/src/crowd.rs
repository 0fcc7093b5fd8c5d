//! Many proxies at once, and when each of them hears of a change.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::Cluster;
use crate::ads::{ADDRESS, Manner, Proxy, Stream, Target};
use crate::objects::{PodId, Size};
use crate::wait::eventually;

/// Proxies that stay connected until dropped.
#[derive(Debug)]
pub struct Crowd {
    size: Size,
    members: Vec<Member>,
    board: Arc<Board>,
    _tasks: JoinSet<()>,
}

/// One proxy of the crowd.
#[derive(Debug, Clone)]
struct Member {
    /// Wants everything.
    wildcard: bool,
    node: usize,
    /// Services that it asks for otherwise.
    services: Range<usize>,
}

/// What all proxies write to.
#[derive(Debug, Default)]
struct Board {
    /// Streams that have had their first answer about addresses.
    synced: AtomicUsize,
    /// Streams that ended or were refused.
    ended: AtomicU64,
    /// Responses about addresses, the first of each stream left out.
    responses: AtomicU64,
    /// Their size.
    bytes: AtomicU64,
    /// Changes that not all have heard of, by resource.
    flights: Mutex<HashMap<String, Flight>>,
    landed: Mutex<Vec<Landed>>,
}

#[derive(Debug)]
struct Flight {
    at: Instant,
    /// Those who want everything, and those who ask for services.
    left: [usize; 2],
    last: [Option<Instant>; 2],
}

/// How long one change took to the last proxy.
#[derive(Debug, Clone, Copy)]
pub struct Landed {
    /// Of those who want everything.
    pub wildcard: Option<Duration>,
    /// Of those who ask for services.
    pub demand: Option<Duration>,
}

impl Landed {
    /// To the very last one.
    #[must_use]
    pub fn last(&self) -> Option<Duration> {
        self.wildcard.max(self.demand)
    }
}

/// What was sent so far.
#[derive(Debug, Clone, Copy)]
pub struct Sent {
    /// Responses about addresses.
    pub responses: u64,
    /// Bytes of them.
    pub bytes: u64,
}

impl Crowd {
    /// Connects `count` proxies, every second one on demand.
    #[must_use]
    pub fn start(target: &Target, size: Size, count: usize) -> Self {
        let member = |number: usize| {
            let first = number * 7 % POPULAR;
            Member { wildcard: number.is_multiple_of(2), node: number % size.nodes(), services: first..first + ASKED }
        };
        let members: Vec<_> = (0..count).map(member).collect();
        let board = Arc::new(Board::default());
        let mut tasks = JoinSet::new();
        let turns = Arc::new(Semaphore::new(CONNECTING_MAX));
        for (number, member) in members.iter().enumerate() {
            let services = member.services.clone().map(|one| size.hostname(one % popular(size)));
            let proxy = Proxy {
                number,
                node: Size::node_name(member.node),
                names: if member.wildcard { Vec::new() } else { services.collect() },
                manner: Manner::Accepts,
                decode_bytes_max: SMALL_BYTES,
            };
            tasks.spawn(stay(proxy, member.wildcard, target.clone(), (board.clone(), turns.clone())));
        }
        Self { size, members, board, _tasks: tasks }
    }

    /// Waits until all have been answered.
    ///
    /// # Errors
    /// They are not in time.
    pub async fn synced(&self, within: Duration) -> Result<()> {
        eventually("all proxies have what they asked for", within, async || {
            let synced = self.board.synced.load(Ordering::Relaxed);
            ensure!(synced >= self.members.len(), "{synced} of {} have", self.members.len());
            Ok(())
        })
        .await
    }

    /// Proxies that have what they asked for.
    #[must_use]
    pub fn synced_now(&self) -> usize {
        self.board.synced.load(Ordering::Relaxed)
    }

    /// Streams that ended, or attempts that failed.
    #[must_use]
    pub fn ended(&self) -> u64 {
        self.board.ended.load(Ordering::Relaxed)
    }

    /// What they were sent, first answers left out.
    #[must_use]
    pub fn sent(&self) -> Sent {
        let Board { responses, bytes, .. } = &*self.board;
        Sent { responses: responses.load(Ordering::Relaxed), bytes: bytes.load(Ordering::Relaxed) }
    }

    /// Turns a pod ready or not, and takes the time until all whom it concerns have heard of it.
    ///
    /// # Errors
    /// The object is refused.
    pub fn change(&self, cluster: &Cluster, number: usize) -> Result<()> {
        let (pod, ready) = changed(self.size, number);
        let concerned = |member: &&Member| {
            let service = self.size.service_of(pod);
            let asked = member.services.clone().any(|one| one % popular(self.size) == service);
            member.wildcard || asked || member.node == self.size.node_of(pod)
        };
        let (wildcard, demand): (Vec<_>, Vec<_>) =
            self.members.iter().filter(concerned).partition(|member| member.wildcard);
        let flight = Flight { at: Instant::now(), left: [wildcard.len(), demand.len()], last: [None; 2] };
        self.board.flights().insert(self.size.uid(pod), flight);
        cluster.set_ready(self.size, pod, ready)
    }

    /// Waits until every change has arrived everywhere, and takes the times.
    ///
    /// # Errors
    /// Some do not in time.
    pub async fn landed(&self, within: Duration) -> Result<Vec<Landed>> {
        eventually("every change has arrived", within, async || {
            let flights = self.board.flights();
            let missing = flights.iter().map(|(name, flight)| (name, flight.left)).next();
            ensure!(missing.is_none(), "{} have not, such as {missing:?}", flights.len());
            Ok(())
        })
        .await?;
        Ok(std::mem::take(&mut *self.board.landed.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

/// The pod that a change is about, and what it becomes. Only pods of services that proxies ask for change.
#[must_use]
pub fn changed(size: Size, number: usize) -> (PodId, bool) {
    let pods: Vec<PodId> = (0..popular(size)).flat_map(|service| size.pods_of(service).take(25)).collect();
    let at = number * 37 % pods.len();
    let pod = pods.get(at).copied().unwrap_or(PodId(0));
    (pod, (number / pods.len()) % 2 == 1)
}

fn popular(size: Size) -> usize {
    size.services().min(POPULAR)
}

/// Keeps one proxy connected.
async fn stay(proxy: Proxy, wildcard: bool, target: Target, (board, turns): (Arc<Board>, Arc<Semaphore>)) {
    let mut pause = PAUSE_MIN;
    loop {
        let turn = turns.acquire().await;
        let connected = proxy.connect(&target).await;
        drop(turn);
        if let Ok(stream) = connected {
            let mut synced = false;
            // It ends when the server ends it: what it had counts no longer.
            let _ = follow(stream, wildcard, &board, &mut synced).await;
            if synced {
                board.synced.fetch_sub(1, Ordering::Relaxed);
                pause = PAUSE_MIN;
            }
        }
        board.ended.fetch_add(1, Ordering::Relaxed);
        // Not all at the same moment.
        tokio::time::sleep(pause + Duration::from_millis(proxy.number as u64 % 50)).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

async fn follow(mut stream: Stream, wildcard: bool, board: &Board, synced: &mut bool) -> Result<()> {
    while let Some(told) = stream.next().await? {
        if told.type_url != ADDRESS {
            continue;
        }
        if !std::mem::replace(synced, true) {
            board.synced.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        board.responses.fetch_add(1, Ordering::Relaxed);
        board.bytes.fetch_add(told.bytes as u64, Ordering::Relaxed);
        for resource in told.message.iter().flat_map(|message| &message.resources) {
            board.arrived(&resource.name, wildcard);
        }
    }
    Ok(())
}

impl Board {
    fn flights(&self) -> MutexGuard<'_, HashMap<String, Flight>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn arrived(&self, name: &str, wildcard: bool) {
        let mut flights = self.flights();
        let Some(flight) = flights.get_mut(name) else { return };
        let [of_wildcard, of_demand] = &mut flight.left;
        let left = if wildcard { of_wildcard } else { of_demand };
        *left = left.saturating_sub(1);
        let [last_wildcard, last_demand] = &mut flight.last;
        *(if wildcard { last_wildcard } else { last_demand }) = Some(Instant::now());
        if flight.left != [0, 0] {
            return;
        }
        if let Some(Flight { at, last, .. }) = flights.remove(name) {
            let [wildcard, demand] = last.map(|last| last.map(|last| last - at));
            self.landed.lock().unwrap_or_else(PoisonError::into_inner).push(Landed { wildcard, demand });
        }
    }
}

/// Services that proxies on demand ask for are among the first ones: as many proxies ask for each of them, however large
/// the cluster is.
const POPULAR: usize = 40;
/// Services that a proxy on demand asks for.
const ASKED: usize = 10;
/// Proxies of a crowd that are connecting at the same time. Those of a cluster have a processor each; when all of these
/// share one with the control plane, in a debug build, none of a thousand handshakes would be done in time.
const CONNECTING_MAX: usize = 200;
/// Larger responses are not looked into.
const SMALL_BYTES: usize = 64 << 10;
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);
