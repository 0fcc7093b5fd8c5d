//! Applies the objects of one Gateway, and never touches what is not ours.

use kube::Client;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, Preconditions};
use mesh_api::labels as names;
use mesh_core::names::NamespacedName;
use serde_json::{Value, json};

use crate::source::resource;
use crate::translate::gateway::Kinds;
use crate::translate::gateway::infrastructure::CONTROLLER_VERSION;
use crate::translate::plan::Deployment;
use crate::world::Kind;

/// Why a Gateway could not be deployed. All of them may be tried again.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApplyError {
    /// The API server did not take or answer something.
    #[error("{what}: {}", crate::source::chain(source))]
    Api {
        /// What was asked.
        what: String,
        /// Its answer.
        source: Box<kube::Error>,
    },
    /// An object that we would never make.
    #[error("{kind} {object} is not one that is made for Gateway {gateway}")]
    Unexpected {
        /// Its kind.
        kind: &'static str,
        /// Its name.
        object: String,
        /// Whose it was to be.
        gateway: NamespacedName,
    },
    /// An object that was made for another Gateway, or for an earlier one of the same name.
    #[error("{kind} {object} was made for another Gateway than {gateway}, and is left to it")]
    OfAnother {
        /// Its kind.
        kind: &'static str,
        /// Its name.
        object: String,
        /// Whose it was to be.
        gateway: NamespacedName,
    },
    /// No answer in time.
    #[error("no answer in time")]
    Late,
}

/// Applies the objects of Gateways.
pub(super) struct Applier {
    client: Client,
}

impl Applier {
    pub(super) fn new(client: Client) -> Self {
        Self { client }
    }

    /// Makes the objects of a Gateway what they should be.
    ///
    /// # Source
    /// spec of the gateway controller, section 4.
    pub(super) async fn apply(&self, deployment: &Deployment) -> Result<(), ApplyError> {
        if !self.take_over(deployment).await? {
            return Ok(());
        }
        for (kind, object) in &deployment.objects {
            self.apply_one(deployment, *kind, object).await?;
        }
        for kind in Kinds::ALL.into_iter().filter(|kind| !deployment.objects.contains_key(kind)) {
            self.remove(deployment, kind).await?;
        }
        Ok(())
    }

