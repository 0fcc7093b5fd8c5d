//! What should be made for a Gateway. Pure.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mesh_api::labels as names;
use mesh_core::names::NamespacedName;
use serde_json::Value;

use super::gateway::infrastructure::{self, Infrastructure, is_managed};
use super::gateway::overlay::{self, layers};
use super::gateway::render::{self, Frame, ServicePort};
use super::gateway::{Family, Kinds};
use super::listener::{Effective, ListenerProtocol, effective};
use crate::world::{Gateway, World};

/// What is to be done for a Gateway.
#[derive(Clone, Debug, PartialEq)]
pub enum Plan {
    /// These objects are to exist.
    Deploy(Arc<Deployment>),
    /// The user deploys it, or nobody does.
    Nothing,
    /// Parameters that cannot be used; what exists stays as it is.
    Refused(String),
}

/// The objects of a Gateway.
#[derive(Clone, Debug, PartialEq)]
pub struct Deployment {
    /// The Gateway.
    pub gateway: NamespacedName,
    /// Its `metadata.uid`.
    pub uid: Arc<str>,
    /// Field manager of what is applied.
    pub manager: String,
    /// Name of the Deployment and the Service.
    pub name: String,
    /// Name of the service account.
    pub account: String,
    /// In the order in which they are applied.
    pub objects: BTreeMap<Kinds, Value>,
}

/// What should be made for a Gateway; none where it is not ours.
///
/// # Source
/// spec of the gateway controller, sections 2 and 3.
pub fn plan(world: &World, gateway: &Gateway) -> Option<Plan> {
    let family = Family::of_class(world, &gateway.class)?;
    if !owns(world, gateway) || !world.visible(&gateway.key.namespace) {
        return None;
    }
    if family == Family::Remote || !is_managed(gateway) {
        return Some(Plan::Nothing);
    }
    if let Some(reason) = unusable_name(world, gateway, family) {
        return Some(Plan::Refused(reason));
    }
    let layers = match layers(world, gateway) {
        Ok(layers) => layers,
        Err(reason) => return Some(Plan::Refused(reason)),
    };
    let infrastructure = Infrastructure::of(world, gateway, family);
    let ports = service_ports(world, gateway);
    let frame = Frame { world, gateway, family, infrastructure: &infrastructure, ports: &ports };
    let wanted = |kind: &Kinds| kind.is_usual() || layers.iter().any(|layer| layer.contains_key(kind));
    let objects = Kinds::ALL.into_iter().filter(wanted).map(|kind| {
        let mut object = render::object(&frame, kind);
        layers.iter().filter_map(|layer| layer.get(&kind)).for_each(|patch| overlay::apply(&mut object, patch));
        (kind, object)
    });
    Some(Plan::Deploy(Arc::new(Deployment {
        gateway: gateway.key.clone(),
        uid: gateway.uid.clone(),
        manager: family.controller(world.settings()).to_owned(),
        objects: objects.collect(),
        name: infrastructure.name,
        account: infrastructure.account,
    })))
}

/// Why nothing can be made under the names that a Gateway's objects would have; none where it can.
pub fn unusable_name(world: &World, gateway: &Gateway, family: Family) -> Option<String> {
    if family == Family::Remote || !is_managed(gateway) {
        return None;
    }
    let name = infrastructure::name(gateway, family);
    if !is_service_name(&name) {
        return Some(format!(
            "its Deployment and Service would have the name {name:?}: expected are lower-case letters, digits and dashes, \
             a letter first, no more than 63 (annotation {} gives another name)",
            crate::world::NAME_OVERRIDE
        ));
    }
    let account = infrastructure::account(gateway, family);
    if !account.split('.').all(is_label) || account.len() > ACCOUNT_NAME_MAX {
        return Some(format!("its service account would have the name {account:?}, which is no name of one"));
    }
    let age = |one: &Gateway| (one.created_s, one.key.clone());
    let same = world.gateways().filter(|other| {
        other.key.namespace == gateway.key.namespace && other.key != gateway.key && age(other) < age(gateway)
    });
    let mut same = same.filter(|other| {
        let family = Family::of_class(world, &other.class).filter(|family| *family != Family::Remote);
        family.is_some_and(|family| is_managed(other) && infrastructure::name(other, family) == name)
    });
    same.next().map(|other| {
        format!(
            "its Deployment and Service would have the name {name:?}, which those of the older Gateway {} have",
            other.key
        )
    })
}

fn is_service_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase()) && is_label(name)
}

fn is_label(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let inner = name.chars().all(|c| plain(c) || c == '-');
    inner && name.starts_with(plain) && name.ends_with(plain) && name.len() <= PORT_NAME_MAX
}

/// Whether a Gateway is this control plane's to deploy, and to write the status of.
pub fn owns(world: &World, gateway: &Gateway) -> bool {
    let said = |text: Option<&str>| text.filter(|text| !text.is_empty()).map(str::to_owned);
    let of_namespace = || said(world.namespace(&gateway.key.namespace)?.labels.get(names::REVISION));
    let wanted = said(gateway.labels.get(names::REVISION)).or_else(of_namespace);
    world.is_own_revision(wanted.as_deref().unwrap_or(DEFAULT_REVISION))
}

/// Whether the Service has a port for a listener. For one that cannot be served it has none.
pub(super) fn has_port(listener: &Effective<'_>) -> bool {
    let served = !matches!(listener.protocol, ListenerProtocol::Udp | ListenerProtocol::Unknown);
    listener.port != 0 && served && !render::is_own_port(listener.port)
}

/// One port for each that a listener is on.
fn service_ports(world: &World, gateway: &Gateway) -> Vec<ServicePort> {
    let mut numbers = BTreeSet::from([render::STATUS_PORT]);
    let mut taken = BTreeSet::from(["status-port".to_owned()]);
    let mut ports = Vec::new();
    for listener in effective(world, gateway) {
        if !has_port(&listener) || !numbers.insert(listener.port) {
            continue;
        }
        let plain = listener.name().replace('.', "-");
        let mut name = cut(&plain, PORT_NAME_MAX);
        if taken.contains(&name) {
            let suffix = format!("-{}", listener.port);
            name = cut(&plain, PORT_NAME_MAX - suffix.len()) + &suffix;
        }
        taken.insert(name.clone());
        let protocol = listener.written.protocol.to_ascii_lowercase();
        ports.push(ServicePort { name, port: listener.port, app_protocol: protocol });
    }
    ports
}

fn cut(name: &str, max: usize) -> String {
    let cut: String = name.chars().take(max).collect();
    cut.trim_end_matches('-').to_owned()
}

/// Revision of objects without the label.
const DEFAULT_REVISION: &str = "default";
/// Longest name of a port, and of a Service.
const PORT_NAME_MAX: usize = 63;
/// Longest name of a service account.
const ACCOUNT_NAME_MAX: usize = 253;
