//! What a Job does next, and its status. Pure.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::batch::v1::{Job, JobCondition, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::controllers::pod_state;

/// The steps to take now.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) create: usize,
    pub(super) delete: Vec<Arc<Pod>>,
    pub(super) status: JobStatus,
    /// Until a failed pod may be replaced.
    pub(super) wait: Option<Duration>,
}

/// Compares the Job's pods with what it asks for.
pub(super) fn plan(job: &Job, pods: &[Arc<Pod>], now: jiff::Timestamp) -> Plan {
    let spec = job.spec.clone().unwrap_or_default();
    let before = job.status.clone().unwrap_or_default();
    let in_phase = |phase: &str| pods.iter().filter(|pod| pod_state::phase(pod) == phase).count();
    let active: Vec<_> = pods.iter().filter(|pod| pod_state::is_active(pod)).cloned().collect();
    let (succeeded, failed) = (in_phase("Succeeded"), in_phase("Failed"));
    let parallelism = count(spec.parallelism, 1);
    // Without `completions` the first success ends the Job.
    let completions = count(spec.completions, 1);
    let finished =
        before.conditions.iter().flatten().any(|condition| matches!(condition.type_.as_str(), "Complete" | "Failed"));
    let mut plan = Plan {
        create: 0,
        delete: Vec::new(),
        wait: None,
        status: JobStatus {
            active: Some(size(active.len())),
            succeeded: Some(size(succeeded)),
            failed: Some(size(failed)),
            start_time: before.start_time.clone().or(Some(Time(now))),
            ready: Some(size(active.iter().filter(|pod| pod_state::is_ready(pod)).count())),
            ..before
        },
    };
    if finished {
        return plan;
    }
    if succeeded >= completions {
        plan.delete = active;
        plan.status.active = Some(0);
        plan.status.completion_time = Some(Time(now));
        plan.status.conditions = Some(vec![condition("Complete", "CompletionsReached", now)]);
        return plan;
    }
    if failed > count(spec.backoff_limit, BACKOFF_LIMIT) {
        plan.delete = active;
        plan.status.active = Some(0);
        plan.status.conditions = Some(vec![condition("Failed", "BackoffLimitExceeded", now)]);
        return plan;
    }
    if spec.suspend == Some(true) {
        plan.delete = active;
        return plan;
    }
    let wanted = parallelism.min(completions - succeeded);
    let missing = wanted.saturating_sub(active.len());
    match retry_wait(pods, failed, now).filter(|_| missing > 0) {
        Some(wait) => plan.wait = Some(wait),
        None => {
            plan.create = missing;
            plan.status.active = Some(size(active.len() + missing));
        }
    }
    plan
}

/// A failed pod is replaced after 1 s, 2 s, 4 s ... at most 30 s.
fn retry_wait(pods: &[Arc<Pod>], failed: usize, now: jiff::Timestamp) -> Option<Duration> {
    let last = pods
        .iter()
        .filter(|pod| pod_state::phase(pod) == "Failed")
        .filter_map(|pod| pod_state::condition(pod, "Ready")?.last_transition_time.as_ref())
        .map(|time| time.0)
        .max()?;
    let doublings = u32::try_from(failed.saturating_sub(1)).unwrap_or(u32::MAX).min(8);
    let delay = Duration::from_secs(1 << doublings).min(RETRY_CAP);
    let passed = Duration::try_from(now.duration_since(last)).unwrap_or_default();
    Some(delay.saturating_sub(passed)).filter(|wait| !wait.is_zero())
}

fn condition(kind: &str, reason: &str, now: jiff::Timestamp) -> JobCondition {
    JobCondition {
        type_: kind.to_owned(),
        status: "True".to_owned(),
        reason: Some(reason.to_owned()),
        last_probe_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
        message: None,
    }
}

fn count(value: Option<i32>, default: usize) -> usize {
    value.map_or(default, |value| usize::try_from(value).unwrap_or(0))
}

fn size(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

/// `backoffLimit` when the Job does not say (API default).
const BACKOFF_LIMIT: usize = 6;
/// Longest wait before a failed pod is replaced.
const RETRY_CAP: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn job(spec: Value) -> Job {
        let mut spec = spec;
        spec["template"] = json!({});
        serde_json::from_value(json!({"metadata": {"name": "j"}, "spec": spec})).unwrap()
    }

    fn pod(phase: &str) -> Arc<Pod> {
        Arc::new(
            serde_json::from_value(json!({"metadata": {"name": phase}, "status": {"phase": phase,
                "conditions": [{"type": "Ready", "status": "False",
                    "lastTransitionTime": "2026-01-01T00:00:00Z"}]}}))
            .unwrap(),
        )
    }

    fn at(seconds: i64) -> jiff::Timestamp {
        "2026-01-01T00:00:00Z".parse::<jiff::Timestamp>().unwrap() + jiff::SignedDuration::from_secs(seconds)
    }

    #[test]
    fn pods_are_made_up_to_the_parallelism_and_never_beyond_what_is_missing() {
        let job = job(json!({"completions": 3, "parallelism": 2}));
        assert_eq!(plan(&job, &[], at(0)).create, 2);
        assert_eq!(plan(&job, &[pod("Running")], at(0)).create, 1);
        assert_eq!(plan(&job, &[pod("Succeeded"), pod("Succeeded")], at(0)).create, 1);
        let done = plan(&job, &[pod("Succeeded"), pod("Succeeded"), pod("Succeeded")], at(0));
        assert_eq!(done.create, 0);
        assert_eq!(done.status.conditions.unwrap()[0].type_, "Complete");
    }

    #[test]
    fn failures_are_retried_with_a_growing_wait_until_the_limit() {
        let job = job(json!({"backoffLimit": 1}));
        let early = plan(&job, &[pod("Failed")], at(0));
        assert_eq!((early.create, early.wait), (0, Some(Duration::from_secs(1))));
        assert_eq!(plan(&job, &[pod("Failed")], at(2)).create, 1);
        let over = plan(&job, &[pod("Failed"), pod("Failed")], at(60));
        assert_eq!(over.create, 0);
        assert_eq!(over.status.conditions.unwrap()[0].reason.as_deref(), Some("BackoffLimitExceeded"));
    }
}
