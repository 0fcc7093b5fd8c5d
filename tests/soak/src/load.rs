//! Applications: some connect anew for each request, some stay.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;

use hostile::measure::Latencies;
use hostile::pod::{ECHO_PORT, Pod};

use crate::control::{SERVICE_PORT, VIP};

/// What the applications noticed.
#[derive(Debug, Clone, Default)]
pub struct Noticed {
    /// Connections that were opened for one request.
    pub connections: Latencies,
    /// Requests on connections that stay.
    pub requests: u64,
    /// Failures, by what was said.
    pub failures: BTreeMap<String, u64>,
}

/// Where applications report to.
#[derive(Debug, Clone, Default)]
pub struct Notes(Arc<Mutex<Noticed>>);

impl Notes {
    /// All so far.
    #[must_use]
    pub fn all(&self) -> Noticed {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, what: impl FnOnce(&mut Noticed)) {
        what(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn failed(&self, error: &anyhow::Error) {
        self.note(|noticed| *noticed.failures.entry(format!("{error:#}")).or_default() += 1);
    }
}

/// Opens `per_second` connections until told to stop, then waits for the last.
pub async fn come_and_go(pods: Vec<Arc<Pod>>, per_second: u32, notes: Notes, mut stop: watch::Receiver<bool>) {
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / per_second.max(1));
    let mut running = JoinSet::new();
    for pod in pods.iter().cycle() {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = stop.wait_for(|stop| *stop) => break,
        }
        while running.try_join_next().is_some() {}
        let (pod, notes) = (pod.clone(), notes.clone());
        running.spawn(async move {
            let started = Instant::now();
            match visit(&pod).await {
                Ok(()) => notes.note(|noticed| noticed.connections.push(started.elapsed())),
                Err(error) => notes.failed(&error.context("new connection")),
            }
        });
    }
    while running.join_next().await.is_some() {}
}

/// Opens `count` connections, from each of `pods` in turn to each of `servers`, which stay as well, and talks on each now
/// and then, until told to stop.
pub async fn stay(
    (pods, servers): (Vec<Arc<Pod>>, Vec<IpAddr>),
    count: usize,
    notes: Notes,
    stop: watch::Receiver<bool>,
) {
    let mut running = JoinSet::new();
    // Shifted by one each round, so that every client meets every server.
    let pairs = (0..).flat_map(|round| pods.iter().zip(servers.iter().cycle().skip(round % servers.len().max(1))));
    for (nth, (pod, server)) in pairs.take(count).enumerate() {
        let stream = match connect(pod, SocketAddr::new(*server, ECHO_PORT)).await {
            Ok(stream) => stream,
            Err(error) => {
                notes.failed(&error.context("connection that was to stay"));
                continue;
            }
        };
        let (notes, stop) = (notes.clone(), stop.clone());
        running.spawn(async move {
            if let Err(error) = talk(stream, nth, &notes, stop).await {
                notes.failed(&error.context("connection that stays"));
            }
        });
    }
    while running.join_next().await.is_some() {}
}

async fn visit(pod: &Pod) -> Result<()> {
    let mut stream = connect(pod, (VIP, SERVICE_PORT).into()).await?;
    say(&mut stream, 100).await?;
    stream.shutdown().await.context("finishing")?;
    let mut rest = [0; 1];
    let end = tokio::time::timeout(PATIENCE, stream.read(&mut rest)).await.context("no end in time")?;
    ensure!(end.context("end")? == 0, "more came back than was said");
    Ok(())
}

async fn talk(mut stream: TcpStream, nth: usize, notes: &Notes, mut stop: watch::Receiver<bool>) -> Result<()> {
    // Spread over the interval.
    let first = TALK_EVERY.mul_f64((nth % 97) as f64 / 97.0);
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + first, TALK_EVERY);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = stop.wait_for(|stop| *stop) => return Ok(()),
        }
        say(&mut stream, 10).await?;
        notes.note(|noticed| noticed.requests += 1);
    }
}

async fn connect(pod: &Pod, to: SocketAddr) -> Result<TcpStream> {
    let connecting = pod.connect(to, None);
    tokio::time::timeout(PATIENCE, connecting).await.context("not connected in time")?.context("connect")
}

async fn say(stream: &mut TcpStream, bytes: usize) -> Result<()> {
    let said = vec![7; bytes];
    let mut answer = vec![0; bytes];
    let talk = async {
        stream.write_all(&said).await.context("writing")?;
        stream.read_exact(&mut answer).await.context("reading")
    };
    tokio::time::timeout(PATIENCE, talk).await.context("no answer in time")??;
    ensure!(answer == said, "the answer is not what was said");
    Ok(())
}

const PATIENCE: Duration = Duration::from_secs(10);
const TALK_EVERY: Duration = Duration::from_secs(10);
