//! Creating and replacing objects: the one path on which everything that is stored has been checked.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{
    ApiServer,
    body::Decoded,
    clock::stamp,
    defaults::{self, map},
    names,
    overlay::{check_identity, is_finished, is_unchanged, overlay, specification_differs},
    query::FieldValidation,
    resources::{Resource, Version},
    screen::screen,
    status::ApiError,
    user::User,
    webhooks::Admission,
};
use crate::{
    apply,
    schema::{self, FieldError},
    store::{CommitError, Expect, Object, ObjectKey, meta_str},
};

/// Names tried for one `generateName`.
const GENERATED_NAME_TRIES: usize = 8;
/// Retries of an internal change that met somebody else's.
const AMEND_TRIES: usize = 16;

/// The resource, version and namespace a request addresses.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target<'a> {
    pub(crate) resource: &'a Resource,
    pub(crate) version: &'a Version,
    pub(crate) namespace: Option<&'a str>,
}

/// Which part of an object a write may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// Everything but what subresources own.
    Main,
    /// `status`.
    Status,
    /// `spec.finalizers` of a namespace.
    Finalize,
    /// Everything but what subresources own, in the name of `scale`.
    Scale,
}

impl Part {
    /// The subresource in `managedFields`.
    pub(crate) fn subresource(self) -> Option<&'static str> {
        match self {
            Self::Main => None,
            Self::Status => Some("status"),
            Self::Finalize => Some("finalize"),
            Self::Scale => Some("scale"),
        }
    }
}

/// Who keeps `managedFields`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tracking {
    /// An ordinary write: changed fields become the manager's.
    Update,
    /// Server-side apply has set them already.
    Applied,
}

/// How a write is to be done.
#[derive(Debug, Clone)]
pub(crate) struct WriteOptions {
    /// The field manager.
    pub(crate) manager: String,
    /// Check everything, store nothing.
    pub(crate) dry_run: bool,
    /// What to do about unknown fields.
    pub(crate) validation: FieldValidation,
    /// Who writes; without one it is the server itself, which asks no webhooks.
    pub(crate) user: Option<User>,
}

/// What a write led to.
#[derive(Debug, Clone)]
pub(crate) struct Written {
    pub(crate) object: Arc<Object>,
    pub(crate) created: bool,
    pub(crate) warnings: Vec<String>,
}

impl<'a> Target<'a> {
    fn key(&self, name: &str) -> ObjectKey {
        ObjectKey::new(self.namespace, name)
    }

    pub(crate) fn not_found(&self, name: &str) -> ApiError {
        ApiError::not_found(&self.resource.group, &self.resource.plural, name)
    }

    fn commit_error(&self, error: CommitError) -> ApiError {
        ApiError::from_commit(error, &self.resource.group, &self.resource.plural)
    }

    fn invalid(&self, name: &str, errors: Vec<FieldError>) -> ApiError {
        ApiError::invalid(&self.resource.group, &self.resource.kind, name, errors)
    }

    fn valid(&self, name: &str, errors: Vec<FieldError>) -> Result<(), ApiError> {
        if errors.is_empty() { Ok(()) } else { Err(self.invalid(name, errors)) }
    }
}

impl ApiServer {
    /// One object, as stored.
    pub(crate) fn fetch(&self, at: &Target<'_>, name: &str) -> Result<Arc<Object>, ApiError> {
        self.store.get(&at.resource.key, &at.key(name)).ok_or_else(|| at.not_found(name))
    }

