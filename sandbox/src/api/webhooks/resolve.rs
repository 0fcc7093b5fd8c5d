//! From a webhook's client configuration to addresses: Services are resolved inside the sandbox, to
//! the ready endpoints behind them.

use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::admissionregistration::v1::{ServiceReference, WebhookClientConfig};
use serde_json::Value;

use crate::{
    api::ApiServer,
    store::{ObjectKey, ResourceKey, meta_str},
};

/// Addresses that are tried for one call.
const ADDRESSES_MAX: usize = 8;

/// Where a webhook is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// For messages.
    pub(super) url: String,
    /// The name that its certificate must have.
    pub(super) server_name: String,
    /// Tried in this order; a host that is not one of ours is looked up.
    pub(super) addresses: Addresses,
    /// Path and query.
    pub(super) path: String,
    /// PEM certificates of the authorities that it may have its certificate from.
    pub(super) ca_bundle: Vec<u8>,
}

/// Addresses, or a name for the resolver of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Addresses {
    Known(Vec<SocketAddr>),
    Host(String, u16),
}

impl ApiServer {
    pub(super) fn place_of(&self, client: &WebhookClientConfig) -> Result<Place, String> {
        let ca_bundle = client.ca_bundle.as_ref().map(|bundle| bundle.0.clone()).unwrap_or_default();
        match (&client.url, &client.service) {
            (Some(url), None) => of_url(url, ca_bundle),
            (None, Some(service)) => self.of_service(service, ca_bundle),
            _ => Err("the configuration names neither one url nor one service".to_owned()),
        }
    }

    fn of_service(&self, reference: &ServiceReference, ca_bundle: Vec<u8>) -> Result<Place, String> {
        let (name, namespace) = (&reference.name, &reference.namespace);
        let port = reference.port.unwrap_or(443);
        let service = self.store.get(&ResourceKey::new("", "services"), &ObjectKey::namespaced(namespace, name));
        let service = service.ok_or_else(|| format!("service {name:?} not found in namespace {namespace:?}"))?;
        let ports = service.value().pointer("/spec/ports").and_then(Value::as_array).into_iter().flatten();
        let mut ports = ports.filter(|entry| entry.get("port").and_then(Value::as_i64) == Some(i64::from(port)));
        let entry = ports.next().ok_or_else(|| format!("no service port {port} found for service {name:?}"))?;
        let port_name = entry.get("name").and_then(Value::as_str).unwrap_or_default();
        let addresses = self.endpoints(namespace, name, port_name);
        if addresses.is_empty() {
            return Err(format!("no endpoints available for service {name:?}"));
        }
        let path = reference.path.clone().filter(|path| !path.is_empty()).unwrap_or_else(|| "/".to_owned());
        let server_name = format!("{name}.{namespace}.svc");
        let url = format!("https://{server_name}:{port}{path}");
        Ok(Place { url, server_name, addresses: Addresses::Known(addresses), path, ca_bundle })
    }

    fn endpoints(&self, namespace: &str, service: &str, port_name: &str) -> Vec<SocketAddr> {
        let slices = self.store.list(&ResourceKey::new("discovery.k8s.io", "endpointslices"), Some(namespace)).items;
        let of_service = |slice: &Value| {
            let label = slice.pointer("/metadata/labels/kubernetes.io~1service-name");
            label.and_then(Value::as_str) == Some(service)
        };
        let mut found = Vec::new();
        for slice in slices
            .iter()
            .filter(|slice| of_service(slice.value()) && meta_str(slice.value(), "deletionTimestamp").is_none())
        {
            let list = |field: &str| slice.value().get(field).and_then(Value::as_array).into_iter().flatten();
            let port =
                list("ports").find(|port| port.get("name").and_then(Value::as_str).unwrap_or_default() == port_name);
            let port = port.and_then(|port| u16::try_from(port.get("port")?.as_u64()?).ok());
            let Some(port) = port else { continue };
            let ready =
                list("endpoints").filter(|endpoint| endpoint.pointer("/conditions/ready") != Some(&Value::Bool(false)));
            let addresses = ready.filter_map(|endpoint| endpoint.get("addresses")?.as_array()?.first()?.as_str());
            found.extend(addresses.filter_map(|text| Some(SocketAddr::new(text.parse::<IpAddr>().ok()?, port))));
        }
        found.sort();
        found.dedup();
        found.truncate(ADDRESSES_MAX);
        found
    }
}

fn of_url(url: &str, ca_bundle: Vec<u8>) -> Result<Place, String> {
    let parsed: http::Uri = url.parse().map_err(|error| format!("{url:?} is not a URL: {error}"))?;
    let host = parsed.host().ok_or_else(|| format!("{url:?} names no host"))?.trim_matches(['[', ']']).to_owned();
    let port = parsed.port_u16().unwrap_or(443);
    let path = parsed.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string);
    let addresses = match host.parse::<IpAddr>() {
        Ok(ip) => Addresses::Known(vec![SocketAddr::new(ip, port)]),
        Err(_) => Addresses::Host(host.clone(), port),
    };
    Ok(Place { url: url.to_owned(), server_name: host, addresses, path, ca_bundle })
}
