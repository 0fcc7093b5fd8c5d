//! The table of built-in resources.

use super::resources::{Resource, Scale, Shape, Subresource, Version};
use crate::{schema::Registry, store::ResourceKey};

/// The verbs of an ordinary resource.
pub(crate) const ALL_VERBS: [&str; 8] =
    ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

/// One built-in resource with one version.
struct Row {
    group: &'static str,
    version: &'static str,
    plural: &'static str,
    kind: &'static str,
    short_names: &'static [&'static str],
    flags: &'static [Flag],
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Flag {
    /// Lives outside namespaces.
    Cluster,
    /// `status` is a subresource.
    Status,
    /// `scale` is a subresource.
    Scale,
    /// Counts generations.
    Generation,
    /// Shown by `kubectl get all`.
    All,
}

use Flag::{All, Cluster, Generation, Scale as Scales, Status};

const fn row(
    group: &'static str,
    version: &'static str,
    plural: &'static str,
    kind: &'static str,
    short_names: &'static [&'static str],
    flags: &'static [Flag],
) -> Row {
    Row { group, version, plural, kind, short_names, flags }
}

const APPS: &str = "apps";
const RBAC: &str = "rbac.authorization.k8s.io";
const ADMISSION: &str = "admissionregistration.k8s.io";
const NETWORKING: &str = "networking.k8s.io";

const ROWS: &[Row] = &[
    row("", "v1", "namespaces", "Namespace", &["ns"], &[Cluster, Status]),
    row("", "v1", "pods", "Pod", &["po"], &[Status, All]),
    row("", "v1", "services", "Service", &["svc"], &[Status, All]),
    row("", "v1", "endpoints", "Endpoints", &["ep"], &[]),
    row("", "v1", "nodes", "Node", &["no"], &[Cluster, Status]),
    row("", "v1", "configmaps", "ConfigMap", &["cm"], &[]),
    row("", "v1", "secrets", "Secret", &[], &[]),
    row("", "v1", "serviceaccounts", "ServiceAccount", &["sa"], &[]),
    row("", "v1", "events", "Event", &["ev"], &[]),
    row(APPS, "v1", "deployments", "Deployment", &["deploy"], &[Status, Scales, Generation, All]),
    row(APPS, "v1", "replicasets", "ReplicaSet", &["rs"], &[Status, Scales, Generation, All]),
    row(APPS, "v1", "daemonsets", "DaemonSet", &["ds"], &[Status, Generation, All]),
    row(APPS, "v1", "statefulsets", "StatefulSet", &["sts"], &[Status, Scales, Generation, All]),
    row(APPS, "v1", "controllerrevisions", "ControllerRevision", &[], &[]),
    row("batch", "v1", "jobs", "Job", &[], &[Status, Generation, All]),
    row("batch", "v1", "cronjobs", "CronJob", &["cj"], &[Status, Generation, All]),
    row("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice", &[], &[Generation]),
    row("coordination.k8s.io", "v1", "leases", "Lease", &[], &[]),
    row("events.k8s.io", "v1", "events", "Event", &["ev"], &[]),
    row(RBAC, "v1", "roles", "Role", &[], &[]),
    row(RBAC, "v1", "rolebindings", "RoleBinding", &[], &[]),
    row(RBAC, "v1", "clusterroles", "ClusterRole", &[], &[Cluster]),
    row(RBAC, "v1", "clusterrolebindings", "ClusterRoleBinding", &[], &[Cluster]),
    row(
        ADMISSION,
        "v1",
        "validatingwebhookconfigurations",
        "ValidatingWebhookConfiguration",
        &[],
        &[Cluster, Generation],
    ),
    row(ADMISSION, "v1", "mutatingwebhookconfigurations", "MutatingWebhookConfiguration", &[], &[Cluster, Generation]),
    row(
        ADMISSION,
        "v1",
        "validatingadmissionpolicies",
        "ValidatingAdmissionPolicy",
        &[],
        &[Cluster, Status, Generation],
    ),
    row(
        ADMISSION,
        "v1",
        "validatingadmissionpolicybindings",
        "ValidatingAdmissionPolicyBinding",
        &[],
        &[Cluster, Generation],
    ),
    row("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget", &["pdb"], &[Status, Generation]),
    row("autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler", &["hpa"], &[Status, All]),
    row(NETWORKING, "v1", "networkpolicies", "NetworkPolicy", &["netpol"], &[Generation]),
    row(NETWORKING, "v1", "ingresses", "Ingress", &["ing"], &[Status, Generation]),
    row(NETWORKING, "v1", "ingressclasses", "IngressClass", &[], &[Cluster, Generation]),
    row("scheduling.k8s.io", "v1", "priorityclasses", "PriorityClass", &["pc"], &[Cluster, Generation]),
    row(
        "apiextensions.k8s.io",
        "v1",
        "customresourcedefinitions",
        "CustomResourceDefinition",
        &["crd", "crds"],
        &[Cluster, Status, Generation],
    ),
];

