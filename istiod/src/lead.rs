//! Leader election by Lease: all replicas serve, one writes.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{Api, ObjectMeta, PostParams};
use mesh_core::drain::DrainWatch;
use tokio::sync::watch;
use tokio::time::Instant;

/// One lock and who we are.
#[derive(Debug)]
pub struct Election {
    /// Leases of the control plane's namespace.
    pub leases: Api<Lease>,
    /// Name of the lock.
    pub name: Arc<str>,
    /// Our identity: the pod's name.
    pub me: String,
}

/// Waits until we lead, or do not lead any more. `false`: the drain has started, or nobody elects any more.
///
/// # Cancel safety
/// Cancel-safe.
pub async fn becomes(wanted: bool, leading: &mut watch::Receiver<bool>, drain: &mut DrainWatch) -> bool {
    tokio::select! {
        _ = drain.signaled() => false,
        held = leading.wait_for(|leading| *leading == wanted) => held.is_ok(),
    }
}

/// What to do about a lease.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// Take it: it is ours, free, or its holder is gone.
    Take,
    /// Somebody else holds it.
    Wait,
}

/// What was seen of a lease, and since when it looks like that.
#[derive(Debug, Clone, PartialEq)]
struct Seen {
    spec: LeaseSpec,
    since: Instant,
}

impl Election {
    /// Takes part until the drain starts. The value tells whether we may write; it turns false before another can lead.
    pub async fn run(self, leading: watch::Sender<bool>, mut drain: DrainWatch) {
        let mut seen: Option<Seen> = None;
        let mut renewed: Option<Instant> = None;
        loop {
            // The lease counts from what we wrote into it, which is before the answer.
            let started = Instant::now();
            let patience = remaining(renewed, started).map_or(ATTEMPT, |left| left.min(ATTEMPT));
            match tokio::time::timeout(patience, self.attempt(&mut seen)).await {
                Ok(Ok(true)) => renewed = Some(started),
                Ok(Ok(false)) => renewed = None,
                Ok(Err(error)) => tracing::warn!(lock = &*self.name, %error, "lease not renewed"),
                Err(_) => tracing::warn!(lock = &*self.name, "lease not renewed in time"),
            }
            // Without word from the API server we lead until the deadline, which is shorter than the lease.
            let left = remaining(renewed, Instant::now());
            let lead = left.is_some();
            if leading.send_if_modified(|now| std::mem::replace(now, lead) != lead) {
                tracing::info!(lock = &*self.name, leading = lead, "leadership changed");
            }
            tokio::select! {
                _ = drain.signaled() => break,
                () = tokio::time::sleep(left.map_or(RETRY, |left| left.min(RETRY))) => {}
            }
        }
        leading.send_replace(false);
        if renewed.is_some()
            && let Err(error) = self.release().await
        {
            tracing::warn!(lock = &*self.name, %error, "lease not released");
        }
    }

    /// Tries to take or keep the lease, and tells whether we have it.
    async fn attempt(&self, seen: &mut Option<Seen>) -> Result<bool, kube::Error> {
        let Some(mut lease) = self.leases.get_opt(&self.name).await? else {
            let lease = Lease {
                metadata: ObjectMeta { name: Some(self.name.to_string()), ..ObjectMeta::default() },
                spec: Some(self.held(None)),
            };
            return conflict_is_loss(self.leases.create(&PostParams::default(), &lease).await);
        };
        let spec = lease.spec.clone().unwrap_or_default();
        if seen.as_ref().is_none_or(|seen| seen.spec != spec) {
            *seen = Some(Seen { spec: spec.clone(), since: Instant::now() });
        }
        let unchanged = seen.as_ref().map(|seen| seen.since.elapsed()).unwrap_or_default();
        if step(&spec, &self.me, unchanged) == Step::Wait {
            return Ok(false);
        }
        lease.spec = Some(self.held(Some(&spec)));
        conflict_is_loss(self.leases.replace(&self.name, &PostParams::default(), &lease).await)
    }

    async fn release(&self) -> Result<(), kube::Error> {
        let mut lease = self.leases.get(&self.name).await?;
        if let Some(spec) = lease.spec.as_mut().filter(|spec| spec.holder_identity.as_deref() == Some(&self.me)) {
            spec.holder_identity = Some(String::new());
            self.leases.replace(&self.name, &PostParams::default(), &lease).await?;
        }
        Ok(())
    }