    /// Creates an object.
    pub(crate) async fn create(
        &self,
        at: &Target<'_>,
        sent: Decoded,
        tracking: Tracking,
        options: &WriteOptions,
    ) -> Result<Written, ApiError> {
        let mut warnings = Vec::new();
        let value = screen(at, sent, options, &mut warnings)?;
        if meta_str(&value, "resourceVersion").is_some_and(|version| version != "0") {
            return Err(ApiError::bad_request("resourceVersion should not be set on objects to be created"));
        }
        let generated = meta_str(&value, "name").is_none();
        let mut tries = if generated { GENERATED_NAME_TRIES } else { 1 };
        loop {
            tries -= 1;
            match self.create_once(at, value.clone(), tracking, options).await {
                Err(error) if error.reason == "AlreadyExists" && tries > 0 => {}
                Ok((object, said)) => {
                    warnings.extend(said);
                    return Ok(Written { object, created: true, warnings });
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn create_once(
        &self,
        at: &Target<'_>,
        mut value: Value,
        tracking: Tracking,
        options: &WriteOptions,
    ) -> Result<(Arc<Object>, Vec<String>), ApiError> {
        let name = settle_name(at, &mut value)?;
        let key = at.key(&name);
        birth(at, &mut value, tracking);
        let mut warnings = Vec::new();
        let admission = Admission::of_write(at, &name, None, None, options);
        if let Some(mutated) = self.mutate(&admission, &value, &mut warnings).await? {
            value = rescreen(at, mutated, options)?;
            set_meta(&mut value, "name", json!(name));
        }
        let mut value = self.completed(at, &name, value, None)?;
        if let Some(namespace) = at.namespace {
            self.check_namespace(at, namespace)?;
        }
        if self.store.get(&at.resource.key, &key).is_some() {
            return Err(ApiError::already_exists(&at.resource.group, &at.resource.plural, &name));
        }
        self.validate_by_webhooks(&admission, Some(&value), &mut warnings).await?;
        // From here on nothing waits: what is taken is stored or given back.
        let taken = self.admit(at, None, &mut value)?;
        let result = self.store_new(at, &key, value, tracking, options);
        if result.is_err() || options.dry_run {
            self.addresses.release(&taken);
        }
        result.map(|object| (object, warnings))
    }

    /// The stored form of a valid object with its defaults; `old` is what it replaces, in the same
    /// version.
    fn completed(&self, at: &Target<'_>, name: &str, value: Value, old: Option<&Value>) -> Result<Value, ApiError> {
        self.check_schema(at, name, &value, old)?;
        let mut value = at.resource.absorb(value);
        if !at.resource.custom {
            defaults::apply(&at.resource.key, &mut value);
        }
        Ok(value)
    }

    fn store_new(
        &self,
        at: &Target<'_>,
        key: &ObjectKey,
        mut value: Value,
        tracking: Tracking,
        options: &WriteOptions,
    ) -> Result<Arc<Object>, ApiError> {
        if tracking == Tracking::Update {
            self.track(at, None, &mut value, Part::Main, options);
        }
        if options.dry_run {
            return Ok(Arc::new(Object::new(value, self.store.revision())));
        }
        let stored = self.store.put(&at.resource.key, key, value, Expect::Absent);
        let object = stored.map_err(|error| at.commit_error(error))?;
        self.committed(at.resource, None, &object);
        Ok(object)
    }

    /// Replaces an object, or a part of it, that was read as `live`.
    pub(crate) async fn update(
        &self,
        at: &Target<'_>,
        live: &Arc<Object>,
        sent: Decoded,
        (part, tracking): (Part, Tracking),
        options: &WriteOptions,
    ) -> Result<Written, ApiError> {
        let mut warnings = Vec::new();
        let proposed = screen(at, sent, options, &mut warnings)?;
        check_identity(at, live, &proposed)?;
        let shown = at.resource.present(live.value(), &at.version.name);
        let mut value = overlay(at, &shown, proposed, part);
        let admission = Admission::of_write(at, live.name(), Some(live.value()), part.subresource(), options);
        if let Some(mutated) = self.mutate(&admission, &value, &mut warnings).await? {
            let proposed = rescreen(at, mutated, options)?;
            check_identity(at, live, &proposed)?;
            value = overlay(at, &shown, proposed, part);
        }
        let mut value = self.completed(at, live.name(), value, Some(&shown))?;
        self.validate_by_webhooks(&admission, Some(&value), &mut warnings).await?;
        // From here on nothing waits: what is taken is stored or given back.
        let taken = if part == Part::Status { Vec::new() } else { self.admit(at, Some(live), &mut value)? };
        let result = self.store_changed(at, live, value, (part, tracking), options);
        if result.is_err() || options.dry_run {
            self.addresses.release(&taken);
        }
        result.map(|object| Written { object, created: false, warnings })
    }

    fn store_changed(
        &self,
        at: &Target<'_>,
        live: &Arc<Object>,
        mut value: Value,
        (part, tracking): (Part, Tracking),
        options: &WriteOptions,
    ) -> Result<Arc<Object>, ApiError> {
        if part != Part::Status {
            let schema = at.version.schema.as_ref();
            let errors = schema.map(|schema| schema.validate_update(live.value(), &value)).unwrap_or_default();
            at.valid(live.name(), errors)?;
        }
        if at.resource.generation && part != Part::Status && specification_differs(live.value(), &value) {
            let generation = meta_number(live.value(), "generation") + 1;
            set_meta(&mut value, "generation", json!(generation));
        }
        if tracking == Tracking::Update {
            self.track(at, Some(live.value()), &mut value, part, options);
        }
        if is_unchanged(live.value(), &value) {
            return Ok(live.clone());
        }
        if options.dry_run {
            return Ok(Arc::new(Object::new(value, live.revision())));
        }
        let key = at.key(live.name());
        if is_finished(at.resource, &value) {
            let removed = self.store.remove(&at.resource.key, &key, Some(value), live.revision());
            let object = removed.map_err(|error| at.commit_error(error))?;
            self.removed(at.resource, &object);
            return Ok(object);
        }
        let stored = self.store.put(&at.resource.key, &key, value, Expect::Revision(live.revision()));
        let object = stored.map_err(|error| at.commit_error(error))?;
        self.committed(at.resource, Some(live), &object);
        Ok(object)
    }

    /// Changes a stored object on the server's own account, past admission. `edit` says whether it
    /// changed anything. An object whose deletion then has nothing to wait for is removed.
    pub(crate) fn amend(
        &self,
        resource: &Resource,
        key: &ObjectKey,
        mut edit: impl FnMut(&mut Value) -> bool,
    ) -> Result<(), CommitError> {
        for _ in 0..AMEND_TRIES {
            let Some(live) = self.store.get(&resource.key, key) else { return Ok(()) };
            let mut value = live.value().clone();
            if !edit(&mut value) {
                return Ok(());
            }
            let result = if is_finished(resource, &value) {
                self.store
                    .remove(&resource.key, key, Some(value), live.revision())
                    .map(|object| self.removed(resource, &object))
            } else {
                let stored = self.store.put(&resource.key, key, value, Expect::Revision(live.revision()));
                stored.map(|object| self.committed(resource, Some(&live), &object))
            };
            match result {
                Err(CommitError::Stale { .. }) => {}
                Err(CommitError::Missing { .. }) | Ok(()) => return Ok(()),
                Err(other) => return Err(other),
            }
        }
        Ok(())
    }

    fn check_schema(&self, at: &Target<'_>, name: &str, value: &Value, old: Option<&Value>) -> Result<(), ApiError> {
        let errors = match &at.version.schema {
            Some(schema) => {
                let mut errors = schema.validate(value);
                if errors.is_empty() {
                    errors = schema.validate_rules(value, old);
                }
                errors
            }
            None => schema::metadata::validate(value),
        };
        at.valid(name, errors)
    }

    /// The error a missing or ending namespace leads to, before anything else is judged. The store
    /// checks again when it commits.
    fn check_namespace(&self, at: &Target<'_>, namespace: &str) -> Result<(), ApiError> {
        let key = ObjectKey::cluster(namespace);
        let error = match self.store.get(&crate::store::ResourceKey::namespaces(), &key) {
            None => CommitError::NoNamespace { namespace: namespace.to_owned() },
            Some(object) if object.is_deleting() => {
                CommitError::NamespaceTerminating { namespace: namespace.to_owned() }
            }
            Some(_) => return Ok(()),
        };
        Err(at.commit_error(error))
    }

    fn track(&self, at: &Target<'_>, old: Option<&Value>, value: &mut Value, part: Part, options: &WriteOptions) {
        let Some(schema) = &at.version.schema else { return };
        let api_version = at.resource.api_version(&at.version.name);
        *value = apply::track_update(apply::UpdateInput {
            schema,
            old,
            new: value,
            manager: &options.manager,
            subresource: part.subresource(),
            api_version: &api_version,
            now: &stamp(),
        });
    }
}

/// Checks once more what a webhook has changed; unknown fields are dropped.
fn rescreen(at: &Target<'_>, value: Value, options: &WriteOptions) -> Result<Value, ApiError> {
    let options = WriteOptions { validation: FieldValidation::Ignore, ..options.clone() };
    screen(at, Decoded { value, duplicates: Vec::new() }, &options, &mut Vec::new())
}

fn settle_name(at: &Target<'_>, value: &mut Value) -> Result<String, ApiError> {
    if let Some(name) = meta_str(value, "name") {
        return Ok(name.to_owned());
    }
    let Some(base) = meta_str(value, "generateName") else {
        let reason = "Required value: name or generateName is required".to_owned();
        return Err(at.invalid("", vec![FieldError { path: "metadata.name".to_owned(), reason }]));
    };
    let name = names::generate(base);
    set_meta(value, "name", json!(name));
    Ok(name)
}

/// Gives a new object what only the server may give.
fn birth(at: &Target<'_>, value: &mut Value, tracking: Tracking) {
    let Some(fields) = value.as_object_mut() else { return };
    if at.version.status && at.resource.plural != "nodes" {
        fields.remove("status");
    }
    let metadata = map(fields, "metadata");
    for field in ["resourceVersion", "deletionTimestamp", "deletionGracePeriodSeconds", "generation", "selfLink"] {
        metadata.remove(field);
    }
    if tracking == Tracking::Update {
        metadata.remove("managedFields");
    }
    metadata.insert("uid".to_owned(), json!(names::uid()));
    metadata.insert("creationTimestamp".to_owned(), json!(stamp()));
    if at.resource.generation {
        metadata.insert("generation".to_owned(), json!(1));
    }
}

/// A whole number in `metadata`; 0 when absent.
pub(crate) fn meta_number(value: &Value, field: &str) -> i64 {
    crate::store::meta(value, field).and_then(Value::as_i64).unwrap_or_default()
}

/// Sets a field of `metadata`.
pub(crate) fn set_meta(value: &mut Value, field: &str, new: Value) {
    if let Some(fields) = value.as_object_mut() {
        map(fields, "metadata").insert(field.to_owned(), new);
    }
}
