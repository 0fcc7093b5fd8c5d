//! A synthetic cluster: objects as a real one has them, with all that the mesh does not read.

use serde_json::{Value, json};

/// How much there is. Everything else follows from the number of pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Pods.
    pub pods: usize,
}

/// A pod of the cluster, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PodId(pub usize);

impl Size {
    /// Nodes: fifty pods each, at most a thousand.
    #[must_use]
    pub fn nodes(self) -> usize {
        (self.pods / 50).clamp(4, 1_000)
    }

    /// Services: one for each 25 pods.
    #[must_use]
    pub fn services(self) -> usize {
        (self.pods / 25).max(4)
    }

    /// Namespaces: ten services each.
    #[must_use]
    pub fn namespaces(self) -> usize {
        (self.services() / 10).max(2)
    }

    /// Service of a pod.
    #[must_use]
    pub fn service_of(self, pod: PodId) -> usize {
        pod.0 % self.services()
    }

    /// Node of a pod.
    #[must_use]
    pub fn node_of(self, pod: PodId) -> usize {
        pod.0 % self.nodes()
    }

    /// Pods of a service.
    pub fn pods_of(self, service: usize) -> impl Iterator<Item = PodId> {
        (service..self.pods).step_by(self.services()).map(PodId)
    }

    /// Namespace of a service and of its pods.
    #[must_use]
    pub fn namespace(self, service: usize) -> String {
        format!("team-{:03}", service % self.namespaces())
    }

    /// Name of a pod's resource on the wire.
    #[must_use]
    pub fn uid(self, pod: PodId) -> String {
        format!("Kubernetes//Pod/{}/{}", self.namespace(self.service_of(pod)), pod_name(self.service_of(pod), pod))
    }

    /// Name of a service's resource on the wire.
    #[must_use]
    pub fn hostname(self, service: usize) -> String {
        let namespace = self.namespace(service);
        format!("{namespace}/{}.{namespace}.svc.cluster.local", service_name(service))
    }

    /// Name of a node.
    #[must_use]
    pub fn node_name(node: usize) -> String {
        format!("node-{node:04}")
    }

