//! May this connection go on? The same steps for tunnels and plaintext: register, wait for policies, judge, report.

use std::net::SocketAddr;
use std::sync::Arc;

use mesh_core::Identity;
use mesh_policy::Connection;

use crate::connections::{ConnectionInfo, Law, Proof, Registered, Subject};
use crate::failure::Failure;
use crate::pod::PodWorker;
use crate::promises::Name;
use crate::report::{Cause, Denial, ResponseFlag};
use crate::route;
use crate::state::{POLICY_WAIT, Policies, Workload};

/// A connection before policies have been asked.
pub(super) struct Question<'a> {
    pub(super) info: ConnectionInfo,
    /// Proven by TLS; `None` for plaintext.
    pub(super) identity: Option<Identity>,
    /// The tunnel that it came through; `None` for plaintext.
    pub(super) proof: Option<Arc<Proof>>,
    /// The pod's address and the application's real port.
    pub(super) destination: SocketAddr,
    pub(super) source: Option<&'a Arc<Workload>>,
    pub(super) workload: &'a Arc<Workload>,
}

/// Registers the connection first, so that a change from now on ends it, and judges it then.
///
/// # Errors
/// Policy denies it, a policy that the workload names has not arrived, it skipped a waypoint that is required, or its
/// tunnel no longer proves anything.
pub(super) async fn authorize(worker: &PodWorker, question: Question<'_>) -> Result<Registered, Failure> {
    let connection = Connection {
        source_ip: question.info.src.ip(),
        identity: question.identity,
        destination: question.destination,
    };
    let subject = Subject { connection: Some(connection.clone()), proof: question.proof, servers: Vec::new() };
    let registered = worker.pod.live.register(question.info, Some(subject.clone()));
    let shared = &worker.shared;
    let refuse = |cause: Cause<'_>| {
        shared.report.denied(&Denial {
            src_addr: question.info.src,
            source: question.source,
            destination: question.workload,
            connection: &connection,
            cause,
            established: false,
        });
    };
    learn(worker, question.workload, question.info.src).await?;
    let policies = match policies(worker, question.workload).await {
        Ok(policies) => policies,
        Err(reason) => {
            refuse(Cause::MissingPolicy { reason: &reason });
            return Err(Failure::new(ResponseFlag::Deny, reason));
        }
    };
    // Taken after the policies, so that it is not older than they are.
    let snapshot = shared.state.snapshot();
    // The record that was looked up before registering may be an older one.
    let workload = snapshot.workload_by_uid(&question.workload.uid).unwrap_or(question.workload).clone();
    let law = Law::new(snapshot, workload, policies.applied, &shared.promises, shared.crl.as_ref());
    law.proof_holds(&subject)?;
    let verdict = law.policies_say(&connection);
    shared.report.verdict(&connection, &verdict);
    if !verdict.allowed {
        refuse(Cause::Policy { policies: &law.policies, verdict: &verdict });
        return Err(Failure::new(ResponseFlag::Deny, format!("connection denied: {}", verdict.reason)));
    }
    if let Err(bypass) = law.waypoint_was_used(&connection) {
        let reason = bypass.to_string();
        refuse(Cause::WaypointRequired { reason: &reason });
        return Err(Failure::new(ResponseFlag::Deny, format!("connection denied: {reason}")));
    }
    Ok(registered)
}

/// Where resources are asked for one by one, what the question about waypoints needs may not have been asked for yet.
async fn learn(worker: &PodWorker, workload: &Arc<Workload>, peer: SocketAddr) -> Result<(), Failure> {
    let learned = worker.learn(|snapshot| {
        let current = snapshot.workload_by_uid(&workload.uid).unwrap_or(workload);
        route::unknown(snapshot, current, peer)
    });
    learned.await.map_err(|error| Failure::new(ResponseFlag::Deny, error.to_string()))
}

/// All that the workload names, or nothing goes through; with the reference's promise, what is known.
async fn policies(worker: &PodWorker, workload: &Arc<Workload>) -> Result<Policies, String> {
    let state = &worker.shared.state;
    if !worker.shared.promises.strict(Name::PolicyBeforeTraffic) {
        let snapshot = state.snapshot();
        let current = snapshot.workload_by_uid(&workload.uid).unwrap_or(workload);
        return Ok(snapshot.policies_for(current));
    }
    state.await_policies(workload, POLICY_WAIT).await.map_err(|missing| missing.to_string())
}
