//! Tunnels kept open and shared by the connections of one pod on one worker.

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use mesh_core::Identity;
use mesh_identity::{PeerChain, Revoked};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinSet;

use crate::client::{self, Connection, Driver, Opened, Retry, StreamPermit, Usage};
use crate::early::{self, FirstBytes};
use crate::error::{DialError, HboneError, OpenError};
use crate::settings::{OPEN_ATTEMPTS_MAX, POOL_MAX_CONNECTIONS, Settings};

/// Connections with equal keys may share a tunnel; others never do.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PoolKey {
    /// Whose certificate dials.
    pub source: Identity,
    /// Any of which the server must prove, in order.
    pub expected: Vec<Identity>,
    /// Address actually dialled.
    pub upstream: SocketAddr,
    /// Address of the application connection: a tunnel never mixes clients.
    pub source_ip: IpAddr,
}

/// Makes the TLS connection for a key.
pub trait Dialer {
    /// What HTTP/2 is spoken over.
    type Io: AsyncRead + AsyncWrite + Unpin + 'static;

    /// Connects and proves identities both ways.
    fn dial(&self, key: &PoolKey) -> impl Future<Output = Result<Self::Io, DialError>>;

    /// The server's certificates, where they may be taken back while the tunnel is open.
    fn track(&self, io: &Self::Io) -> Option<Arc<PeerChain>> {
        let _ = io;
        None
    }

    /// Which of a tracked server's certificates was taken back, if any was.
    fn revoked(&self, server: &PeerChain) -> Option<Revoked> {
        let _ = server;
        None
    }
}

/// The tunnels of one pod on one worker. Cheap to clone; must be used inside a `LocalSet`. When the last clone is
/// dropped all its tunnels end.
pub struct Pool<D: Dialer> {
    inner: Rc<Inner<D>>,
}

struct Inner<D> {
    dialer: D,
    settings: Settings,
    keys: RefCell<HashMap<PoolKey, Slot>>,
    drivers: RefCell<JoinSet<()>>,
}

/// Everything about one key.
#[derive(Default)]
struct Slot {
    tunnels: Vec<Tunnel>,
    dialing: bool,
    /// Told `None` to try again, or why the dial they waited for failed.
    waiters: Vec<oneshot::Sender<Option<DialError>>>,
}

/// One connection to a server.
#[derive(Clone)]
struct Tunnel {
    connection: Connection,
    /// Where its certificates are tracked.
    server: Option<Rc<Server>>,
}

struct Server {
    chain: Arc<PeerChain>,
    /// One of its certificates was taken back.
    cut: Notify,
}

/// What to do to get a place on a connection.
enum Step {
    Use(Tunnel, StreamPermit),
    Wait(oneshot::Receiver<Option<DialError>>),
    Dial,
}

