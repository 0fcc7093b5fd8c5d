//! The built-in kinds.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, LazyLock},
};

use k8s_openapi::{
    api::{
        admissionregistration::v1 as admission, apps::v1 as apps, authentication::v1 as authentication,
        authorization::v1 as authorization, autoscaling, batch::v1 as batch, coordination::v1 as coordination,
        core::v1 as core, discovery::v1 as discovery, events::v1 as events, networking::v1 as networking,
        node::v1 as node, policy::v1 as policy, rbac::v1 as rbac, scheduling::v1 as scheduling, storage::v1 as storage,
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1 as apiextensions,
};
use schemars::{JsonSchema, SchemaGenerator};

use super::{Schema, definitions::Definitions, node::Node};

/// One built-in kind.
#[derive(Clone, Copy)]
pub(super) struct Kind {
    pub(super) group: &'static str,
    pub(super) version: &'static str,
    pub(super) name: &'static str,
    pub(super) generate: fn(&mut SchemaGenerator) -> schemars::Schema,
}

/// The schemas of the built-in kinds. Cheap to make; each schema is read when it is first used.
pub struct Registry {
    schemas: HashMap<(&'static str, &'static str, &'static str), Arc<Schema>>,
}

impl Registry {
    /// All built-in kinds.
    pub fn builtin() -> Self {
        let schemas = KINDS
            .iter()
            .map(|kind| {
                let schema = Schema::builtin(*kind, DEFINITIONS.clone());
                ((kind.group, kind.version, kind.name), Arc::new(schema))
            })
            .collect();
        Self { schemas }
    }

    /// The schema of a kind; the core group is the empty text.
    pub fn schema(&self, group: &str, version: &str, kind: &str) -> Option<Arc<Schema>> {
        self.schemas.get(&(group, version, kind)).cloned()
    }

    /// Group, version and kind of every schema, in no order.
    pub fn kinds(&self) -> impl Iterator<Item = (&'static str, &'static str, &'static str)> + '_ {
        self.schemas.keys().copied()
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Registry({} kinds)", self.schemas.len())
    }
}

/// The fixed schema of `metadata`, which custom resources share.
pub(super) fn metadata() -> Arc<Node> {
    METADATA.clone()
}

/// The types are constants of this program, so that all registries share what has been read.
static DEFINITIONS: LazyLock<Arc<Definitions>> = LazyLock::new(|| Arc::new(Definitions::new()));
static METADATA: LazyLock<Arc<Node>> = LazyLock::new(|| DEFINITIONS.metadata());

const fn kind<T: JsonSchema>(group: &'static str, version: &'static str, name: &'static str) -> Kind {
    Kind { group, version, name, generate: SchemaGenerator::subschema_for::<T> }
}

const fn core_kind<T: JsonSchema>(name: &'static str) -> Kind {
    kind::<T>("", "v1", name)
}

const ADMISSION: &str = "admissionregistration.k8s.io";
const AUTHENTICATION: &str = "authentication.k8s.io";
const AUTHORIZATION: &str = "authorization.k8s.io";
const NETWORKING: &str = "networking.k8s.io";
const RBAC: &str = "rbac.authorization.k8s.io";
const STORAGE: &str = "storage.k8s.io";

const KINDS: &[Kind] = &[
    core_kind::<core::Binding>("Binding"),
    core_kind::<core::ConfigMap>("ConfigMap"),
    core_kind::<core::Endpoints>("Endpoints"),
    core_kind::<core::Event>("Event"),
    core_kind::<core::LimitRange>("LimitRange"),
    core_kind::<core::Namespace>("Namespace"),
    core_kind::<core::Node>("Node"),
    core_kind::<core::PersistentVolume>("PersistentVolume"),
    core_kind::<core::PersistentVolumeClaim>("PersistentVolumeClaim"),
    core_kind::<core::Pod>("Pod"),
    core_kind::<core::PodTemplate>("PodTemplate"),
    core_kind::<core::ReplicationController>("ReplicationController"),
    core_kind::<core::ResourceQuota>("ResourceQuota"),
    core_kind::<core::Secret>("Secret"),
    core_kind::<core::Service>("Service"),
    core_kind::<core::ServiceAccount>("ServiceAccount"),
    kind::<apps::ControllerRevision>("apps", "v1", "ControllerRevision"),
    kind::<apps::DaemonSet>("apps", "v1", "DaemonSet"),
    kind::<apps::Deployment>("apps", "v1", "Deployment"),
    kind::<apps::ReplicaSet>("apps", "v1", "ReplicaSet"),
    kind::<apps::StatefulSet>("apps", "v1", "StatefulSet"),
    kind::<batch::CronJob>("batch", "v1", "CronJob"),
    kind::<batch::Job>("batch", "v1", "Job"),
    kind::<discovery::EndpointSlice>("discovery.k8s.io", "v1", "EndpointSlice"),
    kind::<events::Event>("events.k8s.io", "v1", "Event"),
    kind::<coordination::Lease>("coordination.k8s.io", "v1", "Lease"),
    kind::<rbac::ClusterRole>(RBAC, "v1", "ClusterRole"),
    kind::<rbac::ClusterRoleBinding>(RBAC, "v1", "ClusterRoleBinding"),
    kind::<rbac::Role>(RBAC, "v1", "Role"),
    kind::<rbac::RoleBinding>(RBAC, "v1", "RoleBinding"),
    kind::<admission::MutatingWebhookConfiguration>(ADMISSION, "v1", "MutatingWebhookConfiguration"),
    kind::<admission::ValidatingAdmissionPolicy>(ADMISSION, "v1", "ValidatingAdmissionPolicy"),
    kind::<admission::ValidatingAdmissionPolicyBinding>(ADMISSION, "v1", "ValidatingAdmissionPolicyBinding"),
    kind::<admission::ValidatingWebhookConfiguration>(ADMISSION, "v1", "ValidatingWebhookConfiguration"),
    kind::<policy::Eviction>("policy", "v1", "Eviction"),
    kind::<policy::PodDisruptionBudget>("policy", "v1", "PodDisruptionBudget"),
    kind::<autoscaling::v1::Scale>("autoscaling", "v1", "Scale"),
    kind::<autoscaling::v2::HorizontalPodAutoscaler>("autoscaling", "v2", "HorizontalPodAutoscaler"),
    kind::<networking::Ingress>(NETWORKING, "v1", "Ingress"),
    kind::<networking::IngressClass>(NETWORKING, "v1", "IngressClass"),
    kind::<networking::NetworkPolicy>(NETWORKING, "v1", "NetworkPolicy"),
    kind::<node::RuntimeClass>("node.k8s.io", "v1", "RuntimeClass"),
    kind::<scheduling::PriorityClass>("scheduling.k8s.io", "v1", "PriorityClass"),
    kind::<storage::CSIDriver>(STORAGE, "v1", "CSIDriver"),
    kind::<storage::StorageClass>(STORAGE, "v1", "StorageClass"),
    kind::<apiextensions::CustomResourceDefinition>("apiextensions.k8s.io", "v1", "CustomResourceDefinition"),
    kind::<authentication::SelfSubjectReview>(AUTHENTICATION, "v1", "SelfSubjectReview"),
    kind::<authentication::TokenRequest>(AUTHENTICATION, "v1", "TokenRequest"),
    kind::<authentication::TokenReview>(AUTHENTICATION, "v1", "TokenReview"),
    kind::<authorization::LocalSubjectAccessReview>(AUTHORIZATION, "v1", "LocalSubjectAccessReview"),
    kind::<authorization::SelfSubjectAccessReview>(AUTHORIZATION, "v1", "SelfSubjectAccessReview"),
    kind::<authorization::SelfSubjectRulesReview>(AUTHORIZATION, "v1", "SelfSubjectRulesReview"),
    kind::<authorization::SubjectAccessReview>(AUTHORIZATION, "v1", "SubjectAccessReview"),
];
