//! What the statuses of Gateways, ListenerSets and GatewayClasses should say. Pure.

mod address;
mod features;
mod listener;
mod set;
#[cfg(test)]
mod tests;

use mesh_api::gateway::{GatewayStatusAddress, ValidationMode};

use super::{Condition, GatewayParts, ObjectStatus, Parts, words};
use crate::translate::gateway::infrastructure::is_managed;
use crate::translate::gateway::overlay::layers;
use crate::translate::gateway::render::SERVICE_TYPE;
use crate::translate::gateway::{Family, HOSTNAME};
use crate::translate::listener::effective::{self, Effective, Owner};
use crate::translate::listener::tls::{self, TlsPart};
use crate::translate::plan;
use crate::world::{Gateway, GatewayClass, World};
use listener::Verdict;
pub(super) use set::listener_set;

/// The status of a Gateway; none where it is not ours to write.
///
/// # Source
/// spec of the gateway controller, section 5.
pub(super) fn gateway(world: &World, gateway: &Gateway) -> Option<ObjectStatus> {
    let family = Family::of_class(world, &gateway.class)?;
    if !world.settings().proxies.statuses || !plan::owns(world, gateway) {
        return None;
    }
    if family == Family::Remote {
        return Some(remote(gateway));
    }
    let judged = judge(world, gateway, family);
    let (own, added): (Vec<_>, Vec<_>) = judged.iter().partition(|(listener, _)| listener.owner.is_gateway());
    let found = address::find(world, gateway, family, &judged);
    let mut conditions = vec![accepted(world, gateway, &own), found.condition, resolved(world, gateway)];
    conditions.extend(insecure(gateway));
    let sets: std::collections::BTreeSet<_> =
        added.iter().filter(|(_, verdict)| verdict.valid).map(|(listener, _)| listener.owner.key()).collect();
    let parts = GatewayParts {
        addresses: (!found.addresses.is_empty()).then_some(found.addresses),
        listeners: Some(own.into_iter().map(|(_, verdict)| verdict.part.clone()).collect()),
        attached_listener_sets: u32::try_from(sets.len()).unwrap_or(u32::MAX),
    };
    Some(ObjectStatus { generation: gateway.generation, conditions, parts: Parts::Gateway(parts) })
}

/// The status of a GatewayClass; none where its controller is another.
pub(super) fn class(world: &World, class: &GatewayClass) -> Option<ObjectStatus> {
    let settings = world.settings();
    let family = Family::ALL.into_iter().find(|family| *family.controller(settings) == *class.controller);
    if !settings.proxies.statuses || !family?.exists(settings) {
        return None;
    }
    let message = "gateways of this class are served".to_owned();
    Some(ObjectStatus {
        generation: class.generation,
        conditions: vec![condition(words::ACCEPTED, Ok(words::ACCEPTED), message)],
        parts: Parts::Features(features::ALL.to_vec()),
    })
}

/// Every listener with its verdict.
fn judge<'a>(world: &'a World, gateway: &'a Gateway, family: Family) -> Vec<(Effective<'a>, Verdict)> {
    let listeners = effective::effective(world, gateway);
    listeners.into_iter().map(|one| (one.clone(), listener::judge(world, gateway, family, &one))).collect()
}

