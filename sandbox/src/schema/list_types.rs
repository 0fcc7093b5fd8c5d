//! How lists and maps of built-in types are merged. The generated schemas do not say it; the
//! published OpenAPI of Kubernetes does, and `kubectl` has the same knowledge compiled in.

use std::sync::Arc;

use serde_json::json;

use super::node::{ListType, Merge, Node};

/// What is special about one field.
#[derive(Debug, Clone, Copy)]
enum Rule {
    /// Objects known by these fields; patches merge by the first.
    Keyed(&'static [&'static str]),
    /// As `Keyed`, and patches name the fields to keep: objects with one of many fields set.
    KeyedUnion(&'static [&'static str]),
    /// Scalars that occur once; patches add and remove single ones.
    Set,
    /// Patches merge by this field, but ownership is of the whole list.
    PatchOnly(&'static str),
    /// Known by these fields, but patches replace the whole list.
    ApplyOnly(&'static [&'static str]),
    /// An object whose patches name the fields to keep.
    Union,
    /// An object that is one value.
    Atomic,
    /// An absent value means this. Needed where the field identifies an item.
    DefaultsTo(&'static str),
}

use Rule::{ApplyOnly, Atomic, DefaultsTo, Keyed, KeyedUnion, PatchOnly, Set, Union};

/// Types all of whose instances are one value: references and selectors.
const ATOMIC_TYPES: &[&str] = &[
    "io.k8s.api.core.v1.ConfigMapKeySelector",
    "io.k8s.api.core.v1.EndpointAddress",
    "io.k8s.api.core.v1.EndpointPort",
    "io.k8s.api.core.v1.FileKeySelector",
    "io.k8s.api.core.v1.LocalObjectReference",
    "io.k8s.api.core.v1.NodeSelector",
    "io.k8s.api.core.v1.NodeSelectorTerm",
    "io.k8s.api.core.v1.ObjectFieldSelector",
    "io.k8s.api.core.v1.ObjectReference",
    "io.k8s.api.core.v1.ResourceFieldSelector",
    "io.k8s.api.core.v1.SecretKeySelector",
    "io.k8s.api.core.v1.SecretReference",
    "io.k8s.api.core.v1.TopologySelectorTerm",
    "io.k8s.api.core.v1.TypedLocalObjectReference",
    "io.k8s.api.discovery.v1.EndpointPort",
    "io.k8s.api.networking.v1.IngressClassParametersReference",
    "io.k8s.api.rbac.v1.RoleRef",
    "io.k8s.api.rbac.v1.Subject",
    "io.k8s.apimachinery.pkg.apis.meta.v1.LabelSelector",
    "io.k8s.apimachinery.pkg.apis.meta.v1.OwnerReference",
];

/// Lists of conditions, in types that have them under this name.
const CONDITION_TYPES: &[&str] = &[
    "io.k8s.api.apps.v1.DaemonSetStatus",
    "io.k8s.api.apps.v1.DeploymentStatus",
    "io.k8s.api.apps.v1.ReplicaSetStatus",
    "io.k8s.api.apps.v1.StatefulSetStatus",
    "io.k8s.api.autoscaling.v2.HorizontalPodAutoscalerStatus",
    "io.k8s.api.core.v1.NamespaceStatus",
    "io.k8s.api.core.v1.NodeStatus",
    "io.k8s.api.core.v1.PodStatus",
    "io.k8s.api.core.v1.ServiceStatus",
    "io.k8s.api.policy.v1.PodDisruptionBudgetStatus",
];