    /// Namespaces of the mesh.
    #[must_use]
    pub fn namespace_object(index: usize) -> Value {
        let name = format!("team-{index:03}");
        let labels = json!({"istio.io/dataplane-mode": "ambient", "kubernetes.io/metadata.name": name});
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "uid": uid("ns", index), "labels": labels}})
    }

    /// A node.
    #[must_use]
    pub fn node_object(self, node: usize) -> Value {
        let name = Self::node_name(node);
        let labels = json!({
            "kubernetes.io/hostname": name, "kubernetes.io/arch": "amd64", "kubernetes.io/os": "linux",
            "topology.kubernetes.io/region": "region-1", "topology.kubernetes.io/zone": format!("zone-{}", node % 3),
        });
        json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": name, "uid": uid("node", node), "labels": labels},
            "status": {
                "addresses": [{"type": "InternalIP", "address": address(172, node)}],
                "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady", "lastHeartbeatTime": CREATED}],
                "capacity": {"cpu": "16", "memory": "64Gi", "pods": "110"},
            },
        })
    }

    /// A service.
    #[must_use]
    pub fn service_object(self, service: usize) -> Value {
        let (name, namespace, ip) = (service_name(service), self.namespace(service), address(11, service + 1));
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {
                "name": name, "namespace": namespace, "uid": uid("svc", service), "creationTimestamp": CREATED,
                "labels": {"app": name}, "managedFields": managed("kubectl-client-side-apply"),
            },
            "spec": {
                "type": "ClusterIP", "clusterIP": ip, "clusterIPs": [ip], "ipFamilies": ["IPv4"],
                "ipFamilyPolicy": "SingleStack", "selector": {"app": name}, "sessionAffinity": "None",
                "ports": [
                    {"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"},
                    {"name": "grpc", "port": 9000, "targetPort": 9000, "protocol": "TCP", "appProtocol": "grpc"},
                ],
            },
            "status": {"loadBalancer": {}},
        })
    }

    /// What the pods of a service are replicas of.
    #[must_use]
    pub fn replica_set_object(self, service: usize) -> Value {
        let name = format!("{}-5d8f9c7b6d", service_name(service));
        json!({
            "apiVersion": "apps/v1", "kind": "ReplicaSet",
            "metadata": {"name": name, "namespace": self.namespace(service), "uid": uid("rs", service)},
        })
    }

    /// The slice of a service.
    #[must_use]
    pub fn slice_object(self, service: usize, ready: impl Fn(PodId) -> bool) -> Value {
        let (name, namespace) = (service_name(service), self.namespace(service));
        let endpoint = |pod: PodId| {
            let ready = ready(pod);
            json!({
                "addresses": [pod_ip(pod)], "nodeName": Self::node_name(self.node_of(pod)),
                "conditions": {"ready": ready, "serving": ready, "terminating": false},
                "targetRef": {"kind": "Pod", "namespace": namespace, "name": pod_name(service, pod), "uid": uid("pod", pod.0)},
            })
        };
        let endpoints: Vec<Value> = self.pods_of(service).map(endpoint).collect();
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "name": format!("{name}-x"), "namespace": namespace, "uid": uid("slice", service),
                "labels": {"kubernetes.io/service-name": name, "app": name},
                "managedFields": managed("kube-controller-manager"),
            },
            "addressType": "IPv4", "endpoints": endpoints,
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}, {"name": "grpc", "port": 9000, "protocol": "TCP"}],
        })
    }

    /// A pod, as the API server shows one of a Deployment that runs.
    #[must_use]
    pub fn pod_object(self, pod: PodId, ready: bool) -> Value {
        let service = self.service_of(pod);
        let (app, name, namespace) = (service_name(service), pod_name(service, pod), self.namespace(service));
        let status = if ready { "True" } else { "False" };
        let condition = |kind: &str, status: &str| json!({"type": kind, "status": status, "lastProbeTime": null, "lastTransitionTime": CREATED});
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": name, "generateName": format!("{app}-5d8f9c7b6d-"), "namespace": namespace,
                "uid": uid("pod", pod.0), "creationTimestamp": CREATED,
                "labels": {
                    "app": app, "version": "v1", "pod-template-hash": "5d8f9c7b6d", "app.kubernetes.io/name": app,
                    "app.kubernetes.io/part-of": namespace,
                },
                "annotations": {
                    "ambient.istio.io/redirection": "enabled", "prometheus.io/scrape": "true", "prometheus.io/port": "15020",
                    "checksum/config": "3f79bb7b435b05321651daefd374cdc681dc06faa65e374e38337b88ca046dea",
                },
                "ownerReferences": [{
                    "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("{app}-5d8f9c7b6d"),
                    "uid": uid("rs", service), "controller": true, "blockOwnerDeletion": true,
                }],
                "managedFields": ([managed("kube-controller-manager"), managed("kubelet")].concat()),
            },
            "spec": spec(&app, &Self::node_name(self.node_of(pod))),
            "status": {
                "phase": "Running", "podIP": pod_ip(pod), "podIPs": [{"ip": pod_ip(pod)}], "startTime": CREATED,
                "hostIP": address(172, self.node_of(pod)), "qosClass": "Burstable",
                "conditions": [
                    condition("Initialized", "True"), condition("Ready", status),
                    condition("ContainersReady", status), condition("PodScheduled", "True"),
                ],
                "containerStatuses": [{
                    "name": "app", "ready": ready, "started": true, "restartCount": 0,
                    "image": IMAGE, "imageID": format!("{IMAGE}@sha256:{CHECKSUM}"), "lastState": {},
                    "containerID": format!("containerd://{CHECKSUM}"), "state": {"running": {"startedAt": CREATED}},
                }],
            },
        })
    }

    /// A policy of a namespace.
    #[must_use]
    pub fn policy_object(namespace: usize) -> Value {
        let caller = format!("cluster.local/ns/team-{namespace:03}/sa/*");
        json!({
            "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
            "metadata": {
                "name": "same-team", "namespace": format!("team-{namespace:03}"), "generation": 1, "uid": uid("policy", namespace),
            },
            "spec": {"action": "ALLOW", "rules": [{"from": [{"source": {"principals": [caller]}}]}]},
        })
    }
}

/// Name of a service.
#[must_use]
pub fn service_name(service: usize) -> String {
    format!("app-{service:04}")
}

/// Name of a pod.
#[must_use]
pub fn pod_name(service: usize, pod: PodId) -> String {
    format!("{}-5d8f9c7b6d-{:05}", service_name(service), pod.0)
}