    /// Whether the Gateway is there and no newer control plane deploys it; says that we do.
    async fn take_over(&self, deployment: &Deployment) -> Result<bool, ApplyError> {
        let (resource, key) = (resource(Kind::Gateway), &deployment.gateway);
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &key.namespace, &resource);
        let failed = |source| ApplyError::Api { what: format!("reading Gateway {key}"), source: Box::new(source) };
        let Some(live) = api.get_opt(&key.name).await.map_err(failed)? else { return Ok(false) };
        if live.metadata.uid.as_deref() != Some(&*deployment.uid) || live.metadata.deletion_timestamp.is_some() {
            // Another of the same name: it will be told.
            return Ok(false);
        }
        let version = live.metadata.annotations.as_ref().and_then(|all| all.get(CONTROLLER_VERSION));
        match stance(version.map(String::as_str)) {
            Stance::LeaveAlone => {
                tracing::debug!(gateway = %key, version, "a newer control plane deploys this gateway");
                Ok(false)
            }
            Stance::Proceed => Ok(true),
            Stance::TakeOver => {
                let patch = json!({
                    "apiVersion": resource.api_version,
                    "kind": resource.kind,
                    "metadata": {
                        "name": &*key.name,
                        "namespace": &*key.namespace,
                        "annotations": {CONTROLLER_VERSION: OWN_VERSION.to_string()},
                    },
                });
                let params = PatchParams::apply(&deployment.manager).force();
                let failed =
                    |source| ApplyError::Api { what: format!("marking Gateway {key}"), source: Box::new(source) };
                api.patch_status(&key.name, &params, &Patch::Apply(&patch)).await.map_err(failed)?;
                Ok(true)
            }
        }
    }

    async fn apply_one(&self, deployment: &Deployment, kind: Kinds, object: &Value) -> Result<(), ApplyError> {
        let name = expected(deployment, kind, object)?;
        let api = self.api(deployment, kind);
        let what = |verb: &str| format!("{verb} {} {}/{name}", kind.name(), deployment.gateway.namespace);
        let live = api
            .get_opt(name)
            .await
            .map_err(|source| ApplyError::Api { what: what("reading"), source: Box::new(source) })?;
        let mut object = object.clone();
        if let Some(live) = &live {
            if !is_managed(live) {
                tracing::info!(kind = kind.name(), name, gateway = %deployment.gateway, "object is the user's own, not touched");
                return Ok(());
            }
            if !is_free(live, deployment) {
                if kind == Kinds::ServiceAccount {
                    // Proxies of several Gateways may have one; it goes with whom it was made for.
                    tracing::info!(name, gateway = %deployment.gateway, "service account of another gateway is used as it is");
                    return Ok(());
                }
                let (kind, object) = (kind.name(), format!("{}/{name}", deployment.gateway.namespace));
                return Err(ApplyError::OfAnother { kind, object, gateway: deployment.gateway.clone() });
            }
            let metadata = object.pointer_mut("/metadata").and_then(Value::as_object_mut);
            if let Some(metadata) = metadata {
                metadata.insert("resourceVersion".to_owned(), live.metadata.resource_version.clone().into());
            }
            if kind == Kinds::Deployment {
                keep_selector(&mut object, live);
            }
        }
        let params = PatchParams::apply(&deployment.manager).force();
        let applied = api.patch(name, &params, &Patch::Apply(&object)).await;
        let applied = applied.map_err(|source| ApplyError::Api { what: what("applying"), source: Box::new(source) })?;
        let old = live.and_then(|live| live.metadata.resource_version);
        if old != applied.metadata.resource_version {
            tracing::info!(kind = kind.name(), name, gateway = %deployment.gateway, "applied");
        }
        Ok(())
    }

    /// Takes away what was made when an overlay still asked for it.
    async fn remove(&self, deployment: &Deployment, kind: Kinds) -> Result<(), ApplyError> {
        let (api, name) = (self.api(deployment, kind), &deployment.name);
        let what = |verb: &str| format!("{verb} {} {}/{name}", kind.name(), deployment.gateway.namespace);
        let live = api
            .get_opt(name)
            .await
            .map_err(|source| ApplyError::Api { what: what("reading"), source: Box::new(source) })?;
        let Some(live) = live.filter(|live| is_managed(live) && is_owned(live, deployment)) else { return Ok(()) };
        let preconditions = Preconditions { uid: live.metadata.uid, resource_version: live.metadata.resource_version };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        match api.delete(name, &params).await {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(source) => Err(ApplyError::Api { what: what("deleting"), source: Box::new(source) }),
            Ok(_) => Ok(()),
        }
    }

    fn api(&self, deployment: &Deployment, kind: Kinds) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &deployment.gateway.namespace, &kind.resource())
    }
}

/// What the version on a Gateway says.
#[derive(Debug, PartialEq, Eq)]
enum Stance {
    /// An older control plane has deployed it, or none.
    TakeOver,
    /// We have.
    Proceed,
    /// A newer one has.
    LeaveAlone,
}

fn stance(version: Option<&str>) -> Stance {
    match version.map(str::parse::<u32>) {
        None => Stance::TakeOver,
        Some(Ok(version)) if version < OWN_VERSION => Stance::TakeOver,
        Some(Ok(OWN_VERSION)) => Stance::Proceed,
        Some(Ok(_) | Err(_)) => Stance::LeaveAlone,
    }
}

