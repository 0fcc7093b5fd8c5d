//! The upstream side of one worker: its pickers, pools and tunnels.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::{Rc, Weak as RcWeak};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use http::header::UPGRADE;
use http::{Request, Response, StatusCode};
use tokio::task::JoinSet;

use super::accounting::{Active, Open, overflow};
use super::backend::Limits;
use super::body::{ReplyBody, RequestBody};
use super::cluster::Cluster;
use super::connect::{Connector, Purpose};
use super::error::{Failure, UpstreamError};
use super::h1::Unanswered;
use super::io::{StreamLimits, UpstreamIo};
use super::outlier::Outcome;
use super::pick::{PickContext, Picked, Picker};
use super::random::Random;
use super::shared::UpstreamShared;
use super::tls::Inside;
use super::{h1, h2};
use crate::shared::Shared;

/// What one worker sends. Must be used inside a `LocalSet`, on one thread. Dropped, it closes everything.
pub struct WorkerUpstreams {
    inner: Rc<Inner>,
}

struct Inner {
    shared: Arc<UpstreamShared>,
    connector: Connector,
    random: Random,
    clusters: RefCell<HashMap<u64, Rc<WorkerCluster>, BuildHasherDefault<IdHasher>>>,
    /// Tasks of HTTP/2 connections.
    drivers: RefCell<JoinSet<()>>,
    upkeep: RefCell<Option<JoinSet<()>>>,
}

/// One worker's part of a pool.
struct WorkerCluster {
    cluster: Weak<Cluster>,
    /// Of the picker.
    generation: Cell<u64>,
    picker: RefCell<Rc<Choice>>,
    /// By the id of the endpoint's state.
    pools: RefCell<HashMap<u64, Rc<HostPool>, BuildHasherDefault<IdHasher>>>,
}

/// A picker, and the pool of each of its positions.
struct Choice {
    picker: Picker,
    pools: Vec<Rc<HostPool>>,
}

struct HostPool {
    one: Rc<h1::Pool>,
    two: Rc<h2::Pool>,
    host: Arc<super::host::HostState>,
}

/// An answer.
#[derive(Debug)]
pub struct Reply {
    /// As the endpoint gave it.
    pub response: Response<ReplyBody>,
    /// Who gave it.
    pub endpoint: Picked,
    /// After a 101, what follows it.
    pub upgraded: Option<UpstreamIo>,
    /// Our own address towards the endpoint.
    pub local: Option<SocketAddr>,
}

impl WorkerUpstreams {
    /// For a worker of this process.
    #[must_use]
    pub fn new(shared: &Shared) -> Self {
        Self::of(shared.upstream.clone())
    }

    /// Nothing is connected yet.
    #[must_use]
    pub fn of(shared: Arc<UpstreamShared>) -> Self {
        let seed = rand::random();
        let inner = Inner {
            connector: Connector::new(shared.clone(), seed),
            shared,
            random: Random::new(seed),
            clusters: RefCell::default(),
            drivers: RefCell::default(),
            upkeep: RefCell::default(),
        };
        Self { inner: Rc::new(inner) }
    }

    /// Sends a request to an endpoint of the pool and waits for the head of the response. The URL of the request is
    /// absolute; its authority becomes the `host` of HTTP/1.1, unless that is set.
    ///
    /// A connection that turns out to be closed before the first byte is written is replaced; nothing else is retried.
    ///
    /// # Errors
    /// [`Failure`]: what happened, and to whom.
    ///
    /// # Cancel safety
    /// The request is given up: its connection closes, or its stream is reset. It is not held against the endpoint.
    pub async fn request(
        &self,
        cluster: &Arc<Cluster>,
        request: Request<RequestBody>,
        context: &PickContext<'_>,
    ) -> Result<Reply, Failure> {
        let (picked, pool) = self.inner.pick(cluster, context)?;
        let active = Active::request(&cluster.ledger, &picked.host().state);
        let active = active.map_err(|error| Failure::of(error, &picked))?;
        if let Some(chosen) = context.chosen {
            chosen.replace(Some(picked.clone()));
        }
        let mut attempt = pin!(self.inner.attempt(cluster, &picked, &pool, request, context, active));
        let answered = match context.timeout {
            None => attempt.await,
            Some(budget) => tokio::time::timeout(budget, attempt.as_mut()).await.unwrap_or_else(|_| {
                cluster.ledger.stats.rq_per_try_timeout.add();
                Err(UpstreamError::ResponseTimeout { address: picked.host().address(), budget })
            }),
        };
        match answered {
            Ok(reply) => Ok(reply),
            Err(error) => Err(self.inner.failed(cluster, error, &picked)),
        }
    }

