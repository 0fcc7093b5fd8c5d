//! Deleting objects: finalizers, grace, propagation, preconditions.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};

use super::{
    ApiServer, Resource,
    clock::{now, rfc3339},
    crds::CLEANUP,
    defaults::map,
    query::Params,
    status::ApiError,
    write::{meta_number, set_meta},
};
use crate::store::{CommitError, Expect, FOREGROUND, ORPHAN, Object, ObjectKey, ResourceKey, meta_list, meta_str};

/// Retries of a deletion that met somebody else's write.
const DELETE_TRIES: usize = 16;
/// Grace of a pod that names none.
const GRACE_DEFAULT_SECONDS: i64 = 30;
/// Namespaces that stay.
const PROTECTED_NAMESPACES: [&str; 3] = ["default", "kube-system", "kube-public"];

/// What becomes of the objects that name a deleted one as owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Propagation {
    /// They are deleted afterwards.
    Background,
    /// They are deleted first.
    Foreground,
    /// They stay.
    Orphan,
}

/// `DeleteOptions`.
#[derive(Debug, Clone)]
pub(crate) struct DeleteOptions {
    pub(crate) grace_seconds: Option<i64>,
    pub(crate) propagation: Option<Propagation>,
    pub(crate) uid: Option<String>,
    pub(crate) revision: Option<String>,
    pub(crate) dry_run: bool,
}

/// What a deletion led to.
#[derive(Debug, Clone)]
pub(crate) enum Deleted {
    /// The object is gone.
    Gone(Arc<Object>),
    /// The object waits for its finalizers or its grace.
    Pending(Arc<Object>),
}

impl DeleteOptions {
    /// At once, dependents afterwards.
    pub(crate) fn background() -> Self {
        Self {
            grace_seconds: None,
            propagation: Some(Propagation::Background),
            uid: None,
            revision: None,
            dry_run: false,
        }
    }

    /// Reads the body, if there is one, and the query parameters.
    pub(crate) fn read(params: &Params, body: &Value) -> Result<Self, ApiError> {
        let text = |path: &str| body.pointer(path).and_then(Value::as_str).map(str::to_owned);
        let policy = text("/propagationPolicy").or_else(|| params.text("propagationPolicy").map(str::to_owned));
        let orphan = body.get("orphanDependents").and_then(Value::as_bool).or(params.optional_flag("orphanDependents"));
        let propagation = match (policy.as_deref(), orphan) {
            (Some("Background"), _) | (None, Some(false)) => Some(Propagation::Background),
            (Some("Foreground"), _) => Some(Propagation::Foreground),
            (Some("Orphan"), _) | (None, Some(true)) => Some(Propagation::Orphan),
            (None, None) => None,
            (Some(other), _) => {
                let message = format!(
                    "DeleteOptions is invalid: propagationPolicy: Unsupported value: {other:?}: supported values: \
                     \"Background\", \"Foreground\", \"Orphan\""
                );
                return Err(ApiError::unprocessable(message));
            }
        };
        let in_query = params.number("gracePeriodSeconds")?.and_then(|seconds| i64::try_from(seconds).ok());
        let grace_seconds = body.get("gracePeriodSeconds").and_then(Value::as_i64).or(in_query);
        if grace_seconds.is_some_and(|seconds| seconds < 0) {
            return Err(ApiError::unprocessable("DeleteOptions is invalid: gracePeriodSeconds: must be at least 0"));
        }
        let dry_in_body = body.get("dryRun").and_then(Value::as_array).is_some_and(|list| list.contains(&json!("All")));
        Ok(Self {
            grace_seconds,
            propagation,
            uid: text("/preconditions/uid"),
            revision: text("/preconditions/resourceVersion"),
            dry_run: dry_in_body || params.dry_run()?,
        })
    }
}

impl ApiServer {
    /// Deletes an object or begins to.
    pub(crate) fn delete(
        &self,
        resource: &Resource,
        key: &ObjectKey,
        options: &DeleteOptions,
    ) -> Result<Deleted, ApiError> {
        let (group, plural) = (resource.group.as_str(), resource.plural.as_str());
        if resource.key == ResourceKey::namespaces() && PROTECTED_NAMESPACES.contains(&key.name()) {
            let message = format!("namespaces \"{}\" is forbidden: this namespace may not be deleted", key.name());
            return Err(ApiError::forbidden(message).about(group, plural, key.name()));
        }
        let mut last = None;
        for _ in 0..DELETE_TRIES {
            let live = self.store.get(&resource.key, key);
            let live = live.ok_or_else(|| ApiError::not_found(group, plural, key.name()))?;
            check_preconditions(resource, &live, options)?;
            let plan = plan(resource, &live, options);
            if options.dry_run {
                return Ok(Deleted::Gone(live));
            }
            match self.carry_out(resource, key, &live, plan) {
                Err(error @ CommitError::Stale { .. }) => last = Some(error),
                result => return result.map_err(|error| ApiError::from_commit(error, group, plural)),
            }
        }
        let stale = ApiError::stale(group, plural, key.name());
        Err(last.map_or(stale, |error| ApiError::from_commit(error, group, plural)))
    }