/// The name of an object, if it is one that may be made for the Gateway.
fn expected<'a>(deployment: &Deployment, kind: Kinds, object: &'a Value) -> Result<&'a str, ApplyError> {
    let text = |path: &str| object.pointer(path).and_then(Value::as_str).unwrap_or_default();
    let (name, namespace) = (text("/metadata/name"), text("/metadata/namespace"));
    let named = name == deployment.name || name == deployment.account || name.starts_with(&*deployment.gateway.name);
    let same_kind = text("/kind") == kind.name() && text("/apiVersion") == kind.api_version();
    if named && !name.is_empty() && namespace == &*deployment.gateway.namespace && same_kind {
        return Ok(name);
    }
    let object = format!("{namespace}/{name}");
    Err(ApplyError::Unexpected { kind: kind.name(), object, gateway: deployment.gateway.clone() })
}

fn is_managed(live: &DynamicObject) -> bool {
    live.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(names::GATEWAY_MANAGED))
}

fn is_owned(live: &DynamicObject, deployment: &Deployment) -> bool {
    live.metadata.owner_references.iter().flatten().any(|owner| *owner.uid == *deployment.uid)
}

/// Whether no other Gateway owns it.
fn is_free(live: &DynamicObject, deployment: &Deployment) -> bool {
    let mut gateways = live.metadata.owner_references.iter().flatten().filter(|owner| owner.kind == "Gateway");
    is_owned(live, deployment) || gateways.next().is_none()
}

/// A selector cannot be changed: labels that an earlier release has put into it stay, and pods carry them too.
fn keep_selector(object: &mut Value, live: &DynamicObject) {
    let Some(selected) = live.data.pointer("/spec/selector/matchLabels").and_then(Value::as_object) else { return };
    for path in ["/spec/selector/matchLabels", "/spec/template/metadata/labels"] {
        let Some(labels) = object.pointer_mut(path).and_then(Value::as_object_mut) else { continue };
        for (key, value) in selected {
            labels.entry(key.clone()).or_insert_with(|| value.clone());
        }
    }
}

/// Version of what we deploy, as Gateways are marked with it.
const OWN_VERSION: u32 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newer_and_unreadable_versions_are_left_alone() {
        for (version, expected) in [
            (None, Stance::TakeOver),
            (Some("4"), Stance::TakeOver),
            (Some("5"), Stance::Proceed),
            (Some("9"), Stance::LeaveAlone),
            (Some("-1"), Stance::LeaveAlone),
            (Some(""), Stance::LeaveAlone),
            (Some("v5"), Stance::LeaveAlone),
        ] {
            assert_eq!(stance(version), expected, "{version:?}");
        }
    }

    #[test]
    fn labels_of_an_older_selector_stay_and_are_on_the_pods() {
        let mut object = json!({"spec": {"selector": {"matchLabels": {"a": "1"}}, "template": {"metadata": {"labels": {"a": "1"}}}}});
        let live = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "wp"},
            "spec": {"selector": {"matchLabels": {"a": "0", "old": "yes"}}}});
        keep_selector(&mut object, &serde_json::from_value(live).unwrap());
        let labels = json!({"a": "1", "old": "yes"});
        assert_eq!(
            object,
            json!({"spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}}}})
        );
    }

    #[test]
    fn only_expected_objects_are_applied() {
        let deployment = Deployment {
            gateway: NamespacedName::new("ns", "wp"),
            uid: "u".into(),
            manager: "m".into(),
            name: "other".into(),
            account: "sa".into(),
            objects: Default::default(),
        };
        let object = |kind: &str, namespace: &str, name: &str| json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": namespace}});
        for name in ["other", "sa", "wp", "wp-x"] {
            assert_eq!(expected(&deployment, Kinds::Service, &object("Service", "ns", name)).unwrap(), name);
        }
        for (kind, namespace, name) in
            [("Service", "ns", "web"), ("Service", "kube-system", "wp"), ("Secret", "ns", "wp"), ("Service", "ns", "")]
        {
            assert!(expected(&deployment, Kinds::Service, &object(kind, namespace, name)).is_err(), "{name}");
        }
    }
}
