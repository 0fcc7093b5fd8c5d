//! Policies that a workload names.

use std::sync::Arc;

use super::{peer, policy};
use crate::world::{Labels, World};

/// Policies that select the workloads of a namespace with these labels: what users wrote, by name, then what stands for
/// their PeerAuthentication.
///
/// # Source
/// spec of the workload model, section 9.5.
pub(super) fn policies(world: &World, namespace: &Arc<str>, labels: &Labels) -> Vec<String> {
    let settings = world.settings();
    let root = &settings.root_namespace;
    let own = world.authorizations_selecting(namespace, labels);
    let elsewhere = *namespace != *root && world.visible(root);
    let global = elsewhere.then(|| world.authorizations_selecting(root, labels)).into_iter().flatten();
    let sent = own.chain(global).filter(|one| policy::is_sent(one, settings));
    let mut keys: Vec<_> = sent.map(|policy| policy.key.to_string()).collect();
    keys.sort();
    keys.extend(peer::reference(namespace, labels, world));
    keys
}
