//! Takes responses of the control plane and publishes the snapshots that follow from them.

use std::sync::Arc;

use arc_swap::ArcSwap;
use mesh_core::Identity;
use mesh_policy::Policy;
use mesh_wire::{security, type_url, workload as wire};
use mesh_xds::client::{Handler, Rejection, Resource};
use prost::Message;
use tokio::sync::watch;

use super::reject::FieldError;
use super::service::Service;
use super::snapshot::{Found, Snapshot};
use super::words::Words;
use super::workload::Workload;
use super::writer::{IdentityChanges, Writer};

/// Told which identities this node needs certificates for.
pub trait IdentityWatcher: Send + Sync {
    /// The first workload with this identity came to this node: warm its certificate.
    fn needed(&self, identity: &Identity);
    /// The last one left: forget its certificate.
    fn unneeded(&self, identity: &Identity);
}

/// The one writer of a [`super::State`].
pub struct Feed {
    writer: Writer,
    words: Words,
    current: Arc<ArcSwap<Snapshot>>,
    generation: watch::Sender<u64>,
    identities: Arc<dyn IdentityWatcher>,
}

impl Feed {
    pub(super) fn new(
        first: Snapshot,
        current: Arc<ArcSwap<Snapshot>>,
        generation: watch::Sender<u64>,
        identities: Arc<dyn IdentityWatcher>,
    ) -> Self {
        Self { writer: Writer::new(first), words: Words::default(), current, generation, identities }
    }

    /// Applies workloads and services, then removals, as one change. Returns what was refused.
    pub fn addresses(&mut self, upserts: Vec<(String, wire::Address)>, removed: &[String]) -> Vec<Rejection> {
        let mut rejected = Vec::new();
        let decoded = upserts.into_iter().filter_map(|(name, message)| match self.decode(message) {
            Ok(resource) => Some(resource),
            Err(reason) => {
                rejected.push(Rejection::new(name, reason.to_string()));
                None
            }
        });
        let decoded: Vec<_> = decoded.collect();
        let changes = self.writer.apply_addresses(decoded, removed);
        self.words.prune();
        self.publish();
        self.tell(&changes);
        rejected
    }

    /// Applies policies, then removals, as one change. Returns what was refused.
    pub fn policies(&mut self, upserts: Vec<(String, security::Authorization)>, removed: &[String]) -> Vec<Rejection> {
        let (mut decoded, mut rejected) = (Vec::new(), Vec::new());
        for (name, message) in upserts {
            match Policy::decode(&name, message) {
                Ok(policy) => {
                    for note in &policy.notes {
                        tracing::warn!(policy = name, note, "part of a policy is unusable");
                    }
                    decoded.push(policy);
                }
                Err(reason) => rejected.push(Rejection::new(name, reason.to_string())),
            }
        }
        self.writer.apply_policies(decoded, removed);
        self.publish();
        rejected
    }

    fn decode(&mut self, message: wire::Address) -> Result<Found, FieldError> {
        use wire::address::Type;
        match message.r#type {
            Some(Type::Workload(workload)) => Workload::decode(workload, &mut self.words)
                .map(|workload| Found::Workload(Arc::new(workload)))
                .map_err(|error| error.within("workload")),
            Some(Type::Service(service)) => Service::decode(service, &mut self.words)
                .map(|service| Found::Service(Arc::new(service)))
                .map_err(|error| error.within("service")),
            None => Err(FieldError::new("type", "nothing", "a workload or a service")),
        }
    }

    fn publish(&self) {
        let snapshot = self.writer.snapshot();
        let generation = snapshot.generation;
        // The snapshot comes first: whoever wakes on the generation must see it.
        self.current.store(Arc::new(snapshot));
        self.generation.send_replace(generation);
    }

    fn tell(&self, changes: &IdentityChanges) {
        for identity in &changes.unneeded {
            self.identities.unneeded(identity);
        }
        for identity in &changes.needed {
            self.identities.needed(identity);
        }
    }
}

impl Handler for Feed {
    fn apply(&mut self, type_url: &str, resources: Vec<Resource>, removed: Vec<String>) -> Vec<Rejection> {
        let mut rejected = Vec::new();
        let unusable = match type_url {
            type_url::ADDRESS => {
                let upserts = parse(resources, &mut rejected);
                self.addresses(upserts, &removed)
            }
            type_url::AUTHORIZATION => {
                let upserts = parse(resources, &mut rejected);
                self.policies(upserts, &removed)
            }
            _ => Vec::new(),
        };
        rejected.extend(unusable);
        rejected
    }
}

fn parse<M: Message + Default>(resources: Vec<Resource>, rejected: &mut Vec<Rejection>) -> Vec<(String, M)> {
    let parsed = resources.into_iter().filter_map(|resource| match M::decode(resource.value.as_slice()) {
        Ok(message) => Some((resource.name, message)),
        Err(error) => {
            rejected.push(Rejection::new(resource.name, format!("undecodable message: {error}")));
            None
        }
    });
    parsed.collect()
}
