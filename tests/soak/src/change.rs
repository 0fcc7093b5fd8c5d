//! What changes every second: endpoints, policies, pods.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rand::Rng;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use hostile::pod::Pod;

use crate::control::Seen;
use crate::town::Town;

/// How much changed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Changed {
    /// Pods that came.
    pub came: u64,
    /// Pods that went.
    pub went: u64,
    /// Changes of who serves.
    pub endpoints: u64,
    /// Changes of policy.
    pub policies: u64,
}

/// Changes something of everything each second, until told to stop; then takes away the pods that came.
///
/// # Errors
/// A proxy refused a pod.
pub async fn keep_changing(town: &Town, mut stop: watch::Receiver<bool>) -> Result<Changed> {
    let mut changed = Changed::default();
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    // A guest has a whole second between leaving the service and its end, however slow the machine is.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut guests: VecDeque<Arc<Pod>> = VecDeque::new();
    for second in 0_u64.. {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = stop.wait_for(|stop| *stop) => break,
        }
        shift_endpoints(town, second);
        changed.endpoints += 1;
        town.control.deny(&format!("policy-{}", second % POLICIES), &format!("nobody-{second}"));
        changed.policies += 1;
        guests.push_back(invite(town).await?);
        changed.came += 1;
        if guests.len() > GUESTS
            && let Some(guest) = guests.pop_front()
        {
            dismiss(town, &guest).await?;
            changed.went += 1;
        }
        // Those who go soon leave the service some seconds before, as a terminating pod does.
        let soon = guests.iter().take((guests.len() + LEAVING).saturating_sub(GUESTS));
        let soon = soon.map(|pod| Seen { pod, node: town.far.name, serves: false });
        town.control.tell(&soon.collect::<Vec<_>>());
    }
    for guest in guests {
        dismiss(town, &guest).await?;
        changed.went += 1;
    }
    let everybody = town.far.pods.iter().map(|pod| Seen { pod, node: town.far.name, serves: true });
    town.control.tell(&everybody.collect::<Vec<_>>());
    Ok(changed)
}

/// One of the servers that stay serves or does not, at random; the first always does.
fn shift_endpoints(town: &Town, second: u64) {
    let nth = 1 + usize::try_from(second).unwrap_or_default() % (town.far.pods.len() - 1);
    if let Some(pod) = town.far.pods.get(nth) {
        town.control.tell(&[Seen { pod, node: town.far.name, serves: rand::rng().random() }]);
    }
}

/// A new pod on the far node, which serves as soon as its proxy does.
async fn invite(town: &Town) -> Result<Arc<Pod>> {
    // A name and an address that nobody has had before: neighbours remember for a while who had an address.
    let nth = INVITED.fetch_add(1, Ordering::Relaxed);
    let address = [FIRST_NET + u8::try_from(nth / 250)?, u8::try_from(nth % 250)? + 1];
    let pod = Arc::new(town.switch.pod(&format!("guest-{nth}"), address)?);
    pod.serve()?;
    pod.redirect()?;
    town.far.agent.add(&pod).await.with_context(|| format!("adding {}", pod.name))?;
    town.control.tell(&[Seen { pod: &pod, node: town.far.name, serves: true }]);
    Ok(pod)
}

async fn dismiss(town: &Town, pod: &Pod) -> Result<()> {
    ensure!(town.far.agent.delete(pod).await == 1, "the proxy did not let go of {}", pod.name);
    town.control.forget(pod);
    Ok(())
}

static INVITED: AtomicU64 = AtomicU64::new(0);
/// Networks of the guests begin here; there is room for hours of them.
const FIRST_NET: u8 = 3;
/// Pods that came and are still there.
const GUESTS: usize = 6;
/// Those of them that serve no longer.
const LEAVING: usize = 3;
const POLICIES: u64 = 20;
