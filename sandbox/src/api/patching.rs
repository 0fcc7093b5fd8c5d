//! Patches and server-side apply.

use serde_json::Value;

use super::{
    ApiServer,
    body::{self, Decoded},
    clock::stamp,
    screen::report,
    status::{ApiError, Cause},
    write::{Part, Target, Tracking, WriteOptions, Written},
};
use crate::{
    apply::{self, ApplyError},
    patch::{self, PatchError},
    store::{ObjectKey, meta_list, meta_str},
};

/// Retries of a patch that met somebody else's write.
const PATCH_TRIES: usize = 8;

/// The kinds of patches, by media type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PatchKind {
    /// RFC 6902.
    Json,
    /// RFC 7396.
    Merge,
    /// Kubernetes' merge with list keys; built-in kinds only.
    Strategic,
    /// Server-side apply.
    Apply {
        /// Take fields over from other managers.
        force: bool,
    },
}

impl PatchKind {
    /// The kind that a media type names.
    pub(crate) fn of(media_type: &str, force: bool) -> Result<Self, ApiError> {
        match media_type {
            "application/json-patch+json" => Ok(Self::Json),
            "application/merge-patch+json" => Ok(Self::Merge),
            "application/strategic-merge-patch+json" => Ok(Self::Strategic),
            "application/apply-patch+yaml" => Ok(Self::Apply { force }),
            other => Err(ApiError::unsupported_media_type(
                other,
                "application/json-patch+json, application/merge-patch+json, \
                 application/strategic-merge-patch+json, application/apply-patch+yaml",
            )),
        }
    }
}

impl ApiServer {
    /// Patches or applies.
    pub(crate) async fn patch(
        &self,
        at: &Target<'_>,
        name: &str,
        (kind, bytes): (PatchKind, &[u8]),
        part: Part,
        options: &WriteOptions,
    ) -> Result<Written, ApiError> {
        if kind == PatchKind::Strategic && at.resource.custom {
            return Err(ApiError::unsupported_media_type(
                "application/strategic-merge-patch+json",
                "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml",
            ));
        }
        let sent = match kind {
            // Most clients send JSON, which YAML includes; its own parser is faster and finds duplicates.
            PatchKind::Apply { .. } => body::json(bytes).or_else(|_| body::yaml(bytes))?,
            _ => body::json(bytes)?,
        };
        let mut tries = PATCH_TRIES;
        loop {
            tries -= 1;
            let result = match kind {
                PatchKind::Apply { force } => self.apply_once(at, name, &sent, (part, force), options).await,
                _ => self.patch_once(at, name, (kind, &sent), part, options).await,
            };
            match result {
                Err(error) if tries > 0 && is_race(&error, &sent.value) => {}
                result => return result,
            }
        }
    }

    async fn patch_once(
        &self,
        at: &Target<'_>,
        name: &str,
        (kind, sent): (PatchKind, &Decoded),
        part: Part,
        options: &WriteOptions,
    ) -> Result<Written, ApiError> {
        let live = self.fetch(at, name)?;
        let document = at.resource.present(live.value(), &at.version.name);
        let value = self.patched(at, &document, kind, &sent.value)?;
        let decoded = Decoded { value, duplicates: sent.duplicates.clone() };
        self.update(at, &live, decoded, (part, Tracking::Update), options).await
    }

    /// The document after the patch.
    pub(crate) fn patched(
        &self,
        at: &Target<'_>,
        document: &Value,
        kind: PatchKind,
        sent: &Value,
    ) -> Result<Value, ApiError> {
        let result = match (kind, &at.version.schema) {
            (PatchKind::Json, _) => patch::json(document, sent),
            (PatchKind::Strategic, Some(schema)) => patch::strategic(schema, document, sent),
            _ => patch::merge(document, sent),
        };
        result.map_err(|error| {
            let (group, kind) = (&at.resource.group, &at.resource.kind);
            patch_error(&error).about(group, kind, meta_str(document, "name").unwrap_or_default())
        })
    }

