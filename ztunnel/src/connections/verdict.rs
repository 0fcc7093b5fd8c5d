//! Whether a connection may go on. The same questions when it begins and whenever something has changed.

use std::sync::Arc;

use mesh_core::NetworkAddr;
use mesh_identity::{Crl, Revoked};
use mesh_policy::{Connection, Policy, Verdict};

use super::subject::{Proof, Subject};
use crate::promises::{Name, Promises};
use crate::report::{self, Cause, Report};
use crate::route::{self, Bypass, Caller};
use crate::state::{Snapshot, Workload};

/// Why an open connection must end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Denial {
    /// A policy no longer allows it.
    #[error("policy change: {reason}")]
    Policy {
        /// The deciding rule, as policies name themselves.
        reason: String,
    },
    /// It did not come through a waypoint that is required now.
    #[error("policy change: {bypass}")]
    Waypoint {
        /// The service, its waypoint and the caller.
        bypass: Bypass,
    },
    /// The workload is no longer who it was when the tunnel was accepted.
    #[error("identity change: the tunnel was accepted as {was}, and the workload is {is} now")]
    Identity {
        /// Whom the client talked to.
        was: mesh_core::Identity,
        /// Who the workload is.
        is: mesh_core::Identity,
    },
    /// A certificate of the peer was taken back.
    #[error("certificate of the peer was revoked: {revoked}")]
    Revoked {
        /// Which one.
        revoked: Revoked,
    },
}

/// What applies to a pod at one moment.
pub(crate) struct Law {
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) workload: Arc<Workload>,
    pub(crate) policies: Vec<Arc<Policy>>,
    pub(crate) waypoint_required: bool,
    pub(crate) crl: Option<Crl>,
}

impl Law {
    pub(crate) fn new(
        snapshot: Arc<Snapshot>,
        workload: Arc<Workload>,
        policies: Vec<Arc<Policy>>,
        promises: &Promises,
        crl: Option<&Crl>,
    ) -> Self {
        let waypoint_required = promises.strict(Name::WaypointRequired);
        Self { snapshot, workload, policies, waypoint_required, crl: crl.cloned() }
    }

    /// # Errors
    /// The first reason found.
    pub(crate) fn allows(&self, subject: &Subject) -> Result<(), Denial> {
        self.proof_holds(subject)?;
        let Some(connection) = &subject.connection else { return Ok(()) };
        let verdict = self.policies_say(connection);
        if !verdict.allowed {
            return Err(Denial::Policy { reason: verdict.reason.to_string() });
        }
        self.waypoint_was_used(connection).map_err(|bypass| Denial::Waypoint { bypass })
    }

    /// Both ends of its tunnels are still who they proved to be.
    ///
    /// # Errors
    /// One was revoked, or the workload has another identity now.
    pub(crate) fn proof_holds(&self, subject: &Subject) -> Result<(), Denial> {
        if let Some(revoked) = revoked(self.crl.as_ref(), subject) {
            return Err(Denial::Revoked { revoked });
        }
        match subject.proof.as_deref() {
            Some(Proof { own, .. }) if *own != self.workload.identity => {
                Err(Denial::Identity { was: own.clone(), is: self.workload.identity.clone() })
            }
            _ => Ok(()),
        }
    }

    /// Records why an open connection must end, as for one that is refused.
    pub(crate) fn record(&self, report: &Report, subject: &Subject, denial: &Denial) {
        let Some(connection) = &subject.connection else { return };
        let (verdict, reason);
        let cause = match denial {
            Denial::Policy { .. } => {
                verdict = self.policies_say(connection);
                Cause::Policy { policies: &self.policies, verdict: &verdict }
            }
            Denial::Waypoint { bypass } => {
                reason = bypass.to_string();
                Cause::WaypointRequired { reason: &reason }
            }
            // Nobody wrote this down as a rule: the access log has it.
            Denial::Identity { .. } | Denial::Revoked { .. } => return,
        };
        let source = NetworkAddr::new(self.snapshot.local.network.clone(), connection.source_ip);
        report.denied(&report::Denial {
            // Stands for all connections that are alike.
            src_addr: (connection.source_ip, 0).into(),
            source: self.snapshot.workload_by_ip(&source),
            destination: &self.workload,
            connection,
            cause,
            established: true,
        });
    }

    pub(crate) fn policies_say(&self, connection: &Connection) -> Verdict {
        mesh_policy::evaluate(&self.policies, connection)
    }

    /// # Errors
    /// It skipped the waypoint of a guarded service.
    pub(crate) fn waypoint_was_used(&self, connection: &Connection) -> Result<(), Bypass> {
        if !self.waypoint_required {
            return Ok(());
        }
        let caller = Caller { identity: connection.identity.as_ref(), ip: connection.source_ip };
        route::required(&self.snapshot, &self.workload, connection.destination.port(), caller)
    }
}

/// The first certificate of a subject's peers that was taken back.
pub(crate) fn revoked(crl: Option<&Crl>, subject: &Subject) -> Option<Revoked> {
    crl.and_then(|crl| subject.chains().find_map(|chain| crl.revoked(chain)))
}
