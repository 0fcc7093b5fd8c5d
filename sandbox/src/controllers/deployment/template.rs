//! From a Deployment's template to a ReplicaSet and back. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;

use crate::controllers::owner;

/// Tells the pods of one template from those of another.
pub(super) const HASH_LABEL: &str = "pod-template-hash";

/// The new ReplicaSet of a template, with no replicas yet. It is named
/// `<deployment>-<hash>`, and its pods `<deployment>-<hash>-<random>`.
pub(super) fn replica_set(deployment: &Deployment, spec: &DeploymentSpec, collisions: i32) -> ReplicaSet {
    let hash = hash(&spec.template, collisions);
    let mut template = spec.template.clone();
    let labels = {
        let meta = template.metadata.get_or_insert_default();
        let labels = meta.labels.get_or_insert_default();
        labels.insert(HASH_LABEL.to_owned(), hash.clone());
        labels.clone()
    };
    let mut selector = spec.selector.clone();
    selector.match_labels.get_or_insert_default().insert(HASH_LABEL.to_owned(), hash.clone());
    ReplicaSet {
        metadata: ObjectMeta {
            name: Some(format!("{}-{hash}", deployment.name_any())),
            namespace: deployment.namespace(),
            labels: Some(labels),
            annotations: Some(inherited_annotations(deployment)),
            owner_references: Some(vec![owner::controller_reference(deployment)]),
            ..ObjectMeta::default()
        },
        spec: Some(ReplicaSetSpec {
            replicas: Some(0),
            min_ready_seconds: spec.min_ready_seconds,
            selector,
            template: Some(template),
        }),
        status: None,
    }
}

/// The Deployment's annotations but those that describe itself.
fn inherited_annotations(deployment: &Deployment) -> BTreeMap<String, String> {
    deployment
        .annotations()
        .iter()
        .filter(|(name, _)| {
            name.as_str() != super::revision::ANNOTATION
                && name.as_str() != "kubectl.kubernetes.io/last-applied-configuration"
        })
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// Whether a set was made of this template.
pub(super) fn is_same(set: &ReplicaSet, template: &PodTemplateSpec) -> bool {
    let Some(mut made) = set.spec.as_ref().and_then(|spec| spec.template.clone()) else {
        return false;
    };
    if let Some(labels) = made.metadata.as_mut().and_then(|meta| meta.labels.as_mut()) {
        labels.remove(HASH_LABEL);
    }
    normal(made) == normal(template.clone())
}

/// Empty maps and absent ones are the same template.
fn normal(mut template: PodTemplateSpec) -> PodTemplateSpec {
    let meta = template.metadata.get_or_insert_default();
    meta.labels = meta.labels.take().filter(|labels| !labels.is_empty());
    meta.annotations = meta.annotations.take().filter(|notes| !notes.is_empty());
    template
}

/// The hash of a template that had no collision.
pub(crate) fn hash_of(template: &PodTemplateSpec) -> String {
    hash(template, 0)
}

/// A short name of a template: FNV-1a of its JSON, in letters that form no words.
fn hash(template: &PodTemplateSpec, collisions: i32) -> String {
    let mut text = serde_json::to_string(template).unwrap_or_default();
    if collisions > 0 {
        text.push_str(&collisions.to_string());
    }
    let sum = text.bytes().fold(FNV_OFFSET, |sum, byte| (sum ^ u32::from(byte)).wrapping_mul(FNV_PRIME));
    sum.to_string()
        .bytes()
        .filter_map(|digit| {
            let position = usize::from(digit) % owner::SAFE_LETTERS.len();
            owner::SAFE_LETTERS.get(position).map(|byte| char::from(*byte))
        })
        .collect()
}

/// Start value and factor of 32-bit FNV-1a.
const FNV_OFFSET: u32 = 2_166_136_261;
const FNV_PRIME: u32 = 16_777_619;

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment(image: &str) -> Deployment {
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": "web", "namespace": "demo", "uid": "u1", "annotations": {
                "deployment.kubernetes.io/revision": "4", "team": "a",
                "kubectl.kubernetes.io/last-applied-configuration": "{}"}},
            "spec": {
                "selector": {"matchLabels": {"app": "web"}},
                "template": {"metadata": {"labels": {"app": "web"}},
                    "spec": {"containers": [{"name": "web", "image": image}]}}
            }
        }))
        .unwrap()
    }

    #[test]
    fn a_set_is_recognised_by_its_template_and_named_by_its_hash() {
        let first = deployment("echo:1");
        let spec = first.spec.as_ref().unwrap();
        let set = replica_set(&first, spec, 0);
        let hash = &set.labels()[HASH_LABEL];
        assert!(hash.len() <= 10 && hash.bytes().all(|byte| owner::SAFE_LETTERS.contains(&byte)));
        assert_eq!(set.name_any(), format!("web-{hash}"));
        assert_eq!(set.annotations().keys().collect::<Vec<_>>(), ["team"]);
        assert!(is_same(&set, &spec.template));
        let labels = &set.spec.as_ref().unwrap().selector.match_labels;
        assert_eq!(&labels.as_ref().unwrap()[HASH_LABEL], hash);

        let second = deployment("echo:2");
        assert!(!is_same(&set, &second.spec.as_ref().unwrap().template));
        assert_ne!(replica_set(&first, spec, 1).name_any(), set.name_any(), "a collision takes another name");
    }
}
