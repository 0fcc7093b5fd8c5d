//! The objects that are there from the start.

use std::sync::Arc;

use futures::FutureExt as _;
use serde_json::{Value, json};

use super::{
    ApiServer, StartError,
    body::Decoded,
    query::FieldValidation,
    rbac::system_roles,
    write::{Target, Tracking, WriteOptions},
};

/// Namespaces of every cluster.
const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];
/// Port of the `kubernetes` service.
const API_PORT: u16 = 443;

/// Creates the first objects.
pub(super) fn create(server: &Arc<ApiServer>) -> Result<(), StartError> {
    for name in NAMESPACES {
        put(server, "", "namespaces", None, json!({"metadata": {"name": name}}))?;
    }
    for (name, value) in [("system-cluster-critical", 2_000_000_000), ("system-node-critical", 2_000_001_000)] {
        let class = json!({"metadata": {"name": name}, "value": value});
        put(server, "scheduling.k8s.io", "priorityclasses", None, class)?;
    }
    for (plural, object) in system_roles::all() {
        put(server, "rbac.authorization.k8s.io", plural, None, object)?;
    }
    kubernetes_service(server)
}

fn kubernetes_service(server: &Arc<ApiServer>) -> Result<(), StartError> {
    let labels = json!({"component": "apiserver", "provider": "kubernetes"});
    let advertised = &server.config.advertise;
    let target = advertised.first().map_or(API_PORT, |address| address.port());
    let [ipv4, _] = server.addresses.first();
    let service = json!({
        "metadata": {"name": "kubernetes", "labels": labels},
        "spec": {
            "clusterIP": ipv4, "ipFamilyPolicy": "SingleStack",
            "ports": [{"name": "https", "port": API_PORT, "targetPort": target}],
        },
    });
    put(server, "", "services", Some("default"), service)?;
    let addresses: Vec<_> = advertised.iter().filter(|address| address.is_ipv4()).map(|address| address.ip()).collect();
    if addresses.is_empty() {
        return Ok(());
    }
    let ips: Vec<Value> = addresses.iter().map(|ip| json!({"ip": ip})).collect();
    let endpoints = json!({
        "metadata": {"name": "kubernetes", "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
        "subsets": [{"addresses": ips, "ports": [{"name": "https", "port": target}]}],
    });
    put(server, "", "endpoints", Some("default"), endpoints)?;
    let slice = json!({
        "metadata": {"name": "kubernetes", "labels": {"kubernetes.io/service-name": "kubernetes"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": addresses, "conditions": {"ready": true}}],
        "ports": [{"name": "https", "port": target, "protocol": "TCP"}],
    });
    put(server, "discovery.k8s.io", "endpointslices", Some("default"), slice)
}

fn put(
    server: &Arc<ApiServer>,
    group: &str,
    plural: &str,
    namespace: Option<&str>,
    value: Value,
) -> Result<(), StartError> {
    let name = value.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
    let what = format!("{plural} {name}");
    let catalog = server.catalog.current();
    let found = catalog.find(group, plural).and_then(|resource| Some((resource, resource.versions.first()?)));
    let Some((resource, version)) = found else {
        return Err(StartError::Bootstrap { what, source: super::ApiError::no_such_path() });
    };
    let at = Target { resource, version, namespace };
    let options = WriteOptions {
        manager: "kube-apiserver".to_owned(),
        dry_run: false,
        validation: FieldValidation::Strict,
        user: None,
    };
    let sent = Decoded { value, duplicates: Vec::new() };
    // Nobody is asked, so there is nothing to wait for.
    let written = server.create(&at, sent, Tracking::Update, &options).now_or_never();
    match written.unwrap_or_else(|| Err(super::ApiError::internal("creating an object had to wait"))) {
        Ok(_) => Ok(()),
        // It is there from an earlier run.
        Err(error) if error.reason == "AlreadyExists" => Ok(()),
        Err(source) => Err(StartError::Bootstrap { what, source }),
    }
}
