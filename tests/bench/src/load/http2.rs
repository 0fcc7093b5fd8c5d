//! HTTP/2 requests on one thread: sixteen at a time on each connection.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use tokio::net::TcpStream;
use tokio::task::LocalSet;

use super::http::Tally;
use super::{Outcome, WARM_UP, begin};
use crate::args::LoadPlan;

pub(super) async fn run(plan: &LoadPlan, server: SocketAddr) -> Result<Outcome> {
    let tally = Rc::new(Tally::default());
    let tasks = LocalSet::new();
    let run = async {
        for _ in 0..plan.connections {
            let stream = TcpStream::connect(server).await.with_context(|| format!("connecting to {server}"))?;
            stream.set_nodelay(true)?;
            let (client, connection) = h2::client::handshake(stream).await?;
            tokio::task::spawn_local(connection);
            for _ in 0..STREAMS {
                tokio::task::spawn_local(keep_asking(client.clone(), tally.clone()));
            }
        }
        tokio::time::sleep(WARM_UP).await;
        begin()?;
        let started = Instant::now();
        tally.counting.set(true);
        tokio::time::sleep(Duration::from_secs(plan.seconds)).await;
        tally.counting.set(false);
        anyhow::Ok(started.elapsed().as_secs_f64())
    };
    let seconds = tasks.run_until(run).await?;
    tally.over.set(true);
    Ok(tally.outcome(seconds))
}

async fn keep_asking(client: h2::client::SendRequest<Bytes>, tally: Rc<Tally>) {
    while !tally.over.get() {
        let started = Instant::now();
        match ask(client.clone()).await {
            Ok(()) => tally.note(started),
            Err(_) if tally.over.get() => return,
            Err(_) => {
                tally.failed.set(tally.failed.get() + 1);
                // A server that is gone must not turn this into a busy loop.
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
}

async fn ask(client: h2::client::SendRequest<Bytes>) -> Result<()> {
    let mut client = client.ready().await?;
    let request =
        http::Request::get("http://web.bench/").header("user-agent", "bench").header("accept", "*/*").body(())?;
    let (response, _) = client.send_request(request, true)?;
    let response = response.await?;
    ensure!(response.status() == 200, "not a 200");
    let mut body = response.into_body();
    while let Some(chunk) = body.data().await {
        let chunk = chunk?;
        body.flow_control().release_capacity(chunk.len())?;
    }
    Ok(())
}

/// Requests at a time on each connection.
const STREAMS: usize = 16;
