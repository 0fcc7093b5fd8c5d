//! `status` of a pod, computed from its record. Pure.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus, HostIP,
    Pod, PodCondition, PodIP, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::record::{ContainerRecord, Ended, PodState, Stage};

/// The status to write. `pod` gives conditions that others own and transition times.
pub(super) fn pod_status(pod: &Pod, state: &PodState, now: Timestamp) -> PodStatus {
    let before = pod.status.clone().unwrap_or_default();
    let policy = pod.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref()).unwrap_or("Always");
    let phase = phase(state, policy);
    let ips: Vec<String> = state.ips.iter().map(ToString::to_string).collect();
    let host_ips: Vec<String> = state.host_ips.iter().map(ToString::to_string).collect();
    PodStatus {
        phase: Some(phase.to_owned()),
        conditions: Some(conditions(pod, state, phase, now)),
        host_ip: host_ips.first().cloned(),
        host_ips: Some(host_ips.into_iter().map(|ip| HostIP { ip }).collect()),
        pod_ip: ips.first().cloned(),
        pod_ips: (!ips.is_empty()).then(|| ips.into_iter().map(|ip| PodIP { ip }).collect()),
        start_time: Some(Time(state.started_at)),
        init_container_statuses: (!state.init.is_empty()).then(|| state.init.iter().map(container_status).collect()),
        container_statuses: Some(state.containers.iter().map(container_status).collect()),
        ..before
    }
}

/// `status.phase`.
fn phase(state: &PodState, policy: &str) -> &'static str {
    let failed_init = state
        .init
        .iter()
        .any(|record| !record.sidecar && matches!(&record.stage, Stage::Ended(end) if end.exit_code != 0));
    if !initialized(state) {
        return if failed_init && policy == "Never" { "Failed" } else { "Pending" };
    }
    let mut codes = Vec::new();
    for record in &state.containers {
        match &record.stage {
            Stage::Running { .. } => return "Running",
            // Never started: still being created. Else it waits for its next start.
            Stage::Waiting { .. } if record.last.is_none() => return "Pending",
            Stage::Waiting { .. } => return "Running",
            Stage::Ended(end) => codes.push(end.exit_code),
        }
    }
    match policy {
        _ if codes.is_empty() => "Pending",
        "Always" => "Running",
        _ if codes.iter().all(|code| *code == 0) => "Succeeded",
        "Never" => "Failed",
        _ => "Running",
    }
}

/// All init containers have done their part.
pub(super) fn initialized(state: &PodState) -> bool {
    state.init.iter().all(|record| {
        if record.sidecar {
            record.started || matches!(record.stage, Stage::Ended(_))
        } else {
            matches!(&record.stage, Stage::Ended(end) if end.exit_code == 0)
        }
    })
}

fn conditions(pod: &Pod, state: &PodState, phase: &str, now: Timestamp) -> Vec<PodCondition> {
    let before = pod.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    let finished = matches!(phase, "Succeeded" | "Failed");
    let unready: Vec<&str> = state
        .init
        .iter()
        .filter(|record| record.sidecar)
        .chain(&state.containers)
        .filter(|record| !record.ready)
        .map(|record| record.name.as_str())
        .collect();
    let uninitialized: Vec<&str> = state
        .init
        .iter()
        .filter(|record| !record.sidecar && !matches!(&record.stage, Stage::Ended(end) if end.exit_code == 0))
        .map(|record| record.name.as_str())
        .collect();
    let initialized = if initialized(state) {
        Ok(())
    } else {
        Err(("ContainersNotInitialized", format!("containers with incomplete status: [{}]", uninitialized.join(" "))))
    };
    let containers_ready = match phase {
        "Succeeded" => Err(("PodCompleted", String::new())),
        "Failed" => Err(("PodFailed", String::new())),
        _ if unready.is_empty() && !finished => Ok(()),
        _ => Err(("ContainersNotReady", format!("containers with unready status: [{}]", unready.join(" ")))),
    };
    let gates: Vec<&str> = pod
        .spec
        .iter()
        .flat_map(|spec| spec.readiness_gates.iter().flatten())
        .map(|gate| gate.condition_type.as_str())
        .filter(|gate| !before.iter().any(|found| found.type_ == *gate && found.status == "True"))
        .collect();
    let ready = match &containers_ready {
        Ok(()) if !gates.is_empty() => Err((
            "ReadinessGatesNotReady",
            format!("the status of pod readiness gates [{}] is not \"True\"", gates.join(" ")),
        )),
        other => other.clone(),
    };
    let sandbox = if state.sandbox_ready { Ok(()) } else { Err(("", String::new())) };
    let own = [
        ("PodReadyToStartContainers", sandbox),
        ("Initialized", initialized),
        ("Ready", ready),
        ("ContainersReady", containers_ready),
        ("PodScheduled", Ok(())),
    ];
    let mut conditions: Vec<PodCondition> =
        own.iter().map(|(kind, outcome)| condition(&before, kind, outcome, now)).collect();
    let foreign = before.into_iter().filter(|condition| !own.iter().any(|(kind, _)| *kind == condition.type_));
    conditions.extend(foreign);
    conditions
}

fn condition(
    before: &[PodCondition],
    kind: &str,
    outcome: &Result<(), (&str, String)>,
    now: Timestamp,
) -> PodCondition {
    let status = if outcome.is_ok() { "True" } else { "False" };
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let (reason, message) = match outcome {
        Ok(()) => (None, None),
        Err((reason, message)) => (text(reason), text(message)),
    };
    let since = before
        .iter()
        .find(|found| found.type_ == kind && found.status == status)
        .and_then(|found| found.last_transition_time.clone())
        .unwrap_or(Time(now));
    PodCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason,
        message,
        last_transition_time: Some(since),
        ..PodCondition::default()
    }
}

fn container_status(record: &ContainerRecord) -> ContainerStatus {
    let state = match &record.stage {
        Stage::Waiting { reason, message } => ContainerState {
            waiting: Some(ContainerStateWaiting { reason: Some(reason.clone()), message: message.clone() }),
            ..ContainerState::default()
        },
        Stage::Running { since } => ContainerState {
            running: Some(ContainerStateRunning { started_at: Some(Time(*since)) }),
            ..ContainerState::default()
        },
        Stage::Ended(end) => terminated(end),
    };
    let last_state = record.last.as_ref().map(terminated).unwrap_or_default();
    ContainerStatus {
        name: record.name.clone(),
        image: record.image.clone(),
        image_id: if record.container_id.is_some() { format!("sandbox://{}", record.image) } else { String::new() },
        container_id: record.container_id.as_deref().map(container_id),
        ready: record.ready,
        started: Some(record.started),
        restart_count: i32::try_from(record.restarts).unwrap_or(i32::MAX),
        state: Some(state),
        last_state: Some(last_state),
        ..ContainerStatus::default()
    }
}

fn terminated(end: &Ended) -> ContainerState {
    ContainerState {
        terminated: Some(ContainerStateTerminated {
            exit_code: end.exit_code,
            reason: Some(end.reason.clone()),
            started_at: end.started_at.map(Time),
            finished_at: Some(Time(end.finished_at)),
            container_id: end.container_id.as_deref().map(container_id),
            ..ContainerStateTerminated::default()
        }),
        ..ContainerState::default()
    }
}

fn container_id(id: &str) -> String {
    format!("sandbox://{id}")
}

#[cfg(test)]
mod tests;