    /// Opens a byte stream to an endpoint of the pool.
    ///
    /// # Errors
    /// [`Failure`]: what happened, and to whom.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn connect(
        &self,
        cluster: &Arc<Cluster>,
        context: &PickContext<'_>,
    ) -> Result<(UpstreamIo, Picked), Failure> {
        let hash = context
            .hash
            .or_else(|| cluster.policy.hash.as_ref().and_then(|source| source.choose_for_connection(context.source)));
        let (picked, _) = self.inner.pick(cluster, &PickContext { hash, ..*context })?;
        let Some(open) = Open::within_limit(&cluster.ledger) else {
            return Err(Failure::of(overflow(&cluster.ledger, "max_connections"), &picked));
        };
        let active = Active::connection(&cluster.ledger, &picked.host().state);
        let purpose = Purpose {
            inside: Inside::Bytes,
            server_name: context.server_name,
            source: context.source,
            destination: context.destination,
        };
        match self.inner.connector.connect(cluster, picked.host(), &purpose, open).await {
            Ok(io) => {
                cluster.outcome(picked.host(), Outcome::Connected);
                let Limits { tcp_idle: idle, connection_age: age, .. } = cluster.policy.limits;
                Ok((io.with_active(active).with_limits(StreamLimits { idle, age }), picked))
            }
            Err(error) => Err(self.inner.failed(cluster, error, &picked)),
        }
    }
}

impl Inner {
    fn pick(
        self: &Rc<Self>,
        cluster: &Arc<Cluster>,
        context: &PickContext<'_>,
    ) -> Result<(Picked, Rc<HostPool>), Failure> {
        if let Some(reason) = &cluster.policy.refuse {
            let error = UpstreamError::Refused { cluster: cluster.name().clone(), reason: reason.clone() };
            return Err(Failure::unpicked(error));
        }
        let now = self.shared.now();
        let own = self.cluster(cluster);
        let choice = own.choice(cluster, &self.random, now);
        cluster.began(now);
        let nobody = || Failure::unpicked(UpstreamError::NoEndpoint { cluster: cluster.name().clone() });
        let (position, level) = choice.picker.pick(context, &self.random, now).ok_or_else(nobody)?;
        if choice.picker.panics(level) {
            cluster.ledger.stats.lb_healthy_panic.add();
        }
        let host = choice.picker.set().host(position).ok_or_else(nobody)?;
        let pool = choice.pools.get(position as usize).ok_or_else(nobody)?;
        Ok((Picked::new(host.clone(), level), pool.clone()))
    }

    fn cluster(self: &Rc<Self>, cluster: &Arc<Cluster>) -> Rc<WorkerCluster> {
        if let Some(known) = self.clusters.borrow().get(&cluster.id) {
            return known.clone();
        }
        self.keep_up();
        let own = Rc::new(WorkerCluster::new(cluster, &self.random));
        self.clusters.borrow_mut().insert(cluster.id, own.clone());
        own
    }

    async fn attempt(
        &self,
        cluster: &Arc<Cluster>,
        picked: &Picked,
        pool: &HostPool,
        mut request: Request<RequestBody>,
        context: &PickContext<'_>,
        active: Active,
    ) -> Result<Reply, UpstreamError> {
        let two = cluster.speaks_http2(context.client_http2);
        // Other protocols take a connection over, which a shared one does not allow.
        let two = two && !request.headers().contains_key(UPGRADE);
        let host_name = request.uri().host().map(str::to_owned).filter(|_| cluster.policy.tls.is_some());
        let purpose = Purpose {
            inside: if two { Inside::Http2 } else { Inside::Http1 },
            server_name: host_name.as_deref().or(context.server_name),
            source: context.source,
            destination: context.destination,
        };
        if two {
            h2::shape(&mut request)
        } else {
            h1::shape(&mut request)
        }
        let address = picked.host().address();
        let mut attempts = 1;
        loop {
            let sent = if two {
                self.send_two(cluster, picked, pool, request, &purpose).await
            } else {
                self.send_one(cluster, picked, pool, request, &purpose).await
            };
            match sent {
                Ok(answer) => {
                    self.answered(cluster, picked, answer.status(), answer.grpc_status());
                    return Ok(answer.into_reply(picked, address, active).await);
                }
                Err((Unanswered { unsent: Some(again), .. }, true)) if attempts < REDISPATCHES_MAX => {
                    request = again;
                    attempts += 1;
                }
                Err((Unanswered { error, .. }, _)) => return Err(error),
            }
        }
    }

