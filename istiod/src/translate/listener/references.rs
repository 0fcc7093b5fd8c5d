//! ConfigMaps and Secrets that objects name: those are read, and no others.

use std::collections::BTreeMap;
use std::sync::Arc;

use mesh_core::names::NamespacedName;

use super::{Effective, Owner, effective, tls};
use crate::translate::gateway::{Family, infrastructure};
use crate::translate::route::grant::{Referred, permits};
use crate::world::{Gateway, Kind, World};

/// Every ConfigMap and Secret that a gateway or a policy for backends names and may name, with the namespace of whoever
/// does. What the backends of gateways need beside, they say themselves.
pub fn references(world: &World) -> BTreeMap<(Kind, NamespacedName), Arc<str>> {
    let mut found = BTreeMap::new();
    for gateway in world.gateways().filter(|gateway| world.visible(&gateway.key.namespace)) {
        if Family::of_class(world, &gateway.class).is_some() {
            of_gateway(world, gateway, &mut found);
        }
    }
    for map in world.backend_authorities() {
        let by = map.namespace.clone();
        found.entry((Kind::ConfigMap, map)).or_insert(by);
    }
    found
}

fn of_gateway(world: &World, gateway: &Gateway, found: &mut BTreeMap<(Kind, NamespacedName), Arc<str>>) {
    let by = &gateway.key.namespace;
    if let Some(Ok(key)) = infrastructure::parameters(gateway) {
        found.insert((Kind::ConfigMap, key), by.clone());
    }
    let owner = Owner::Gateway(gateway);
    let client = gateway.spec.tls.as_ref().and_then(|tls| tls.backend.as_ref()?.client_certificate_ref.as_ref());
    if let Some(reference) = client {
        let key = tls::secret_key(owner, reference);
        if tls::may_refer(world, owner, Kind::Secret.name(), &key) {
            found.entry((Kind::Secret, key)).or_insert_with(|| by.clone());
        }
    }
    for listener in effective(world, gateway) {
        let by = &listener.owner.key().namespace;
        for material in of_listener(world, gateway, &listener) {
            found.entry(material).or_insert_with(|| by.clone());
        }
    }
}

/// What one listener names.
pub(super) fn of_listener(world: &World, gateway: &Gateway, listener: &Effective<'_>) -> Vec<(Kind, NamespacedName)> {
    if !tls::needs_secrets(listener) {
        return Vec::new();
    }
    let own = listener.tls().into_iter().flat_map(|written| &written.certificate_refs);
    let own = own.map(|reference| (Kind::Secret, tls::secret_key(listener.owner, reference)));
    let own = own.filter(|(kind, key)| tls::may_refer(world, listener.owner, kind.name(), key));
    let validation = tls::frontend(gateway, listener.port);
    let authorities = validation.into_iter().flat_map(|one| &one.ca_certificate_refs);
    let authorities = authorities.filter_map(|reference| tls::authority(gateway, reference)).filter(|(kind, key)| {
        let to = Referred { group: "", kind: kind.name(), namespace: &key.namespace, name: &key.name };
        permits(world, Kind::Gateway, &gateway.key.namespace, to)
    });
    own.chain(authorities).collect()
}
