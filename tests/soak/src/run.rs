//! From before the load to after it.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::sync::watch;

use hostile::proxy::{Proxy, STATS_PORT};

use crate::change::keep_changing;
use crate::load::{Notes, come_and_go, stay};
use crate::plan::Plan;
use crate::summary::{Summary, Usage, Users};
use crate::town::Town;

/// Runs it all. Needs a runtime of several threads, and privilege.
///
/// # Errors
/// What could not be set up, or be looked at; what went wrong with the proxies is in the summary.
pub async fn run(plan: Plan) -> Result<Summary> {
    let town = Town::build(&plan).await?;
    let notes = Notes::default();
    // Idle means: at rest, some connections after its start, for as long as after the load, so that what the start took is
    // given back too. Before its first connection a proxy is smaller, but that is no state it comes back to: code that
    // was read, certificates and first buffers are not a leak. Far below the load, lest the allowance grow with that.
    let warm = exercise(&town, Plan { duration: WARM_UP, held: plan.held.min(WARM_HELD), ..plan }, &notes).await;
    warm.context("warming up")?;
    tokio::time::sleep(plan.rest).await;
    let idle = usage(&town)?;
    let notes = Notes::default();
    let (changed, busy) = exercise(&town, plan, &notes).await?;
    tokio::time::sleep(plan.rest).await;
    let mut left = usage(&town)?;
    // Memory counts as it is now; the last of anything else may take a moment longer, a leak stays.
    let deadline = tokio::time::Instant::now() + SETTLE;
    while left.holds_more_than(&idle) && tokio::time::Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(200)).await;
        left = left.with_held_of(&usage(&town)?);
    }
    let log = town.near.proxy.log()? + &town.far.proxy.log()?;
    let (said, rejected) = town.control.counts();
    let (noticed, panics) = (notes.all(), log.matches("panicked").count());
    Ok(Summary { plan, noticed, changed, said, rejected, idle, busy, left, panics, errors: errors(&log) })
}

/// Load and change for the plan's time. Yields what changed, and what the proxies took just before the end.
async fn exercise(town: &Town, plan: Plan, notes: &Notes) -> Result<(crate::change::Changed, Usage)> {
    let (stop, stopped) = watch::channel(false);
    let clients = town.near.pods.clone();
    let coming =
        tokio::spawn(come_and_go(clients.clone(), plan.connections_per_second, notes.clone(), stopped.clone()));
    let servers = town.far.pods.iter().map(|pod| pod.ip).collect();
    let staying = tokio::spawn(stay((clients, servers), plan.held, notes.clone(), stopped.clone()));
    let timer = async {
        tokio::time::sleep(plan.duration).await;
        let busy = usage(town);
        stop.send_replace(true);
        busy
    };
    let (changed, busy) = tokio::join!(keep_changing(town, stopped), timer);
    coming.await?;
    staying.await?;
    Ok((changed?, busy?))
}

fn usage(town: &Town) -> Result<Usage> {
    Ok(Usage { near: users(&town.near.proxy)?, far: users(&town.far.proxy)? })
}

fn users(proxy: &Proxy) -> Result<Users> {
    // First: an answer takes memory itself, the more the more series there are.
    let footprint = proxy.footprint()?;
    let (_, metrics) = proxy.get(STATS_PORT, "/metrics")?;
    let tasks = metrics.lines().filter(|line| line.starts_with("ztunnel_runtime_alive_tasks{"));
    let tasks = tasks.filter_map(|line| line.rsplit(' ').next()).filter_map(|value| value.parse::<u64>().ok()).sum();
    let series = metrics.lines().filter(|line| !line.starts_with('#')).count() as u64;
    Ok(Users { footprint, tasks, series })
}

/// Applications on both ends of every connection live in this process.
///
/// # Errors
/// As the system gives them.
pub fn raise_descriptor_limit() -> Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?)
}

/// What the proxies gave as reasons, most frequent first, numbers of addresses and the like left out.
fn errors(log: &str) -> Vec<String> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for (_, error) in log.lines().filter_map(|line| line.split_once("error=")) {
        let words: String = error.chars().filter(|c| !c.is_ascii_digit()).take(120).collect();
        *counts.entry(words).or_default() += 1;
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    counts.into_iter().take(10).map(|(words, count)| format!("{count} times {words}")).collect()
}

/// For connections that are closing when they are counted.
const SETTLE: Duration = Duration::from_secs(10);
const WARM_UP: Duration = Duration::from_secs(5);
const WARM_HELD: usize = 50;
