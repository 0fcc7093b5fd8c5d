//! Tunnels kept open and shared by the connections of one pod on one worker.

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use http::Request;
use mesh_core::Identity;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::client::{self, Connection, Driver, Opened, Retry, StreamPermit, Usage};
use crate::error::{DialError, OpenError};
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
    connections: Vec<Connection>,
    dialing: bool,
    /// Told `None` to try again, or why the dial they waited for failed.
    waiters: Vec<oneshot::Sender<Option<DialError>>>,
}

/// What to do to get a place on a connection.
enum Step {
    Use(Connection, StreamPermit),
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
        let mut attempt = 1;
        loop {
            let (connection, permit) = self.checkout(key).await?;
            match connection.open(permit, request.clone()).await {
                Ok(opened) => return Ok(opened),
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
        self.inner.keys.borrow().values().map(|slot| slot.connections.len()).sum()
    }

    async fn checkout(&self, key: &PoolKey) -> Result<(Connection, StreamPermit), DialError> {
        loop {
            let step = self.inner.next_step(key);
            match step {
                Step::Use(connection, permit) => return Ok((connection, permit)),
                Step::Wait(done) => {
                    if let Ok(Some(error)) = done.await {
                        return Err(error);
                    }
                }
                Step::Dial => return self.dial(key).await,
            }
        }
    }

    async fn dial(&self, key: &PoolKey) -> Result<(Connection, StreamPermit), DialError> {
        // Wakes the waiters however this ends, a dropped future included.
        let mut turn = DialTurn { inner: &self.inner, key, outcome: None };
        self.inner.make_room()?;
        let dialed = async {
            let io = self.inner.dialer.dial(key).await?;
            let handshake = client::handshake(io, &self.inner.settings).await;
            handshake.map_err(|e| DialError::Http2 { upstream: key.upstream, reason: e.to_string() })
        };
        match dialed.await {
            Ok((connection, driver)) => {
                let permit = connection.reserve();
                self.drive(key.clone(), connection.usage(), driver);
                self.inner.keys.borrow_mut().entry(key.clone()).or_default().connections.push(connection.clone());
                Ok((connection, permit))
            }
            Err(error) => {
                turn.outcome = Some(error.clone());
                Err(error)
            }
        }
    }

    /// Runs the connection until it ends, and retires it from the pool when it was idle for too long.
    fn drive(&self, key: PoolKey, usage: Usage, driver: Driver<D::Io>) {
        let pool = Rc::downgrade(&self.inner);
        let idle_release = self.inner.settings.idle_release;
        let mut drivers = self.inner.drivers.borrow_mut();
        while drivers.try_join_next().is_some() {}
        drivers.spawn_local(async move {
            let upstream = key.upstream;
            let mut driver = driver;
            let ended = tokio::select! {
                ended = &mut driver => Some(ended),
                () = idle(&usage, idle_release) => None,
            };
            if let Some(pool) = pool.upgrade() {
                pool.discard(&key, &usage);
            }
            // Without a handle the connection says GOAWAY and ends with its last stream.
            let ended = match ended {
                Some(ended) => ended,
                None => driver.await,
            };
            match ended {
                Ok(()) => tracing::debug!(%upstream, "tunnel closed"),
                Err(error) => tracing::debug!(%upstream, %error, "tunnel lost"),
            }
        });
    }
}

impl<D> Inner<D> {
    fn next_step(&self, key: &PoolKey) -> Step {
        let mut keys = self.keys.borrow_mut();
        let slot = keys.entry(key.clone()).or_default();
        slot.connections.retain_mut(Connection::is_usable);
        let max = self.settings.max_streams_per_connection;
        for connection in &mut slot.connections {
            if let Some(permit) = connection.try_reserve(max) {
                return Step::Use(connection.clone(), permit);
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
            slot.connections.retain(|connection| !retired.is_of(connection));
            if slot.is_unused() {
                keys.remove(key);
            }
        }
    }

    /// At the bound, the tunnel that has been idle longest makes room.
    fn make_room(&self) -> Result<(), DialError> {
        let mut keys = self.keys.borrow_mut();
        let open: usize = keys.values().map(|slot| slot.connections.len()).sum();
        if open < POOL_MAX_CONNECTIONS {
            return Ok(());
        }
        let victim = keys
            .iter()
            .flat_map(|(key, slot)| slot.connections.iter().map(move |connection| (key, connection.usage())))
            .filter(|(_, usage)| usage.active() == 0)
            .max_by_key(|(_, usage)| usage.idle_for())
            .map(|(key, usage)| (key.clone(), usage));
        let Some((key, victim)) = victim else {
            return Err(DialError::Full { limit: POOL_MAX_CONNECTIONS });
        };
        if let Some(slot) = keys.get_mut(&key) {
            slot.connections.retain(|connection| !victim.is_of(connection));
        }
        Ok(())
    }
}

impl Slot {
    fn is_unused(&self) -> bool {
        self.connections.is_empty() && !self.dialing && self.waiters.is_empty()
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
