//! The Deployment of a Gateway: labels and ports are API, the rest is how our proxy wants to be run.

use std::collections::BTreeSet;

use mesh_api::labels as names;
use serde_json::{Map, Value, json};

use super::service::STATUS_PORT;
use super::{Frame, put};
use crate::translate::gateway::Family;
use crate::translate::gateway::infrastructure::Texts;
use crate::world::{AccessLog, L7Settings};

/// Specification of the Deployment.
pub(super) fn deployment(frame: &Frame<'_>) -> Value {
    let (labels, annotations) = (labels(frame), annotations(frame));
    json!({
        "selector": {"matchLabels": frame.selector()},
        "template": {
            "metadata": {"labels": labels, "annotations": annotations},
            "spec": pod(frame),
        },
    })
}

/// Labels of pods.
pub(crate) fn labels(frame: &Frame<'_>) -> Texts {
    let infrastructure = frame.infrastructure;
    let mut labels = infrastructure.labels.clone();
    let mut label = |key: &str, value: &str| drop(labels.insert(key.to_owned(), value.to_owned()));
    label("sidecar.istio.io/inject", "false");
    if let Some(mode) = infrastructure.mode {
        label(names::DATAPLANE_MODE, mode);
    }
    label(names::CANONICAL_NAME, &infrastructure.name);
    label(names::CANONICAL_REVISION, "latest");
    labels
}

/// Annotations of pods.
fn annotations(frame: &Frame<'_>) -> Texts {
    let mut annotations = frame.infrastructure.annotations.clone();
    let revision = frame.world.settings().revision.to_string();
    annotations.extend([
        (names::REVISION.to_owned(), if revision.is_empty() { "default".to_owned() } else { revision }),
        ("prometheus.io/path".to_owned(), "/stats/prometheus".to_owned()),
        ("prometheus.io/port".to_owned(), METRICS_PORT.to_string()),
        ("prometheus.io/scrape".to_owned(), "true".to_owned()),
    ]);
    annotations
}

fn pod(frame: &Frame<'_>) -> Value {
    let mut spec = json!({
        "serviceAccountName": frame.infrastructure.account,
        "terminationGracePeriodSeconds": 30,
        "containers": [container(frame)],
        "volumes": volumes(),
    });
    if frame.family == Family::Edge {
        // Listeners are on low ports, and the proxy is nobody special.
        let low = json!({"sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}]});
        put(&mut spec, "securityContext", low);
    }
    let defaults = frame.world.settings().proxies.pod.as_object().filter(|_| frame.family.inside());
    for key in ["affinity", "nodeSelector", "tolerations", "topologySpreadConstraints"] {
        if let Some(value) = defaults.and_then(|defaults| defaults.get(key)).filter(|value| !value.is_null()) {
            put(&mut spec, key, value.clone());
        }
    }
    spec
}

fn container(frame: &Frame<'_>) -> Value {
    let settings = frame.world.settings();
    let role = if frame.family == Family::Edge { "router" } else { "waypoint" };
    let mut container = json!({
        "name": "istio-proxy",
        "image": &*settings.proxies.image,
        "args": [
            "proxy", role,
            "--domain", format!("$(POD_NAMESPACE).svc.{}", settings.domain),
            "--serviceCluster", format!("{}.$(POD_NAMESPACE)", frame.infrastructure.account),
        ],
        "env": environment(frame),
        "ports": [
            {"name": "metrics", "containerPort": METRICS_PORT, "protocol": "TCP"},
            {"name": "status-port", "containerPort": STATUS_PORT, "protocol": "TCP"},
            {"name": "http-envoy-prom", "containerPort": PROXY_METRICS_PORT, "protocol": "TCP"},
        ],
        "startupProbe": probe(1, 30),
        "readinessProbe": probe(15, 4),
        "resources": resources(frame),
        "securityContext": {
            "runAsUser": PROXY_USER,
            "runAsGroup": PROXY_USER,
            "runAsNonRoot": true,
            "privileged": false,
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "istiod-ca-cert", "mountPath": "/var/run/secrets/istio"},
            {"name": "istio-token", "mountPath": "/var/run/secrets/tokens"},
            {"name": "istio-podinfo", "mountPath": "/etc/istio/pod"},
            {"name": "tmp", "mountPath": "/tmp"},
            {"name": "istio-ca-crl", "mountPath": REVOCATIONS_DIR},
        ],
    });
    if !settings.proxies.pull_policy.is_empty() {
        put(&mut container, "imagePullPolicy", (*settings.proxies.pull_policy).into());
    }
    container
}

fn probe(period_s: u32, failures: u32) -> Value {
    json!({
        "httpGet": {"path": "/healthz/ready", "port": STATUS_PORT, "scheme": "HTTP"},
        "periodSeconds": period_s,
        "failureThreshold": failures,
        "successThreshold": 1,
        "timeoutSeconds": 1,
    })
}

/// The usual ones, with what the settings say over them; null takes an entry away.
fn resources(frame: &Frame<'_>) -> Value {
    let mut resources = json!({
        "requests": {"cpu": "100m", "memory": "128Mi"},
        "limits": {"cpu": "2", "memory": "1Gi"},
    });
    if let Some(said) = frame.world.settings().proxies.pod.get("resources") {
        merge(&mut resources, said);
    }
    resources
}

fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                match value {
                    Value::Null => drop(into.remove(key)),
                    value => merge(into.entry(key).or_insert_with(|| Value::Object(Map::new())), value),
                }
            }
        }
        (into, from) => *into = from.clone(),
    }
}

