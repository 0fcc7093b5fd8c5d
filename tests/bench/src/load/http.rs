//! HTTP requests on one thread: on connections that stay, or on a new one each.

use std::cell::{Cell, RefCell};
use std::io::Read;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::LocalSet;

use super::{Outcome, WARM_UP, begin};
use crate::args::{LoadPlan, Shape};

/// What all connections share.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) counting: Cell<bool>,
    pub(super) over: Cell<bool>,
    pub(super) failed: Cell<u64>,
    took_ns: RefCell<Vec<u32>>,
}

impl Tally {
    pub(super) fn note(&self, started: Instant) {
        if self.counting.get() {
            self.took_ns.borrow_mut().push(u32::try_from(started.elapsed().as_nanos()).unwrap_or(u32::MAX));
        }
    }

    pub(super) fn outcome(&self, seconds: f64) -> Outcome {
        let mut took = self.took_ns.borrow_mut();
        took.sort_unstable();
        let at = |thousandth: usize| {
            let index = (took.len() * thousandth / 1000).min(took.len().saturating_sub(1));
            f64::from(took.get(index).copied().unwrap_or_default()) / 1000.0
        };
        let (p50_us, p99_us, p999_us) = (at(500), at(990), at(999));
        Outcome { units: took.len() as u64, seconds, p50_us, p99_us, p999_us, failed: self.failed.get() }
    }
}

pub(super) async fn run(plan: &LoadPlan) -> Result<Outcome> {
    let server = SocketAddr::new(plan.server.ip(), plan.port);
    if plan.shape == Shape::Hold {
        return hold(server, plan.connections).await;
    }
    let tally = Rc::new(Tally::default());
    let tasks = LocalSet::new();
    for _ in 0..plan.connections {
        let (tally, shape) = (tally.clone(), plan.shape);
        tasks.spawn_local(async move {
            while !tally.over.get() {
                let done = match shape {
                    Shape::Connect => connect_each_time(server, &tally).await,
                    _ => keep_asking(server, &tally).await,
                };
                if done.is_err() && !tally.over.get() {
                    tally.failed.set(tally.failed.get() + 1);
                    // A server that is gone must not turn this into a busy loop.
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        });
    }
    let seconds = tasks.run_until(async {
        tokio::time::sleep(WARM_UP).await;
        begin()?;
        let started = Instant::now();
        tally.counting.set(true);
        tokio::time::sleep(Duration::from_secs(plan.seconds)).await;
        tally.counting.set(false);
        anyhow::Ok(started.elapsed().as_secs_f64())
    });
    let seconds = seconds.await?;
    tally.over.set(true);
    Ok(tally.outcome(seconds))
}

async fn keep_asking(server: SocketAddr, tally: &Tally) -> Result<()> {
    let mut stream = connect(server).await?;
    let mut buffer = [0; ANSWER_BYTES_MAX];
    while !tally.over.get() {
        let started = Instant::now();
        ask(&mut stream, &mut buffer).await?;
        tally.note(started);
    }
    Ok(())
}

/// One request, until its answer is complete: the server's answers are of one length.
async fn ask(stream: &mut TcpStream, buffer: &mut [u8]) -> Result<()> {
    stream.write_all(REQUEST).await?;
    let mut filled = 0;
    loop {
        let count = stream.read(buffer.get_mut(filled..).unwrap_or_default()).await?;
        ensure!(count > 0, "the server closed the connection");
        filled += count;
        let answer = buffer.get(..filled).unwrap_or_default();
        if let Some(head) = answer.windows(4).position(|window| window == b"\r\n\r\n")
            && filled >= head + 4 + BODY_BYTES
        {
            ensure!(answer.starts_with(b"HTTP/1.1 200"), "not a 200");
            return Ok(());
        }
    }
}

/// From connect to the end of the answer, which is the end of the connection.
async fn connect_each_time(server: SocketAddr, tally: &Tally) -> Result<()> {
    let started = Instant::now();
    let mut stream = connect(server).await?;
    stream.write_all(LAST_REQUEST).await?;
    let mut buffer = [0; ANSWER_BYTES_MAX];
    let mut total = 0;
    loop {
        let count = stream.read(&mut buffer).await?;
        if count == 0 {
            break;
        }
        total += count;
    }
    ensure!(total > BODY_BYTES, "{total} bytes are no answer");
    tally.note(started);
    Ok(())
}

async fn hold(server: SocketAddr, connections: usize) -> Result<Outcome> {
    let mut held = Vec::with_capacity(connections);
    for _ in 0..connections {
        let mut stream = connect(server).await?;
        ask(&mut stream, &mut [0; ANSWER_BYTES_MAX]).await?;
        held.push(stream);
    }
    begin()?;
    // The bench closes it when it has seen enough; the connections need no care until then.
    std::io::stdin().read_to_end(&mut Vec::new()).context("waiting for the bench")?;
    Ok(Outcome { units: held.len() as u64, ..Outcome::default() })
}

async fn connect(server: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect(server).await.with_context(|| format!("connecting to {server}"))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: web.bench\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n";
const LAST_REQUEST: &[u8] =
    b"GET / HTTP/1.1\r\nHost: web.bench\r\nUser-Agent: bench\r\nAccept: */*\r\nConnection: close\r\n\r\n";
const BODY_BYTES: usize = 128;
const ANSWER_BYTES_MAX: usize = 1024;