    /// The flag: the connection was an old one.
    async fn send_one(
        &self,
        cluster: &Arc<Cluster>,
        picked: &Picked,
        pool: &HostPool,
        request: Request<RequestBody>,
        purpose: &Purpose<'_>,
    ) -> Result<Answer, (Unanswered, bool)> {
        let lease = pool.one.acquire(&self.connector, cluster, picked.host(), purpose).await;
        let lease = lease.map_err(|error| (Unanswered { error, unsent: None }, false))?;
        let (used, local) = (lease.is_used(), lease.local());
        let requests_max = cluster.policy.limits.requests_per_connection;
        let sent = lease.send(request, picked.host().address(), requests_max).await;
        let (response, lease) = sent.map_err(|unanswered| (unanswered, used))?;
        Ok(Answer::One { response, lease, local })
    }

    /// The flag: the connection was an old one.
    async fn send_two(
        &self,
        cluster: &Arc<Cluster>,
        picked: &Picked,
        pool: &HostPool,
        request: Request<RequestBody>,
        purpose: &Purpose<'_>,
    ) -> Result<Answer, (Unanswered, bool)> {
        let place = pool.two.acquire(&self.connector, cluster, picked.host(), purpose, &self.drivers).await;
        let place = place.map_err(|error| (Unanswered { error, unsent: None }, false))?;
        let (used, local) = (place.is_used(), place.local());
        let sent = place.send(request, picked.host().address(), &self.drivers).await;
        let response = sent.map_err(|unanswered| (unanswered, used))?;
        Ok(Answer::Two { response, local })
    }

    fn answered(&self, cluster: &Cluster, picked: &Picked, status: StatusCode, grpc_status: Option<u16>) {
        cluster.ledger.stats.answered(status.as_u16());
        cluster.outcome(picked.host(), Outcome::Status(grpc_status.unwrap_or(status.as_u16())));
    }

    fn failed(&self, cluster: &Cluster, error: UpstreamError, picked: &Picked) -> Failure {
        match &error {
            UpstreamError::Reset { .. } => cluster.ledger.stats.rq_rx_reset.add(),
            UpstreamError::Protocol { .. } => cluster.ledger.stats.cx_protocol_error.add(),
            _ => {}
        }
        if error.is_no_response() {
            cluster.outcome(picked.host(), Outcome::LocalFailure);
        }
        Failure::of(error, picked)
    }

    /// Starts what goes on in the background, once.
    fn keep_up(self: &Rc<Self>) {
        let mut upkeep = self.upkeep.borrow_mut();
        if upkeep.is_some() {
            return;
        }
        let mut tasks = JoinSet::new();
        tasks.spawn_local(keep_up(Rc::downgrade(self)));
        *upkeep = Some(tasks);
    }

    fn sweep(&self) {
        let now = self.shared.now();
        if self.shared.crl.is_some() {
            self.connector.cut_revoked();
        }
        self.clusters.borrow_mut().retain(|_, own| {
            let Some(cluster) = own.cluster.upgrade() else { return false };
            cluster.check_place(now);
            own.choice(&cluster, &self.random, now);
            own.sweep(&cluster, now);
            true
        });
        while self.drivers.borrow_mut().try_join_next().is_some() {}
    }
}

async fn keep_up(inner: RcWeak<Inner>) {
    let mut ticks = tokio::time::interval(UPKEEP_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(inner) = inner.upgrade() else { return };
        inner.sweep();
    }
}

