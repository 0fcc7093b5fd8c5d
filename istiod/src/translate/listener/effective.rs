//! The listeners of a Gateway: its own and those that ListenerSets add, in the order of their precedence.

use std::sync::Arc;

use mesh_api::gateway::{self as api, ListenerTls, TlsMode};
use mesh_api::labels::GATEWAY_GROUP;
use mesh_core::names::NamespacedName;

use super::conflict::{self, Spot};
use super::{Conflict, ListenerProtocol};
use crate::translate::gateway::Family;
use crate::translate::route::Place;
use crate::translate::route::attach;
use crate::world::{Gateway, ListenerSet, ParentKind, World};

/// A listener and who wrote it.
#[derive(Clone, Debug)]
pub struct Effective<'a> {
    /// Who wrote it.
    pub owner: Owner<'a>,
    /// As it is written.
    pub written: &'a api::Listener,
    /// Its port; that of the protocol where none is written. 0 where there is none.
    pub port: u16,
    /// What it speaks.
    pub protocol: ListenerProtocol,
    /// Another one has its place.
    pub conflict: Option<Conflict>,
}

/// Who wrote a listener.
#[derive(Clone, Copy, Debug)]
pub enum Owner<'a> {
    /// The Gateway itself.
    Gateway(&'a Gateway),
    /// A ListenerSet of the Gateway.
    Set(&'a ListenerSet),
}

impl Owner<'_> {
    /// Namespace and name.
    pub fn key(&self) -> &NamespacedName {
        match self {
            Self::Gateway(gateway) => &gateway.key,
            Self::Set(set) => &set.key,
        }
    }

    /// Kind, as references and grants name it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Gateway(_) => "Gateway",
            Self::Set(_) => "ListenerSet",
        }
    }

    /// Whether it is this ListenerSet.
    pub fn is_set(&self, key: &NamespacedName) -> bool {
        matches!(self, Self::Set(set) if set.key == *key)
    }

    /// Whether it is the Gateway.
    pub fn is_gateway(&self) -> bool {
        matches!(self, Self::Gateway(_))
    }
}

impl<'a> Effective<'a> {
    fn new(owner: Owner<'a>, written: &'a api::Listener) -> Self {
        let protocol = ListenerProtocol::read(&written.protocol);
        let port = match u16::try_from(written.port) {
            Ok(0) | Err(_) => protocol.default_port().unwrap_or_default(),
            Ok(port) => port,
        };
        Self { owner, written, port, protocol, conflict: None }
    }

    /// Its name: unique in what wrote it.
    pub fn name(&self) -> &'a str {
        &self.written.name
    }

    /// Its name in what proxies are told: unique in the Gateway.
    pub fn section(&self) -> String {
        match self.owner {
            Owner::Gateway(_) => self.written.name.clone(),
            Owner::Set(set) => format!("{}/{}/{}", set.key.namespace, set.key.name, self.written.name),
        }
    }

    /// Host that it serves, also a wildcard; empty where it serves all.
    pub fn hostname(&self) -> &'a str {
        self.written.hostname.as_deref().unwrap_or_default()
    }

    /// Whether its hostname is one that a proxy can look for.
    pub fn has_host(&self) -> bool {
        mesh_route::host::pattern(self.hostname()).is_ok()
    }

    /// TLS settings, where its protocol has any.
    pub fn tls(&self) -> Option<&'a ListenerTls> {
        self.written.tls.as_ref()
    }

    /// TLS ends here.
    pub fn terminates(&self) -> bool {
        let mode = self.tls().map(|tls| tls.mode.unwrap_or_default());
        match self.protocol {
            ListenerProtocol::Https => mode != Some(TlsMode::Passthrough),
            ListenerProtocol::Tls => mode != Some(TlsMode::Passthrough),
            _ => false,
        }
    }

    /// Where routes attach.
    pub fn place(&self) -> Place<'a> {
        match self.owner {
            Owner::Gateway(gateway) => Place { owner: ParentKind::Gateway, key: &gateway.key, listener: self.written },
            Owner::Set(set) => Place { owner: ParentKind::ListenerSet, key: &set.key, listener: self.written },
        }
    }

    /// Kinds of routes that are asked for and do not fit.
    pub fn unfitting_kinds(&self) -> impl Iterator<Item = &'a api::RouteGroupKind> {
        let fitting = attach::supported_kinds(self.written);
        self.asked_kinds().iter().filter(move |one| !fitting.iter().any(|kind| attach::is_kind(one, *kind)))
    }

    fn asked_kinds(&self) -> &'a [api::RouteGroupKind] {
        self.written.allowed_routes.as_ref().map_or(&[], |routes| &routes.kinds)
    }
}

/// Every listener that takes part, with what became of it; own ones first. Of a class that is not ours there are none.
pub fn effective<'a>(world: &'a World, gateway: &'a Gateway) -> Vec<Effective<'a>> {
    let Some(family) = Family::of_class(world, &gateway.class) else { return Vec::new() };
    let own = gateway.spec.listeners.iter().map(|written| Effective::new(Owner::Gateway(gateway), written));
    let mut all: Vec<_> = own.collect();
    if !family.takes_listener_sets() {
        return all;
    }
    for set in sets(world, gateway).into_iter().filter(|set| refusal(world, set).is_none()) {
        all.extend(set.spec.listeners.iter().map(|written| Effective::new(Owner::Set(set), written)));
    }
    let spot = |one: &Effective<'a>| Spot { port: one.port, protocol: one.protocol, hostname: one.hostname() };
    let spots: Vec<_> = all.iter().map(spot).collect();
    for (listener, verdict) in all.iter_mut().zip(conflict::judge(&spots)) {
        listener.conflict = verdict;
    }
    all
}

/// ListenerSets that name a Gateway, in the order of their precedence.
pub fn sets<'a>(world: &'a World, gateway: &Gateway) -> Vec<&'a Arc<ListenerSet>> {
    let mut sets: Vec<_> = world.sets_of(&gateway.key).filter(|set| world.visible(&set.key.namespace)).collect();
    sets.sort_by(|one, other| one.age().cmp(&other.age()));
    sets
}

/// Why a ListenerSet takes no part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SetRefusal {
    /// Its parent is no Gateway of ours: nobody of us says anything about it.
    Foreign,
    /// Gateways of the class take none.
    Class,
    /// The Gateway does not admit its namespace.
    Namespace,
}

/// The Gateway that a ListenerSet names, if it is one of ours.
pub fn parent<'a>(world: &'a World, set: &ListenerSet) -> Option<(&'a Arc<Gateway>, Family)> {
    let reference = &set.spec.parent_ref;
    if reference.group() != GATEWAY_GROUP || reference.kind() != "Gateway" {
        return None;
    }
    let namespace = reference.namespace.as_deref().map_or_else(|| set.key.namespace.clone(), Arc::from);
    let gateway = world.gateway(&NamespacedName::new(namespace, reference.name.as_str()))?;
    let family = Family::of_class(world, &gateway.class).filter(|_| world.visible(&gateway.key.namespace))?;
    Some((gateway, family))
}

/// Why a ListenerSet takes no part; none where it does.
pub fn refusal(world: &World, set: &ListenerSet) -> Option<SetRefusal> {
    let Some((gateway, family)) = parent(world, set) else { return Some(SetRefusal::Foreign) };
    if !family.takes_listener_sets() {
        return Some(SetRefusal::Class);
    }
    (!attach::admits_set(world, gateway, set)).then_some(SetRefusal::Namespace)
}
