//! Proxies that end, are replaced, and lose pods: what applications notice of it.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hostile::duo::{Duo, PATIENCE, say};
use hostile::isolate::isolated_test;
use hostile::peer::{Attack, DATA, GO_AWAY, HEADERS, connect, frame};
use hostile::pod::Pod;
use hostile::proxy::Proxy;
use hostile::stage::certificate;
use nix::sys::signal::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn with_namespaces<F: Future<Output = Result<()>>>(name: &str, test: impl FnOnce() -> F) -> Result<()> {
    isolated_test(name, || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        runtime.block_on(async { tokio::time::timeout(Duration::from_secs(120), test()).await? })
    })
}

/// Connects, asks and closes again and again, from several tasks.
struct Load {
    stop: Arc<AtomicBool>,
    tasks: Vec<tokio::task::JoinHandle<(u64, BTreeMap<String, u64>)>>,
}

impl Load {
    fn start(web: &Arc<Pod>, to: std::net::SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let task = |_| {
            let (web, stop) = (web.clone(), stop.clone());
            tokio::spawn(async move {
                let (mut good, mut bad) = (0, BTreeMap::new());
                while !stop.load(Ordering::Relaxed) {
                    let asked = async {
                        let connecting = tokio::time::timeout(PATIENCE, web.connect(to, None));
                        let mut stream = connecting.await.context("not taken in time")?.context("connect")?;
                        say(&mut stream).await?;
                        stream.shutdown().await.context("finishing")?;
                        let end = stream.read(&mut [0; 1]).await.context("end")?;
                        ensure!(end == 0, "more came back than was said");
                        Ok(())
                    };
                    match asked.await {
                        Ok(()) => good += 1,
                        Err(error) => *bad.entry(format!("{error:#}")).or_default() += 1,
                    }
                }
                (good, bad)
            })
        };
        Self { tasks: (0..8).map(task).collect(), stop }
    }

    /// How many requests went well, and why others failed.
    async fn end(self) -> Result<(u64, BTreeMap<String, u64>)> {
        self.stop.store(true, Ordering::Relaxed);
        let (mut all, mut failures) = (0, BTreeMap::new());
        for task in self.tasks {
            let (good, bad) = task.await?;
            all += good;
            for (why, count) in bad {
                *failures.entry(why).or_default() += count;
            }
        }
        Ok((all, failures))
    }
}

#[test]
fn upgrades_at_a_high_rate_of_connections_refuse_nobody() -> Result<()> {
    with_namespaces("upgrades_at_a_high_rate_of_connections_refuse_nobody", || async {
        let (duo, mut old) = Duo::build().await?;
        let load = Load::start(&duo.web, duo.echo());
        let mut held = duo.connect().await?;
        say(&mut held).await?;
        drop(held);
        for generation in ["second", "third", "fourth"] {
            let new = duo.proxy(generation).await?;
            old.terminate()?;
            let status = tokio::task::block_in_place(|| old.wait(Duration::from_secs(10)))?;
            ensure!(status.success(), "{status}: {}", old.last_words());
            old = new;
        }
        let (asked, failures) = load.end().await?;
        ensure!(failures.is_empty(), "failed: {failures:?}; {}", old.last_words());
        ensure!(asked > 100, "only {asked} requests");
        Ok(())
    })
}

/// The control of the test above: the load notices when nothing is handed over.
#[test]
fn without_a_hand_over_the_same_load_is_refused() -> Result<()> {
    with_namespaces("without_a_hand_over_the_same_load_is_refused", || async {
        let (duo, mut old) = Duo::build().await?;
        let load = Load::start(&duo.web, duo.echo());
        duo.connect().await?;
        old.terminate()?;
        let status = tokio::task::block_in_place(|| old.wait(Duration::from_secs(10)))?;
        ensure!(status.success(), "{status}: {}", old.last_words());
        let _new = duo.proxy("second").await?;
        // What comes after that is served again.
        say(&mut duo.connect().await?).await?;
        let (_, failures) = load.end().await?;
        ensure!(!failures.is_empty(), "nobody noticed that there was no proxy");
        Ok(())
    })
}

#[test]
fn ops_row_20_a_transfer_in_flight_completes_and_the_proxy_ends_well() -> Result<()> {
    with_namespaces("ops_row_20_a_transfer_in_flight_completes_and_the_proxy_ends_well", || async {
        let (duo, mut proxy) = Duo::build().await?;
        let mut stream = duo.connect().await?;
        say(&mut stream).await?;
        let started = Instant::now();
        proxy.terminate()?;
        let mut ticks = tokio::time::interval(Duration::from_millis(50));
        while started.elapsed() < Duration::from_secs(3) {
            ticks.tick().await;
            say(&mut stream).await.context("in the middle of the drain")?;
        }
        let refused = duo.connect().await;
        ensure!(refused.is_err(), "a new connection was taken long after the end had begun");
        stream.shutdown().await?;
        ensure!(stream.read(&mut [0; 1]).await? == 0, "no orderly end");
        let status = tokio::task::block_in_place(|| proxy.wait(Duration::from_secs(2)))?;
        ensure!(status.success(), "{status}");
        ensure!(started.elapsed() < Duration::from_secs(5), "waited for the deadline, though nothing was open");
        ensure!(!proxy.log()?.contains("closed by drain"), "{}", proxy.last_words());
        Ok(())
    })
}

