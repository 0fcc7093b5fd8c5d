//! With on-demand discovery: what a connection needs to know is asked for before its decision.

use std::collections::BTreeSet;
use std::net::IpAddr;

use futures::future::try_join_all;
use mesh_xds::client::DemandError;

use super::{Pod, PodWorker};
use crate::limits::{LEARN_BUDGET, LEARN_ROUNDS_MAX};
use crate::route;
use crate::state::Snapshot;

impl PodWorker {
    /// Asks for what `needs` names until it names nothing new: an answer may lead to further questions. Does nothing
    /// where the control plane sends everything unasked.
    ///
    /// # Errors
    /// The control plane did not answer. Whether there is a record of the destination is not known then, so it must not
    /// be taken for an address outside the mesh.
    ///
    /// # Cancel safety
    /// Cancel-safe; questions go on for others.
    pub(crate) async fn learn(&self, needs: impl Fn(&Snapshot) -> Vec<String>) -> Result<(), DemandError> {
        let Some(demand) = &self.shared.demand else { return Ok(()) };
        let mut asked = BTreeSet::new();
        for _ in 0..LEARN_ROUNDS_MAX {
            let mut names = needs(&self.shared.state.snapshot());
            names.retain(|name| asked.insert(name.clone()));
            if names.is_empty() {
                break;
            }
            try_join_all(names.iter().map(|name| demand.fetch(name, LEARN_BUDGET))).await?;
        }
        Ok(())
    }

    /// [`PodWorker::learn`] for a connection that arrives from `source`, through a tunnel to `authority` if that is an
    /// address. What stays unknown is refused where it matters.
    pub(crate) async fn learn_arriving(&self, source: IpAddr, authority: Option<IpAddr>) {
        let Pod { name, namespace, service_account, .. } = &*self.pod;
        let needs = |snapshot: &Snapshot| match snapshot.local_workload(name, namespace, service_account) {
            Some(workload) => route::inbound_needs(snapshot, workload, source, authority),
            None => Vec::new(),
        };
        if let Err(error) = self.learn(needs).await {
            tracing::debug!(pod = %name, %source, %error, "arriving connection is judged by what is known");
        }
    }
}
