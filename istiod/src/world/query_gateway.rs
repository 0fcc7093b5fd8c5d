//! Questions about gateways and what they name.

use std::sync::Arc;

use mesh_api::labels as names;
use mesh_core::names::NamespacedName;

use super::store::in_namespace;
use super::{GatewayClass, Kind, Material, Object, Service, World};

impl World {
    /// Whether a revision, or a tag that stands for one, is this control plane's. Services of the system namespace say
    /// what tags stand for.
    ///
    /// # Source
    /// spec of installation, section 7.
    pub fn is_own_revision(&self, named: &str) -> bool {
        let mut tagged = self.services_in(&self.settings.system_namespace);
        let tag = tagged.find(|service| service.labels.get(TAG) == Some(named));
        let meant = tag.and_then(|service| service.labels.get(names::REVISION)).unwrap_or(named);
        let own = &*self.settings.revision;
        meant == if own.is_empty() { DEFAULT_REVISION } else { own }
    }

    /// Every GatewayClass, by name.
    pub fn gateway_classes(&self) -> impl Iterator<Item = &Arc<GatewayClass>> {
        self.gateway_classes.values()
    }

    /// The ConfigMap with what Gateways of a class have in common: the oldest that says it is.
    pub fn class_defaults(&self, class: &str) -> Option<&Arc<Material>> {
        let maps = in_namespace(&self.config_maps, &self.settings.system_namespace).map(|(_, map)| map);
        let named = maps.filter(|map| map.labels.get(CLASS_DEFAULTS) == Some(class));
        named.min_by(|one, other| (one.created_s, &one.key).cmp(&(other.created_s, &other.key)))
    }

    /// ConfigMaps that say that they are for a class.
    pub fn defaults_keys(&self, kind: Kind) -> Vec<NamespacedName> {
        let maps =
            self.config_maps.values().filter(|map| kind == Kind::ConfigMap && map.labels.get(CLASS_DEFAULTS).is_some());
        maps.map(|map| map.key.clone()).collect()
    }

    /// Changes with every change of an object that may name a ConfigMap or Secret, or permit it.
    pub fn reference_epoch(&self) -> u64 {
        self.reference_epoch
    }

    /// Changes with every change of an object that decides what is made for Gateways, and with some more.
    pub fn deployment_epoch(&self) -> u64 {
        self.deployment_epoch
    }

    /// Whether what is made for Gateways may depend on an object: on their own, not on their routes.
    pub(super) fn decides_deployments(&self, object: &Object) -> bool {
        match object {
            Object::Gateway(_) | Object::GatewayClass(_) | Object::ListenerSet(_) => true,
            Object::ConfigMap(_) | Object::Namespace(_) => true,
            // It says what a revision is called.
            Object::Service(service) => {
                let own = |one: &Service| one.labels.get(TAG).is_some();
                let before = self.services.get(&service.key).is_some_and(|old| own(old));
                service.key.namespace == self.settings.system_namespace && (own(service) || before)
            }
            _ => false,
        }
    }

    /// Whether a ConfigMap or Secret has not been looked for yet.
    pub fn is_unread(&self, kind: Kind, key: &NamespacedName) -> bool {
        self.material(kind, key).is_none() && !self.absent.contains(&(kind, key.clone()))
    }

    /// ConfigMaps that policies for backends name, which are of the namespaces of the policies.
    pub fn backend_authorities(&self) -> impl Iterator<Item = NamespacedName> {
        let policies = self.backend_tls.values().filter(|policy| self.visible(&policy.key.namespace));
        policies.flat_map(|policy| {
            let references = policy.spec.validation.ca_certificate_refs.iter();
            let maps = references.filter(|one| matches!(one.group.as_str(), "" | "core") && one.kind == "ConfigMap");
            maps.map(|one| NamespacedName::new(policy.key.namespace.clone(), one.name.as_str()))
        })
    }
}

/// Gateway annotation: name of its Deployment and Service, where not the usual one.
pub(crate) const NAME_OVERRIDE: &str = "gateway.istio.io/name-override";
/// Label of Services of the control plane's namespace: the tag that stands for their revision.
pub(super) const TAG: &str = "istio.io/tag";
/// Revision of a control plane without one.
const DEFAULT_REVISION: &str = "default";
/// Label of ConfigMaps of the control plane's namespace: the class whose Gateways they are for.
pub(crate) const CLASS_DEFAULTS: &str = "gateway.istio.io/defaults-for-class";
