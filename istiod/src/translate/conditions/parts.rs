//! What a status says beside conditions of the object as a whole: per parent, per ancestor, per listener.

use std::sync::Arc;

use mesh_api::gateway::{GatewayStatusAddress, ParentReference, RouteGroupKind};

use super::Condition;

/// What a status says beside conditions of the object as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Parts {
    /// Nothing.
    #[default]
    None,
    /// Of a route: one entry a parent that is ours.
    Parents(Vec<Attached>),
    /// Of a policy: one entry an object that it has an effect on.
    Ancestors(Vec<Attached>),
    /// Of a Gateway.
    Gateway(GatewayParts),
    /// Of a ListenerSet.
    Listeners(Vec<ListenerPart>),
    /// Of a GatewayClass: names of the features that it has.
    Features(Vec<&'static str>),
}

/// What is said of a route at one parent, or of a policy at one ancestor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// The parent as the object names it, or the ancestor.
    pub reference: ParentReference,
    /// Who says so.
    pub controller: &'static str,
    /// At least one.
    pub conditions: Vec<Condition>,
}

/// What is said of a Gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GatewayParts {
    /// Where it is reached. None: as it was.
    pub addresses: Option<Vec<GatewayStatusAddress>>,
    /// One entry a listener, in the order of the Gateway. None: no entries are written, and ours are taken away.
    pub listeners: Option<Vec<ListenerPart>>,
    /// ListenerSets that take part; zero is left out.
    pub attached_listener_sets: u32,
}

/// What is said of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerPart {
    /// Its name.
    pub name: Arc<str>,
    /// Kinds of routes that may attach.
    pub supported_kinds: Vec<RouteGroupKind>,
    /// Routes that were accepted.
    pub attached_routes: u32,
    /// At least one.
    pub conditions: Vec<Condition>,
}

impl Parts {
    /// Every condition in here, to change it.
    pub(super) fn conditions_mut(&mut self) -> Vec<&mut Condition> {
        match self {
            Self::None | Self::Features(_) => Vec::new(),
            Self::Parents(all) | Self::Ancestors(all) => all.iter_mut().flat_map(|one| &mut one.conditions).collect(),
            Self::Gateway(parts) => parts.listeners.iter_mut().flatten().flat_map(|one| &mut one.conditions).collect(),
            Self::Listeners(listeners) => listeners.iter_mut().flat_map(|one| &mut one.conditions).collect(),
        }
    }

    /// Every condition in here.
    pub(super) fn conditions(&self) -> Vec<&Condition> {
        fn of_listeners(listeners: &[ListenerPart]) -> Vec<&Condition> {
            listeners.iter().flat_map(|one| &one.conditions).collect()
        }
        match self {
            Self::None | Self::Features(_) => Vec::new(),
            Self::Parents(all) | Self::Ancestors(all) => all.iter().flat_map(|one| &one.conditions).collect(),
            Self::Gateway(parts) => of_listeners(parts.listeners.as_deref().unwrap_or_default()),
            Self::Listeners(listeners) => of_listeners(listeners),
        }
    }
}
