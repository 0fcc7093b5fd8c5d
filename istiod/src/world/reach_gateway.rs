//! What a change can touch of what is made for Gateways, of their statuses and of their listeners, beyond their own change
//! and that of their routes.

use std::sync::Arc;

use mesh_api::labels as names;
use mesh_core::names::NamespacedName;

use super::query_gateway::{CLASS_DEFAULTS, NAME_OVERRIDE, TAG};
use super::short_name::head;
use super::store::in_namespace;
use super::{Dirty, Gateway, Kind, Object, Pod, Service, World};

impl World {
    /// What depends on `object`. Called for what it was and for what it is.
    pub(super) fn reach_gateways(&self, object: &Object, dirty: &mut Dirty) {
        match object {
            // Whether any of them is ready.
            Object::Pod(pod) => {
                if let Some(gateway) = pod.labels.get(names::GATEWAY_NAME) {
                    let key = self.labelled_gateway(&pod.key.namespace, gateway);
                    self.reach_gateway_status(&key, dirty);
                    // Policies and rules select its pods.
                    dirty.proxies.insert(key);
                }
                self.reach_deployed_by_hand(pod, dirty);
            }
            // Theirs, or one that they name as an address.
            Object::Service(service) => {
                if let Some(gateway) = service.labels.get(names::GATEWAY_NAME) {
                    let key = self.labelled_gateway(&service.key.namespace, gateway);
                    self.reach_gateway_status(&key, dirty);
                }
                // A Service of the user's may have the name that theirs would have.
                let hostname = self.settings.hostname(&service.key);
                for gateway in self.gateways.values().filter(|gateway| may_lead_to(service, &hostname, gateway)) {
                    self.reach_gateway_itself(&gateway.key, dirty);
                }
                // Whose they are may change.
                let tag = service.labels.get(TAG).is_some();
                if tag && service.key.namespace == self.settings.system_namespace {
                    self.gateways.keys().for_each(|gateway| self.reach_gateway_status(gateway, dirty));
                }
            }
            // Names of what is made for others may be the same.
            Object::Gateway(gateway) => {
                let mut near = in_namespace(&self.gateways, &gateway.key.namespace);
                let renamed = |one: &Gateway| one.annotations.get(NAME_OVERRIDE).is_some();
                let alike = |other: &Gateway| {
                    let (one, other) = (head(&gateway.key.name), head(&other.key.name));
                    one.starts_with(other) || other.starts_with(one)
                };
                let all = renamed(gateway);
                let same = near.by_ref().filter(|(_, other)| all || renamed(other) || alike(other));
                dirty.conditions.extend(same.map(|(key, _)| (Kind::Gateway, key.clone())));
            }
            Object::GatewayClass(class) => {
                let key = NamespacedName::new("", class.name.clone());
                dirty.conditions.insert((Kind::GatewayClass, key));
                let gateways = self.gateways.values().filter(|gateway| gateway.class == class.name);
                gateways.for_each(|gateway| self.reach_gateway_itself(&gateway.key, dirty));
            }
            Object::Namespace(namespace) => {
                for (key, _) in in_namespace(&self.gateways, &namespace.name) {
                    self.reach_gateway_itself(key, dirty);
                }
            }
            Object::ConfigMap(map) => {
                if let Some(class) = map.labels.get(CLASS_DEFAULTS) {
                    let gateways = self.gateways.values().filter(|gateway| *gateway.class == *class);
                    gateways.for_each(|gateway| self.reach_gateway_itself(&gateway.key, dirty));
                }
                self.reach_naming(Kind::ConfigMap, &map.key, dirty);
            }
            Object::Secret(secret) => self.reach_naming(Kind::Secret, &secret.key, dirty),
            _ => {}
        }
    }

    /// Gateways that name a ConfigMap or Secret.
    pub(super) fn reach_naming(&self, kind: Kind, key: &NamespacedName, dirty: &mut Dirty) {
        let of_sets = |gateway: &Arc<Gateway>| {
            self.sets_of(&gateway.key).any(|set| {
                let listeners = set.spec.listeners.iter();
                listeners.filter_map(|one| one.tls.as_ref()).any(|tls| {
                    let mut names = tls.certificate_refs.iter();
                    names.any(|one| *one.name == *key.name && is_in(one.namespace.as_deref(), &set.key.namespace, key))
                })
            })
        };
        let naming = self.gateways.values().filter(|gateway| names_material(gateway, kind, key) || of_sets(gateway));
        for gateway in naming {
            // Parameters may say other labels of its pods.
            self.reach_gateway_itself(&gateway.key, dirty);
        }
    }