fn spec(app: &str, node: &str) -> Value {
    let variable = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}});
    let probe = json!({
        "httpGet": {"path": "/healthz", "port": "http", "scheme": "HTTP"}, "initialDelaySeconds": 5, "periodSeconds": 10,
        "timeoutSeconds": 1, "successThreshold": 1, "failureThreshold": 3,
    });
    json!({
        "serviceAccountName": app, "serviceAccount": app, "nodeName": node, "dnsPolicy": "ClusterFirst",
        "restartPolicy": "Always", "schedulerName": "default-scheduler", "terminationGracePeriodSeconds": 30,
        "priority": 0, "enableServiceLinks": true, "preemptionPolicy": "PreemptLowerPriority",
        "securityContext": {"runAsNonRoot": true, "fsGroup": 1000},
        "containers": [{
            "name": "app", "image": IMAGE, "imagePullPolicy": "IfNotPresent", "args": ["--listen", ":8080", "--log", "info"],
            "ports": [
                {"name": "http", "containerPort": 8080, "protocol": "TCP"},
                {"name": "metrics", "containerPort": 15020, "protocol": "TCP"},
            ],
            "env": [
                variable("POD_NAME", "metadata.name"), variable("POD_NAMESPACE", "metadata.namespace"),
                variable("POD_IP", "status.podIP"), {"name": "DATABASE", "value": "postgres.data.svc:5432"},
            ],
            "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
            "livenessProbe": probe, "readinessProbe": probe,
            "volumeMounts": [
                {"name": "config", "mountPath": "/etc/app", "readOnly": true},
                {"name": "kube-api-access", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": true},
            ],
            "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
        }],
        "volumes": [
            {"name": "config", "configMap": {"name": format!("{app}-config"), "defaultMode": 420}},
            {"name": "kube-api-access", "projected": {"defaultMode": 420, "sources": [
                {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
                {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            ]}},
        ],
        "tolerations": [
            {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300},
            {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300},
        ],
    })
}

/// What field ownership looks like; a third of a real object.
fn managed(manager: &str) -> Vec<Value> {
    let leaf = json!({});
    let fields = json!({
        "f:metadata": {"f:annotations": {".": leaf, "f:checksum/config": leaf}, "f:labels": {".": leaf, "f:app": leaf, "f:version": leaf}},
        "f:spec": {"f:containers": {"k:{\"name\":\"app\"}": {
            ".": leaf, "f:args": leaf, "f:env": leaf, "f:image": leaf, "f:imagePullPolicy": leaf, "f:livenessProbe": leaf,
            "f:name": leaf, "f:ports": leaf, "f:readinessProbe": leaf, "f:resources": leaf, "f:volumeMounts": leaf,
        }}, "f:dnsPolicy": leaf, "f:restartPolicy": leaf, "f:serviceAccount": leaf, "f:volumes": leaf},
    });
    vec![json!({
        "manager": manager, "operation": "Update", "apiVersion": "v1", "time": CREATED, "fieldsType": "FieldsV1", "fieldsV1": fields,
    })]
}

fn pod_ip(pod: PodId) -> String {
    address(10, pod.0 + 1)
}

fn address(first: u8, number: usize) -> String {
    format!("{first}.{}.{}.{}", number >> 16 & 0xff, number >> 8 & 0xff, number & 0xff)
}

fn uid(what: &str, number: usize) -> String {
    let kind: usize = what.bytes().map(usize::from).sum();
    format!("{number:08x}-{kind:04x}-4000-8000-{number:012x}")
}

const CREATED: &str = "2026-01-01T00:00:00Z";
const IMAGE: &str = "registry.example.com/team/app:1.42.0";
const CHECKSUM: &str = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pod_is_in_the_slice_of_its_service_and_in_its_namespace() {
        let size = Size { pods: 1_000 };
        for service in 0..size.services() {
            let slice = size.slice_object(service, |_| true);
            let endpoints = slice["endpoints"].as_array().unwrap();
            assert_eq!(endpoints.len(), size.pods_of(service).count());
            for pod in size.pods_of(service) {
                let object = size.pod_object(pod, true);
                assert_eq!(object["metadata"]["namespace"], slice["metadata"]["namespace"]);
                assert!(size.uid(pod).ends_with(object["metadata"]["name"].as_str().unwrap()));
            }
        }
        assert_eq!((0..size.services()).flat_map(|one| size.pods_of(one)).count(), size.pods);
    }

    #[test]
    fn pods_are_as_large_as_real_ones() {
        let bytes = Size { pods: 10 }.pod_object(PodId(3), true).to_string().len();
        assert!((4_000..8_000).contains(&bytes), "{bytes}");
    }
}
