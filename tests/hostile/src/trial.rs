//! An attack, and what a well-behaved client notices before, during and after it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use mesh_identity::WorkloadCert;

use crate::floods::{Flood, Progress};
use crate::good::{Client, Found};
use crate::measure::{Latencies, bearable};
use crate::peer::Attack;
use crate::proxy::Footprint;
use crate::stage::{Stage, certificate};

/// A stage with its well-behaved client at work.
pub struct Trial {
    stage: Stage,
    good: Client,
    cert: Arc<WorkloadCert>,
}

/// What came of one attack.
#[derive(Debug)]
pub struct Row {
    /// Which.
    pub flood: Flood,
    /// How often it began anew, or went on.
    pub rounds: u64,
    /// Before and after.
    pub undisturbed: Found,
    /// During.
    pub disturbed: Found,
    /// Most resident memory beyond what there was before.
    pub grown_bytes: u64,
    /// What must not be.
    pub faults: Vec<String>,
}

impl Trial {
    /// Sets the stage. Needs a runtime of several threads, and privilege.
    ///
    /// # Errors
    /// What did not start.
    pub async fn begin() -> Result<Self> {
        let stage = Stage::build().await?;
        let cert = certificate(stage.mallory.identity()).await?;
        let good = Client::start(&stage.web, &stage.shop);
        // The first connections make what later ones use again.
        good.measure(Duration::from_millis(500)).await.map_err(|error| error.context(stage.proxy.last_words()))?;
        Ok(Self { stage, good, cert })
    }

    /// One attack of `duration`, between two times of peace of half that length each.
    ///
    /// # Errors
    /// A request of the well-behaved client failed, or the proxy is gone.
    pub async fn attack(&mut self, flood: Flood, duration: Duration) -> Result<Row> {
        let peace = (duration / 2).max(PEACE_MIN);
        let logged_before = self.stage.proxy.log()?.len();
        let before = self.stage.proxy.footprint()?;
        let mut undisturbed = self.good.measure(peace).await?;
        let progress = Progress::default();
        let attack = Attack {
            upstream: (self.stage.target.ip, 15008).into(),
            expected: self.stage.target.identity(),
            cert: self.cert.clone(),
            crowd: self.stage.crowd.clone(),
        };
        let (run, told) = (flood, progress.clone());
        let attacker = self.stage.mallory.spawn(move || async move {
            run.run(attack, told).await;
            anyhow::Ok(())
        });
        let watch = Watch::start(&self.stage, before);
        let disturbed = self.good.measure(duration).await;
        let grown_bytes = watch.end();
        progress.stop();
        let attacked = tokio::task::spawn_blocking(move || attacker.join());
        attacked.await?.map_err(|_| anyhow::anyhow!("the attacker panicked"))??;
        let disturbed = disturbed.context("during the attack")?;
        let left = self.settle(before).await?;
        let after = self.good.measure(peace).await.context("after the attack")?;
        undisturbed.requests.extend(&after.requests);
        undisturbed.connections.extend(&after.connections);
        let log = self.stage.proxy.log()?;
        let mut row = Row { flood, rounds: progress.rounds(), undisturbed, disturbed, grown_bytes, faults: Vec::new() };
        row.judge(log.get(logged_before..).unwrap_or_default(), before, left);
        Ok(row)
    }

    /// [`Trial::attack`], again if it had faults, at most `tries` times: what the machine does meanwhile does not happen
    /// each time, what the proxy does wrong does.
    ///
    /// # Errors
    /// As [`Trial::attack`].
    pub async fn attack_again(&mut self, flood: Flood, duration: Duration, tries: usize) -> Result<Row> {
        let mut row = self.attack(flood, duration).await?;
        for _ in 1..tries {
            if row.faults.is_empty() {
                break;
            }
            row = self.attack(flood, duration).await?;
        }
        Ok(row)
    }

    /// Waits until the attack's descriptors are closed, and tells what the proxy takes then.
    async fn settle(&self, before: Footprint) -> Result<Footprint> {
        let deadline = Instant::now() + SETTLE;
        loop {
            let now = self.stage.proxy.footprint()?;
            if now.descriptors <= before.descriptors + DESCRIPTORS_SLACK || Instant::now() >= deadline {
                return Ok(now);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Row {
    fn judge(&mut self, log: &str, before: Footprint, left: Footprint) {
        let mut faults = Vec::new();
        if self.rounds == 0 {
            faults.push("nothing was attacked".to_owned());
        }
        let pairs = [
            ("requests", &self.undisturbed.requests, &self.disturbed.requests),
            ("new connections", &self.undisturbed.connections, &self.disturbed.connections),
        ];
        for (what, undisturbed, disturbed) in pairs {
            if !bearable(undisturbed, disturbed, FLOOR) {
                faults.push(format!("{what} took more than twice as long"));
            }
        }
        if self.disturbed.tunnels_lost > 0 {
            faults.push("the well-behaved client lost its tunnel".to_owned());
        }
        if self.grown_bytes > self.flood.memory_bytes {
            faults.push(format!("memory grew by more than {} MB", self.flood.memory_bytes >> 20));
        }
        if left.descriptors > before.descriptors + DESCRIPTORS_SLACK {
            faults.push(format!("{} descriptors before, {} left", before.descriptors, left.descriptors));
        }
        if let Some(words) = self.flood.logged
            && !log.contains(words)
        {
            faults.push(format!("the log does not say {words:?}"));
        }
        if log.contains("panicked") {
            faults.push("a task of the proxy panicked".to_owned());
        }
        self.faults = faults;
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let p99 = |latencies: &Latencies| latencies.percentile(99).as_micros();
        write!(
            f,
            "{:<30} {:>7} rounds   p99 us: request {:>6} -> {:>6}, new connection {:>6} -> {:>6}   memory +{:>3} MB   {}",
            self.flood.name,
            self.rounds,
            p99(&self.undisturbed.requests),
            p99(&self.disturbed.requests),
            p99(&self.undisturbed.connections),
            p99(&self.disturbed.connections),
            self.grown_bytes >> 20,
            if self.faults.is_empty() { "ok".to_owned() } else { self.faults.join("; ") },
        )
    }
}

/// Looks at the proxy's memory now and then.
struct Watch {
    stop: Arc<AtomicBool>,
    most: Arc<AtomicU64>,
    before: Footprint,
}

impl Watch {
    fn start(stage: &Stage, before: Footprint) -> Self {
        let (stop, most) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (told, seen, process) = (stop.clone(), most.clone(), stage.proxy.watcher());
        std::thread::spawn(move || {
            while !told.load(Ordering::Relaxed) {
                if let Ok(now) = process.footprint() {
                    seen.fetch_max(now.rss_bytes, Ordering::Relaxed);
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        Self { stop, most, before }
    }

    fn end(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.most.load(Ordering::Relaxed).saturating_sub(self.before.rss_bytes)
    }
}

/// Shorter times of peace hold too few requests for a 99th percentile.
const PEACE_MIN: Duration = Duration::from_millis(500);
/// How long the proxy may take to let go of an attack: as long as a broken connection may wait for its other side, and
/// more.
const SETTLE: Duration = Duration::from_secs(20);
/// Descriptors that come and go with the well-behaved client.
const DESCRIPTORS_SLACK: u64 = 8;
/// Latencies below this are the scheduler's: on a machine of two cores the attacker, the applications and the client
/// compete with the proxy, which costs many times more when it is not optimised.
const FLOOR: Duration = if cfg!(debug_assertions) { Duration::from_millis(250) } else { Duration::from_millis(8) };