#[test]
fn what_outlives_the_deadline_is_closed_with_a_reason() -> Result<()> {
    with_namespaces("what_outlives_the_deadline_is_closed_with_a_reason", || async {
        let (duo, mut proxy) = Duo::build().await?;
        let mut stream = duo.connect().await?;
        say(&mut stream).await?;
        let started = Instant::now();
        proxy.terminate()?;
        let end = tokio::time::timeout(PATIENCE, stream.read(&mut [0; 1])).await.context("never closed")?;
        ensure!(end.unwrap_or(0) == 0);
        let waited = started.elapsed().as_secs_f64();
        ensure!((4.5..7.0).contains(&waited), "closed after {waited} s, with a deadline of 5 s");
        let status = tokio::task::block_in_place(|| proxy.wait(Duration::from_secs(3)))?;
        ensure!(status.success(), "{status}");
        let log = proxy.log()?;
        // Whichever end is cut first; the other sees its peer go.
        ensure!(log.contains("closed by drain"), "no reason: {}", proxy.last_words());
        Ok(())
    })
}

#[test]
fn hbone_row_10_goaway_lets_the_open_stream_finish() -> Result<()> {
    with_namespaces("hbone_row_10_goaway_lets_the_open_stream_finish", || async {
        let (duo, mut proxy) = Duo::build().await?;
        let attack = Attack {
            upstream: (duo.shop.ip, 15008).into(),
            expected: duo.shop.identity(),
            cert: certificate(duo.web.identity()).await?,
            crowd: vec![],
        };
        let authority = duo.echo().to_string();
        let (told, begun) = std::sync::mpsc::sync_channel(1);
        let (go_on, ended) = std::sync::mpsc::sync_channel(1);
        // From outside of the pods' redirection: a peer that is no proxy.
        let outside = duo.outsider()?;
        let client = outside.spawn(move || async move {
            let mut peer = attack.opened(0, &[]).await?;
            peer.send_only(&connect(1, &authority, &[])).await?;
            while peer.next_frame().await?.0 != HEADERS {}
            told.send(())?;
            while peer.next_frame().await?.0 != GO_AWAY {}
            peer.send_only(&frame(DATA, 0, 1, b"still there?")).await?;
            loop {
                let (kind, payload) = peer.next_frame().await?;
                if kind == DATA && payload == b"still there?" {
                    break;
                }
            }
            peer.send_only(&frame(DATA, 1, 1, b"")).await?;
            go_on.send(())?;
            // The end of the stream, then of the connection.
            while peer.next_frame().await.is_ok() {}
            anyhow::Ok(())
        });
        tokio::task::block_in_place(|| begun.recv_timeout(PATIENCE)).context("no stream")?;
        proxy.terminate()?;
        tokio::task::block_in_place(|| ended.recv_timeout(PATIENCE)).context("the stream did not go on")?;
        let status = tokio::task::block_in_place(|| proxy.wait(Duration::from_secs(4)))?;
        ensure!(status.success(), "{status}");
        client.join().map_err(|_| anyhow::anyhow!("the client panicked"))?
    })
}

#[test]
fn zds_row_15_a_deleted_pod_s_connections_are_cut_at_once_with_a_reason() -> Result<()> {
    with_namespaces("zds_row_15_a_deleted_pod_s_connections_are_cut_at_once_with_a_reason", || async {
        let (duo, proxy) = Duo::build().await?;
        let mut stream = duo.connect().await?;
        say(&mut stream).await?;
        let started = Instant::now();
        ensure!(duo.agent.delete(&duo.shop).await == 1, "not acknowledged");
        let end = tokio::time::timeout(PATIENCE, stream.read(&mut [0; 1])).await.context("never cut")?;
        ensure!(end.unwrap_or(0) == 0);
        ensure!(started.elapsed() < Duration::from_secs(2), "cut after {:?}", started.elapsed());
        logged(&proxy, "direction=inbound", "closed by drain")
    })
}

#[test]
fn zds_row_16_a_proxy_that_does_not_answer_does_not_keep_the_newer_from_stopping() -> Result<()> {
    let name = "zds_row_16_a_proxy_that_does_not_answer_does_not_keep_the_newer_from_stopping";
    with_namespaces(name, || async {
        let (duo, old) = Duo::build().await?;
        let new = duo.proxy("second").await?;
        duo.agent.served(2).await?;
        old.signal(Signal::SIGSTOP)?;
        let started = Instant::now();
        let acknowledged = duo.agent.delete(&duo.shop).await;
        ensure!(acknowledged == 1, "{acknowledged} proxies acknowledged");
        ensure!(started.elapsed() >= Duration::from_secs(5), "gave up early");
        let (_, dump) = new.get(15000, "/config_dump")?;
        let dump: serde_json::Value = serde_json::from_str(&dump)?;
        let pods = dump.get("workloadState").and_then(serde_json::Value::as_object).context("no workloadState")?;
        ensure!(pods.len() == 1 && pods.contains_key("uid-of-web"), "the newer proxy serves {:?}", pods.keys());
        // Both connections are kept: what comes next reaches both again.
        old.signal(Signal::SIGCONT)?;
        duo.agent.settle().await?;
        ensure!(duo.agent.delete(&duo.web).await == 2, "a connection was given up");
        Ok(())
    })
}

fn logged(proxy: &Proxy, one: &str, other: &str) -> Result<()> {
    tests_support::eventually("the log says why", PATIENCE, || {
        let log = proxy.log()?;
        ensure!(log.lines().any(|line| line.contains(one) && line.contains(other)), "{}", proxy.last_words());
        Ok(())
    })
}
