//! May this connection go on? The same steps for tunnels and plaintext: register, wait for policies, judge, report.

use std::net::SocketAddr;
use std::sync::Arc;

use mesh_core::Identity;
use mesh_policy::Connection;

use crate::connections::{ConnectionInfo, Registered};
use crate::failure::Failure;
use crate::pod::PodWorker;
use crate::report::{Denial, ResponseFlag};
use crate::state::{POLICY_WAIT, Policies, Workload};

/// A connection before policies have been asked.
pub(super) struct Question<'a> {
    pub(super) info: ConnectionInfo,
    /// Proven by TLS; `None` for plaintext.
    pub(super) identity: Option<Identity>,
    /// The pod's address and the application's real port.
    pub(super) destination: SocketAddr,
    pub(super) source: Option<&'a Arc<Workload>>,
    pub(super) workload: &'a Arc<Workload>,
}

/// Registers the connection first, so that a policy change from now on ends it, and judges it then.
///
/// # Errors
/// Policy denies it, or a policy that the workload names has not arrived.
pub(super) async fn authorize(worker: &PodWorker, question: Question<'_>) -> Result<Registered, Failure> {
    let subject = Connection {
        source_ip: question.info.src.ip(),
        identity: question.identity,
        destination: question.destination,
    };
    let registered = worker.pod.live.register(question.info, Some(subject.clone()));
    let report = &worker.shared.report;
    let policies = policies(worker, question.workload).await?;
    let verdict = mesh_policy::evaluate(&policies.applied, &subject);
    report.verdict(&verdict);
    if verdict.allowed {
        return Ok(registered);
    }
    report.denied(&Denial {
        src_addr: question.info.src,
        source: question.source.map(AsRef::as_ref),
        destination: question.workload,
        connection: &subject,
        policies: &policies.applied,
        verdict: &verdict,
    });
    Err(Failure::new(ResponseFlag::Deny, format!("connection denied: {}", verdict.reason)))
}

/// All that the workload names, or nothing goes through; with the reference's promise, what is known.
async fn policies(worker: &PodWorker, workload: &Arc<Workload>) -> Result<Policies, Failure> {
    let state = &worker.shared.state;
    if !worker.pod.settings.policy_before_traffic {
        let snapshot = state.snapshot();
        // The record that was looked up before registering may be an older one.
        let current = snapshot.workload_by_uid(&workload.uid).unwrap_or(workload);
        return Ok(snapshot.policies_for(current));
    }
    let known = state.await_policies(workload, POLICY_WAIT).await;
    known.map_err(|missing| Failure::new(ResponseFlag::Deny, missing.to_string()))
}