impl<D: Dialer + 'static> Pool<D> {
    /// An empty pool.
    #[must_use]
    pub fn new(dialer: D, settings: Settings) -> Self {
        let inner = Inner { dialer, settings, keys: RefCell::default(), drivers: RefCell::new(JoinSet::new()) };
        Self { inner: Rc::new(inner) }
    }

    /// The dialler, for plain connections that share its set-up.
    #[must_use]
    pub fn dialer(&self) -> &D {
        &self.inner.dialer
    }

    /// Opens a stream to `request`'s authority on a tunnel for `key`, dialling if none has room. A tunnel that turns out
    /// to be dead is replaced; nothing was sent on it yet.
    ///
    /// # Errors
    /// [`OpenError`].
    ///
    /// # Cancel safety
    /// Cancel-safe; others who wait for the same dial try again themselves.
    pub async fn open(&self, key: &PoolKey, request: Request<()>) -> Result<Opened, OpenError> {
        self.open_with(key, request, &mut early::nothing()).await
    }

    /// [`Pool::open`] that sends the first bytes of the application along with the request, where that saves a round
    /// trip.
    ///
    /// # Errors
    /// [`OpenError`].
    ///
    /// # Cancel safety
    /// The early bytes are lost.
    pub async fn open_with<F>(
        &self,
        key: &PoolKey,
        request: Request<()>,
        early: &mut FirstBytes<F>,
    ) -> Result<Opened, OpenError>
    where
        F: FnMut(&mut Context<'_>) -> Poll<Option<Bytes>>,
    {
        let mut attempt = 1;
        loop {
            let (Tunnel { connection, server }, permit) = self.checkout(key).await?;
            match connection.open(permit, request.clone(), early).await {
                Ok(mut opened) => {
                    opened.server = server.map(|server| server.chain.clone());
                    return Ok(opened);
                }
                Err((error, Retry::Safe)) if attempt < OPEN_ATTEMPTS_MAX => {
                    tracing::debug!(upstream = %key.upstream, %error, "tunnel is dead, trying another");
                    self.inner.discard(key, &connection.usage());
                    attempt += 1;
                }
                Err((error, _)) => return Err(error),
            }
        }
    }

    /// Open tunnels, busy or idle.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.inner.keys.borrow().values().map(|slot| slot.tunnels.len()).sum()
    }

    /// Ends every tunnel to a server that the dialler now says is revoked, at once and with all its streams. Tells how
    /// many.
    pub fn cut_revoked(&self) -> usize {
        let keys = self.inner.keys.borrow();
        let servers = keys.values().flat_map(|slot| &slot.tunnels).filter_map(|tunnel| tunnel.server.as_ref());
        let revoked = servers.filter(|server| self.inner.dialer.revoked(&server.chain).is_some());
        revoked.map(|server| server.cut.notify_one()).count()
    }

    async fn checkout(&self, key: &PoolKey) -> Result<(Tunnel, StreamPermit), DialError> {
        loop {
            let step = self.inner.next_step(key);
            match step {
                Step::Use(tunnel, permit) => return Ok((tunnel, permit)),
                Step::Wait(done) => {
                    if let Ok(Some(error)) = done.await {
                        return Err(error);
                    }
                }
                Step::Dial => return self.dial(key).await,
            }
        }
    }

    async fn dial(&self, key: &PoolKey) -> Result<(Tunnel, StreamPermit), DialError> {
        // Wakes the waiters however this ends, a dropped future included.
        let mut turn = DialTurn { inner: &self.inner, key, outcome: None };
        self.inner.make_room()?;
        let dialed = async {
            let io = self.inner.dialer.dial(key).await?;
            let server = self.inner.dialer.track(&io);
            let handshake = client::handshake(io, &self.inner.settings).await;
            let (connection, driver) =
                handshake.map_err(|e| DialError::Http2 { upstream: key.upstream, reason: e.to_string() })?;
            // From here to its place in the pool nobody else runs, so that no change of the lists falls between.
            let server = self.inner.admit(key, server)?;
            Ok::<_, DialError>((Tunnel { connection, server }, driver))
        };
        match dialed.await {
            Ok((tunnel, driver)) => {
                let permit = tunnel.connection.reserve();
                self.drive(key.clone(), &tunnel, driver);
                self.inner.keys.borrow_mut().entry(key.clone()).or_default().tunnels.push(tunnel.clone());
                Ok((tunnel, permit))
            }
            Err(error) => {
                turn.outcome = Some(error.clone());
                Err(error)
            }
        }
    }

    /// Runs the connection until it ends, and retires it from the pool when it was idle for too long.
    fn drive(&self, key: PoolKey, tunnel: &Tunnel, driver: Driver<D::Io>) {
        let (usage, server) = (tunnel.connection.usage(), tunnel.server.clone());
        let pool = Rc::downgrade(&self.inner);
        let idle_release = self.inner.settings.idle_release;
        let mut drivers = self.inner.drivers.borrow_mut();
        drivers.spawn_local(async move {
            let upstream = key.upstream;
            let mut driver = driver;
            let ended = tokio::select! {
                ended = &mut driver => Some(ended),
                () = idle(&usage, idle_release) => None,
                () = cut(server.as_deref()) => Some(Err(HboneError::Revoked)),
            };
            if let Some(pool) = pool.upgrade() {
                pool.discard(&key, &usage);
            }
            // Without a handle the connection says GOAWAY and ends with its last stream. The lists may change before it.
            let ended = match ended {
                Some(ended) => ended,
                None => tokio::select! {
                    ended = driver => ended,
                    () = cut(server.as_deref()) => Err(HboneError::Revoked),
                },
            };
            match ended {
                Ok(()) => tracing::debug!(%upstream, "tunnel closed"),
                Err(error) => tracing::debug!(%upstream, %error, "tunnel lost"),
            }
            // Those that ended before keep their memory until they are asked. This one is asked by the next.
            if let Some(pool) = pool.upgrade() {
                while pool.drivers.borrow_mut().try_join_next().is_some() {}
            }
        });
    }
}