    fn carry_out(
        &self,
        resource: &Resource,
        key: &ObjectKey,
        live: &Arc<Object>,
        plan: Plan,
    ) -> Result<Deleted, CommitError> {
        match plan {
            Plan::Nothing => Ok(Deleted::Pending(live.clone())),
            Plan::Mark(value) => {
                let object = self.store.put(&resource.key, key, value, Expect::Revision(live.revision()))?;
                Ok(Deleted::Pending(object))
            }
            Plan::Remove => {
                let object = self.store.remove(&resource.key, key, None, live.revision())?;
                self.removed(resource, &object);
                Ok(Deleted::Gone(object))
            }
        }
    }
}

/// What a deletion request means for an object as it is.
#[derive(Debug, PartialEq)]
enum Plan {
    Nothing,
    Mark(Value),
    Remove,
}

fn plan(resource: &Resource, live: &Object, options: &DeleteOptions) -> Plan {
    let mut value = live.value().clone();
    let finalizers = finalizers(resource, &value, options);
    let is_namespace = resource.key == ResourceKey::namespaces();
    let held_namespace = is_namespace
        && value.pointer("/spec/finalizers").and_then(Value::as_array).is_some_and(|list| !list.is_empty());
    let grace = if resource.key.as_str() == "pods" { pod_grace(&value, options) } else { 0 };
    if finalizers.is_empty() && grace == 0 && !held_namespace {
        return Plan::Remove;
    }
    let first = !live.is_deleting();
    let shorter = !first && grace < meta_number(&value, "deletionGracePeriodSeconds");
    let changed = json!(finalizers) != json!(meta_list(&value, "finalizers"));
    if !first && !shorter && !changed {
        return Plan::Nothing;
    }
    if first || shorter {
        let ends = now().saturating_add(Duration::from_secs(grace.unsigned_abs())).unwrap_or_else(|_| now());
        set_meta(&mut value, "deletionTimestamp", json!(rfc3339(ends)));
        set_meta(&mut value, "deletionGracePeriodSeconds", json!(grace));
    }
    if first && meta_number(&value, "generation") > 0 {
        let generation = meta_number(&value, "generation") + 1;
        set_meta(&mut value, "generation", json!(generation));
    }
    if finalizers.is_empty() {
        value.get_mut("metadata").and_then(Value::as_object_mut).map(|metadata| metadata.remove("finalizers"));
    } else {
        set_meta(&mut value, "finalizers", json!(finalizers));
    }
    if is_namespace && let Some(fields) = value.as_object_mut() {
        map(fields, "status").insert("phase".to_owned(), json!("Terminating"));
    }
    Plan::Mark(value)
}

/// The finalizers of an object once its deletion is asked for.
fn finalizers(resource: &Resource, value: &Value, options: &DeleteOptions) -> Vec<String> {
    let mut list: Vec<String> =
        meta_list(value, "finalizers").iter().filter_map(Value::as_str).map(str::to_owned).collect();
    if let Some(propagation) = options.propagation {
        list.retain(|finalizer| finalizer != FOREGROUND && finalizer != ORPHAN);
        match propagation {
            Propagation::Background => {}
            Propagation::Foreground => list.push(FOREGROUND.to_owned()),
            Propagation::Orphan => list.push(ORPHAN.to_owned()),
        }
    }
    let first = meta_str(value, "deletionTimestamp").is_none();
    if first && resource.key == ResourceKey::definitions() && !list.iter().any(|finalizer| finalizer == CLEANUP) {
        list.push(CLEANUP.to_owned());
    }
    list
}

/// Seconds a pod gets to end itself: none when no node runs it or it has ended.
fn pod_grace(pod: &Value, options: &DeleteOptions) -> i64 {
    let text = |path: &str| pod.pointer(path).and_then(Value::as_str).unwrap_or_default();
    if text("/spec/nodeName").is_empty() || matches!(text("/status/phase"), "Succeeded" | "Failed") {
        return 0;
    }
    let own = pod.pointer("/spec/terminationGracePeriodSeconds").and_then(Value::as_i64);
    let wanted = options.grace_seconds.or(own).unwrap_or(GRACE_DEFAULT_SECONDS).max(0);
    match meta_str(pod, "deletionTimestamp") {
        // A second request can only shorten.
        Some(_) => wanted.min(meta_number(pod, "deletionGracePeriodSeconds")),
        None => wanted,
    }
}

fn check_preconditions(resource: &Resource, live: &Object, options: &DeleteOptions) -> Result<(), ApiError> {
    let conflict = |what: &str, wanted: &str, found: &str| {
        let why = format!("Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {found}");
        Err(ApiError::conflict(&resource.group, &resource.plural, live.name(), &why))
    };
    match (&options.uid, &options.revision) {
        (Some(uid), _) if uid != live.uid() => conflict("UID", uid, live.uid()),
        (_, Some(revision)) if *revision != live.revision().to_string() => {
            conflict("ResourceVersion", revision, &live.revision().to_string())
        }
        _ => Ok(()),
    }
}
