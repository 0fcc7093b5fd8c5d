//! The client side of one type-multiplexed delta stream, without I/O.
//!
//! ```text
//!            start_stream                 handle_response
//! (no stream) ----------> subscribed --------------------> known { name -> version }
//!                         ^                                  |  every later stream starts
//!                         +----------------------------------+  with what is known
//! ```

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use mesh_wire::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node, Resource as WireResource, Status};

use super::{Handler, Rejection, Resource};

/// What the client holds of each type that it subscribes to. Outlives streams.
#[derive(Debug)]
pub struct DeltaClient {
    node: Node,
    /// In subscription order.
    types: Vec<Type>,
}

#[derive(Debug)]
struct Type {
    url: String,
    /// Only what is asked for by name.
    on_demand: bool,
    /// Names that are followed, where not all of the type are.
    listed: Option<BTreeSet<Arc<str>>>,
    /// Resources in force and the version of each, to resume with.
    versions: BTreeMap<String, Box<str>>,
    /// A response was acknowledged since the process started.
    acknowledged: bool,
}

/// What followed from a response.
#[derive(Debug, Clone, PartialEq)]
pub struct Handled {
    /// To send: an acknowledgement, or a refusal that names what is unusable.
    pub request: DeltaDiscoveryRequest,
    /// What is unusable.
    pub rejected: Vec<Rejection>,
    /// Names and aliases of what came, and names of what is not there: questions for them are answered.
    pub answered: Vec<String>,
}

impl DeltaClient {
    /// Subscribes to all resources of each type.
    #[must_use]
    pub fn new(node: Node, type_urls: &[&str]) -> Self {
        let types = type_urls.iter().map(|url| Type {
            url: (*url).to_owned(),
            on_demand: false,
            listed: None,
            versions: BTreeMap::new(),
            acknowledged: false,
        });
        Self { node, types: types.collect() }
    }

    /// Subscribes to nothing of one of the types until [`DeltaClient::subscribe`].
    #[must_use]
    pub fn on_demand(mut self, type_url: &str) -> Self {
        for known in self.types.iter_mut().filter(|known| known.url == type_url) {
            known.on_demand = true;
        }
        self
    }

    /// Subscribes to nothing of one of the types but what [`DeltaClient::follow`] lists.
    #[must_use]
    pub fn listed(mut self, type_url: &str) -> Self {
        for known in self.types.iter_mut().filter(|known| known.url == type_url) {
            known.listed = Some(BTreeSet::new());
        }
        self
    }

