//! Labels of the pods of a Gateway: policies and rules with a selector are for pods, not for the Gateway. Pure.

use std::sync::Arc;

use mesh_core::names::NamespacedName;
use serde_json::{Value, json};

use super::infrastructure::{self, Infrastructure, Texts};
use super::render::{Frame, pod_labels};
use super::{Family, Kinds, overlay};
use crate::world::{Gateway, Labels, Pod, World};

/// Labels that pods of a Gateway have, and those that they are about to get, each set once. They may differ: while a
/// Deployment is rolled out, or where the user deploys the proxies.
pub fn of_pods(world: &World, gateway: &Gateway, family: Family) -> Vec<Labels> {
    let mut found: Vec<Labels> = planned(world, gateway, family).into_iter().collect();
    let mut add = |labels: &Labels| {
        if !found.contains(labels) {
            found.push(labels.clone());
        }
    };
    // Others are told nothing.
    let account = infrastructure::account(gateway, family);
    let is_proxy = |pod: &&Arc<Pod>| *pod.service_account == *account;
    world.pods_of_gateway(&gateway.key).filter(is_proxy).for_each(|pod| add(&pod.labels));
    for selector in selectors(world, gateway) {
        // Pods that are yet to come have at least these.
        add(selector);
        let pods = world.pods_in(&gateway.key.namespace).filter(|pod| pod.labels.contains(selector));
        pods.filter(is_proxy).for_each(|pod| add(&pod.labels));
    }
    found
}

/// Labels that the Deployment gives to pods, overlays included; none where the user deploys them.
fn planned(world: &World, gateway: &Gateway, family: Family) -> Option<Labels> {
    if family == Family::Remote || !infrastructure::is_managed(gateway) {
        return None;
    }
    let infrastructure = Infrastructure::of(world, gateway, family);
    let frame = Frame { world, gateway, family, infrastructure: &infrastructure, ports: &[] };
    let mut deployment = json!({"spec": {"template": {"metadata": {"labels": pod_labels(&frame)}}}});
    // Overlays that cannot be read change nothing of what exists.
    for layer in overlay::layers(world, gateway).unwrap_or_default() {
        if let Some(patch) = layer.get(&Kinds::Deployment) {
            overlay::apply(&mut deployment, patch);
        }
    }
    let labels = deployment.pointer("/spec/template/metadata/labels").and_then(Value::as_object)?;
    let labels = labels.iter().filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())));
    Some(labels.collect::<Texts>().into_iter().collect())
}

/// What the Services select that a Gateway with proxies of the user's names.
fn selectors<'a>(world: &'a World, gateway: &'a Gateway) -> impl Iterator<Item = &'a Labels> {
    let manual = !infrastructure::is_managed(gateway);
    let named = gateway.spec.addresses.iter().filter(move |_| manual).filter_map(|one| one.value.as_deref());
    named.filter_map(|name| {
        let service = match name.split_once('.') {
            None => NamespacedName::new(gateway.key.namespace.clone(), name),
            Some((short, _)) => {
                let key = NamespacedName::new(gateway.key.namespace.clone(), short);
                (*world.settings().hostname(&key) == *name).then_some(key)?
            }
        };
        world.service(&service)?.selector.as_ref()
    })
}
