//! Applies what is planned for Gateways, while we lead.

mod apply;
mod owned;
mod queue;
mod resource;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use futures::StreamExt;
use kube::Client;
use mesh_core::drain::DrainWatch;
use mesh_core::names::NamespacedName;
use tokio::sync::watch;

use crate::lead;
use crate::translate::Model;
use crate::translate::plan::{Deployment, Plan, plan};
use apply::Applier;
use owned::Owned;
use queue::Queue;

/// Makes the objects of Gateways what they should be. Leader only.
pub struct Deployer {
    /// The API server.
    pub client: Client,
    /// What is known of the cluster.
    pub model: Arc<RwLock<Model>>,
    /// Changes after the model did; the first time when everything is read.
    pub publications: watch::Receiver<()>,
    /// Whether we may write.
    pub leading: watch::Receiver<bool>,
}

impl std::fmt::Debug for Deployer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Deployer").finish_non_exhaustive()
    }
}

impl Deployer {
    /// Runs until the drain starts.
    pub async fn run(mut self, mut drain: DrainWatch) {
        // Parameters that were not read yet would look as if they were missing.
        tokio::select! {
            _ = drain.signaled() => return,
            published = self.publications.changed() => if published.is_err() { return },
        }
        let mut leading = self.leading.clone();
        loop {
            if !lead::becomes(true, &mut leading, &mut drain).await {
                return;
            }
            tokio::select! {
                goes_on = lead::becomes(false, &mut leading, &mut drain) => if !goes_on { return },
                () = self.term() => return,
            }
        }
    }

    /// One term as leader. Ends only when nobody publishes any more.
    async fn term(&mut self) {
        let mut owned = owned::events(&self.client);
        let mut plans = Plans::default();
        let mut queue = Queue::new(Arc::new(Applier::new(self.client.clone())));
        loop {
            queue.add(plans.refresh(&self.model));
            queue.start(&plans.deployments);
            tokio::select! {
                changed = self.publications.changed() => if changed.is_err() { return },
                event = owned.next() => match event {
                    Some(Owned::Changed(gateway)) if plans.deployments.contains_key(&gateway) => queue.add([gateway]),
                    Some(Owned::Changed(_)) => {}
                    // What vanished unseen is not told.
                    Some(Owned::Listed) => queue.add(plans.deployments.keys().cloned()),
                    None => return,
                },
                () = queue.step() => {}
            }
        }
    }
}

/// What is planned for every Gateway, as of the last look.
#[derive(Default)]
struct Plans {
    /// The state of the model that was looked at.
    epoch: Option<u64>,
    deployments: BTreeMap<NamespacedName, Arc<Deployment>>,
    /// Why nothing is done for some.
    refused: BTreeMap<NamespacedName, String>,
}

impl Plans {
    /// Looks again, and tells for which Gateways something else is planned.
    fn refresh(&mut self, model: &RwLock<Model>) -> Vec<NamespacedName> {
        let model = model.read().unwrap_or_else(PoisonError::into_inner);
        if self.epoch.replace(model.gateway_epoch()) == Some(model.gateway_epoch()) {
            return Vec::new();
        }
        let world = model.world();
        let (mut deployments, mut refused) = (BTreeMap::new(), BTreeMap::new());
        if world.settings().proxies.deploys {
            for gateway in world.gateways() {
                match plan(world, gateway) {
                    Some(Plan::Deploy(deployment)) => drop(deployments.insert(gateway.key.clone(), deployment)),
                    Some(Plan::Refused(reason)) => drop(refused.insert(gateway.key.clone(), reason)),
                    Some(Plan::Nothing) | None => {}
                }
            }
        }
        drop(model);
        for (gateway, reason) in refused.iter().filter(|(gateway, reason)| self.refused.get(*gateway) != Some(*reason))
        {
            tracing::warn!(%gateway, reason, "parameters cannot be used, nothing is applied");
        }
        self.refused = refused;
        let old = std::mem::replace(&mut self.deployments, deployments);
        let different = self.deployments.iter().filter(|(gateway, new)| old.get(*gateway) != Some(*new));
        different.map(|(gateway, _)| gateway.clone()).collect()
    }
}