fn accepted(world: &World, gateway: &Gateway, own: &[&(Effective<'_>, Verdict)]) -> Condition {
    if let Err(reason) = layers(world, gateway) {
        return condition(words::ACCEPTED, Err(INVALID_PARAMETERS), reason);
    }
    if let Some(reason) =
        Family::of_class(world, &gateway.class).and_then(|one| plan::unusable_name(world, gateway, one))
    {
        return condition(words::ACCEPTED, Err(words::INVALID), reason);
    }
    let unusable = unusable_addresses(gateway);
    if !unusable.is_empty() {
        let message = format!("only addresses of type Hostname are used, not {}", unusable.join(", "));
        return condition(words::ACCEPTED, Err(UNSUPPORTED_ADDRESS), message);
    }
    let invalid: Vec<_> = own.iter().filter(|(_, verdict)| !verdict.valid).map(|(one, _)| one.name()).collect();
    match invalid.len() {
        0 => {
            let mut message = "accepted".to_owned();
            if !is_managed(gateway) && gateway.annotations.get(SERVICE_TYPE).is_some() {
                message.push_str("; networking.istio.io/service-type has no effect, the Service is not made by us");
            }
            condition(words::ACCEPTED, Ok(words::ACCEPTED), message)
        }
        count => {
            let message = format!("not all listeners are valid: {}", invalid.join(", "));
            let verdict = if count == own.len() { Err(LISTENERS_NOT_VALID) } else { Ok(LISTENERS_NOT_VALID) };
            condition(words::ACCEPTED, verdict, message)
        }
    }
}

/// Addresses of a Gateway with a Service of the user's that name none.
fn unusable_addresses(gateway: &Gateway) -> Vec<String> {
    if is_managed(gateway) {
        return Vec::new();
    }
    let other = gateway.spec.addresses.iter().filter(|one| one.type_.as_deref() != Some(HOSTNAME));
    other.map(|one| one.value.clone().unwrap_or_else(|| "an empty one".to_owned())).collect()
}

/// Whether the certificate that backends are shown can be used.
fn resolved(world: &World, gateway: &Gateway) -> Condition {
    let reference = gateway.spec.tls.as_ref().and_then(|tls| tls.backend.as_ref()?.client_certificate_ref.as_ref());
    let problem = reference.and_then(|one| tls::certificate(world, Owner::Gateway(gateway), one).err());
    match problem {
        None => condition(words::RESOLVED_REFS, Ok(words::RESOLVED_REFS), "all references are resolved".to_owned()),
        Some(problem) => {
            let denied = problem.reason == words::REF_NOT_PERMITTED && problem.part == TlsPart::Certificates;
            let reason = if denied { words::REF_NOT_PERMITTED } else { INVALID_CLIENT_CERTIFICATE_REF };
            condition(words::RESOLVED_REFS, Err(reason), format!("spec.tls.backend: {}", problem.message))
        }
    }
}

/// Tells that clients without a valid certificate are let in, where that is so.
fn insecure(gateway: &Gateway) -> Option<Condition> {
    let frontend = gateway.spec.tls.as_ref()?.frontend.as_ref()?;
    let all = frontend.per_port.iter().map(|one| &one.tls).chain([&frontend.default]);
    let mut modes = all.filter_map(|one| one.validation.as_ref()?.mode);
    modes.any(|mode| mode == ValidationMode::AllowInsecureFallback).then(|| {
        let message = "clients without a valid certificate are let in (AllowInsecureFallback)".to_owned();
        condition(words::INSECURE_FRONTEND, Ok(CONFIGURATION_CHANGED), message)
    })
}

/// Nothing is made for a Gateway of another cluster.
fn remote(gateway: &Gateway) -> ObjectStatus {
    let message = "the gateway is one of another cluster: nothing is deployed for it";
    let holds = |type_: &'static str| condition(type_, Ok(type_), message.to_owned());
    let addresses = gateway.spec.addresses.iter().filter_map(|one| {
        Some(GatewayStatusAddress { type_: one.type_.clone(), value: one.value.clone().filter(|one| !one.is_empty())? })
    });
    let addresses: Vec<_> = addresses.collect();
    let addresses = (!addresses.is_empty()).then_some(addresses);
    ObjectStatus {
        generation: gateway.generation,
        conditions: vec![holds(words::ACCEPTED), holds(words::PROGRAMMED)],
        parts: Parts::Gateway(GatewayParts { addresses, listeners: None, attached_listener_sets: 0 }),
    }
}

/// A condition that holds, or does not, each with its reason.
fn condition(type_: &'static str, verdict: Result<&'static str, &'static str>, message: String) -> Condition {
    let holds = verdict.is_ok();
    let reason = verdict.unwrap_or_else(|reason| reason);
    Condition { type_, holds, reason, message }
}

const INVALID_PARAMETERS: &str = "InvalidParameters";
const LISTENERS_NOT_VALID: &str = "ListenersNotValid";
const UNSUPPORTED_ADDRESS: &str = "UnsupportedAddress";
const INVALID_CLIENT_CERTIFICATE_REF: &str = "InvalidClientCertificateRef";
const CONFIGURATION_CHANGED: &str = "ConfigurationChanged";