    /// Whether every type that is subscribed to as a whole was answered and accepted once: the state is complete enough
    /// to serve. An answer of which a part was refused does not count, as long as none was accepted.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.types.iter().all(|known| known.acknowledged || known.is_by_name())
    }

    /// The first request of each type on a new stream, with everything kept from earlier ones and, for types on demand,
    /// the names that are `wanted` and not known yet.
    #[must_use]
    pub fn start_stream<'a>(&self, wanted: impl IntoIterator<Item = &'a str>) -> Vec<DeltaDiscoveryRequest> {
        let wanted: Vec<&str> = wanted.into_iter().collect();
        self.types.iter().map(|known| self.first_request(known, &wanted)).collect()
    }

    /// Empty subscriptions mean "everything"; everything and at the same time no longer everything: nothing but what the
    /// versions name.
    fn first_request(&self, known: &Type, wanted: &[&str]) -> DeltaDiscoveryRequest {
        let kept = known.versions.iter().map(|(name, version)| (name.clone(), version.to_string()));
        let mut request = DeltaDiscoveryRequest {
            node: Some(self.node.clone()),
            type_url: known.url.clone(),
            initial_resource_versions: kept.collect(),
            ..Default::default()
        };
        if known.is_by_name() {
            request.resource_names_subscribe = vec![EVERYTHING.to_owned()];
            request.resource_names_subscribe.extend(known.listed.iter().flatten().map(ToString::to_string));
            request.resource_names_unsubscribe = vec![EVERYTHING.to_owned()];
        }
        if known.on_demand {
            for name in wanted {
                request.initial_resource_versions.entry((*name).to_owned()).or_default();
            }
        }
        request
    }

    /// Asks for one resource of the type on demand, by any of its names. `None` without such a type.
    #[must_use]
    pub fn subscribe(&self, name: String) -> Option<DeltaDiscoveryRequest> {
        let known = self.types.iter().find(|known| known.on_demand)?;
        Some(DeltaDiscoveryRequest {
            type_url: known.url.clone(),
            resource_names_subscribe: vec![name],
            ..Default::default()
        })
    }

    /// Follows exactly `names` of a type that is listed, and no longer what was `released`. What to tell the server, if
    /// it has to be told.
    pub fn follow(
        &mut self,
        type_url: &str,
        names: BTreeSet<Arc<str>>,
        released: &BTreeSet<Arc<str>>,
    ) -> Option<DeltaDiscoveryRequest> {
        let known = self.types.iter_mut().find(|known| known.url == type_url)?;
        let listed = known.listed.as_mut()?;
        let added: Vec<_> = names.difference(listed).map(ToString::to_string).collect();
        let left = listed.difference(&names).chain(released.difference(&names));
        let left: BTreeSet<_> = left.map(ToString::to_string).collect();
        *listed = names;
        for name in &left {
            known.versions.remove(name);
        }
        (!added.is_empty() || !left.is_empty()).then(|| DeltaDiscoveryRequest {
            type_url: type_url.to_owned(),
            resource_names_subscribe: added,
            resource_names_unsubscribe: left.into_iter().collect(),
            ..Default::default()
        })
    }

    /// Applies a response and says what to answer. A type that was not subscribed to is
    /// acknowledged and ignored.
    pub fn handle_response(&mut self, response: DeltaDiscoveryResponse, handler: &mut dyn Handler) -> Handled {
        let DeltaDiscoveryResponse { type_url, nonce, resources, removed_resources, .. } = response;
        let mut request =
            DeltaDiscoveryRequest { type_url: type_url.clone(), response_nonce: nonce, ..Default::default() };
        let Some(known) = self.types.iter_mut().find(|known| known.url == type_url) else {
            return Handled { request, rejected: Vec::new(), answered: Vec::new() };
        };
        let answered = if known.on_demand { names(&resources, &removed_resources) } else { Vec::new() };
        let (mut usable, mut versions, mut rejected) = (Vec::new(), Vec::new(), Vec::new());
        for resource in resources {
            match resource.resource {
                Some(body) if body.type_url == type_url => {
                    versions.push((resource.name.clone(), resource.version));
                    usable.push(Resource { name: resource.name, aliases: resource.aliases, value: body.value });
                }
                Some(body) => {
                    let reason = format!("type {:?} in a response of {type_url:?}", body.type_url);
                    rejected.push(Rejection::new(resource.name, reason));
                }
                None => rejected.push(Rejection::new(resource.name, "no content")),
            }
        }
        rejected.extend(handler.apply(&type_url, usable, removed_resources.clone()));
        known.remember(versions, &rejected, &removed_resources);
        if rejected.is_empty() {
            known.acknowledged = true;
        } else {
            request.error_detail = Some(Status { message: refusal(&rejected), ..Default::default() });
        }
        Handled { request, rejected, answered }
    }
}

impl Type {
    /// Whether not all of the type is subscribed to.
    fn is_by_name(&self) -> bool {
        self.on_demand || self.listed.is_some()
    }

    /// A refused resource keeps the version of the copy that is still in force, if any, so that the
    /// server sends it again to the next stream.
    fn remember(&mut self, versions: Vec<(String, String)>, rejected: &[Rejection], removed: &[String]) {
        let rejected: HashSet<&str> = rejected.iter().map(|rejection| rejection.name.as_str()).collect();
        for (name, version) in versions {
            if !rejected.contains(name.as_str()) {
                self.versions.insert(name, version.into());
            }
        }
        for name in removed {
            self.versions.remove(name);
        }
    }
}

fn names(resources: &[WireResource], removed: &[String]) -> Vec<String> {
    let of = |resource: &WireResource| std::iter::once(resource.name.clone()).chain(resource.aliases.clone());
    resources.iter().flat_map(of).chain(removed.iter().cloned()).collect()
}

/// `name: reason` of each, within [`REFUSAL_BYTES_MAX`].
fn refusal(rejected: &[Rejection]) -> String {
    let mut text = String::new();
    for (n, Rejection { name, reason }) in rejected.iter().enumerate() {
        let one = format!("{name}: {reason}");
        let separator = if n == 0 { "" } else { "; " };
        if text.len() + separator.len() + one.len() > REFUSAL_BYTES_MAX && n > 0 {
            text.push_str(&format!("; and {} more", rejected.len() - n));
            break;
        }
        text.push_str(separator);
        text.push_str(&one);
    }
    text
}

/// Stands for all resources of a type.
const EVERYTHING: &str = "*";
/// A refusal of thousands of resources must not become a message of megabytes.
const REFUSAL_BYTES_MAX: usize = 16 * 1024;

#[cfg(test)]
mod tests;