/// A review: something that is created, answered and never stored.
pub(crate) struct Review {
    pub(crate) group: &'static str,
    pub(crate) plural: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) namespaced: bool,
}

/// The reviews, all of version `v1`.
pub(crate) const REVIEWS: [Review; 6] = [
    Review { group: "authentication.k8s.io", plural: "tokenreviews", kind: "TokenReview", namespaced: false },
    Review {
        group: "authentication.k8s.io",
        plural: "selfsubjectreviews",
        kind: "SelfSubjectReview",
        namespaced: false,
    },
    Review {
        group: "authorization.k8s.io",
        plural: "subjectaccessreviews",
        kind: "SubjectAccessReview",
        namespaced: false,
    },
    Review {
        group: "authorization.k8s.io",
        plural: "localsubjectaccessreviews",
        kind: "LocalSubjectAccessReview",
        namespaced: true,
    },
    Review {
        group: "authorization.k8s.io",
        plural: "selfsubjectaccessreviews",
        kind: "SelfSubjectAccessReview",
        namespaced: false,
    },
    Review {
        group: "authorization.k8s.io",
        plural: "selfsubjectrulesreviews",
        kind: "SelfSubjectRulesReview",
        namespaced: false,
    },
];

/// The built-in resources with their schemas.
pub(crate) fn resources(schemas: &Registry) -> impl Iterator<Item = Resource> {
    ROWS.iter().map(|row| row.resource(schemas))
}

impl Row {
    fn resource(&self, schemas: &Registry) -> Resource {
        let is = |flag: Flag| self.flags.contains(&flag);
        let (shape, stored_in) =
            if self.group == "events.k8s.io" { (Shape::NewEvent, "") } else { (Shape::Same, self.group) };
        let key = ResourceKey::new(stored_in, self.plural);
        let version = Version {
            name: self.version.to_owned(),
            storage: true,
            schema: schemas.schema(self.group, self.version, self.kind),
            status: is(Status),
            scale: is(Scales).then(workload_scale),
            columns: Vec::new(),
            deprecation: None,
        };
        Resource {
            selectable: selectable(self.group, self.plural).iter().map(|field| (*field).to_owned()).collect(),
            subresources: subresources(self.group, self.plural).to_vec(),
            key,
            group: self.group.to_owned(),
            plural: self.plural.to_owned(),
            singular: self.kind.to_lowercase(),
            kind: self.kind.to_owned(),
            list_kind: format!("{}List", self.kind),
            namespaced: !is(Cluster),
            short_names: self.short_names.iter().map(|name| (*name).to_owned()).collect(),
            categories: if is(All) { vec!["all".to_owned()] } else { Vec::new() },
            versions: vec![version],
            generation: is(Generation),
            shape,
            custom: false,
        }
    }
}

fn workload_scale() -> Scale {
    Scale {
        spec: "/spec/replicas".to_owned(),
        status: "/status/replicas".to_owned(),
        selector: Some("/spec/selector".to_owned()),
    }
}

fn selectable(group: &str, plural: &str) -> &'static [&'static str] {
    match (group, plural) {
        ("", "pods") => &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.nominatedNodeName",
        ],
        ("", "events") => &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source.component",
            "type",
        ],
        ("events.k8s.io", "events") => &["reason", "type", "reportingComponent"],
        ("", "namespaces") => &["status.phase"],
        ("", "nodes") => &["spec.unschedulable"],
        ("", "secrets") => &["type"],
        ("", "services") => &["spec.clusterIP", "spec.type"],
        ("apps", "replicasets") => &["status.replicas"],
        _ => &[],
    }
}

const fn sub(
    name: &'static str,
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    verbs: &'static [&'static str],
) -> Subresource {
    Subresource { name, group, version, kind, verbs }
}

fn subresources(group: &str, plural: &str) -> &'static [Subresource] {
    const PODS: &[Subresource] = &[
        sub("binding", "", "v1", "Binding", &["create"]),
        sub("eviction", "policy", "v1", "Eviction", &["create"]),
        sub("exec", "", "v1", "PodExecOptions", &["create", "get"]),
        sub("log", "", "v1", "Pod", &["get"]),
        sub("portforward", "", "v1", "PodPortForwardOptions", &["create", "get"]),
    ];
    const ACCOUNTS: &[Subresource] = &[sub("token", "authentication.k8s.io", "v1", "TokenRequest", &["create"])];
    const NAMESPACES: &[Subresource] = &[sub("finalize", "", "v1", "Namespace", &["update"])];
    match (group, plural) {
        ("", "pods") => PODS,
        ("", "serviceaccounts") => ACCOUNTS,
        ("", "namespaces") => NAMESPACES,
        _ => &[],
    }
}
