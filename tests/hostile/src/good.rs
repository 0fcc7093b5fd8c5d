//! The well-behaved client: a request now and then, on a connection that stays and on a new one.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use http::{Method, Request};
use mesh_core::Identity;
use mesh_hbone::{DialError, Dialer, H2Stream, Pool, PoolKey, Settings, tls};
use mesh_identity::WorkloadCert;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};

use crate::measure::Latencies;
use crate::pod::{ECHO_PORT, Pod};
use crate::stage::certificate;

/// A client that lives on a thread of its own.
pub struct Client {
    orders: mpsc::Sender<Order>,
}

/// What it found.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// Of requests on a connection that was open before.
    pub requests: Latencies,
    /// Of new connections, with one request each.
    pub connections: Latencies,
    /// How often its tunnel had to be made anew.
    pub tunnels_lost: usize,
}

struct Order {
    stop: Arc<AtomicBool>,
    reply: oneshot::Sender<Result<Found>>,
}

/// A measurement under way.
pub struct Measuring {
    stop: Arc<AtomicBool>,
    reply: oneshot::Receiver<Result<Found>>,
}

impl Client {
    /// A client in `from` that talks to the echo of `to`.
    #[must_use]
    pub fn start(from: &Pod, to: &Pod) -> Self {
        let (orders, mut queue) = mpsc::channel::<Order>(1);
        let (source, expected) = (from.identity(), to.identity());
        let (source_ip, to) = (from.ip, to.ip);
        drop(from.spawn(move || async move {
            let key = PoolKey {
                source: source.clone(),
                expected: vec![expected.clone()],
                upstream: SocketAddr::new(to, 15008),
                source_ip,
            };
            let dialer = Direct { cert: certificate(source).await?, expected };
            let mut tunnel =
                Tunnel { pool: Pool::new(dialer, Settings::default()), key, authority: format!("{to}:{ECHO_PORT}") };
            while let Some(order) = queue.recv().await {
                let found = tunnel.measure(&order.stop).await;
                // Whoever asked may have given up.
                let _ = order.reply.send(found);
            }
            anyhow::Ok(())
        }));
        Self { orders }
    }

    /// Measures until it is told to stop.
    ///
    /// # Errors
    /// The client's thread has ended.
    pub async fn begin(&self) -> Result<Measuring> {
        let stop = Arc::new(AtomicBool::new(false));
        let (sender, reply) = oneshot::channel();
        let order = Order { stop: stop.clone(), reply: sender };
        self.orders.send(order).await.ok().context("the well-behaved client is gone")?;
        Ok(Measuring { stop, reply })
    }

    /// Measures for a while.
    ///
    /// # Errors
    /// A request failed.
    pub async fn measure(&self, duration: Duration) -> Result<Found> {
        let measuring = self.begin().await?;
        tokio::time::sleep(duration).await;
        measuring.end().await
    }
}

impl Measuring {
    /// Ends it.
    ///
    /// # Errors
    /// A request failed, or took longer than [`PATIENCE`].
    pub async fn end(self) -> Result<Found> {
        self.stop.store(true, Ordering::Relaxed);
        self.reply.await.context("the well-behaved client is gone")?
    }
}

struct Tunnel {
    pool: Pool<Direct>,
    key: PoolKey,
    authority: String,
}

impl Tunnel {
    async fn measure(&mut self, stop: &AtomicBool) -> Result<Found> {
        let mut found = Found::default();
        let mut held = self.open().await?;
        let mut ticks = tokio::time::interval(PAUSE);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while !stop.load(Ordering::Relaxed) {
            for _ in 0..REQUESTS_A_CONNECTION {
                ticks.tick().await;
                let started = Instant::now();
                say(&mut held).await.context("request of the well-behaved client")?;
                found.requests.push(started.elapsed());
            }
            ticks.tick().await;
            let started = Instant::now();
            let mut new = self.open().await?;
            say(&mut new).await.context("new connection of the well-behaved client")?;
            found.connections.push(started.elapsed());
            let _ = new.shutdown().await;
        }
        found.tunnels_lost = self.pool.connections().saturating_sub(1);
        Ok(found)
    }

    async fn open(&self) -> Result<H2Stream> {
        let request = Request::builder().method(Method::CONNECT).uri(&self.authority).body(())?;
        let opened = tokio::time::timeout(PATIENCE, self.pool.open(&self.key, request));
        Ok(opened.await.context("no new connection in time")??.stream)
    }
}

async fn say(stream: &mut H2Stream) -> Result<()> {
    let talk = async {
        stream.write_all(&[7; BYTES]).await?;
        let mut answer = [0; BYTES];
        stream.read_exact(&mut answer).await?;
        Ok::<_, io::Error>(answer)
    };
    let answer = tokio::time::timeout(PATIENCE, talk).await.context("no answer in time")??;
    ensure!(answer == [7; BYTES], "the answer is not what was said");
    Ok(())
}

/// Dials from the thread's own namespace.
struct Direct {
    cert: Arc<WorkloadCert>,
    expected: Identity,
}

impl Dialer for Direct {
    type Io = tokio_rustls::client::TlsStream<TcpStream>;

    async fn dial(&self, key: &PoolKey) -> Result<Self::Io, DialError> {
        let upstream = key.upstream;
        let failed = |error: io::Error| DialError::Connect { upstream, source: Arc::new(error) };
        let tcp = TcpStream::connect(upstream).await.map_err(failed)?;
        tcp.set_nodelay(true).map_err(failed)?;
        let connecting = tls::connect(tcp, &self.cert, std::slice::from_ref(&self.expected));
        connecting.await.map_err(|error| DialError::Tls { upstream, reason: error.reason })
    }
}

const BYTES: usize = 64;
/// Between requests: the client must not be the load itself.
const PAUSE: Duration = Duration::from_millis(1);
/// Requests for each new connection: those come from one address and go to one port, and the kernel keeps each for a
/// minute after its end. Many more, and looking for a free one would be what takes the time.
const REQUESTS_A_CONNECTION: usize = 4;
/// No request of a well-behaved client may take longer, whatever others do.
const PATIENCE: Duration = Duration::from_secs(5);
