//! Names, labels and annotations of what is made for a Gateway.

use std::borrow::Cow;
use std::collections::BTreeMap;

use mesh_api::labels as names;
use mesh_core::names::NamespacedName;

use super::Family;
use crate::world::short_name::short_name;
use crate::world::{Gateway, NAME_OVERRIDE, World};

/// Text by key, as Kubernetes has it.
pub(crate) type Texts = BTreeMap<String, String>;

/// What all objects of a Gateway have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Infrastructure {
    /// Name of the Deployment and the Service.
    pub name: String,
    /// Name of the service account.
    pub account: String,
    /// Labels of every object.
    pub labels: Texts,
    /// Annotations of every object.
    pub annotations: Texts,
    /// Value of the label that keeps pods from being enrolled, where the user has not set one.
    pub mode: Option<&'static str>,
}

impl Infrastructure {
    /// Of a Gateway.
    pub fn of(world: &World, gateway: &Gateway, family: Family) -> Self {
        let (mut labels, mut annotations) = asked(world, gateway);
        let reserved = |key: &String, _: &mut String| !key.starts_with(RESERVED_PREFIX);
        labels.retain(reserved);
        annotations.retain(reserved);
        annotations.retain(|key, _| !OWN_ANNOTATIONS.contains(&key.as_str()));
        let chosen = gateway.labels.get(names::DATAPLANE_MODE).is_some() || labels.contains_key(names::DATAPLANE_MODE);
        let mode = (!chosen).then_some(names::DATAPLANE_MODE_NONE);
        if let Some(mode) = mode.filter(|_| family == Family::Edge) {
            labels.insert(names::DATAPLANE_MODE.to_owned(), mode.to_owned());
        }
        let network = gateway.network.as_deref().unwrap_or_else(|| world.network());
        if family.inside() && !network.is_empty() {
            labels.insert(names::NETWORK.to_owned(), network.to_owned());
        }
        let controller = family.controller(world.settings()).replace('/', "-");
        labels.extend([
            (names::GATEWAY_NAME.to_owned(), short_name(&gateway.key.name).into_owned()),
            (CLASS_LABEL.to_owned(), gateway.class.to_string()),
            (names::GATEWAY_MANAGED.to_owned(), controller),
        ]);
        Self { name: name(gateway, family), account: account(gateway, family), labels, annotations, mode }
    }
}

/// Name of the Deployment and the Service of a Gateway.
pub fn name(gateway: &Gateway, family: Family) -> String {
    override_of(gateway, NAME_OVERRIDE).unwrap_or_else(|| default_name(gateway, family))
}

/// Name of the service account of a Gateway's proxies.
pub fn account(gateway: &Gateway, family: Family) -> String {
    override_of(gateway, names::GATEWAY_SERVICE_ACCOUNT).unwrap_or_else(|| default_name(gateway, family))
}

/// Whether its proxies are made by us: else the user names a Service.
pub fn is_managed(gateway: &Gateway) -> bool {
    match gateway.spec.addresses.as_slice() {
        [] => true,
        [one] => one.type_.as_deref().unwrap_or("IPAddress") == "IPAddress",
        _ => false,
    }
}

/// The ConfigMap that a Gateway names as its parameters.
pub fn parameters(gateway: &Gateway) -> Option<Result<NamespacedName, String>> {
    let reference = gateway.spec.infrastructure.as_ref()?.parameters_ref.as_ref()?;
    Some(match (reference.group.as_str(), reference.kind.as_str()) {
        ("", "ConfigMap") => Ok(NamespacedName::new(gateway.key.namespace.clone(), reference.name.as_str())),
        (group, kind) => Err(format!(
            "spec.infrastructure.parametersRef: kind {kind:?} of group {group:?} is not served, expected ConfigMap of the core group"
        )),
    })
}

fn default_name(gateway: &Gateway, family: Family) -> String {
    let name = &*gateway.key.name;
    let name = if family.names_class() { Cow::Owned(format!("{name}-{}", gateway.class)) } else { Cow::Borrowed(name) };
    short_name(&name).into_owned()
}

fn override_of(gateway: &Gateway, annotation: &str) -> Option<String> {
    gateway.annotations.get(annotation).filter(|text| !text.is_empty()).map(str::to_owned)
}

/// Labels and annotations that the user wants: those that `infrastructure` names, else the Gateway's own.
fn asked(world: &World, gateway: &Gateway) -> (Texts, Texts) {
    let own = |labels: &crate::world::Labels| {
        labels.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect::<Texts>()
    };
    match &gateway.spec.infrastructure {
        Some(infrastructure) => (infrastructure.labels.clone(), infrastructure.annotations.clone()),
        None if world.settings().proxies.copy_metadata => (own(&gateway.labels), own(&gateway.annotations)),
        None => (Texts::new(), Texts::new()),
    }
}

/// Label of objects: the class of their Gateway.
pub const CLASS_LABEL: &str = "gateway.networking.k8s.io/gateway-class-name";
/// Gateway annotation: version of the controller that has deployed it.
pub const CONTROLLER_VERSION: &str = "gateway.istio.io/controller-version";
/// Labels and annotations of the Gateway API are never the user's.
const RESERVED_PREFIX: &str = "gateway.networking.k8s.io/";
/// Annotations that speak of the Gateway itself.
const OWN_ANNOTATIONS: [&str; 4] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    NAME_OVERRIDE,
    names::GATEWAY_SERVICE_ACCOUNT,
    CONTROLLER_VERSION,
];