impl WorkerCluster {
    fn new(cluster: &Arc<Cluster>, random: &Random) -> Self {
        let picker = Picker::new(Arc::default(), &cluster.policy, random);
        let choice = Choice { picker, pools: Vec::new() };
        Self {
            cluster: Arc::downgrade(cluster),
            generation: Cell::new(0),
            picker: RefCell::new(Rc::new(choice)),
            pools: RefCell::default(),
        }
    }

    /// Made anew if endpoints or their health have changed.
    fn choice(&self, cluster: &Cluster, random: &Random, now: Duration) -> Rc<Choice> {
        let generation = cluster.check(now);
        if generation != self.generation.get() {
            let set = cluster.set();
            let pools = set.hosts.iter().map(|host| self.pool(&host.state)).collect();
            let picker = Picker::new(set, &cluster.policy, random);
            *self.picker.borrow_mut() = Rc::new(Choice { picker, pools });
            self.generation.set(generation);
        }
        self.picker.borrow().clone()
    }

    fn pool(&self, host: &Arc<super::host::HostState>) -> Rc<HostPool> {
        let mut pools = self.pools.borrow_mut();
        let new = || {
            Rc::new(HostPool { one: h1::Pool::new(host.clone()), two: h2::Pool::new(host.clone()), host: host.clone() })
        };
        pools.entry(host.id).or_insert_with(new).clone()
    }

    fn sweep(&self, cluster: &Cluster, now: Duration) {
        self.pools.borrow_mut().retain(|_, pool| {
            let removed = pool.host.removed.load(Ordering::Relaxed);
            let idle_max = cluster.policy.limits.http_idle;
            let old = pool.one.sweep(now, idle_max, removed) + pool.two.sweep(cluster, now, removed);
            for _ in 0..old {
                cluster.ledger.stats.cx_idle_timeout.add();
            }
            !removed || !pool.one.is_unused() || !pool.two.is_unused()
        });
    }
}

/// A response with its connection.
enum Answer {
    One { response: Response<hyper::body::Incoming>, lease: h1::Lease, local: Option<SocketAddr> },
    Two { response: Response<h2::Receiving>, local: Option<SocketAddr> },
}

impl Answer {
    fn status(&self) -> StatusCode {
        match self {
            Self::One { response, .. } => response.status(),
            Self::Two { response, .. } => response.status(),
        }
    }

    /// The HTTP status that a failed call stands for, where its status comes without a body.
    fn grpc_status(&self) -> Option<u16> {
        let headers = match self {
            Self::One { response, .. } => response.headers(),
            Self::Two { response, .. } => response.headers(),
        };
        match headers.get("grpc-status")?.to_str().ok()? {
            "0" => None,
            "14" => Some(503),
            "4" => Some(504),
            "2" | "13" | "15" => Some(500),
            "8" => Some(429),
            _ => Some(400),
        }
    }

    async fn into_reply(self, picked: &Picked, address: SocketAddr, active: Active) -> Reply {
        let endpoint = picked.clone();
        match self {
            Self::One { response, lease, local } if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                let (head, _) = response.into_parts();
                // Counts as active for as long as the new protocol is spoken.
                let upgraded = lease.upgrade().await.map(|io| io.with_active(active));
                Reply { response: Response::from_parts(head, ReplyBody::none(address)), endpoint, upgraded, local }
            }
            Self::One { response, lease, local } => {
                let response = response.map(|body| ReplyBody::one(body, lease, address, active));
                Reply { response, endpoint, upgraded: None, local }
            }
            Self::Two { response, local } => {
                let response = response.map(|body| ReplyBody::two(body, address, active));
                Reply { response, endpoint, upgraded: None, local }
            }
        }
    }
}

impl fmt::Debug for WorkerUpstreams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerUpstreams").finish_non_exhaustive()
    }
}

/// Ids are given out one after another: they are their own hash.
#[derive(Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        // The table looks at the upper bits, too.
        self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, id: u64) {
        self.0 = self.0.rotate_left(8) ^ id;
    }
}

/// How often idle connections are looked after.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(1);
/// Connections that may turn out to be closed before one request is sent for good.
const REDISPATCHES_MAX: u32 = 4;

#[cfg(test)]
mod tests;
