//! Everything that waypoints and gateways are told, kept in step with the world.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mesh_core::names::NamespacedName;
use mesh_wire::l7;
use mesh_wire::l7::resource::Kind as Message;
use mesh_wire::type_url;
use mesh_xds::server::{Change, Resource};

use super::port::{self, Built};
use super::proxy::{self, Own};
use super::remarks::{Board, Remarks, Subject};
use super::rule;
use super::uses::{Consumer, Consumers};
use crate::translate::{listener, resource};
use crate::world::{Dirty, Kind, World};

/// Resources by their names.
pub type Told = BTreeMap<Arc<str>, Arc<Resource>>;

/// Published resources, who gave them, and what they were computed from.
#[derive(Clone, Debug, Default)]
pub struct Layer7 {
    resources: Told,
    given: BTreeMap<Consumer, BTreeSet<Arc<str>>>,
    consumers: Consumers,
    /// What was found wrong with objects on the way.
    remarks: Board,
    /// Rules that select pods, by the gateway whose pods they are.
    selective: BTreeMap<NamespacedName, BTreeSet<NamespacedName>>,
    /// Resources computed since the start.
    computed: u64,
    /// Everything was computed at least once.
    flushed: bool,
}

impl Layer7 {
    /// Published resources, by name.
    pub fn resources(&self) -> &Told {
        &self.resources
    }

    /// ConfigMaps and Secrets that backends need, with the namespaces of those who name them. Before the first flush, of
    /// what it will compute.
    pub fn materials(&self, world: &World) -> BTreeSet<((Kind, NamespacedName), Arc<str>)> {
        let listed = |layer: &Self| {
            let all = layer.consumers.materials();
            all.map(|(material, by)| (material.clone(), by.clone())).collect()
        };
        if self.flushed {
            return listed(self);
        }
        let (mut fresh, mut dirty) = (Self::default(), Dirty::default());
        world.reach_everything(&mut dirty);
        let mut own = fresh.expand(world, &mut dirty);
        fresh.flush(world, &mut own, &mut Vec::new());
        listed(&fresh)
    }

    /// What is wrong with objects that anything was computed from.
    pub fn remarks(&self) -> &Board {
        &self.remarks
    }

    /// Changes whenever [`Self::materials`] may be others.
    pub fn material_epoch(&self) -> u64 {
        self.consumers.epoch()
    }

    /// Number of resources computed since the start, equal to what was there or not.
    pub fn computed(&self) -> u64 {
        self.computed
    }

    /// Adds to what is to be computed again whatever depends on hostnames, ConfigMaps and Secrets that changed, and takes
    /// out what is for [`Self::flush`].
    pub(crate) fn expand(&self, world: &World, dirty: &mut Dirty) -> Dirty {
        // What a service is decides what its ports are.
        dirty.ports.extend(dirty.services.iter().cloned());
        let hosts = dirty.ports.clone();
        world.reach_rivals(&hosts, dirty);
        // How it is bound and guarded decides how others may call it.
        world.reach_callers(dirty);
        dirty.backends.extend(dirty.services.iter().map(|key| key.hostname.clone()));
        let backends = std::mem::take(&mut dirty.backends);
        let materials = std::mem::take(&mut dirty.materials);
        let of_hosts = backends.iter().flat_map(|host| self.consumers.of_host(host));
        let of_materials = materials.iter().flat_map(|one| self.consumers.of_material(one));
        for consumer in of_hosts.chain(of_materials) {
            match consumer {
                Consumer::Ports(host) => {
                    dirty.ports.insert(host.clone());
                }
                Consumer::Listeners(gateway) => {
                    dirty.listeners.insert(gateway.clone());
                }
                Consumer::Proxy(gateway) => {
                    dirty.proxies.insert(gateway.clone());
                }
            }
        }
        for gateway in &dirty.listeners {
            dirty.conditions.insert((Kind::Gateway, gateway.clone()));
            dirty.conditions.extend(world.sets_of(gateway).map(|set| (Kind::ListenerSet, set.key.clone())));
        }
        // Policies for backends name their authorities.
        for (_, key) in &materials {
            let policies = world.backend_tls_in(&key.namespace).map(|key| (Kind::BackendTlsPolicy, key.clone()));
            dirty.conditions.extend(policies);
        }
        Dirty {
            proxies: std::mem::take(&mut dirty.proxies),
            ports: std::mem::take(&mut dirty.ports),
            listeners: std::mem::take(&mut dirty.listeners),
            ..Dirty::default()
        }
    }

    /// Computes what is to be computed again, and tells what became different. Returns the objects of which something else
    /// is to be remarked than before.
    pub(crate) fn flush(&mut self, world: &World, dirty: &mut Dirty, changes: &mut Vec<Change>) -> BTreeSet<Subject> {
        self.flushed = true;
        let mut touched = BTreeSet::new();
        for key in std::mem::take(&mut dirty.proxies) {
            let own = Own::find(world, &key);
            let mut remarks = Remarks::default();
            let message = own.map(|own| {
                let (name, message) = (key.to_string(), Message::Proxy(proxy::proxy(world, own, &mut remarks)));
                resource::l7(name, message, &key, own.audience())
            });
            self.remarks.set(&Consumer::Proxy(key.clone()), remarks, &mut touched);
            self.computed += u64::from(message.is_some());
            self.set(key.to_string().into(), message, changes);
            let selective = own.map(|own| rule::selecting(world, own)).filter(|rules| !rules.is_empty());
            let relabelled = self.selective.get(&key) != selective.as_ref();
            match selective {
                Some(rules) => drop(self.selective.insert(key.clone(), rules)),
                None => drop(self.selective.remove(&key)),
            }
            // The same account is told of everything else.
            let told = own.map(|own| own.audience());
            self.follow_gateway(&key, told.as_ref(), relabelled, dirty);
        }
        for host in std::mem::take(&mut dirty.ports) {
            let built = port::ports(world, &host, &self.resources);
            self.give(Consumer::Ports(host), built, changes, &mut touched);
        }
        for gateway in std::mem::take(&mut dirty.listeners) {
            let built = self.listeners(world, &gateway);
            self.give(Consumer::Listeners(gateway), built, changes, &mut touched);
        }
        touched
    }