const FIELDS: &[(&str, &str, Rule)] = &[
    ("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta", "finalizers", Set),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta", "ownerReferences", Keyed(&["uid"])),
    ("io.k8s.api.core.v1.PodSpec", "containers", Keyed(&["name"])),
    ("io.k8s.api.core.v1.PodSpec", "ephemeralContainers", Keyed(&["name"])),
    ("io.k8s.api.core.v1.PodSpec", "hostAliases", Keyed(&["ip"])),
    ("io.k8s.api.core.v1.PodSpec", "imagePullSecrets", Keyed(&["name"])),
    ("io.k8s.api.core.v1.PodSpec", "initContainers", Keyed(&["name"])),
    ("io.k8s.api.core.v1.PodSpec", "nodeSelector", Atomic),
    ("io.k8s.api.core.v1.PodSpec", "resourceClaims", KeyedUnion(&["name"])),
    ("io.k8s.api.core.v1.PodSpec", "schedulingGates", Keyed(&["name"])),
    ("io.k8s.api.core.v1.PodSpec", "topologySpreadConstraints", Keyed(&["topologyKey", "whenUnsatisfiable"])),
    ("io.k8s.api.core.v1.PodSpec", "volumes", KeyedUnion(&["name"])),
    ("io.k8s.api.core.v1.PodStatus", "hostIPs", PatchOnly("ip")),
    ("io.k8s.api.core.v1.PodStatus", "podIPs", Keyed(&["ip"])),
    ("io.k8s.api.core.v1.PodStatus", "resourceClaimStatuses", KeyedUnion(&["name"])),
    ("io.k8s.api.core.v1.Container", "env", Keyed(&["name"])),
    ("io.k8s.api.core.v1.Container", "ports", Keyed(&["containerPort", "protocol"])),
    ("io.k8s.api.core.v1.Container", "volumeDevices", Keyed(&["devicePath"])),
    ("io.k8s.api.core.v1.Container", "volumeMounts", Keyed(&["mountPath"])),
    ("io.k8s.api.core.v1.EphemeralContainer", "env", Keyed(&["name"])),
    ("io.k8s.api.core.v1.EphemeralContainer", "ports", Keyed(&["containerPort", "protocol"])),
    ("io.k8s.api.core.v1.EphemeralContainer", "volumeDevices", Keyed(&["devicePath"])),
    ("io.k8s.api.core.v1.EphemeralContainer", "volumeMounts", Keyed(&["mountPath"])),
    ("io.k8s.api.core.v1.ContainerPort", "protocol", DefaultsTo("TCP")),
    ("io.k8s.api.core.v1.ContainerStatus", "volumeMounts", Keyed(&["mountPath"])),
    ("io.k8s.api.core.v1.ResourceRequirements", "claims", ApplyOnly(&["name"])),
    ("io.k8s.api.core.v1.ServiceSpec", "ports", Keyed(&["port", "protocol"])),
    ("io.k8s.api.core.v1.ServiceSpec", "selector", Atomic),
    ("io.k8s.api.core.v1.ServicePort", "protocol", DefaultsTo("TCP")),
    ("io.k8s.api.core.v1.ServiceAccount", "secrets", Keyed(&["name"])),
    ("io.k8s.api.core.v1.NodeSpec", "podCIDRs", Set),
    ("io.k8s.api.core.v1.NodeStatus", "addresses", Keyed(&["type"])),
    ("io.k8s.api.apps.v1.DeploymentSpec", "strategy", Union),
    ("io.k8s.api.batch.v1.JobStatus", "conditions", PatchOnly("type")),
    ("io.k8s.api.admissionregistration.v1.MutatingWebhookConfiguration", "webhooks", Keyed(&["name"])),
    ("io.k8s.api.admissionregistration.v1.ValidatingWebhookConfiguration", "webhooks", Keyed(&["name"])),
    ("io.k8s.api.admissionregistration.v1.MutatingWebhook", "matchConditions", Keyed(&["name"])),
    ("io.k8s.api.admissionregistration.v1.ValidatingWebhook", "matchConditions", Keyed(&["name"])),
    ("io.k8s.api.admissionregistration.v1.ValidatingAdmissionPolicySpec", "matchConditions", Keyed(&["name"])),
    ("io.k8s.api.admissionregistration.v1.ValidatingAdmissionPolicySpec", "variables", Keyed(&["name"])),
    ("io.k8s.api.admissionregistration.v1.ValidatingAdmissionPolicyStatus", "conditions", ApplyOnly(&["type"])),
    (
        "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinitionStatus",
        "conditions",
        ApplyOnly(&["type"]),
    ),
];

/// Adds to the node of a definition what the table knows about the type itself.
pub(super) fn annotate_type(definition: &str, node: &mut Node) {
    node.atomic_map |= ATOMIC_TYPES.contains(&definition);
}

/// Adds to the node of a field of a definition what the table knows about the field.
pub(super) fn annotate_field(definition: &str, field: &str, node: &mut Node) {
    if field == "conditions" && CONDITION_TYPES.contains(&definition) {
        apply(Keyed(&["type"]), node);
    }
    for (_, _, rule) in FIELDS.iter().filter(|(of, name, _)| *of == definition && *name == field) {
        apply(*rule, node);
    }
}

fn apply(rule: Rule, node: &mut Node) {
    let keyed = |keys: &[&str]| ListType::Map(keys.iter().map(|key| (*key).to_owned()).collect());
    let merge =
        |key: Option<&&str>, retain_keys| Some(Merge { key: key.map(|key| Arc::from(*key)), lists: true, retain_keys });
    match rule {
        Keyed(keys) => {
            node.list = keyed(keys);
            node.merge = merge(keys.first(), false);
        }
        KeyedUnion(keys) => {
            node.list = keyed(keys);
            node.merge = merge(keys.first(), true);
        }
        Set => {
            node.list = ListType::Set;
            node.merge = merge(None, false);
        }
        PatchOnly(key) => node.merge = merge(Some(&key), false),
        ApplyOnly(keys) => node.list = keyed(keys),
        Union => node.merge = Some(Merge { key: None, lists: false, retain_keys: true }),
        Atomic => node.atomic_map = true,
        DefaultsTo(value) => node.default = Some(json!(value)),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::schema::Registry;

    /// Every row must name a field that exists, or it would silently do nothing.
    #[test]
    fn rows_name_existing_fields() {
        let registry = Registry::builtin();
        let mut seen = BTreeSet::new();
        for (group, version, kind) in registry.kinds() {
            visit(registry.schema(group, version, kind).unwrap().root(), &mut seen);
        }
        for (definition, field, _) in FIELDS {
            assert!(seen.contains(&format!("{definition}/{field}")), "no field {field} in {definition}");
        }
        for definition in CONDITION_TYPES {
            assert!(seen.contains(&format!("{definition}/conditions")), "no conditions in {definition}");
        }
    }

    fn visit(node: &Node, seen: &mut BTreeSet<String>) {
        for (name, child) in node.properties.iter() {
            if let Some(definition) = &node.definition {
                seen.insert(format!("{}/{name}", definition.name));
            }
            visit(child, seen);
        }
        for child in node.items.iter().chain(&node.additional) {
            visit(child, seen);
        }
    }
}
