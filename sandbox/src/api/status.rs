//! `metav1.Status`: how every failure, and every finished deletion, is answered.

use axum::{body::Body, response::Response};
use http::{HeaderValue, StatusCode, header};
use serde_json::{Map, Value, json};

use crate::{
    backend::BackendError,
    schema::{FieldError, aggregate},
    store::{CommitError, Expired},
};

/// A refusal, as the client will see it.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// The HTTP status code.
    pub code: StatusCode,
    /// The machine-readable reason of the API conventions, such as `NotFound`.
    pub reason: &'static str,
    /// The sentence shown to people.
    pub message: String,
    /// `details.group`, `details.kind` and `details.name` of the object concerned.
    pub subject: Option<Box<Subject>>,
    /// Single fields that are wrong, or managers that conflict.
    pub causes: Vec<Cause>,
    /// Seconds after which a retry makes sense.
    pub retry_after_seconds: Option<u32>,
}

/// The object an error is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// API group, empty for core.
    pub group: String,
    /// The kind, or as Kubernetes does for "not found" the resource.
    pub kind: String,
    /// Its name, empty when it has none yet.
    pub name: String,
}

/// One entry of `details.causes`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// Such as `FieldValueInvalid`.
    pub reason: String,
    /// What is wrong.
    pub message: String,
    /// Path of the field.
    pub field: String,
}

