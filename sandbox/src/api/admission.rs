//! What the server adds to objects before they are stored, and does after.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use rand::Rng;
use serde_json::{Map, Value, json};

use super::{
    ApiServer, Resource, Target,
    addresses::of_service,
    defaults::{each, map, set},
    status::ApiError,
    webhooks::check_configuration,
};
use crate::{
    schema::FieldError,
    store::{Object, ResourceKey},
};

/// Ports given to services of type `NodePort` and `LoadBalancer`.
const NODE_PORTS: std::ops::Range<u16> = 30_000..32_768;

impl ApiServer {
    /// Completes an object about to be stored; `live` is what it replaces. The cluster IPs returned
    /// were taken for it and have to be released if it is not stored after all.
    pub(crate) fn admit(
        &self,
        at: &Target<'_>,
        live: Option<&Arc<Object>>,
        value: &mut Value,
    ) -> Result<Vec<IpAddr>, ApiError> {
        let name = value.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default().to_owned();
        let invalid = |errors| ApiError::invalid(&at.resource.group, &at.resource.kind, &name, errors);
        match at.resource.key.as_str() {
            "pods" if live.is_none() => {
                self.admit_pod(at.namespace.unwrap_or_default(), value)?;
                Ok(Vec::new())
            }
            "services" => {
                self.admit_service(live.map(|live| live.value()), value).map_err(|error| invalid(vec![error]))
            }
            "customresourcedefinitions.apiextensions.k8s.io" => {
                self.admit_definition(value).map_err(invalid)?;
                Ok(Vec::new())
            }
            "validatingwebhookconfigurations.admissionregistration.k8s.io"
            | "mutatingwebhookconfigurations.admissionregistration.k8s.io" => {
                let errors = check_configuration(value);
                if errors.is_empty() { Ok(Vec::new()) } else { Err(invalid(errors)) }
            }
            _ => Ok(Vec::new()),
        }
    }

    fn admit_service(&self, live: Option<&Value>, value: &mut Value) -> Result<Vec<IpAddr>, FieldError> {
        let kept = live.map(of_service).unwrap_or_default();
        let Some(fields) = value.as_object_mut() else { return Ok(Vec::new()) };
        set(fields, "status", json!({"loadBalancer": {}}));
        let spec = map(fields, "spec");
        let external = |spec: &Map<String, Value>| spec.get("type").and_then(Value::as_str) == Some("ExternalName");
        let old = live.and_then(|live| live.get("spec")).and_then(Value::as_object);
        if let Some(old) = old.filter(|old| !external(old) && !external(spec)) {
            // What was allocated stays when an update leaves it out.
            for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                if let Some(value) = old.get(field) {
                    set(spec, field, value.clone());
                }
            }
            keep_node_ports(old, spec);
        }
        self.node_ports(spec);
        self.addresses.assign(spec, &kept)
    }

    fn node_ports(&self, spec: &mut Map<String, Value>) {
        if !matches!(spec.get("type").and_then(Value::as_str), Some("NodePort" | "LoadBalancer")) {
            each(spec, "ports", |port| {
                port.remove("nodePort");
            });
            return;
        }
        let services = self.store.list(&ResourceKey::new("", "services"), None).items;
        let ports = services.iter().filter_map(|service| service.value().pointer("/spec/ports")?.as_array()).flatten();
        let mut taken: BTreeSet<u64> = ports.filter_map(|port| port.get("nodePort")?.as_u64()).collect();
        each(spec, "ports", |port| {
            let missing = port.get("nodePort").and_then(Value::as_u64).unwrap_or_default() == 0;
            if !missing || taken.len() >= NODE_PORTS.len() {
                return;
            }
            let start = rand::rng().random_range(NODE_PORTS);
            let free =
                (start..NODE_PORTS.end).chain(NODE_PORTS.start..start).find(|port| taken.insert(u64::from(*port)));
            if let Some(free) = free {
                port.insert("nodePort".to_owned(), json!(free));
            }
        });
    }

    /// Follows up on a stored object.
    pub(crate) fn committed(&self, resource: &Resource, old: Option<&Arc<Object>>, new: &Arc<Object>) {
        match resource.key.as_str() {
            "services" => {
                let mut unused = old.map(|old| of_service(old.value())).unwrap_or_default();
                let used = of_service(new.value());
                unused.retain(|address| !used.contains(address));
                self.addresses.release(&unused);
            }
            "customresourcedefinitions.apiextensions.k8s.io" => self.serve_definition(new.value()),
            _ => {}
        }
    }

    /// Follows up on a removed object.
    pub(crate) fn removed(&self, resource: &Resource, object: &Object) {
        match resource.key.as_str() {
            "services" => self.addresses.release(&of_service(object.value())),
            "customresourcedefinitions.apiextensions.k8s.io" => self.retire_definition(object.value()),
            _ => {}
        }
    }
}

/// Ports keep their node ports when an update leaves them out.
fn keep_node_ports(old: &Map<String, Value>, spec: &mut Map<String, Value>) {
    let old_ports = old.get("ports").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    each(spec, "ports", |port| {
        let same = |other: &&Value| ["port", "protocol"].iter().all(|field| other.get(*field) == port.get(*field));
        if let Some(number) = old_ports.iter().find(same).and_then(|old| old.get("nodePort")) {
            set(port, "nodePort", number.clone());
        }
    });
}