    /// What was told to another account than it is now, or that nobody is told any more; all of it, where other rules may
    /// be for the gateway's pods than before.
    fn follow_gateway(&self, gateway: &NamespacedName, told: Option<&Arc<str>>, relabelled: bool, dirty: &mut Dirty) {
        let prefix: Arc<str> = format!("{gateway}/").into();
        let of_gateway = self.resources.range(prefix.clone()..).take_while(|(name, _)| name.starts_with(&*prefix));
        let stale: BTreeSet<_> =
            of_gateway.filter(|(_, one)| relabelled || one.audience.as_ref() != told).map(|(name, _)| name).collect();
        if stale.is_empty() {
            return;
        }
        for (consumer, names) in &self.given {
            if names.iter().any(|name| stale.contains(name)) {
                match consumer {
                    Consumer::Ports(host) => {
                        dirty.ports.insert(host.clone());
                    }
                    Consumer::Listeners(gateway) => {
                        dirty.listeners.insert(gateway.clone());
                    }
                    Consumer::Proxy(..) => {}
                }
            }
        }
    }

    fn listeners(&self, world: &World, gateway: &NamespacedName) -> Built {
        let mut built = Built::default();
        let Some(own) = Own::find(world, gateway) else { return built };
        let audience = own.audience();
        for one in listener::listeners(world, gateway, &self.resources) {
            let name: Arc<str> = one.name.as_str().into();
            built.uses.extend(one.uses);
            built.remarks.extend(one.remarks);
            let made = match one.listener {
                Some(message) => {
                    let message = Message::Listener(message);
                    Some(resource::l7(one.name, message, gateway, own.audience()))
                }
                // Not everything was read yet: what was told before stays.
                None => {
                    let old = self.resources.get(&name).filter(|old| old.audience.as_ref() == Some(&audience));
                    old.map(|old| (**old).clone())
                }
            };
            built.resources.extend(made.map(|made| (name, made)));
        }
        built
    }

    /// Replaces the resources that one object gives.
    fn give(&mut self, consumer: Consumer, built: Built, changes: &mut Vec<Change>, touched: &mut BTreeSet<Subject>) {
        let Built { resources: mut new, uses, remarks } = built;
        self.remarks.set(&consumer, remarks, touched);
        self.computed += u64::try_from(new.len()).unwrap_or_default();
        self.consumers.set(consumer.clone(), uses);
        let names: BTreeSet<_> = new.keys().cloned().collect();
        let old = match names.is_empty() {
            true => self.given.remove(&consumer),
            false => self.given.insert(consumer, names.clone()),
        };
        for name in old.unwrap_or_default().union(&names) {
            self.set(name.clone(), new.remove(name), changes);
        }
    }

    fn set(&mut self, name: Arc<str>, new: Option<Resource>, changes: &mut Vec<Change>) {
        if self.resources.get(&name).map(|old| &**old) == new.as_ref() {
            return;
        }
        let resource = new.map(Arc::new);
        match &resource {
            Some(new) => self.resources.insert(name.clone(), new.clone()),
            None => self.resources.remove(&name),
        };
        changes.push(Change { type_url: type_url::L7, name, resource });
    }
}

/// Backends of a port or listener as they were told to the same account.
pub(crate) fn backends_of(told: &Told, name: &str, audience: &Arc<str>) -> Vec<l7::Backend> {
    let found = told.get(name).filter(|old| old.audience.as_ref() == Some(audience));
    match found.and_then(|old| decode(old)).and_then(|message| message.kind) {
        Some(Message::Port(port)) => port.backends,
        Some(Message::Listener(listener)) => listener.backends,
        Some(Message::Proxy(_)) | None => Vec::new(),
    }
}

/// A resource as it is told.
pub fn decode(resource: &Resource) -> Option<l7::Resource> {
    prost::Message::decode(resource.body.clone()).ok()
}

/// The same, without private keys, for debugging.
pub fn redacted(resource: &Resource) -> Option<l7::Resource> {
    let mut message = decode(resource)?;
    let hide = |pair: &mut l7::KeyPair| {
        pair.key = HIDDEN.into();
        pair.chain = SHORTENED.into();
    };
    let mut backends = Vec::new();
    match &mut message.kind {
        Some(Message::Listener(listener)) => {
            listener.tls.iter_mut().flat_map(|tls| &mut tls.certificates).for_each(hide);
            backends.extend(&mut listener.backends);
        }
        Some(Message::Port(port)) => backends.extend(&mut port.backends),
        Some(Message::Proxy(_)) | None => {}
    }
    let policies = backends.into_iter().filter_map(|backend| backend.policy.as_mut());
    for tls in policies.filter_map(|policy| policy.tls.as_mut()) {
        tls.roots = if tls.roots.is_empty() { Vec::new() } else { SHORTENED.into() };
        tls.client.iter_mut().for_each(hide);
    }
    Some(message)
}

const HIDDEN: &str = "hidden";
const SHORTENED: &str = "PEM";
