//! Proxies that misbehave, and many that come at once.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use faults::ads::{Manner, Proxy};
use faults::objects::PodId;
use faults::plane::Options;
use faults::process::{peak_kb, raise_file_limit, resident_kb};
use faults::wait::eventually;
use faults::{Crowd, Mirror, Stage};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_that_never_accepts_anything_holds_up_nobody() -> Result<()> {
    let mut stage = Stage::set(PODS, &Options::default()).await?;
    let silent: Vec<_> = (10..20)
        .map(|number| Mirror::start(Proxy { manner: Manner::Silent, ..Proxy::reader(number) }, &stage.target))
        .collect();
    // Connected, and never read from.
    let deaf = Proxy::reader(20).connect(&stage.target).await?;
    let slowest = others_hear(&mut stage).await?;
    println!("slowest change with proxies that answer nothing: {slowest:?}");
    ensure!(silent.iter().all(|one| one.known().streams <= 1), "a silent proxy was cut");
    drop(deaf);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_that_refuses_everything_is_counted_and_told_once() -> Result<()> {
    let mut stage = Stage::set(PODS, &Options::default()).await?;
    let mut refusing = Mirror::start(Proxy { manner: Manner::Refuses, ..Proxy::reader(30) }, &stage.target);
    let name = stage.size.uid(PodId(0));
    refusing.wait("the first answer", RECOVERY, |known| known.version(&name).is_some()).await?;
    let before = (refusing.known().responses, stage.mirror.known().responses);
    let slowest = others_hear(&mut stage).await?;
    println!("slowest change with a proxy that refuses everything: {slowest:?}");
    let after = (refusing.known().responses, stage.mirror.known().responses);
    let (refused, accepted) = (after.0 - before.0, after.1 - before.1);
    ensure!(refused <= accepted + 1, "{refused} responses to who refuses, {accepted} to who accepts");
    let counted = stage.plane.metric("pilot_total_xds_rejects", "").await?;
    ensure!(counted >= refused as f64, "{counted} refusals counted of {refused}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_proxies_that_lose_their_control_plane_are_back_within_seconds_of_its_return() -> Result<()> {
    raise_file_limit()?;
    let env = vec![("PILOT_MAX_REQUESTS_PER_SECOND", "250".to_owned())];
    let mut stage = Stage::set(FEW_PODS, &Options { program: None, env }).await?;
    let alone_kb = resident_kb(stage.plane.pid())?;
    let crowd = Crowd::start(&stage.target, stage.size, CROWD);
    crowd.synced(CROWD_RECOVERY).await?;
    let before_kb = resident_kb(stage.plane.pid())?;
    let ended = crowd.ended();
    stage.plane.restart()?;
    let ready = stage.plane.await_ready(RECOVERY).await?;
    let started = Instant::now();
    eventually("all have lost it", RECOVERY, async || {
        let lost = crowd.ended() - ended;
        ensure!(lost >= CROWD as u64, "{lost} have");
        Ok(())
    })
    .await?;
    crowd.synced(CROWD_RECOVERY).await?;
    let recovered = started.elapsed();
    let (after_kb, peak_kb) = (resident_kb(stage.plane.pid())?, peak_kb(stage.plane.pid())?);
    println!(
        "ready {ready:?} after the restart, all {CROWD} proxies served {recovered:?} after that; {} MB without them, {} MB \
         before the restart, {} MB now, {} MB at most",
        alone_kb / 1024,
        before_kb / 1024,
        after_kb / 1024,
        peak_kb / 1024
    );
    let most_kb = alone_kb + CROWD as u64 * PROXY_KB_MAX;
    ensure!(peak_kb < most_kb, "{peak_kb} kB while all came back at once, more than {most_kb} kB");
    crowd.change(&stage.cluster, 0)?;
    let landed = crowd.landed(RECOVERY).await?;
    println!("a change was told to all of them within {:?}", landed.first().and_then(faults::crowd::Landed::last));
    Ok(())
}

/// Changes some pods and tells how long the slowest took to reach a good proxy.
async fn others_hear(stage: &mut Stage) -> Result<Duration> {
    let before_kb = resident_kb(stage.plane.pid())?;
    let mut slowest = Duration::ZERO;
    for number in 0..CHANGES {
        let took = stage.hear_of(PodId(number), false, RECOVERY).await?;
        slowest = slowest.max(took);
    }
    let grown_mb = resident_kb(stage.plane.pid())?.saturating_sub(before_kb) / 1024;
    ensure!(grown_mb < GROWTH_MB_MAX, "memory grew by {grown_mb} MB");
    Ok(slowest)
}

const PODS: usize = 300;
/// A thousand proxies are what costs.
const FEW_PODS: usize = 60;
const CHANGES: usize = 50;
const CROWD: usize = 1_000;
const RECOVERY: Duration = Duration::from_secs(15);
/// In a debug build and beside other tests, a thousand handshakes take most of it.
const CROWD_RECOVERY: Duration = Duration::from_secs(60);
/// What one of a crowd may cost at the worst moment.
const PROXY_KB_MAX: u64 = 256;
const GROWTH_MB_MAX: u64 = 50;
