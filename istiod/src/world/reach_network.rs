//! What a gateway between networks reaches: every service that is for all clusters, none of which names it.

use super::{Dirty, Gateway, HostKey, Labels, Object, Scope, World};

impl World {
    /// Services that the proxies of a gateway between networks are told of. Called for what `object` was and for what it
    /// is.
    pub(super) fn reach_joined(&self, object: &Object, dirty: &mut Dirty) {
        let joins = match object {
            Object::Gateway(gateway) => self.joins_networks(gateway),
            Object::GatewayClass(class) => {
                let joins = *class.controller == *EAST_WEST_CONTROLLER || *class.name == *EAST_WEST_CLASS;
                joins && self.gateways.values().any(|gateway| gateway.class == class.name)
            }
            // It may hide its gateways.
            Object::Namespace(namespace) => {
                let mut gateways = super::store::in_namespace(&self.gateways, &namespace.name);
                !self.settings.discovery_selectors.is_empty() && gateways.any(|(_, one)| self.joins_networks(one))
            }
            _ => false,
        };
        if joins && self.settings.multi_network {
            self.reach_global(dirty);
        }
    }

    fn joins_networks(&self, gateway: &Gateway) -> bool {
        match self.gateway_classes.get(&gateway.class).map(|class| &class.controller) {
            Some(controller) => **controller == *EAST_WEST_CONTROLLER,
            None => *gateway.class == *EAST_WEST_CLASS,
        }
    }

    /// Every service that is for all clusters.
    fn reach_global(&self, dirty: &mut Dirty) {
        let global = |namespace: &str, labels: &Labels| {
            self.settings.scope(labels, self.namespaces.get(namespace)) == Scope::Global
        };
        for (key, service) in &self.services {
            if global(&key.namespace, &service.labels) {
                dirty.ports.insert(HostKey::new(key.namespace.clone(), self.settings.hostname(key)));
            }
        }
        for (key, entry) in &self.entries {
            if global(&key.namespace, &entry.labels) {
                dirty.ports.extend(entry.hosts.iter().map(|host| HostKey::new(key.namespace.clone(), host.clone())));
            }
        }
    }
}

/// Class of gateways between networks.
pub const EAST_WEST_CLASS: &str = "istio-east-west";
/// Its controller.
pub const EAST_WEST_CONTROLLER: &str = "istio.io/eastwest-controller";
