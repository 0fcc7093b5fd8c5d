//! The columns of built-in resources.

use serde_json::{Value, json};

use super::text;
use crate::{
    api::{clock::age, scale::selector_text},
    store::{ResourceKey, meta, meta_str},
};

/// Fills the columns for an object.
type Cells = fn(&Value) -> Vec<Value>;

/// Columns and how to fill them.
pub(super) struct Layout {
    pub(super) columns: &'static [BuiltinColumn],
    pub(super) cells: Cells,
}

/// One column. Those of priority 1 are shown by `-o wide` only.
pub(super) struct BuiltinColumn {
    pub(super) name: &'static str,
    pub(super) kind: &'static str,
    pub(super) description: &'static str,
    pub(super) priority: i64,
}

const fn col(name: &'static str, kind: &'static str, description: &'static str) -> BuiltinColumn {
    BuiltinColumn { name, kind, description, priority: 0 }
}

const fn wide(name: &'static str, description: &'static str) -> BuiltinColumn {
    BuiltinColumn { name, kind: "string", description, priority: 1 }
}

const NAME: BuiltinColumn = col("Name", "string", "Name of the object, unique within its namespace.");
const AGE: BuiltinColumn = col("Age", "string", "Time since the object was created.");
const CONTAINERS: BuiltinColumn = wide("Containers", "Names of the containers.");
const IMAGES: BuiltinColumn = wide("Images", "Images of the containers.");
const SELECTOR: BuiltinColumn = wide("Selector", "Labels of the pods that belong to it.");

/// The layout of a built-in resource; those without one show name and age.
pub(super) fn builtin(resource: &ResourceKey) -> Option<Layout> {
    let (columns, cells): (&'static [BuiltinColumn], Cells) = match resource.as_str() {
        "pods" => (POD, pod),
        "deployments.apps" => (DEPLOYMENT, deployment),
        "replicasets.apps" => (REPLICA_SET, replica_set),
        "daemonsets.apps" => (DAEMON_SET, daemon_set),
        "statefulsets.apps" => (STATEFUL_SET, stateful_set),
        "services" => (SERVICE, service),
        "nodes" => (NODE, node),
        "namespaces" => (NAMESPACE, namespace),
        "configmaps" => (CONFIG_MAP, config_map),
        "secrets" => (SECRET, secret),
        "serviceaccounts" => (SERVICE_ACCOUNT, service_account),
        "events" => (EVENT, event),
        "endpoints" => (ENDPOINTS, endpoints),
        "endpointslices.discovery.k8s.io" => (ENDPOINT_SLICE, endpoint_slice),
        "leases.coordination.k8s.io" => (LEASE, lease),
        "customresourcedefinitions.apiextensions.k8s.io" => (DEFINITION, definition),
        "jobs.batch" => (JOB, job),
        _ => return None,
    };
    Some(Layout { columns, cells })
}

fn name(object: &Value) -> Value {
    json!(meta_str(object, "name").unwrap_or_default())
}

fn created(object: &Value) -> Value {
    json!(age(meta_str(object, "creationTimestamp")))
}

fn number(object: &Value, pointer: &str) -> i64 {
    object.pointer(pointer).and_then(Value::as_i64).unwrap_or_default()
}

