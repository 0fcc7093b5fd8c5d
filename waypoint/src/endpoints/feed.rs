//! The writer: applies what the control plane sends, and asks it for what is needed.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use mesh_core::{NamespacedName, NetworkAddr};
use mesh_wire::type_url;
use mesh_wire::workload::{Address, address};
use mesh_xds::client::{Rejection, Resource, Subscriptions};
use prost::Message as _;

use super::decode::{Service, Workload};
use super::derive::{self, Known};
use super::store::{Place, Store};
use super::words::Words;
use super::{ServiceKey, ServiceView};

/// Keeps a [`Store`] up to date.
#[derive(Debug)]
pub struct Feed {
    store: Arc<Store>,
    subscriptions: Subscriptions,
    words: Words,
    model: Model,
    /// Services whose endpoints are wanted, and whether through their waypoints.
    wanted: BTreeMap<NamespacedName, bool>,
    /// Names that the control plane has answered, among those that are followed.
    answered: HashSet<Arc<str>>,
    /// What is followed.
    followed: BTreeSet<Arc<str>>,
    /// Addresses of this very proxy.
    own: Box<[IpAddr]>,
    /// Whether calls may name workloads by address.
    addressed: bool,
    /// Views that depend on more than their own service.
    entangled: BTreeSet<ServiceKey>,
}

/// Services and workloads by all that they are looked up by.
#[derive(Debug, Default)]
struct Model {
    network: Arc<str>,
    services: HashMap<NamespacedName, Service>,
    workloads: HashMap<Arc<str>, Arc<Workload>>,
    members: HashMap<NamespacedName, BTreeMap<Arc<str>, Arc<Workload>>>,
    /// Who has an address, or says so, in the order of their names: pods come before what others write.
    holders: HashMap<NetworkAddr, Vec<Arc<Workload>>>,
    /// `holders` differs from what readers see.
    addresses_changed: bool,
    by_name: HashMap<NamespacedName, Arc<Workload>>,
    virtual_addresses: HashMap<NetworkAddr, NamespacedName>,
    /// Services of workloads that have a waypoint of their own, with the number of these workloads.
    called: BTreeMap<NamespacedName, usize>,
}

impl Feed {
    /// A feed for `store`, whose own addresses are `own`.
    #[must_use]
    pub fn new(store: Arc<Store>, subscriptions: Subscriptions, own: Box<[IpAddr]>) -> Self {
        let model = Model { network: store.network().clone(), ..Model::default() };
        let mut feed = Self {
            store,
            subscriptions,
            words: Words::default(),
            model,
            wanted: BTreeMap::new(),
            answered: HashSet::new(),
            followed: BTreeSet::new(),
            own,
            addressed: false,
            entangled: BTreeSet::new(),
        };
        feed.ask();
        feed
    }

    /// The store that it keeps.
    #[must_use]
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Follows exactly these services from now on; true: also what is needed to reach them through their waypoints.
    pub fn follow(&mut self, wanted: BTreeMap<NamespacedName, bool>) {
        if self.wanted == wanted {
            return;
        }
        self.wanted = wanted;
        self.ask();
        self.sweep();
    }

    /// Whether calls may name workloads by address, so that readers have to find them.
    pub fn serve_workloads(&mut self, addressed: bool) {
        if self.addressed != addressed {
            self.addressed = addressed;
            self.model.addresses_changed = true;
            self.ask();
            self.publish_workloads();
            self.publish_guards();
        }
    }

    /// Whether the control plane has said what this service is, or that there is none.
    #[must_use]
    pub fn is_answered(&self, name: &NamespacedName) -> bool {
        self.answered.contains(&*resource_name(name))
    }

    /// The endpoints of a port, now and in future.
    pub fn view(&mut self, key: &ServiceKey) -> Arc<ServiceView> {
        let (view, new) = self.store.view(key);
        if new {
            self.publish(&view);
        }
        view
    }

    /// Applies a response of type [`type_url::ADDRESS`].
    pub fn apply(&mut self, resources: Vec<Resource>, removed: &[String]) -> Vec<Rejection> {
        let mut rejected = Vec::new();
        let mut touched = BTreeSet::new();
        for resource in resources {
            if let Err(reason) = self.upsert(&resource, &mut touched) {
                rejected.push(Rejection::new(resource.name.clone(), reason));
            }
            // Refused is answered too: whoever waits for it must not wait for ever.
            self.answer(&resource.name);
        }
        for name in removed {
            self.remove(name, &mut touched);
            self.answer(name);
        }
        self.place();
        self.ask();
        self.publish_workloads();
        self.publish_guards();
        let entangled = self.entangled.clone();
        for view in self.store.views() {
            let key = view.key();
            let name = NamespacedName::new(key.namespace.clone(), key.hostname.clone());
            if touched.contains(&name) || entangled.contains(key) {
                self.publish(&view);
            }
        }
        rejected
    }

    fn answer(&mut self, name: &str) {
        if let Some(name) = self.followed.get(name) {
            self.answered.insert(name.clone());
        }
    }

