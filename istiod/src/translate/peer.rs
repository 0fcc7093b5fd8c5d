//! PeerAuthentications become DENY policies: the node proxy has no mTLS mode of its own.
//!
//! The effective base of a policy is computed first and only then are its ports looked at; so neither a STRICT port
//! below a STRICT mesh nor an exempt port below an inherited STRICT can get lost.

use std::sync::Arc;

use mesh_api::security::Mode;
use mesh_api::status::ZTUNNEL_ACCEPTED;
use mesh_core::names::NamespacedName;
use mesh_wire::security::string_match::MatchType;
use mesh_wire::security::{Action, Authorization, Clause, Match, Rule, Scope, StringMatch};

use super::conditions::{Condition, accepted};
use crate::world::{Labels, MeshSettings, PeerAuthentication, World};

#[cfg(test)]
mod tests;

/// What the ports of a policy make of its base.
#[derive(Debug, PartialEq, Eq)]
enum Ports {
    /// Nothing different from the base.
    Uniform,
    /// A STRICT base with ports that take plaintext, ascending.
    Exempt(Vec<u16>),
    /// A PERMISSIVE base with ports that do not, ascending.
    Strict(Vec<u16>),
}

/// The policy that stands for STRICT, published as soon as any PeerAuthentication exists.
pub fn strict(settings: &MeshSettings) -> Authorization {
    let rule = Rule { clauses: vec![clause(no_identity())] };
    policy(&settings.root_namespace, STATIC_STRICT, vec![rule])
}

/// Name of [`strict`]'s resource.
pub fn strict_key(settings: &MeshSettings) -> String {
    format!("{}/{STATIC_STRICT}", settings.root_namespace)
}

/// The policy that a PeerAuthentication with port modes is converted to, if those differ from its base.
///
/// # Source
/// spec of the workload model, section 10.
pub fn converted(peer: &PeerAuthentication, world: &World) -> Option<Authorization> {
    if !is_workload_level(peer, world.settings()) {
        return None;
    }
    let rules = match ports(peer, base(peer, world)) {
        Ports::Uniform => return None,
        Ports::Exempt(exempt) => {
            let ports = exempt
                .iter()
                .map(|port| clause(Match { not_destination_ports: vec![(*port).into()], ..Match::default() }));
            vec![Rule { clauses: [clause(no_identity())].into_iter().chain(ports).collect() }]
        }
        Ports::Strict(strict) => {
            let rule = |port: &u16| Rule {
                clauses: vec![clause(Match { destination_ports: vec![(*port).into()], ..no_identity() })],
            };
            strict.iter().map(rule).collect()
        }
    };
    Some(policy(&peer.key.namespace, &converted_name(&peer.key), rules))
}

/// Name of the resource of [`converted`].
pub fn converted_key(peer: &NamespacedName) -> String {
    format!("{}/{}", peer.namespace, converted_name(peer))
}

/// The policy that stands for the PeerAuthentication of the workloads of a namespace with these labels, if any.
pub fn reference(namespace: &Arc<str>, labels: &Labels, world: &World) -> Option<String> {
    let settings = world.settings();
    let candidates = world.peers_selecting(namespace, labels).filter(|peer| is_workload_level(peer, settings));
    let mode = match candidates.min_by_key(|peer| age(peer)) {
        Some(peer) => {
            let base = base(peer, world);
            if ports(peer, base) != Ports::Uniform {
                return Some(converted_key(&peer.key));
            }
            base
        }
        None => inherited(namespace, world),
    };
    (mode == Mode::Strict).then(|| strict_key(settings))
}

/// What the status of a PeerAuthentication says.
pub(super) fn condition(peer: &PeerAuthentication, world: &World) -> Condition {
    let settings = world.settings();
    let root = *peer.key.namespace == *settings.root_namespace;
    if peer.selector.is_some() && root {
        let message = "a selector in the root namespace selects nothing: ztunnel does not enforce this policy; put it into the \
                       namespace of the workloads, or leave the selector out to have it apply to the whole mesh";
        return Condition::unsupported(ZTUNNEL_ACCEPTED, false, message.to_owned());
    }
    let older = world.wide_peers_in(&peer.key.namespace).min_by_key(|peer| age(peer));
    if peer.selector.is_none()
        && let Some(older) = older.filter(|older| older.key != peer.key)
    {
        let message =
            format!("ztunnel does not enforce this policy: {} is older and decides for the same workloads", older.key);
        return Condition::unsupported(ZTUNNEL_ACCEPTED, false, message);
    }
    let disabled = peer.mode == Mode::Disable || peer.ports.values().any(|mode| *mode == Mode::Disable);
    if disabled {
        let message = "ztunnel takes DISABLE for PERMISSIVE: plaintext is accepted, and so is mTLS";
        return Condition::unsupported(ZTUNNEL_ACCEPTED, true, message.to_owned());
    }
    accepted(match base(peer, world) {
        Mode::Strict => "attached to ztunnel: STRICT",
        _ => "attached to ztunnel: PERMISSIVE",
    })
}

fn is_workload_level(peer: &PeerAuthentication, settings: &MeshSettings) -> bool {
    peer.selector.is_some() && *peer.key.namespace != *settings.root_namespace
}

/// Effective mode of a policy itself: STRICT or PERMISSIVE.
fn base(peer: &PeerAuthentication, world: &World) -> Mode {
    match peer.mode {
        Mode::Unset => inherited(&peer.key.namespace, world),
        mode => effective(mode),
    }
}

/// Effective mode that a namespace hands down: its own, else the mesh's, else PERMISSIVE.
fn inherited(namespace: &Arc<str>, world: &World) -> Mode {
    let level = |namespace: &Arc<str>| {
        world
            .wide_peers_in(namespace)
            .min_by_key(|peer| age(peer))
            .map(|peer| peer.mode)
            .filter(|mode| *mode != Mode::Unset)
    };
    let root = &world.settings().root_namespace;
    let own = level(namespace);
    let mesh = || if world.visible(root) { level(root) } else { None };
    effective(own.or_else(mesh).unwrap_or(Mode::Permissive))
}

fn effective(mode: Mode) -> Mode {
    if mode == Mode::Strict { Mode::Strict } else { Mode::Permissive }
}

fn ports(peer: &PeerAuthentication, base: Mode) -> Ports {
    let mode = |mode: Mode| if mode == Mode::Unset { base } else { effective(mode) };
    let differing: Vec<_> = peer.ports.iter().filter(|(_, one)| mode(**one) != base).map(|(port, _)| *port).collect();
    match (differing.is_empty(), base) {
        (true, _) => Ports::Uniform,
        (false, Mode::Strict) => Ports::Exempt(differing),
        (false, _) => Ports::Strict(differing),
    }
}

fn age(peer: &PeerAuthentication) -> (i64, NamespacedName) {
    (peer.created_s, peer.key.clone())
}

fn converted_name(peer: &NamespacedName) -> String {
    format!("converted_peer_authentication_{}", peer.name)
}

fn policy(namespace: &str, name: &str, rules: Vec<Rule>) -> Authorization {
    Authorization {
        name: name.to_owned(),
        namespace: namespace.to_owned(),
        scope: Scope::WorkloadSelector.into(),
        action: Action::Deny.into(),
        rules,
        ..Authorization::default()
    }
}

fn clause(matcher: Match) -> Clause {
    Clause { matches: vec![matcher] }
}

/// Matches callers that proved no identity.
fn no_identity() -> Match {
    Match { not_principals: vec![StringMatch { match_type: Some(MatchType::Presence(())) }], ..Match::default() }
}

const STATIC_STRICT: &str = "istio_converted_static_strict";