    fn held(&self, old: Option<&LeaseSpec>) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        let kept = old.filter(|old| old.holder_identity.as_deref() == Some(&self.me));
        let changes = old.and_then(|old| old.lease_transitions).unwrap_or_default();
        LeaseSpec {
            holder_identity: Some(self.me.clone()),
            lease_duration_seconds: Some(LEASE.as_secs().try_into().unwrap_or(i32::MAX)),
            acquire_time: kept.and_then(|old| old.acquire_time.clone()).or_else(|| Some(now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(if kept.is_some() { changes } else { changes.saturating_add(1) }),
            ..LeaseSpec::default()
        }
    }
}

/// How long we may go on leading without word from the API server; none when no longer, or not at all.
fn remaining(renewed: Option<Instant>, now: Instant) -> Option<Duration> {
    let left = RENEW_DEADLINE.checked_sub(now.saturating_duration_since(renewed?))?;
    (!left.is_zero()).then_some(left)
}

/// Somebody else was faster: not leading, and no error.
fn conflict_is_loss(result: Result<Lease, kube::Error>) -> Result<bool, kube::Error> {
    match result {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(error),
    }
}

/// Judges by how long the lease has looked the same to us, never by the holder's clock.
fn step(spec: &LeaseSpec, me: &str, unchanged: Duration) -> Step {
    let holder = spec.holder_identity.as_deref().unwrap_or_default();
    let life =
        spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok()).map_or(LEASE, Duration::from_secs);
    if holder.is_empty() || holder == me || unchanged > life { Step::Take } else { Step::Wait }
}

/// A leader that says nothing for this long is replaced: with the time between two attempts, within 15 s.
const LEASE: Duration = Duration::from_secs(12);
/// A leader that could not renew for this long stops writing.
const RENEW_DEADLINE: Duration = Duration::from_secs(9);
/// Longest attempt.
const ATTEMPT: Duration = Duration::from_secs(4);
/// Time between two attempts.
const RETRY: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(holder: &str) -> LeaseSpec {
        LeaseSpec { holder_identity: Some(holder.into()), lease_duration_seconds: Some(30), ..LeaseSpec::default() }
    }

    #[test]
    fn a_lease_is_taken_when_free_ours_or_silent() {
        let after = Duration::from_secs;
        assert_eq!(step(&lease(""), "me", after(0)), Step::Take);
        assert_eq!(step(&LeaseSpec::default(), "me", after(0)), Step::Take);
        assert_eq!(step(&lease("me"), "me", after(0)), Step::Take);
        assert_eq!(step(&lease("you"), "me", after(30)), Step::Wait);
        assert_eq!(step(&lease("you"), "me", after(31)), Step::Take);
    }

    #[tokio::test(start_paused = true)]
    async fn leadership_ends_with_the_deadline_however_slow_the_api_server_is() {
        use std::sync::atomic::{AtomicUsize, Ordering};
        let calls = Arc::new(AtomicUsize::new(0));
        // One slow renewal, then silence.
        let server = tower::service_fn(move |request: http::Request<kube::client::Body>| {
            let call = calls.fetch_add(1, Ordering::Relaxed);
            async move {
                if call > 1 {
                    std::future::pending::<()>().await;
                }
                tokio::time::sleep(Duration::from_millis(1500)).await;
                let lease = Lease {
                    metadata: ObjectMeta { name: Some("lock".into()), ..ObjectMeta::default() },
                    spec: Some(lease(if request.method() == http::Method::GET { "" } else { "me" })),
                };
                let body = kube::client::Body::from(serde_json::to_vec(&lease).unwrap());
                Ok::<_, std::convert::Infallible>(http::Response::new(body))
            }
        });
        let leases = Api::namespaced(kube::Client::new(server, "default"), "ns");
        let election = Election { leases, name: "lock".into(), me: "me".into() };
        let (leading, mut receiver) = watch::channel(false);
        let (_signal, drain) = mesh_core::drain::channel();
        let started = Instant::now();
        tokio::spawn(election.run(leading, drain));
        receiver.wait_for(|leading| *leading).await.unwrap();
        receiver.wait_for(|leading| !*leading).await.unwrap();
        let led = started.elapsed();
        assert!(led <= RENEW_DEADLINE + Duration::from_millis(10), "led until {led:?} after the attempt began");
    }

    #[test]
    fn deadlines_leave_no_moment_with_two_leaders() {
        assert!(RENEW_DEADLINE + RETRY < LEASE);
        assert!(LEASE + RETRY < Duration::from_secs(15), "a leader that is gone is replaced within 15 s");
    }
}
