//! AuthorizationPolicies and PeerAuthentications.

use std::sync::Arc;

use kube::api::DynamicObject;
use mesh_api::labels as names;
use mesh_api::security::{AuthorizationPolicySpec, Mode, PeerAuthenticationSpec, WorkloadSelector};
use mesh_core::env::parse_bool;
use mesh_core::names::NamespacedName;
use serde::Deserialize;

use super::{Unreadable, annotation, created_s, fields, lenient};
use crate::world::{AuthorizationPolicy, Change, Kind, Labels, Object, PeerAuthentication};

#[derive(Deserialize, Default)]
#[serde(default)]
struct Fields<S: Default> {
    spec: S,
}

/// Of one that cannot be read, something stands in.
pub(super) fn authorization(key: NamespacedName, mut object: DynamicObject) -> Change {
    let generation = object.metadata.generation.unwrap_or_default();
    let dry_run = annotation(&object, names::DRY_RUN).and_then(parse_bool).unwrap_or_default();
    let policy = |selector, spec| {
        let key = key.clone();
        Object::Authorization(AuthorizationPolicy { key, generation, dry_run, selector, spec: Arc::new(spec) })
    };
    let written = object.data.clone();
    match fields::<Fields<AuthorizationPolicySpec>>(&mut object) {
        Ok(Fields { spec }) => Change::Upsert(policy(selector(spec.selector.as_ref()), spec)),
        Err(Unreadable(reason)) => {
            let stand_in = lenient::authorization(&written).map(|(selector, spec)| Box::new(policy(selector, spec)));
            Change::Broken { kind: Kind::Authorization, key, generation, reason, stand_in }
        }
    }
}

/// A port that cannot be read is left out; if it was to be STRICT, everything becomes so.
pub(super) fn peer(key: NamespacedName, mut object: DynamicObject) -> Change {
    let generation = object.metadata.generation.unwrap_or_default();
    let created_s = created_s(&object);
    let written = object.data.clone();
    let spec = match fields::<Fields<PeerAuthenticationSpec>>(&mut object) {
        Ok(Fields { spec }) => spec,
        Err(Unreadable(reason)) => {
            let stand_in = lenient::peer(&written, key.clone(), created_s);
            let stand_in = stand_in.map(|one| Box::new(Object::Peer(one)));
            return Change::Broken { kind: Kind::Peer, key, generation, reason, stand_in };
        }
    };
    let selector = selector(spec.selector.as_ref());
    let mode = spec.mtls.and_then(|mtls| mtls.mode).unwrap_or_default();
    let mut peer = PeerAuthentication { key, created_s, generation, selector, mode, ports: Default::default() };
    let mut bad = Vec::new();
    for (text, tls) in &spec.port_level_mtls {
        let mode = tls.mode.unwrap_or_default();
        if let Err(Unreadable(reason)) = add_port(&mut peer, text, mode) {
            bad.push(reason);
        }
    }
    bad.extend(ports_without_selector(&mut peer));
    let object = Object::Peer(peer);
    if bad.is_empty() { Change::Upsert(object) } else { Change::Partial { object, reason: bad.join("; ") } }
}

/// Adds the mode of one port.
pub(super) fn add_port(peer: &mut PeerAuthentication, text: &str, mode: Mode) -> Result<(), Unreadable> {
    match text.parse::<u16>() {
        Ok(port) if port > 0 => {
            peer.ports.insert(port, mode);
            return Ok(());
        }
        _ if mode == Mode::Strict => peer.mode = Mode::Strict,
        _ => {}
    }
    let effect = if mode == Mode::Strict { ", every port is STRICT instead" } else { "" };
    Err(Unreadable(format!("portLevelMtls {text:?}: expected a port from 1 to 65535{effect}")))
}

/// Ports belong to a selector. Without one they are taken back, and if one was to be STRICT, everything becomes so.
pub(super) fn ports_without_selector(peer: &mut PeerAuthentication) -> Option<String> {
    if peer.selector.is_some() || peer.ports.is_empty() {
        return None;
    }
    let strict = std::mem::take(&mut peer.ports).into_values().any(|mode| mode == Mode::Strict);
    if strict {
        peer.mode = Mode::Strict;
    }
    let effect = if strict { "every port is STRICT instead" } else { "it has no effect" };
    Some(format!("portLevelMtls: expected a selector with labels beside it, {effect}"))
}

pub(super) fn selector(selector: Option<&WorkloadSelector>) -> Option<Labels> {
    let labels: Labels = selector?.match_labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    (!labels.is_empty()).then_some(labels)
}