    fn upsert(&mut self, resource: &Resource, touched: &mut BTreeSet<NamespacedName>) -> Result<(), String> {
        let message = Address::decode(resource.value.as_slice()).map_err(|error| format!("undecodable: {error}"))?;
        match message.r#type {
            Some(address::Type::Workload(message)) => {
                let workload = Workload::decode(message, &mut self.words).map_err(|error| error.to_string())?;
                self.model.drop_workload(&workload.uid.clone(), touched);
                self.model.put_workload(Arc::new(workload), touched);
            }
            Some(address::Type::Service(message)) => {
                let service = Service::decode(&message, &mut self.words).map_err(|error| error.to_string())?;
                self.model.drop_service(&service.key.clone(), touched);
                self.model.put_service(service, touched);
            }
            None => return Err("neither workload nor service".to_owned()),
        }
        Ok(())
    }

    fn remove(&mut self, name: &str, touched: &mut BTreeSet<NamespacedName>) {
        self.model.drop_workload(name, touched);
        if let Some((namespace, hostname)) = name.split_once('/') {
            self.model.drop_service(&NamespacedName::new(namespace, hostname), touched);
        }
    }

    fn publish(&mut self, view: &ServiceView) {
        let key = view.key();
        let name = NamespacedName::new(key.namespace.clone(), key.hostname.clone());
        if key.via_waypoint
            || !derive::needs(&self.model, &name, false).is_empty()
            || derive::is_shared(&self.model, &name)
        {
            self.entangled.insert(key.clone());
        } else {
            self.entangled.remove(key);
        }
        view.publish(derive::endpoints(&self.model, key));
    }

    /// Asks for what is wanted and for what follows from it.
    fn ask(&mut self) {
        let mut names: BTreeSet<Arc<str>> = BTreeSet::new();
        for (name, via_waypoint) in &self.wanted {
            names.insert(resource_name(name));
            names.extend(derive::needs(&self.model, name, *via_waypoint));
        }
        names.extend(self.own.iter().map(|ip| Arc::from(format!("{}/{ip}", self.model.network))));
        // Services that this proxy is an endpoint of: calls may name them as a workload's waypoint.
        names.extend(self.place_services().map(|name| resource_name(&name)));
        if self.addressed {
            // Whose policies a call to the workload would leave out.
            names.extend(self.model.called.keys().map(resource_name));
        }
        if names != self.followed {
            self.answered.retain(|name| names.contains(name));
            self.followed = names.clone();
            self.subscriptions.set(type_url::ADDRESS, names);
        }
    }

    /// Forgets what is no longer followed, so that it is not kept up to date for ever.
    fn sweep(&mut self) {
        let mut touched = BTreeSet::new();
        let kept = |name: &NamespacedName| self.followed.contains(&*resource_name(name));
        let services: Vec<_> = self.model.services.keys().filter(|name| !kept(name)).cloned().collect();
        let own = &self.own;
        let workloads = self.model.workloads.values().filter(|one| {
            !one.services.iter().any(|(name, _)| kept(name)) && !one.addresses.iter().any(|ip| own.contains(ip))
        });
        let workloads: Vec<_> = workloads.map(|one| one.uid.clone()).collect();
        for name in &services {
            self.model.drop_service(name, &mut touched);
        }
        for uid in &workloads {
            self.model.drop_workload(uid, &mut touched);
        }
        self.subscriptions.release(type_url::ADDRESS, workloads);
        self.subscriptions.release(type_url::ADDRESS, services.iter().map(resource_name));
        self.publish_workloads();
        self.publish_guards();
        self.store.prune_views();
    }

    fn publish_workloads(&mut self) {
        if std::mem::take(&mut self.model.addresses_changed) {
            let all = self.model.holders.iter().filter(|_| self.addressed);
            let first = all.filter_map(|(address, holders)| Some((address.clone(), holders.first()?.clone())));
            self.store.set_workloads(first.collect());
        }
    }

    /// What is not answered is left out: it is not known.
    fn publish_guards(&self) {
        if !self.addressed {
            return self.store.set_guards(HashMap::new());
        }
        let known = |name: &NamespacedName| match self.model.services.get(name) {
            Some(service) => Some(service.guarded.then(|| service.ports.clone())),
            None => self.is_answered(name).then_some(None),
        };
        let guards = self.model.called.keys().filter_map(|name| Some((name.clone(), known(name)?)));
        self.store.set_guards(guards.collect());
    }

    /// Learns where this proxy is from its own workload.
    fn place(&self) {
        let own = self.own_workload().cloned();
        let before = self.store.place();
        let services = own.iter().flat_map(|own| own.services.iter()).filter_map(|(name, _)| self.model.service(name));
        let addresses: Arc<[NetworkAddr]> = services.flat_map(|service| service.addresses.iter().cloned()).collect();
        if before.workload == own && before.addresses == addresses {
            return;
        }
        let place = match &own {
            Some(workload) => Place {
                locality: workload.locality.clone(),
                network: workload.network.clone(),
                cluster: workload.cluster.clone(),
                node: workload.node.clone(),
                labels: workload.labels.clone(),
                workload: own.clone(),
                addresses,
            },
            None => Place { workload: None, addresses, ..Place::clone(&before) },
        };
        self.store.set_place(place);
    }

    fn own_workload(&self) -> Option<&Arc<Workload>> {
        let at = |ip: &IpAddr| self.model.workload_at(&NetworkAddr::new(self.model.network.clone(), *ip));
        self.own.iter().find_map(at)
    }

    fn place_services(&self) -> impl Iterator<Item = NamespacedName> {
        self.own_workload().into_iter().flat_map(|own| own.services.iter().map(|(name, _)| name.clone()))
    }
}

