//! Controller references: who made an object.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use kube::core::{Selector, SelectorExt};
use kube::{Resource, ResourceExt};

use super::ControllerError;
use crate::informer::{Key, key, key_of};

/// The reference that marks `object` as controlled by `owner`.
pub(super) fn controller_reference<K: Resource<DynamicType = ()>>(owner: &K) -> OwnerReference {
    OwnerReference {
        api_version: K::api_version(&()).into_owned(),
        kind: K::kind(&()).into_owned(),
        name: owner.name_any(),
        uid: owner.uid().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// The controller of an object.
pub(super) fn controller_of(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.as_ref()?.iter().find(|owner| owner.controller == Some(true))
}

/// Whether `owner` controls the object: the same uid, not only the same name.
pub(super) fn is_controlled_by<K: Resource>(meta: &ObjectMeta, owner: &K) -> bool {
    controller_of(meta).is_some_and(|found| Some(&found.uid) == owner.meta().uid.as_ref())
}

/// The key of the object's controller when that is of the given kind.
pub(super) fn controller_key(meta: &ObjectMeta, kind: &str) -> Option<Key> {
    let owner = controller_of(meta).filter(|owner| owner.kind == kind)?;
    Some(key(meta.namespace.as_deref()?, &owner.name))
}

/// The selector of a workload, in a form that can be asked.
pub(super) fn selector<K>(owner: &K, selector: &LabelSelector) -> Result<Selector, ControllerError>
where
    K: Resource<DynamicType = ()>,
{
    let unreadable = |reason: String| ControllerError::Selector { kind: "workload", key: key_of(owner), reason };
    let selector = Selector::try_from(selector.clone()).map_err(|error| unreadable(error.to_string()))?;
    if selector.selects_all() {
        return Err(unreadable("it is empty and would select everything".into()));
    }
    Ok(selector)
}

/// Whether labels match a selector.
pub(super) fn matches(selector: &Selector, meta: &ObjectMeta) -> bool {
    static NONE: std::collections::BTreeMap<String, String> = std::collections::BTreeMap::new();
    selector.matches(meta.labels.as_ref().unwrap_or(&NONE))
}

/// Letters and digits that cannot form words: the alphabet of generated names and hashes.
pub(super) const SAFE_LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