fn environment(frame: &Frame<'_>) -> Vec<Value> {
    let settings = frame.world.settings();
    let gateway = &frame.gateway.key;
    let name = &frame.infrastructure.name;
    let owner = format!("kubernetes://apis/apps/v1/namespaces/{}/deployments/{name}", gateway.namespace);
    let network = frame.infrastructure.labels.get(names::NETWORK).map_or_else(|| frame.world.network(), String::as_str);
    let field = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    let limit =
        |name: &str, resource: &str| json!({"name": name, "valueFrom": {"resourceFieldRef": {"resource": resource}}});
    let value = |name: &str, value: &str| json!({"name": name, "value": value});
    let mut environment = vec![
        value("PILOT_CERT_PROVIDER", "istiod"),
        value("CA_ADDR", &settings.proxies.discovery_address),
        field("POD_NAME", "metadata.name"),
        field("POD_NAMESPACE", "metadata.namespace"),
        field("INSTANCE_IP", "status.podIP"),
        field("SERVICE_ACCOUNT", "spec.serviceAccountName"),
        field("HOST_IP", "status.hostIP"),
        field("ISTIO_META_SERVICE_ACCOUNT", "spec.serviceAccountName"),
        field("ISTIO_META_NODE_NAME", "spec.nodeName"),
        limit("ISTIO_CPU_LIMIT", "limits.cpu"),
        limit("ISTIO_MEMORY_LIMIT", "limits.memory"),
        value("PROXY_CONFIG", &proxy_config(frame)),
        value("ISTIO_META_CLUSTER_ID", &settings.cluster_id),
        value("ISTIO_META_NETWORK", network),
        value("ISTIO_META_INTERCEPTION_MODE", "REDIRECT"),
        value("ISTIO_META_WORKLOAD_NAME", name),
        value("ISTIO_META_OWNER", &owner),
        value("ISTIO_META_MESH_ID", settings.trust_domain.as_str()),
        value("TRUST_DOMAIN", settings.trust_domain.as_str()),
        value("RUST_LOG", &settings.proxies.log_level),
        value("CRL_PATH", &format!("{REVOCATIONS_DIR}/{}", names::CRL_KEY)),
        value("MELTEMI_GATEWAY", &gateway.to_string()),
    ];
    if frame.family == Family::EastWest {
        environment.push(value("ISTIO_META_REQUESTED_NETWORK_VIEW", network));
    }
    environment.extend(logging(&settings.l7).into_iter().map(|(name, text)| value(name, text)));
    // What is set above stays as it is.
    let known: BTreeSet<_> = environment.iter().filter_map(|one| Some(one.get("name")?.as_str()?.to_owned())).collect();
    let written = settings.l7.proxy_metadata.iter().filter(|(name, _)| !known.contains(*name));
    environment.extend(written.map(|(name, text)| value(name, text)));
    environment
}

/// What the mesh configuration says of logs, where it says anything.
fn logging(settings: &L7Settings) -> Vec<(&'static str, &'static str)> {
    let requests = settings.access_log.map(|which| match which {
        AccessLog::Nothing => "nothing",
        AccessLog::All => "all",
    });
    let format = settings.log_json.map(|json| if json { "json" } else { "plain" });
    let requests = requests.map(|which| ("WAYPOINT_ACCESS_LOG", which));
    requests.into_iter().chain(format.map(|format| ("LOG_FORMAT", format))).collect()
}

fn proxy_config(frame: &Frame<'_>) -> String {
    json!({"discoveryAddress": &*frame.world.settings().proxies.discovery_address}).to_string()
}

fn volumes() -> Value {
    let field = |path: &str, field: &str| json!({"path": path, "fieldRef": {"fieldPath": field}});
    json!([
        {"name": "istio-token", "projected": {"sources": [{"serviceAccountToken": {
            "path": "istio-token", "audience": "istio-ca", "expirationSeconds": 43200,
        }}]}},
        {"name": "istiod-ca-cert", "configMap": {"name": names::ROOT_CERT_CONFIG_MAP}},
        {"name": "istio-podinfo", "downwardAPI": {"items": [
            field("labels", "metadata.labels"), field("annotations", "metadata.annotations"),
        ]}},
        {"name": "tmp", "emptyDir": {}},
        // Most meshes have no lists; a file that is not there has revoked nothing yet.
        {"name": "istio-ca-crl", "configMap": {"name": names::CRL_CONFIG_MAP, "optional": true}},
    ])
}

/// Whether the proxy has a port for itself: no listener can be there.
pub(crate) fn is_own_port(port: u16) -> bool {
    [ADMIN_PORT, METRICS_PORT, STATUS_PORT, PROXY_METRICS_PORT].contains(&port)
}

/// Administration, on the loopback address.
const ADMIN_PORT: u16 = 15000;
/// Merged metrics.
const METRICS_PORT: u16 = 15020;
/// Metrics of the proxy alone.
const PROXY_METRICS_PORT: u16 = 15090;
/// Where revocation lists are. Not below another volume: no directory can be made there.
const REVOCATIONS_DIR: &str = "/var/run/secrets/istio-crl";
/// User and group of proxies.
const PROXY_USER: u32 = 1337;
