//! Who this process is to the control plane.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::Config;
use super::mesh_file::ProxyConfig;
use super::reader::Reader;

/// Who this process is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Own {
    /// `POD_NAME`.
    pub pod_name: String,
    /// `POD_NAMESPACE`.
    pub pod_namespace: String,
    /// `INSTANCE_IP`.
    pub instance_ip: String,
    /// `SERVICE_ACCOUNT`.
    pub service_account: String,
    /// `TRUST_DOMAIN`.
    pub trust_domain: String,
}

impl Config {
    /// `<type>~<ip>~<pod>.<namespace>~<namespace>.svc.<domain>`: who asks the control plane.
    #[must_use]
    pub fn node_id(&self) -> String {
        let Own { pod_name, pod_namespace, instance_ip, .. } = &self.own;
        // The last part is always this domain, whatever the cluster's is.
        format!("ztunnel~{instance_ip}~{pod_name}.{pod_namespace}~{pod_namespace}.svc.cluster.local")
    }

    /// Metadata that goes with the node id.
    #[must_use]
    pub fn node_metadata(&self) -> BTreeMap<String, Value> {
        let mut metadata: BTreeMap<String, Value> = [
            ("NAME", self.own.pod_name.as_str()),
            ("NAMESPACE", &self.own.pod_namespace),
            ("INSTANCE_IPS", &self.own.instance_ip),
            ("NODE_NAME", self.node.as_deref().unwrap_or_default()),
        ]
        .map(|(name, value)| (name.to_owned(), value.into()))
        .into();
        metadata.extend(self.metadata.clone());
        metadata
    }
}

pub(super) fn own(read: &Reader<'_>) -> Own {
    Own {
        pod_name: read.text("POD_NAME", ""),
        pod_namespace: read.text("POD_NAMESPACE", ""),
        instance_ip: read.text("INSTANCE_IP", "1.1.1.1"),
        service_account: read.text("SERVICE_ACCOUNT", ""),
        trust_domain: read.text("TRUST_DOMAIN", mesh_core::TrustDomain::DEFAULT),
    }
}

/// What the file says, then the environment's texts, then its JSON objects: the last one wins.
pub(super) fn metadata(read: &mut Reader<'_>, file: &ProxyConfig) -> BTreeMap<String, Value> {
    let bare = |name: &str| name.strip_prefix(META).unwrap_or(name).to_owned();
    let mut metadata: BTreeMap<_, _> =
        file.proxy_metadata.iter().map(|(name, value)| (bare(name), Value::from(value.as_str()))).collect();
    metadata.extend(read.prefixed(META).into_iter().map(|(name, value)| (name, Value::from(value))));
    for (name, value) in read.prefixed(META_JSON) {
        match serde_json::from_str::<Map<String, Value>>(&value) {
            Ok(object) => metadata.extend(object),
            Err(error) => read.error(format!("{META_JSON}{name}={value:?}: expected a JSON object: {error}")),
        }
    }
    metadata
}

const META: &str = "ISTIO_META_";
const META_JSON: &str = "ISTIO_METAJSON_";
