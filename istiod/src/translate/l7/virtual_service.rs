//! VirtualServices at a waypoint: the rules of one service port.
//!
//! They stand in the order in which they were written, of several VirtualServices the oldest first. A rule that cannot be
//! honoured keeps its place and answers with an error.

mod delegate;
mod http;
mod l4;
mod matching;
mod rule;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use mesh_core::names::NamespacedName;
use mesh_wire::l7;

use super::backend::{Backends, NoBackend, ServedPort};
use super::rule::exported;
use crate::world::{HostKey, Kind, VirtualService, World};
pub(super) use l4::is_subnet;
use mesh_api::networking::Destination;

/// What VirtualServices say of a port of a service at a gateway.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules<'a> {
    pub(super) world: &'a World,
    pub(super) gateway: &'a NamespacedName,
    pub(super) host: &'a HostKey,
    pub(super) port: &'a ServedPort,
}

impl<'a> Rules<'a> {
    /// Routes of requests; none where nobody wrote any for this port.
    ///
    /// # Source
    /// spec of layer-7 routing, sections 5.1 to 5.5.
    pub(super) fn http(&self, backends: &mut Backends<'_>) -> Option<l7::HttpTable> {
        let mut table = http::Table::default();
        for one in self.in_force().filter(|one| !one.spec.http.is_empty()) {
            self.add_http(one, &mut table, backends);
            if table.closed {
                break;
            }
        }
        table.finish()
    }

    /// Routes of TLS connections.
    pub(super) fn tls(&self, backends: &mut Backends<'_>) -> Vec<l7::TlsRule> {
        let mut rules = Vec::new();
        for one in self.in_force() {
            self.add_tls(one, &mut rules, backends);
        }
        rules
    }

    /// Routes of other connections.
    pub(super) fn tcp(&self, backends: &mut Backends<'_>) -> Vec<l7::L4Rule> {
        let mut rules = Vec::new();
        for one in self.in_force() {
            self.add_tcp(one, &mut rules, backends);
        }
        rules
    }

    /// Those that count for the service at this gateway, the oldest first.
    fn in_force(&self) -> impl Iterator<Item = &'a Arc<VirtualService>> + use<'a> {
        let (world, host, gateway) = (self.world, self.host, self.gateway);
        let all = world.virtual_services_for(&host.hostname);
        all.into_iter().filter(move |one| counts(world, one, host, gateway))
    }

    /// The target of a destination. One that cannot be called is remarked, with what becomes of its share.
    fn target(
        &self,
        at: &At<'_>,
        written: &Destination,
        effect: &str,
        backends: &mut Backends<'_>,
    ) -> Result<u32, NoBackend> {
        let found = self.find(written, &at.one.key.namespace, backends);
        if let Err(error) = &found {
            at.remark(&format!("{error}, {effect}: {}", error.remedy()), backends);
        }
        found
    }

    fn find(&self, written: &Destination, namespace: &str, backends: &mut Backends<'_>) -> Result<u32, NoBackend> {
        let hostname = self.world.settings().full_host(&written.host, namespace);
        let host = backends.host(&hostname, namespace)?;
        let number = written.port.as_ref().and_then(|port| port.number).and_then(|port| u16::try_from(port).ok());
        let port = match (number, &*backends.ports(&host)) {
            (Some(port), _) => port,
            (None, [only]) => *only,
            // As the request has it.
            (None, _) => self.port.number,
        };
        backends.index(&host, port, written.subset.as_deref().unwrap_or_default())
    }

    /// The same, as the target of a share of the traffic.
    fn share(&self, at: &At<'_>, written: &Destination, backends: &mut Backends<'_>) -> l7::weighted_backend::Target {
        match self.target(at, written, "so its share is refused (503)", backends) {
            Ok(index) => l7::weighted_backend::Target::Backend(index),
            Err(error) => l7::weighted_backend::Target::Unusable(no_cluster(&error.to_string())),
        }
    }
}

/// A part of a VirtualService.
#[derive(Clone, Debug)]
struct At<'a> {
    one: &'a VirtualService,
    /// As `http[0].route[1]`.
    field: String,
}

impl<'a> At<'a> {
    fn new(one: &'a VirtualService, field: String) -> Self {
        Self { one, field }
    }

    fn within(&self, field: &str) -> Self {
        Self { one: self.one, field: format!("{}.{field}", self.field) }
    }

    fn remark(&self, text: &str, backends: &mut Backends<'_>) {
        backends.remark(Kind::VirtualService, &self.one.key, format!("{}: {text}", self.field));
    }
}

/// Whether a VirtualService counts for a service at a gateway: it is of the namespace of either, and for the mesh.
pub(in crate::translate) fn counts(
    world: &World,
    one: &VirtualService,
    host: &HostKey,
    gateway: &NamespacedName,
) -> bool {
    let namespace = &one.key.namespace;
    let usual = &world.settings().l7.virtual_services_export_to;
    (*namespace == host.namespace || *namespace == gateway.namespace)
        && world.visible(namespace)
        && is_for_mesh(&one.spec.gateways)
        && exported(&one.spec.export_to, usual, namespace, &gateway.namespace)
}

/// Whether a list of gateways says the mesh, which is what it says when it is empty.
pub(in crate::translate) fn is_for_mesh(gateways: &[String]) -> bool {
    gateways.is_empty() || gateways.iter().any(|one| one == MESH)
}

fn origin(one: &VirtualService, rule: usize, name: Option<&str>) -> l7::Origin {
    l7::Origin {
        kind: "VirtualService".to_owned(),
        namespace: one.key.namespace.to_string(),
        name: one.key.name.to_string(),
        rule: u32::try_from(rule).unwrap_or(u32::MAX),
        rule_name: name.unwrap_or_default().to_owned(),
    }
}

/// The answer of a destination that does not exist.
fn no_cluster(reason: &str) -> l7::Unusable {
    l7::Unusable { status: 503, flag: "NC".to_owned(), reason: reason.to_owned() }
}

/// The gateway that stands for all of the mesh.
const MESH: &str = "mesh";