    /// Whether a gateway, or a ListenerSet of it, names a certificate or authority of another namespace.
    pub(super) fn names_material_in(&self, gateway: &Gateway, namespace: &str) -> bool {
        let tls = gateway.spec.tls.as_ref();
        let client = tls.and_then(|tls| tls.backend.as_ref()?.client_certificate_ref.as_ref());
        let frontend = tls.and_then(|tls| tls.frontend.as_ref()).into_iter();
        let validations = frontend.flat_map(|one| one.per_port.iter().map(|port| &port.tls).chain([&one.default]));
        let authorities =
            validations.filter_map(|one| one.validation.as_ref()).flat_map(|one| &one.ca_certificate_refs);
        let sets = self.sets_of(&gateway.key).flat_map(|set| &set.spec.listeners);
        let listeners = gateway.spec.listeners.iter().chain(sets).filter_map(|one| one.tls.as_ref());
        let certificates = listeners.flat_map(|one| &one.certificate_refs).chain(client);
        let mut named =
            certificates.map(|one| one.namespace.as_deref()).chain(authorities.map(|one| one.namespace.as_deref()));
        named.any(|named| named == Some(namespace))
    }

    /// Gateways that name a Service as their address: pods of the Service are their proxies.
    fn reach_deployed_by_hand(&self, pod: &Pod, dirty: &mut Dirty) {
        let namespace = &pod.key.namespace;
        let manual = in_namespace(&self.gateways, namespace).filter(|(_, gateway)| !gateway.spec.addresses.is_empty());
        for (key, gateway) in manual {
            let named = gateway.spec.addresses.iter().filter_map(|one| one.value.as_deref()?.split('.').next());
            let mut services =
                named.filter_map(|name| self.services.get(&NamespacedName::new(namespace.clone(), name)));
            if services.any(|service| service.selector.as_ref().is_some_and(|one| pod.labels.contains(one))) {
                dirty.proxies.insert(key.clone());
            }
        }
    }

    fn reach_gateway_itself(&self, gateway: &NamespacedName, dirty: &mut Dirty) {
        dirty.listeners.insert(gateway.clone());
        dirty.proxies.insert(gateway.clone());
        self.reach_gateway_status(gateway, dirty);
    }

    /// Its status and those of its ListenerSets.
    fn reach_gateway_status(&self, gateway: &NamespacedName, dirty: &mut Dirty) {
        dirty.conditions.insert((Kind::Gateway, gateway.clone()));
        dirty.conditions.extend(self.sets_of(gateway).map(|set| (Kind::ListenerSet, set.key.clone())));
    }
}

/// Whether a Service may be the one that leads to a Gateway's proxies.
fn may_lead_to(service: &Service, hostname: &str, gateway: &Gateway) -> bool {
    let near = service.key.namespace == gateway.key.namespace;
    let name = &*service.key.name;
    let made = match gateway.annotations.get(NAME_OVERRIDE).filter(|text| !text.is_empty()) {
        Some(other) => other == name,
        // Long names are cut.
        None => [&*gateway.key.name, head(&gateway.key.name)]
            .iter()
            .any(|start| name.strip_prefix(*start).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))),
    };
    let mut addresses = gateway.spec.addresses.iter().filter_map(|one| one.value.as_deref());
    (near && made) || addresses.any(|address| *address == *hostname || (near && address == name))
}

fn names_material(gateway: &Gateway, kind: Kind, key: &NamespacedName) -> bool {
    let own = &gateway.key.namespace;
    let spec = &gateway.spec;
    let tls = spec.tls.as_ref();
    let client = tls.and_then(|tls| tls.backend.as_ref()?.client_certificate_ref.as_ref());
    let listeners = spec.listeners.iter().filter_map(|one| one.tls.as_ref()).flat_map(|one| &one.certificate_refs);
    let mut certificates = listeners.chain(client);
    let frontend = tls.and_then(|tls| tls.frontend.as_ref());
    let validations =
        frontend.into_iter().flat_map(|one| one.per_port.iter().map(|port| &port.tls).chain([&one.default]));
    let mut authorities =
        validations.filter_map(|one| one.validation.as_ref()).flat_map(|one| &one.ca_certificate_refs);
    let parameters = spec.infrastructure.as_ref().and_then(|one| one.parameters_ref.as_ref());
    let is_parameters = parameters.is_some_and(|one| {
        kind == Kind::ConfigMap && one.kind == kind.name() && *one.name == *key.name && *own == key.namespace
    });
    is_parameters
        || (kind == Kind::Secret
            && certificates.any(|one| *one.name == *key.name && is_in(one.namespace.as_deref(), own, key)))
        || authorities
            .any(|one| one.kind == kind.name() && *one.name == *key.name && is_in(one.namespace.as_deref(), own, key))
}

/// Kinds that name ConfigMaps and Secrets, or decide which of their names count.
pub(super) const NAMING: [Kind; 7] = [
    Kind::Gateway,
    Kind::GatewayClass,
    Kind::ListenerSet,
    Kind::ReferenceGrant,
    Kind::Namespace,
    Kind::BackendTlsPolicy,
    Kind::DestinationRule,
];

fn is_in(namespace: Option<&str>, own: &str, key: &NamespacedName) -> bool {
    namespace.unwrap_or(own) == &*key.namespace
}