impl<D> Inner<D> {
    fn next_step(&self, key: &PoolKey) -> Step {
        let mut keys = self.keys.borrow_mut();
        let slot = keys.entry(key.clone()).or_default();
        slot.tunnels.retain_mut(|tunnel| tunnel.connection.is_usable());
        let max = self.settings.max_streams_per_connection;
        for tunnel in &mut slot.tunnels {
            if let Some(permit) = tunnel.connection.try_reserve(max) {
                return Step::Use(tunnel.clone(), permit);
            }
        }
        if slot.dialing {
            let (sender, receiver) = oneshot::channel();
            slot.waiters.push(sender);
            return Step::Wait(receiver);
        }
        slot.dialing = true;
        Step::Dial
    }

    fn discard(&self, key: &PoolKey, retired: &Usage) {
        let mut keys = self.keys.borrow_mut();
        if let Some(slot) = keys.get_mut(key) {
            slot.tunnels.retain(|tunnel| !retired.is_of(&tunnel.connection));
            if slot.is_unused() {
                keys.remove(key);
            }
        }
    }

    /// At the bound, the tunnel that has been idle longest makes room.
    fn make_room(&self) -> Result<(), DialError> {
        let mut keys = self.keys.borrow_mut();
        let open: usize = keys.values().map(|slot| slot.tunnels.len()).sum();
        if open < POOL_MAX_CONNECTIONS {
            return Ok(());
        }
        let victim = keys
            .iter()
            .flat_map(|(key, slot)| slot.tunnels.iter().map(move |tunnel| (key, tunnel.connection.usage())))
            .filter(|(_, usage)| usage.active() == 0)
            .max_by_key(|(_, usage)| usage.idle_for())
            .map(|(key, usage)| (key.clone(), usage));
        let Some((key, victim)) = victim else {
            return Err(DialError::Full { limit: POOL_MAX_CONNECTIONS });
        };
        if let Some(slot) = keys.get_mut(&key) {
            slot.tunnels.retain(|tunnel| !victim.is_of(&tunnel.connection));
        }
        Ok(())
    }
}

impl<D: Dialer> Inner<D> {
    /// The lists may have changed since the handshake.
    fn admit(&self, key: &PoolKey, server: Option<Arc<PeerChain>>) -> Result<Option<Rc<Server>>, DialError> {
        let Some(chain) = server else { return Ok(None) };
        if let Some(revoked) = self.dialer.revoked(&chain) {
            return Err(DialError::Revoked { upstream: key.upstream, reason: revoked.to_string() });
        }
        Ok(Some(Rc::new(Server { chain, cut: Notify::new() })))
    }
}

impl Slot {
    fn is_unused(&self) -> bool {
        self.tunnels.is_empty() && !self.dialing && self.waiters.is_empty()
    }
}

impl<D: Dialer> Clone for Pool<D> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

/// The right to dial for one key, given back on drop.
struct DialTurn<'a, D> {
    inner: &'a Inner<D>,
    key: &'a PoolKey,
    /// The failure to share with the waiters; `None` lets them try again.
    outcome: Option<DialError>,
}

impl<D> Drop for DialTurn<'_, D> {
    fn drop(&mut self) {
        let mut keys = self.inner.keys.borrow_mut();
        let Some(slot) = keys.get_mut(self.key) else {
            return;
        };
        slot.dialing = false;
        for waiter in slot.waiters.drain(..) {
            // A waiter that left meanwhile does not mind.
            let _ = waiter.send(self.outcome.clone());
        }
        if slot.is_unused() {
            keys.remove(self.key);
        }
    }
}

/// Returns when the server is revoked.
async fn cut(server: Option<&Server>) {
    match server {
        Some(server) => server.cut.notified().await,
        None => std::future::pending().await,
    }
}

/// Returns when no stream has been open for `limit`.
async fn idle(usage: &Usage, limit: Duration) {
    loop {
        let idle_for = usage.idle_for();
        if idle_for >= limit {
            return;
        }
        tokio::time::sleep(limit - idle_for).await;
    }
}