impl Model {
    fn put_workload(&mut self, workload: Arc<Workload>, touched: &mut BTreeSet<NamespacedName>) {
        for (name, _) in &workload.services {
            self.members.entry(name.clone()).or_default().insert(workload.uid.clone(), workload.clone());
            touched.insert(name.clone());
            if workload.waypoint.is_some() {
                *self.called.entry(name.clone()).or_default() += 1;
            }
        }
        for ip in &workload.addresses {
            let key = NetworkAddr::new(workload.network.clone(), *ip);
            let holders = self.holders.entry(key).or_default();
            // Whether they are reached through their services may depend on it.
            touched.extend(holders.iter().flat_map(|other| other.services.iter().map(|(name, _)| name.clone())));
            let at = holders.partition_point(|other| other.uid < workload.uid);
            holders.insert(at, workload.clone());
            self.addresses_changed = true;
        }
        if let Some(name) = workload_name(&workload) {
            self.by_name.insert(name, workload.clone());
        }
        self.workloads.insert(workload.uid.clone(), workload);
    }

    fn drop_workload(&mut self, uid: &str, touched: &mut BTreeSet<NamespacedName>) {
        let Some(workload) = self.workloads.remove(uid) else { return };
        for (name, _) in &workload.services {
            if let Some(members) = self.members.get_mut(name) {
                members.remove(uid);
                if members.is_empty() {
                    self.members.remove(name);
                }
            }
            touched.insert(name.clone());
            if workload.waypoint.is_some()
                && let Some(count) = self.called.get_mut(name)
            {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    self.called.remove(name);
                }
            }
        }
        for ip in &workload.addresses {
            let key = NetworkAddr::new(workload.network.clone(), *ip);
            let Some(holders) = self.holders.get_mut(&key) else { continue };
            holders.retain(|holder| holder.uid != workload.uid);
            touched.extend(holders.iter().flat_map(|other| other.services.iter().map(|(name, _)| name.clone())));
            if holders.is_empty() {
                self.holders.remove(&key);
            }
            self.addresses_changed = true;
        }
        if let Some(name) = workload_name(&workload)
            && self.by_name.get(&name).is_some_and(|holder| holder.uid == workload.uid)
        {
            self.by_name.remove(&name);
        }
    }

    fn put_service(&mut self, service: Service, touched: &mut BTreeSet<NamespacedName>) {
        touched.insert(service.key.clone());
        for address in &service.addresses {
            self.virtual_addresses.insert(address.clone(), service.key.clone());
        }
        self.services.insert(service.key.clone(), service);
    }

    fn drop_service(&mut self, name: &NamespacedName, touched: &mut BTreeSet<NamespacedName>) {
        let Some(service) = self.services.remove(name) else { return };
        touched.insert(name.clone());
        for address in &service.addresses {
            if self.virtual_addresses.get(address) == Some(name) {
                self.virtual_addresses.remove(address);
            }
        }
    }
}

impl Known for Model {
    fn service(&self, name: &NamespacedName) -> Option<&Service> {
        self.services.get(name)
    }

    fn service_at(&self, address: &NetworkAddr) -> Option<&Service> {
        self.services.get(self.virtual_addresses.get(address)?)
    }

    fn members(&self, name: &NamespacedName) -> impl Iterator<Item = &Arc<Workload>> {
        self.members.get(name).into_iter().flat_map(BTreeMap::values)
    }

    fn workload_named(&self, name: &NamespacedName) -> Option<&Arc<Workload>> {
        self.by_name.get(name)
    }

    fn workload_at(&self, address: &NetworkAddr) -> Option<&Arc<Workload>> {
        self.holders.get(address)?.first()
    }

    fn holders(&self, address: &NetworkAddr) -> &[Arc<Workload>] {
        self.holders.get(address).map(Vec::as_slice).unwrap_or_default()
    }

    fn network(&self) -> &str {
        &self.network
    }
}

fn workload_name(workload: &Workload) -> Option<NamespacedName> {
    let named = !workload.hostname.is_empty();
    named.then(|| NamespacedName::new(workload.end.namespace.clone(), workload.hostname.clone()))
}

fn resource_name(name: &NamespacedName) -> Arc<str> {
    format!("{}/{}", name.namespace, name.name).into()
}