fn string<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn items<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    object.pointer(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn or_none(text: &str) -> Value {
    json!(if text.is_empty() { "<none>" } else { text })
}

fn joined(object: &Value, list: &str, field: &str) -> Value {
    let texts: Vec<&str> = items(object, list).iter().map(|item| string(item, field)).collect();
    json!(texts.join(","))
}

fn workload_tail(object: &Value) -> [Value; 3] {
    let containers = "/spec/template/spec/containers";
    let selector = object.pointer("/spec/selector").map(selector_text).unwrap_or_default();
    [joined(object, containers, "/name"), joined(object, containers, "/image"), json!(selector)]
}

const POD: &[BuiltinColumn] = &[
    NAME,
    col("Ready", "string", "Ready containers of all."),
    col("Status", "string", "What the pod is doing, in a word."),
    col("Restarts", "string", "Restarts of its containers."),
    AGE,
    wide("IP", "Address of the pod."),
    wide("Node", "Node the pod runs on."),
    wide("Nominated Node", "Node the pod waits for."),
    wide("Readiness Gates", "Further conditions of readiness."),
];

fn pod(object: &Value) -> Vec<Value> {
    let statuses = items(object, "/status/containerStatuses");
    let ready = statuses.iter().filter(|status| status.get("ready") == Some(&json!(true))).count();
    let total = items(object, "/spec/containers").len();
    let all = || items(object, "/status/initContainerStatuses").iter().chain(statuses);
    let restarts: i64 = all().map(|status| number(status, "/restartCount")).sum();
    let last = all().filter_map(|status| status.pointer("/lastState/terminated/finishedAt")?.as_str()).max();
    let restarts = match last {
        Some(last) if restarts > 0 => format!("{restarts} ({} ago)", age(Some(last))),
        _ => restarts.to_string(),
    };
    vec![
        name(object),
        json!(format!("{ready}/{total}")),
        json!(pod_status(object)),
        json!(restarts),
        created(object),
        or_none(string(object, "/status/podIP")),
        or_none(string(object, "/spec/nodeName")),
        or_none(string(object, "/status/nominatedNodeName")),
        json!("<none>"),
    ]
}

/// One word for what a pod is doing: the phase, unless a container has something more telling.
fn pod_status(pod: &Value) -> String {
    let mut word = match string(pod, "/status/reason") {
        "" => string(pod, "/status/phase").to_owned(),
        reason => reason.to_owned(),
    };
    let inits = items(pod, "/status/initContainerStatuses");
    let mut initialising = false;
    for (at, status) in inits.iter().enumerate() {
        let started = status.get("started") == Some(&json!(true));
        if number(status, "/state/terminated/exitCode") == 0 && status.pointer("/state/terminated").is_some() || started
        {
            continue;
        }
        word = match container_word(status) {
            Some(reason) if reason != "PodInitializing" => format!("Init:{reason}"),
            _ => format!("Init:{at}/{}", items(pod, "/spec/initContainers").len()),
        };
        initialising = true;
        break;
    }
    if !initialising {
        let statuses = items(pod, "/status/containerStatuses");
        let running = statuses
            .iter()
            .any(|status| status.pointer("/state/running").is_some() && status.get("ready") == Some(&json!(true)));
        if let Some(reason) = statuses.iter().find_map(container_word) {
            word = reason;
        }
        if word == "Completed" && running {
            word = "Running".to_owned();
        }
    }
    if meta_str(pod, "deletionTimestamp").is_some() { "Terminating".to_owned() } else { word }
}

fn container_word(status: &Value) -> Option<String> {
    let waiting = string(status, "/state/waiting/reason");
    if !waiting.is_empty() {
        return Some(waiting.to_owned());
    }
    let terminated = status.pointer("/state/terminated")?;
    Some(match (string(terminated, "/reason"), number(terminated, "/signal")) {
        ("", 0) => format!("ExitCode:{}", number(terminated, "/exitCode")),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    })
}

const DEPLOYMENT: &[BuiltinColumn] = &[
    NAME,
    col("Ready", "string", "Ready pods of wanted ones."),
    col("Up-to-date", "integer", "Pods of the newest template."),
    col("Available", "integer", "Pods that have been ready long enough."),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

fn deployment(object: &Value) -> Vec<Value> {
    let mut cells = vec![
        name(object),
        json!(format!("{}/{}", number(object, "/status/readyReplicas"), number(object, "/spec/replicas"))),
        json!(number(object, "/status/updatedReplicas")),
        json!(number(object, "/status/availableReplicas")),
        created(object),
    ];
    cells.extend(workload_tail(object));
    cells
}

const REPLICA_SET: &[BuiltinColumn] = &[
    NAME,
    col("Desired", "integer", "Wanted pods."),
    col("Current", "integer", "Existing pods."),
    col("Ready", "integer", "Ready pods."),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

fn replica_set(object: &Value) -> Vec<Value> {
    let mut cells = vec![
        name(object),
        json!(number(object, "/spec/replicas")),
        json!(number(object, "/status/replicas")),
        json!(number(object, "/status/readyReplicas")),
        created(object),
    ];
    cells.extend(workload_tail(object));
    cells
}

const DAEMON_SET: &[BuiltinColumn] = &[
    NAME,
    col("Desired", "integer", "Nodes that should run a pod."),
    col("Current", "integer", "Nodes that run one."),
    col("Ready", "integer", "Nodes whose pod is ready."),
    col("Up-to-date", "integer", "Nodes with a pod of the newest template."),
    col("Available", "integer", "Nodes whose pod has been ready long enough."),
    col("Node Selector", "string", "Labels of the nodes meant."),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

fn daemon_set(object: &Value) -> Vec<Value> {
    let labels = object.pointer("/spec/template/spec/nodeSelector").and_then(Value::as_object).into_iter().flatten();
    let labels: Vec<String> = labels.map(|(key, value)| format!("{key}={}", text(value))).collect();
    let mut cells = vec![name(object)];
    for field in
        ["desiredNumberScheduled", "currentNumberScheduled", "numberReady", "updatedNumberScheduled", "numberAvailable"]
    {
        cells.push(json!(number(object, &format!("/status/{field}"))));
    }
    cells.push(or_none(&labels.join(",")));
    cells.push(created(object));
    cells.extend(workload_tail(object));
    cells
}

const STATEFUL_SET: &[BuiltinColumn] =
    &[NAME, col("Ready", "string", "Ready pods of wanted ones."), AGE, CONTAINERS, IMAGES];

fn stateful_set(object: &Value) -> Vec<Value> {
    let ready = format!("{}/{}", number(object, "/status/readyReplicas"), number(object, "/spec/replicas"));
    let [containers, images, _] = workload_tail(object);
    vec![name(object), json!(ready), created(object), containers, images]
}

const JOB: &[BuiltinColumn] =
    &[NAME, col("Completions", "string", "Finished pods of wanted ones."), AGE, CONTAINERS, IMAGES, SELECTOR];

fn job(object: &Value) -> Vec<Value> {
    let done = format!("{}/{}", number(object, "/status/succeeded"), number(object, "/spec/completions"));
    let mut cells = vec![name(object), json!(done), created(object)];
    cells.extend(workload_tail(object));
    cells
}

const SERVICE: &[BuiltinColumn] = &[
    NAME,
    col("Type", "string", "How the service is reached."),
    col("Cluster-IP", "string", "Its address inside the cluster."),
    col("External-IP", "string", "Its address outside."),
    col("Port(s)", "string", "Its ports."),
    AGE,
    SELECTOR,
];

fn service(object: &Value) -> Vec<Value> {
    let kind = string(object, "/spec/type");
    let external = match kind {
        "ExternalName" => string(object, "/spec/externalName").to_owned(),
        "LoadBalancer" => {
            let list = items(object, "/status/loadBalancer/ingress").iter();
            let texts: Vec<&str> =
                list.map(|entry| {
                    if string(entry, "/ip").is_empty() { string(entry, "/hostname") } else { string(entry, "/ip") }
                })
                .collect();
            if texts.is_empty() { "<pending>".to_owned() } else { texts.join(",") }
        }
        _ => items(object, "/spec/externalIPs").iter().map(text).collect::<Vec<_>>().join(","),
    };
    let ports: Vec<String> = items(object, "/spec/ports")
        .iter()
        .map(|port| match number(port, "/nodePort") {
            0 => format!("{}/{}", number(port, "/port"), string(port, "/protocol")),
            node => format!("{}:{node}/{}", number(port, "/port"), string(port, "/protocol")),
        })
        .collect();
    let labels = object.pointer("/spec/selector").and_then(Value::as_object).into_iter().flatten();
    let labels: Vec<String> = labels.map(|(key, value)| format!("{key}={}", text(value))).collect();
    vec![
        name(object),
        json!(kind),
        or_none(string(object, "/spec/clusterIP")),
        or_none(&external),
        or_none(&ports.join(",")),
        created(object),
        or_none(&labels.join(",")),
    ]
}

const NODE: &[BuiltinColumn] = &[
    NAME,
    col("Status", "string", "Whether it takes pods."),
    col("Roles", "string", "Roles of the node."),
    AGE,
    col("Version", "string", "Version of its kubelet."),
    wide("Internal-IP", "Its address inside the cluster."),
    wide("External-IP", "Its address outside."),
    wide("OS-Image", "Its operating system."),
    wide("Kernel-Version", "Its kernel."),
    wide("Container-Runtime", "What runs its containers."),
];

fn node(object: &Value) -> Vec<Value> {
    let ready = items(object, "/status/conditions").iter().find(|condition| string(condition, "/type") == "Ready");
    let mut status = match ready.map(|condition| string(condition, "/status")) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if object.pointer("/spec/unschedulable") == Some(&json!(true)) {
        status.push_str(",SchedulingDisabled");
    }
    let labels = meta(object, "labels").and_then(Value::as_object).into_iter().flatten();
    let roles: Vec<&str> = labels.filter_map(|(key, _)| key.strip_prefix("node-role.kubernetes.io/")).collect();
    let address = |kind: &str| {
        let found = items(object, "/status/addresses").iter().find(|address| string(address, "/type") == kind);
        found.map(|address| string(address, "/address")).unwrap_or_default()
    };
    let info = |field: &str| {
        let text = string(object, &format!("/status/nodeInfo/{field}"));
        json!(if text.is_empty() { "<unknown>" } else { text })
    };
    vec![
        name(object),
        json!(status),
        or_none(&roles.join(",")),
        created(object),
        info("kubeletVersion"),
        or_none(address("InternalIP")),
        or_none(address("ExternalIP")),
        info("osImage"),
        info("kernelVersion"),
        info("containerRuntimeVersion"),
    ]
}

const NAMESPACE: &[BuiltinColumn] = &[NAME, col("Status", "string", "Active, or Terminating."), AGE];

fn namespace(object: &Value) -> Vec<Value> {
    vec![name(object), json!(string(object, "/status/phase")), created(object)]
}

const CONFIG_MAP: &[BuiltinColumn] = &[NAME, col("Data", "integer", "Number of entries."), AGE];

fn config_map(object: &Value) -> Vec<Value> {
    let count = |field: &str| object.get(field).and_then(Value::as_object).map_or(0, serde_json::Map::len);
    vec![name(object), json!(count("data") + count("binaryData")), created(object)]
}

const SECRET: &[BuiltinColumn] =
    &[NAME, col("Type", "string", "What the secret is for."), col("Data", "integer", "Number of entries."), AGE];

fn secret(object: &Value) -> Vec<Value> {
    let count = object.get("data").and_then(Value::as_object).map_or(0, serde_json::Map::len);
    vec![name(object), json!(string(object, "/type")), json!(count), created(object)]
}

const SERVICE_ACCOUNT: &[BuiltinColumn] = &[NAME, col("Secrets", "integer", "Number of its secrets."), AGE];

fn service_account(object: &Value) -> Vec<Value> {
    vec![name(object), json!(items(object, "/secrets").len()), created(object)]
}

const EVENT: &[BuiltinColumn] = &[
    col("Last Seen", "string", "When it happened last."),
    col("Type", "string", "Normal or Warning."),
    col("Reason", "string", "Why, in a word."),
    col("Object", "string", "What it is about."),
    wide("Subobject", "Which part."),
    wide("Source", "Who reports it."),
    col("Message", "string", "What happened."),
    wide("First Seen", "When it happened first."),
    wide("Count", "How often."),
    BuiltinColumn { name: "Name", kind: "string", description: "Name of the event.", priority: 1 },
];

fn event(object: &Value) -> Vec<Value> {
    let first_of = |pointers: &[&str]| {
        pointers.iter().map(|pointer| string(object, pointer)).find(|text| !text.is_empty()).map(str::to_owned)
    };
    let first = first_of(&["/firstTimestamp", "/eventTime"]);
    let last = first_of(&["/series/lastObservedTime", "/lastTimestamp", "/eventTime", "/metadata/creationTimestamp"]);
    let about =
        format!("{}/{}", string(object, "/involvedObject/kind").to_lowercase(), string(object, "/involvedObject/name"));
    let source = first_of(&["/source/component", "/reportingComponent"]).unwrap_or_default();
    let host = string(object, "/source/host");
    let source = if host.is_empty() { source } else { format!("{source}, {host}") };
    let count = number(object, "/series/count").max(number(object, "/count")).max(1);
    vec![
        json!(age(last.as_deref())),
        json!(string(object, "/type")),
        json!(string(object, "/reason")),
        json!(about),
        json!(string(object, "/involvedObject/fieldPath")),
        json!(source),
        json!(string(object, "/message").trim()),
        json!(age(first.as_deref())),
        json!(count.to_string()),
        name(object),
    ]
}

const ENDPOINTS: &[BuiltinColumn] = &[NAME, col("Endpoints", "string", "Addresses and ports."), AGE];

fn endpoints(object: &Value) -> Vec<Value> {
    let mut list = Vec::new();
    for subset in items(object, "/subsets") {
        for address in items(subset, "/addresses") {
            let ports = items(subset, "/ports");
            list.extend(ports.iter().map(|port| format!("{}:{}", string(address, "/ip"), number(port, "/port"))));
        }
    }
    vec![name(object), json!(shortened(&list)), created(object)]
}

const ENDPOINT_SLICE: &[BuiltinColumn] = &[
    NAME,
    col("AddressType", "string", "Kind of its addresses."),
    col("Ports", "string", "Its ports."),
    col("Endpoints", "string", "Its addresses."),
    AGE,
];

fn endpoint_slice(object: &Value) -> Vec<Value> {
    let ports: Vec<String> = items(object, "/ports").iter().map(|port| number(port, "/port").to_string()).collect();
    let addresses: Vec<String> =
        items(object, "/endpoints").iter().flat_map(|endpoint| items(endpoint, "/addresses")).map(text).collect();
    let unset = |list: &[String]| if list.is_empty() { "<unset>".to_owned() } else { shortened(list) };
    vec![
        name(object),
        json!(string(object, "/addressType")),
        json!(unset(&ports)),
        json!(unset(&addresses)),
        created(object),
    ]
}

/// The first three, and how many more there are.
fn shortened(list: &[String]) -> String {
    const SHOWN: usize = 3;
    match list.len() {
        0 => "<none>".to_owned(),
        1..=SHOWN => list.join(","),
        more => {
            format!("{} + {} more...", list.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(","), more - SHOWN)
        }
    }
}

const LEASE: &[BuiltinColumn] = &[NAME, col("Holder", "string", "Who holds it."), AGE];

fn lease(object: &Value) -> Vec<Value> {
    vec![name(object), json!(string(object, "/spec/holderIdentity")), created(object)]
}

const DEFINITION: &[BuiltinColumn] = &[NAME, col("Created At", "date", "When it was created.")];

fn definition(object: &Value) -> Vec<Value> {
    vec![name(object), json!(meta_str(object, "creationTimestamp"))]
}
