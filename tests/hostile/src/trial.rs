//! An attack, and what a well-behaved client notices before, during and after it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use mesh_identity::WorkloadCert;
use mesh_sys::process::work_in_background;

use crate::floods::{Flood, Progress};
use crate::good::{Client, Found};
use crate::measure::{Latencies, bearable, typical_p99};
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
    /// Before and after, window by window.
    pub undisturbed: Vec<Found>,
    /// During.
    pub disturbed: Vec<Found>,
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

    /// One attack of `duration`, between two times of peace of about half that length each.
    ///
    /// # Errors
    /// A request of the well-behaved client failed, or the proxy is gone.
    pub async fn attack(&mut self, flood: Flood, duration: Duration) -> Result<Row> {
        let window = duration / WINDOWS;
        let logged_before = self.stage.proxy.log()?.len();
        let before = self.stage.proxy.footprint()?;
        let mut undisturbed = self.windows(WINDOWS_BEFORE, window).await?;
        let progress = Progress::default();
        let attack = Attack {
            upstream: (self.stage.target.ip, 15008).into(),
            expected: self.stage.target.identity(),
            cert: self.cert.clone(),
            crowd: self.stage.crowd.clone(),
        };
        let (run, told) = (flood, progress.clone());
        let attacker = self.stage.mallory.spawn(move || async move {
            // Hostile peers are on other machines: what they compute must not slow down this one.
            work_in_background()?;
            run.run(attack, told).await;
            anyhow::Ok(())
        });
        let watch = Watch::start(&self.stage, before);
        let disturbed = self.windows(WINDOWS, window).await;
        let grown_bytes = watch.end();
        progress.stop();
        let attacked = tokio::task::spawn_blocking(move || attacker.join());
        attacked.await?.map_err(|_| anyhow::anyhow!("the attacker panicked"))??;
        let disturbed = disturbed.context("during the attack")?;
        let left = self.settle(before).await?;
        undisturbed.extend(self.windows(WINDOWS - WINDOWS_BEFORE, window).await.context("after the attack")?);
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

    async fn windows(&self, count: u32, each: Duration) -> Result<Vec<Found>> {
        let mut found = Vec::new();
        for _ in 0..count {
            found.push(self.good.measure(each).await?);
        }
        Ok(found)
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
        for (what, undisturbed, disturbed) in self.p99s() {
            if !bearable(undisturbed, disturbed, FLOOR) {
                faults.push(format!("{what}s took more than twice as long"));
            }
        }
        if self.disturbed.iter().any(|window| window.tunnels_lost > 0) {
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

    /// What was measured, in peace, and under attack.
    fn p99s(&self) -> [(&'static str, Duration, Duration); 2] {
        let of = |windows: &[Found], kind: fn(&Found) -> &Latencies| typical_p99(windows.iter().map(kind));
        let requests: fn(&Found) -> &Latencies = |found| &found.requests;
        let connections: fn(&Found) -> &Latencies = |found| &found.connections;
        [("request", requests), ("new connection", connections)]
            .map(|(what, kind)| (what, of(&self.undisturbed, kind), of(&self.disturbed, kind)))
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<28} {:>7} rounds   p99 ms:", self.flood.name, self.rounds)?;
        for (what, undisturbed, disturbed) in self.p99s() {
            let ms = |p99: Duration| p99.as_secs_f64() * 1e3;
            let ratio = ms(disturbed) / ms(undisturbed);
            write!(f, " {what} {:>6.2} -> {:>6.2} ({ratio:>4.1}x)  ", ms(undisturbed), ms(disturbed))?;
        }
        let verdict = if self.faults.is_empty() { "ok".to_owned() } else { self.faults.join("; ") };
        write!(f, " memory +{:>3} of {:>3} MB   {verdict}", self.grown_bytes >> 20, self.flood.memory_bytes >> 20)
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

/// Windows of an attack, and of the peace around it.
const WINDOWS: u32 = 5;
/// Those of peace that come before.
const WINDOWS_BEFORE: u32 = 3;
/// How long the proxy may take to let go of an attack: as long as a broken connection may wait for its other side, and
/// more.
const SETTLE: Duration = Duration::from_secs(20);
/// Descriptors that come and go with the well-behaved client.
const DESCRIPTORS_SLACK: u64 = 8;
/// A 99th percentile below this is no fault, even if that of peace is less than half of it: such a difference is within
/// what the scheduler of a small machine does. A proxy that is not optimised computes many times longer.
pub const FLOOR: Duration = if cfg!(debug_assertions) { Duration::from_millis(250) } else { Duration::from_millis(1) };