impl ApiError {
    fn new(code: StatusCode, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), subject: None, causes: Vec::new(), retry_after_seconds: None }
    }

    /// 400: the request cannot be understood.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequest", message)
    }

    /// 401: who is calling is not known.
    pub fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized")
    }

    /// 403: understood, and refused.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "Forbidden", message)
    }

    /// 404 for a path that means nothing here.
    pub fn no_such_path() -> Self {
        Self::new(StatusCode::NOT_FOUND, "NotFound", "the server could not find the requested resource")
    }

    /// 404 for an object.
    pub fn not_found(group: &str, resource: &str, name: &str) -> Self {
        let qualified = qualified(group, resource);
        Self::new(StatusCode::NOT_FOUND, "NotFound", format!("{qualified} \"{name}\" not found"))
            .about(group, resource, name)
    }

    /// 405: the resource exists, the verb does not.
    pub fn method_not_allowed(message: impl Into<String>) -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message)
    }

    /// 406: none of the accepted media types can be produced.
    pub fn not_acceptable(accept: &str) -> Self {
        let message =
            format!("only application/json and its Table and PartialObjectMetadata forms are served, not {accept}");
        Self::new(StatusCode::NOT_ACCEPTABLE, "NotAcceptable", message)
    }

    /// 409: an object of that name exists.
    pub fn already_exists(group: &str, resource: &str, name: &str) -> Self {
        let qualified = qualified(group, resource);
        Self::new(StatusCode::CONFLICT, "AlreadyExists", format!("{qualified} \"{name}\" already exists"))
            .about(group, resource, name)
    }

    /// 409: written by somebody else in the meantime, or a precondition does not hold.
    pub fn conflict(group: &str, resource: &str, name: &str, why: &str) -> Self {
        let qualified = qualified(group, resource);
        let message = format!("Operation cannot be fulfilled on {qualified} \"{name}\": {why}");
        Self::new(StatusCode::CONFLICT, "Conflict", message).about(group, resource, name)
    }

    /// 409: server-side apply met fields owned by others.
    pub fn apply_conflict(message: String, causes: Vec<Cause>) -> Self {
        Self { causes, ..Self::new(StatusCode::CONFLICT, "Conflict", message) }
    }

    /// 410: the revision is no longer (or not yet) known.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(StatusCode::GONE, "Expired", message)
    }

    /// 413: the body is larger than allowed.
    pub fn too_large(limit_bytes: usize) -> Self {
        let message = format!("the request body is larger than {limit_bytes} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", message)
    }

    /// 415: the body's media type is not understood.
    pub fn unsupported_media_type(found: &str, wanted: &str) -> Self {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {wanted}; got {found}"
        );
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType", message)
    }

    /// 422: the object breaks its schema or a rule.
    pub fn invalid(group: &str, kind: &str, name: &str, errors: Vec<FieldError>) -> Self {
        let qualified = if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") };
        let list = aggregate(&errors);
        let message = format!("{qualified} \"{name}\" is invalid: {list}");
        let causes = errors.into_iter().map(Cause::from).collect();
        let error = Self::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message).about(group, kind, name);
        Self { causes, ..error }
    }

    /// 422 with one sentence, for a patch that does not fit its object.
    pub fn unprocessable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message)
    }

    /// 429: come back later.
    pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: u32) -> Self {
        let error = Self::new(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", message);
        Self { retry_after_seconds: Some(retry_after_seconds), ..error }
    }

    /// 500: our fault.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", message)
    }

    /// 501: a part of Kubernetes that is not served here; the message says which.
    pub fn not_implemented(what: &str) -> Self {
        let message = format!("the sandbox does not serve {what}");
        Self::new(StatusCode::NOT_IMPLEMENTED, "NotImplemented", message)
    }

    /// 504: the requested revision does not exist yet.
    pub fn future_revision(requested: u64, current: u64) -> Self {
        let message = format!("Too large resource version: {requested}, current: {current}");
        let cause = Cause {
            reason: "ResourceVersionTooLarge".to_owned(),
            message: "Too large resource version".to_owned(),
            field: String::new(),
        };
        let error = Self::new(StatusCode::GATEWAY_TIMEOUT, "Timeout", message);
        Self { causes: vec![cause], retry_after_seconds: Some(1), ..error }
    }

    /// Names the object concerned.
    pub fn about(self, group: &str, kind: &str, name: &str) -> Self {
        let subject = Subject { group: group.to_owned(), kind: kind.to_owned(), name: name.to_owned() };
        Self { subject: Some(Box::new(subject)), ..self }
    }

    /// Explains a failed commit. `group` and `resource` name the resource written to.
    pub fn from_commit(error: CommitError, group: &str, resource: &str) -> Self {
        match error {
            CommitError::Exists { key, .. } => Self::already_exists(group, resource, key.name()),
            CommitError::Missing { key, .. } => Self::not_found(group, resource, key.name()),
            CommitError::Stale { key, .. } => Self::stale(group, resource, key.name()),
            error @ CommitError::Disk { .. } => Self::internal(format!("Internal error occurred: {error}")),
            CommitError::NoNamespace { namespace } => Self::not_found("", "namespaces", &namespace),
            CommitError::NamespaceTerminating { namespace } => {
                let qualified = qualified(group, resource);
                let message = format!(
                    "{qualified} is forbidden: unable to create new content in namespace {namespace} because it is being terminated"
                );
                let cause = Cause {
                    reason: "NamespaceTerminating".to_owned(),
                    message: format!("namespace {namespace} is being terminated"),
                    field: "metadata.namespace".to_owned(),
                };
                Self { causes: vec![cause], ..Self::forbidden(message).about(group, resource, "") }
            }
        }
    }

    /// 409 for an object that was changed since the caller read it.
    pub fn stale(group: &str, resource: &str, name: &str) -> Self {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(group, resource, name, why)
    }

    /// The Status object.
    pub fn to_value(&self) -> Value {
        let mut details = Map::new();
        if let Some(subject) = &self.subject {
            for (field, text) in [("group", &subject.group), ("kind", &subject.kind), ("name", &subject.name)] {
                if !text.is_empty() {
                    details.insert(field.to_owned(), json!(text));
                }
            }
        }
        if !self.causes.is_empty() {
            details.insert("causes".to_owned(), self.causes.iter().map(Cause::to_value).collect());
        }
        if let Some(seconds) = self.retry_after_seconds {
            details.insert("retryAfterSeconds".to_owned(), json!(seconds));
        }
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "code": self.code.as_u16(),
        });
        if !details.is_empty()
            && let Some(fields) = status.as_object_mut()
        {
            fields.insert("details".to_owned(), Value::Object(details));
        }
        status
    }

    /// The HTTP response.
    pub fn into_response(self) -> Response {
        let mut response = json_response(self.code, &self.to_value());
        if let Some(seconds) = self.retry_after_seconds {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl Cause {
    fn to_value(&self) -> Value {
        json!({"reason": self.reason, "message": self.message, "field": self.field})
    }
}

impl From<FieldError> for Cause {
    fn from(error: FieldError) -> Self {
        Self { reason: error.cause().to_owned(), message: error.reason, field: error.path }
    }
}

impl From<Expired> for ApiError {
    fn from(error: Expired) -> Self {
        Self::expired(error.to_string())
    }
}

impl From<BackendError> for ApiError {
    fn from(error: BackendError) -> Self {
        match error {
            BackendError::NotFound { .. } => Self::new(StatusCode::NOT_FOUND, "NotFound", error.to_string()),
            BackendError::Failed { .. } => Self::internal(error.to_string()),
        }
    }
}

/// The Status that answers a finished deletion.
pub(crate) fn deleted(group: &str, resource: &str, name: &str, uid: &str) -> Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
        "details": {"name": name, "group": group, "kind": resource, "uid": uid},
    })
}

/// A JSON response.
pub(crate) fn json_response(code: StatusCode, value: &Value) -> Response {
    bytes_response(code, "application/json", serde_json::to_vec(value).unwrap_or_default())
}

/// A response with a body that is ready.
pub(crate) fn bytes_response(code: StatusCode, content_type: &'static str, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

fn qualified(group: &str, resource: &str) -> String {
    if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") }
}