    async fn apply_once(
        &self,
        at: &Target<'_>,
        name: &str,
        sent: &Decoded,
        (part, force): (Part, bool),
        options: &WriteOptions,
    ) -> Result<Written, ApiError> {
        check_applied(at, name, &sent.value)?;
        let live = self.store.get(&at.resource.key, &ObjectKey::new(at.namespace, name));
        if live.is_none() && part != Part::Main {
            return Err(at.not_found(name));
        }
        let Some(schema) = &at.version.schema else {
            return Err(ApiError::not_implemented(&format!("server-side apply for {}", at.resource.qualified())));
        };
        let mut applied = sent.value.clone();
        set_name(&mut applied, name);
        let unknown = schema.prune(&mut applied);
        let problems = (sent.duplicates.iter().map(|path| format!("duplicate field \"{path}\"")))
            .chain(unknown.iter().map(|path| format!("unknown field \"{path}\"")))
            .collect();
        let mut warnings = Vec::new();
        report(at, name, problems, options, &mut warnings)?;
        let shown = live.as_ref().map(|live| at.resource.present(live.value(), &at.version.name));
        let api_version = at.resource.api_version(&at.version.name);
        let merged = apply::server_side(apply::ApplyInput {
            schema,
            live: shown.as_ref(),
            applied: &applied,
            manager: &options.manager,
            force,
            subresource: part.subresource(),
            has_status: at.version.status,
            api_version: &api_version,
            now: &stamp(),
        })
        .map_err(|error| apply_error(at, name, error))?;
        let decoded = Decoded { value: merged, duplicates: Vec::new() };
        let mut written = match &live {
            Some(live) => self.update(at, live, decoded, (part, Tracking::Applied), options).await?,
            None => self.create(at, decoded, Tracking::Applied, options).await?,
        };
        written.warnings.extend(warnings);
        Ok(written)
    }
}

/// A patch that is none is the request's fault, one that does not fit is the object's.
pub(crate) fn patch_error(error: &PatchError) -> ApiError {
    match error {
        PatchError::Malformed { .. } => ApiError::bad_request(error.to_string()),
        _ => {
            // kubectl prints the causes of an invalid object, not its message.
            let message = error.to_string();
            let cause = Cause {
                reason: "UnexpectedServerResponse".to_owned(),
                message: message.clone(),
                field: "patch".to_owned(),
            };
            ApiError { causes: vec![cause], ..ApiError::unprocessable(message) }
        }
    }
}

fn check_applied(at: &Target<'_>, name: &str, sent: &Value) -> Result<(), ApiError> {
    if !sent.is_object() {
        return Err(ApiError::bad_request("an applied configuration must be an object"));
    }
    if !meta_list(sent, "managedFields").is_empty() {
        return Err(ApiError::bad_request("metadata.managedFields must be nil"));
    }
    for field in ["apiVersion", "kind"] {
        if sent.get(field).and_then(Value::as_str).is_none_or(str::is_empty) {
            return Err(ApiError::bad_request(format!("an applied configuration must name its {field}")));
        }
    }
    match meta_str(sent, "name") {
        Some(found) if found != name => Err(ApiError::bad_request(format!(
            "the name of the object ({found}) does not match the name on the URL ({name})"
        ))
        .about(&at.resource.group, &at.resource.kind, name)),
        _ => Ok(()),
    }
}

fn set_name(applied: &mut Value, name: &str) {
    super::write::set_meta(applied, "name", Value::String(name.to_owned()));
}

fn apply_error(at: &Target<'_>, name: &str, error: ApplyError) -> ApiError {
    let message = error.to_string();
    match error {
        ApplyError::Conflict { conflicts } => {
            let causes = conflicts.iter().map(|conflict| Cause {
                reason: "FieldManagerConflict".to_owned(),
                message: conflict.message(),
                field: conflict.field.clone(),
            });
            ApiError::apply_conflict(message, causes.collect())
        }
        ApplyError::Ambiguous { .. } => {
            ApiError::unprocessable(message).about(&at.resource.group, &at.resource.kind, name)
        }
        _ => ApiError::bad_request(message).about(&at.resource.group, &at.resource.kind, name),
    }
}

/// Whether a failed write met another one and may be tried again: the patch named no revision.
fn is_race(error: &ApiError, sent: &Value) -> bool {
    let names_revision = meta_str(sent, "resourceVersion").is_some() || sent.is_array();
    (error.reason == "Conflict"
        && error.causes.is_empty()
        && error.message.contains("has been modified")
        && !names_revision)
        || error.reason == "AlreadyExists"
}
