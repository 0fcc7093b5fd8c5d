//! Plaintext that arrives at a pod (port 15006): policies see it without an identity.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use mesh_core::NetworkAddr;
use mesh_sys::socket::original_dst;
use tokio::net::TcpStream;

use super::authorize::{Question, authorize};
use crate::connections::{ConnectionInfo, Protocol, Registered};
use crate::copy::{Relay, TcpSide};
use crate::failure::Failure;
use crate::joined::{Joined, Work, in_stages};
use crate::pod::PodWorker;
use crate::pod::listen::Accepted;
use crate::report::{self, Direction, Peer};
use crate::route;
use crate::state::{Service, Workload};

/// A plaintext connection that was meant for an application of the pod.
struct Resolved {
    peer: SocketAddr,
    dst: SocketAddr,
    workload: Arc<Workload>,
    source: Option<Arc<Workload>>,
    service: Option<Arc<Service>>,
}

/// One plaintext connection from acceptance to its access-log line.
pub(crate) fn serve(worker: Rc<PodWorker>, accepted: Accepted) -> Work {
    in_stages(open(worker, accepted))
}

/// Everything up to the first byte.
async fn open(worker: Rc<PodWorker>, accepted: Accepted) -> Option<Work> {
    let report = &worker.shared.report;
    let socket = Some(report.socket_opened(Direction::Inbound));
    let resolved = match resolve(&worker, &accepted).await {
        Ok(resolved) => resolved,
        Err((dst, error)) => {
            report.refused(Direction::Inbound, accepted.peer, dst, &error);
            return None;
        }
    };
    let reported = report.opened(resolved.describe());
    match connect(&worker, &resolved).await {
        Ok((application, registered)) => {
            let relay = Relay::new(TcpSide::new(accepted.tcp), TcpSide::new(application));
            Some(Joined { relay, reported, registered, socket, worker }.into_work())
        }
        Err(failure) => {
            reported.closed(failure.into());
            None
        }
    }
}

/// Which application is meant?
async fn resolve(worker: &PodWorker, accepted: &Accepted) -> Result<Resolved, (SocketAddr, String)> {
    let peer = accepted.peer;
    let dialled =
        original_dst(&accepted.tcp).map_err(|e| (peer, format!("original destination cannot be read: {e}")))?;
    let local = worker.shared.state.snapshot().local.clone();
    let dst = route::inbound_plaintext(&local, dialled).map_err(|refusal| (dialled, refusal.reason))?;
    let Some(workload) = worker.await_workload().await else {
        let error = format!("workload {}/{} is not known to this proxy yet", worker.pod.namespace, worker.pod.name);
        return Err((dst, error));
    };
    worker.learn_arriving(peer.ip(), None).await;
    let snapshot = worker.shared.state.snapshot();
    let source = snapshot.workload_by_ip(&NetworkAddr::new(snapshot.local.network.clone(), peer.ip())).cloned();
    let service = route::destination_service(&snapshot, &workload, dst.port(), None);
    Ok(Resolved { peer, dst, workload, source, service })
}

/// Asks policies, then connects to the application.
async fn connect(worker: &PodWorker, resolved: &Resolved) -> Result<(TcpStream, Registered), Failure> {
    let question = Question {
        info: resolved.info(),
        identity: None,
        proof: None,
        destination: resolved.dst,
        source: resolved.source.as_ref(),
        workload: &resolved.workload,
    };
    let registered = authorize(worker, question).await?;
    tokio::select! {
        // A denial must not lose a draw against an application that answers.
        biased;
        denial = registered.denied() => Err(denial.into()),
        connected = worker.sockets.connect(resolved.dst, Some(resolved.peer.ip())) => Ok((connected?, registered)),
    }
}

impl Resolved {
    fn describe(&self) -> report::ConnectionInfo {
        report::ConnectionInfo {
            direction: Direction::Inbound,
            src_addr: self.peer,
            dst_addr: self.dst,
            hbone_addr: None,
            source: Peer { workload: self.source.clone(), ..Peer::default() },
            destination: Peer { workload: Some(self.workload.clone()), ..Peer::default() },
            service: self.service.clone(),
            mutual_tls: false,
        }
    }

    fn info(&self) -> ConnectionInfo {
        ConnectionInfo {
            direction: Direction::Inbound,
            src: self.peer,
            original_dst: self.dst,
            actual_dst: self.dst,
            protocol: Protocol::Tcp,
        }
    }
}
