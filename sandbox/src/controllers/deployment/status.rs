//! The status of a Deployment, as `kubectl rollout status` and `kubectl wait` read it. Pure.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;

use super::rollout::Size;

/// A status, and when it must be looked at again.
pub(super) struct Report {
    pub(super) status: DeploymentStatus,
    /// Until the progress deadline passes, while a rollout is under way.
    pub(super) deadline_in: Option<Duration>,
}

/// Sums the sets up.
pub(super) fn status(
    deployment: &Deployment,
    new: Option<&ReplicaSet>,
    old: &[Arc<ReplicaSet>],
    now: jiff::Timestamp,
) -> Report {
    let spec = deployment.spec.as_ref();
    let wanted = spec.and_then(|spec| spec.replicas).unwrap_or(1);
    let sets = || new.into_iter().chain(old.iter().map(AsRef::as_ref));
    let replicas: i32 = sets().map(|set| Size::of(set).present).sum();
    let available: i32 = sets().map(|set| Size::of(set).available).sum();
    let ready: i32 = sets().filter_map(|set| set.status.as_ref()?.ready_replicas).sum();
    let updated = new.map_or(0, |set| Size::of(set).present);
    let before = deployment.status.clone().unwrap_or_default();
    let mut status = DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: Some(replicas),
        updated_replicas: Some(updated),
        ready_replicas: Some(ready),
        available_replicas: Some(available),
        unavailable_replicas: Some((replicas.max(wanted) - available).max(0)),
        collision_count: before.collision_count,
        conditions: None,
        terminating_replicas: None,
    };
    let limits = spec.map(super::limits);
    let available_min = wanted - limits.map_or(0, |limits| limits.unavailable);
    let minimum = if available >= available_min {
        ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
    } else {
        ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    };
    let conditions = before.conditions.clone().unwrap_or_default();
    let complete = updated == wanted && replicas == wanted && available == wanted;
    let progress = progress(deployment, new, complete, &before, &status, now);
    status.conditions = Some(vec![
        condition(&conditions, "Available", (minimum.0, minimum.1, minimum.2.to_owned()), false, now),
        condition(&conditions, "Progressing", progress.outcome, progress.moved, now),
    ]);
    Report { status, deadline_in: progress.deadline_in }
}

type Outcome = (&'static str, &'static str, String);

struct Progress {
    outcome: Outcome,
    moved: bool,
    deadline_in: Option<Duration>,
}

fn progress(
    deployment: &Deployment,
    new: Option<&ReplicaSet>,
    complete: bool,
    before: &DeploymentStatus,
    after: &DeploymentStatus,
    now: jiff::Timestamp,
) -> Progress {
    let spec = deployment.spec.as_ref();
    let subject = new.map_or_else(
        || format!("Deployment {:?}", deployment.name_any()),
        |set| format!("ReplicaSet {:?}", set.name_any()),
    );
    let last =
        before.conditions.as_ref().and_then(|list| list.iter().find(|condition| condition.type_ == "Progressing"));
    if complete {
        return Progress {
            outcome: ("True", "NewReplicaSetAvailable", format!("{subject} has successfully progressed.")),
            moved: false,
            deadline_in: None,
        };
    }
    if spec.and_then(|spec| spec.paused) == Some(true) {
        return Progress {
            outcome: ("Unknown", "DeploymentPaused", "Deployment is paused".into()),
            moved: false,
            deadline_in: None,
        };
    }
    let counts = |status: &DeploymentStatus| {
        (
            status.updated_replicas.unwrap_or(0),
            status.ready_replicas.unwrap_or(0),
            status.available_replicas.unwrap_or(0),
        )
    };
    // A new generation, or any count that changed, is progress and restarts the deadline.
    let moved = before.observed_generation != after.observed_generation
        || counts(before) != counts(after)
        || last.is_none_or(|last| last.reason.as_deref() == Some("NewReplicaSetAvailable"));
    let deadline = spec.and_then(|spec| spec.progress_deadline_seconds).unwrap_or(PROGRESS_DEADLINE_SECONDS);
    let deadline = Duration::from_secs(u64::try_from(deadline).unwrap_or(0));
    let passed = last
        .filter(|_| !moved)
        .and_then(|last| last.last_update_time.as_ref())
        .and_then(|time| Duration::try_from(now.duration_since(time.0)).ok())
        .unwrap_or_default();
    if passed >= deadline {
        return Progress {
            outcome: ("False", "ProgressDeadlineExceeded", format!("{subject} has timed out progressing.")),
            moved: false,
            deadline_in: None,
        };
    }
    Progress {
        outcome: ("True", "ReplicaSetUpdated", format!("{subject} is progressing.")),
        moved,
        deadline_in: Some(deadline.saturating_sub(passed) + Duration::from_secs(1)),
    }
}

/// A condition that keeps its times while nothing changed.
fn condition(
    before: &[DeploymentCondition],
    kind: &str,
    (status, reason, message): Outcome,
    moved: bool,
    now: jiff::Timestamp,
) -> DeploymentCondition {
    let last = before.iter().find(|condition| condition.type_ == kind);
    let same_status = last.is_some_and(|last| last.status == status);
    let same = same_status && last.is_some_and(|last| last.reason.as_deref() == Some(reason));
    let keep = |kept: bool, time: Option<&Time>| time.filter(|_| kept).cloned().or(Some(Time(now)));
    DeploymentCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_transition_time: keep(same_status, last.and_then(|last| last.last_transition_time.as_ref())),
        last_update_time: keep(same && !moved, last.and_then(|last| last.last_update_time.as_ref())),
    }
}

/// `progressDeadlineSeconds` when the Deployment does not say (API default).
const PROGRESS_DEADLINE_SECONDS: i32 = 600;

#[cfg(test)]
mod tests;
