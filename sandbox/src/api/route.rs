//! From a request to its answer.

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{HeaderName, HeaderValue, Method, Request, StatusCode, header, request::Parts};
use serde_json::{Value, json};

use super::{
    ApiServer, KUBERNETES_MINOR,
    attributes::Attributes,
    body::{self, Decoded},
    builtin::REVIEWS,
    deletion::{DeleteOptions, Deleted},
    discovery,
    faults::{Ending, FAULTS_PATH, Hold},
    negotiate::{self, DiscoveryForm, Form},
    openapi_routes,
    patching::PatchKind,
    path::{self, ResourcePath},
    pods,
    query::Params,
    read::object_response,
    resources::{Resource, Version},
    status::{self, ApiError, bytes_response, json_response},
    tokens,
    user::{self, User},
    webhooks::Admission,
    write::{Part, Target, Tracking, WriteOptions, Written},
};
use crate::store::ObjectKey;

/// Retries of a replacement without a revision that met somebody else's write.
const REPLACE_TRIES: usize = 8;
/// Longest name of a field manager.
const MANAGER_CHARS_MAX: usize = 128;

/// Answers any request.
pub(crate) async fn answer(server: Arc<ApiServer>, request: Request<Body>) -> Response {
    let (method, uri) = (request.method().clone(), request.uri().path().to_owned());
    let response = dispatch(&server, request).await.unwrap_or_else(ApiError::into_response);
    tracing::debug!(%method, path = %uri, status = response.status().as_u16(), "api request");
    response
}

async fn dispatch(server: &Arc<ApiServer>, request: Request<Body>) -> Result<Response, ApiError> {
    let (mut parts, body) = request.into_parts();
    if let Some(response) = open_path(parts.uri.path()) {
        return Ok(response);
    }
    let user = user::authenticate(server, &parts)?.ok_or_else(ApiError::unauthorized)?;
    if parts.uri.path().starts_with(FAULTS_PATH) {
        return server.answer_faults(&user, &parts, body).await;
    }
    let target = path::parse(parts.uri.path());
    let params = Params::from_uri(&parts.uri)?;
    let request = Attributes::of(&parts.method, parts.uri.path(), target.as_ref(), &params);
    let inside = user::is_inside(&parts);
    server.authorize(&user, &request)?;
    let cut = if inside { None } else { server.faults.disturb(&user, &request).await? };
    let asked = Asked { user, inside, request, cut };
    let resources = server.catalog.current();
    match target {
        None => other_path(server, &parts),
        Some(path::Target::CoreVersions | path::Target::Groups) => {
            let core = parts.uri.path().trim_end_matches('/') == "/api";
            let form = negotiate::discovery_form(&parts.headers)?;
            let document = match form {
                DiscoveryForm::Aggregated(version) => discovery::aggregated(&resources, core, version),
                DiscoveryForm::Plain if core => discovery::core_versions(),
                DiscoveryForm::Plain => discovery::groups(&resources),
            };
            let text = serde_json::to_vec(&document).unwrap_or_default();
            Ok(bytes_response(StatusCode::OK, discovery::content_type(form), text))
        }
        Some(path::Target::Group(group)) => found(discovery::group(&resources, &group)),
        Some(path::Target::Version { group, version }) => found(discovery::version(&resources, &group, &version)),
        Some(path::Target::Resource(path)) => match resources.find(&path.group, &path.resource) {
            Some(resource) => {
                let version = resource.version(&path.version).ok_or_else(ApiError::no_such_path)?;
                let call = Call { server, resource, version, path: &path, params: &params, asked: &asked };
                call.run(&mut parts, body).await
            }
            None => review(server, &path, &asked.user, &parts, body).await,
        },
    }
}

/// Paths that need no credentials.
fn open_path(path: &str) -> Option<Response> {
    match path.trim_end_matches('/') {
        "/healthz" | "/livez" | "/readyz" => Some("ok".into_response()),
        path if path.starts_with("/healthz/") || path.starts_with("/livez/") || path.starts_with("/readyz/") => {
            Some("ok".into_response())
        }
        "/version" => Some(json_response(StatusCode::OK, &version())),
        _ => None,
    }
}

fn version() -> Value {
    let package = env!("CARGO_PKG_VERSION");
    json!({
        "major": "1", "minor": KUBERNETES_MINOR.to_string(),
        "gitVersion": format!("v1.{KUBERNETES_MINOR}.0+meltemi-sandbox.{package}"),
        "gitCommit": "", "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "none", "compiler": "rustc",
        "platform": format!("linux/{}", if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }),
    })
}

fn other_path(server: &ApiServer, parts: &Parts) -> Result<Response, ApiError> {
    match parts.uri.path().trim_end_matches('/') {
        "" => {
            let paths = ["/api", "/apis", "/healthz", "/livez", "/readyz", "/openapi/v3", "/version"];
            Ok(json_response(StatusCode::OK, &json!({"paths": paths})))
        }
        "/openid/v1/jwks" => Ok(json_response(StatusCode::OK, &server.signer.key_set())),
        "/.well-known/openid-configuration" => Ok(json_response(StatusCode::OK, &tokens::openid_configuration())),
        "/openapi/v2" => Ok(openapi_routes::answer_old()),
        path if path.starts_with("/openapi/v3") => openapi_routes::answer(server, path),
        _ => Err(ApiError::no_such_path()),
    }
}

fn found(document: Option<Value>) -> Result<Response, ApiError> {
    document.map(|document| json_response(StatusCode::OK, &document)).ok_or_else(ApiError::no_such_path)
}

async fn review(
    server: &ApiServer,
    path: &ResourcePath,
    user: &User,
    parts: &Parts,
    body: Body,
) -> Result<Response, ApiError> {
    let review = REVIEWS.iter().find(|review| {
        (review.group, review.plural) == (path.group.as_str(), path.resource.as_str()) && path.version == "v1"
    });
    let review = review.ok_or_else(ApiError::no_such_path)?;
    if parts.method != Method::POST || path.name.is_some() {
        return Err(ApiError::method_not_allowed(format!("{} can only be created", review.plural)));
    }
    let sent = body::decode(&parts.headers, &body::read(body).await?)?;
    let answer = server.review(review.kind, user, path.namespace.as_deref(), sent.value)?;
    Ok(json_response(StatusCode::CREATED, &answer))
}

/// Who wants what.
struct Asked {
    user: User,
    /// Whether a part of the sandbox itself is asking.
    inside: bool,
    request: Attributes,
    /// When a fault ends the watch that is asked for.
    cut: Option<(Duration, Ending)>,
}

impl Asked {
    /// The place of a new watch among those that faults can end.
    fn hold(&self, server: &ApiServer) -> Hold {
        if self.inside { Hold::default() } else { server.faults.watch(&self.user, &self.request, self.cut) }
    }
}

/// A request to a resource.
struct Call<'a> {
    server: &'a Arc<ApiServer>,
    resource: &'a Arc<Resource>,
    version: &'a Version,
    path: &'a ResourcePath,
    params: &'a Params,
    asked: &'a Asked,
}

impl<'a> Call<'a> {
    async fn run(&self, parts: &mut Parts, body: Body) -> Result<Response, ApiError> {
        let namespace = self.path.namespace.as_deref();
        if namespace.is_some() && !self.resource.namespaced {
            return Err(ApiError::no_such_path());
        }
        let Some(name) = self.path.name.as_deref() else { return self.collection(parts, body).await };
        if namespace.is_none() && self.resource.namespaced {
            return Err(ApiError::no_such_path());
        }
        match self.path.subresource.as_deref() {
            None => self.object(name, parts, body).await,
            Some(subresource) => self.subresource(name, subresource, parts, body).await,
        }
    }

    fn at(&self) -> Target<'a> {
        Target { resource: self.resource, version: self.version, namespace: self.path.namespace.as_deref() }
    }

    async fn collection(&self, parts: &Parts, body: Body) -> Result<Response, ApiError> {
        let at = self.at();
        let form = negotiate::object_form(&parts.headers)?;
        match parts.method {
            Method::GET if self.params.flag("watch") || self.path.watch => {
                self.server.watch(&at, self.resource, self.params, form, self.asked.hold(self.server))
            }
            Method::GET => self.server.list(&at, self.params, form),
            Method::POST if self.resource.namespaced && at.namespace.is_none() => {
                Err(ApiError::method_not_allowed(format!("{} are created in a namespace", self.resource.qualified())))
            }
            Method::POST => {
                let options = self.write_options(parts)?;
                let sent = body::decode(&parts.headers, &body::read(body).await?)?;
                let written = self.server.create(&at, sent, Tracking::Update, &options).await?;
                Ok(self.written(&written, form))
            }
            Method::DELETE => {
                let options = self.delete_options(parts, body).await?;
                self.delete_collection(&options).await
            }
            _ => Err(self.wrong_method(parts)),
        }
    }

    async fn delete_collection(&self, options: &DeleteOptions) -> Result<Response, ApiError> {
        let at = self.at();
        let selector = super::read::selector(&at, self.params)?;
        let listing = self.server.store.list(&self.resource.key, at.namespace);
        let mut items = Vec::new();
        for object in listing.items.iter().filter(|object| selector.matches(object.value())) {
            let key = ObjectKey::new(object.namespace(), object.name());
            let (_, result) = self.remove(&key, options).await;
            match result {
                Ok(Deleted::Gone(object) | Deleted::Pending(object)) => {
                    items.push(self.resource.present(object.value(), &self.version.name));
                }
                Err(error) if error.code == StatusCode::NOT_FOUND => {}
                Err(error) => return Err(error),
            }
        }
        Ok(json_response(
            StatusCode::OK,
            &json!({
                "kind": self.resource.list_kind, "apiVersion": self.resource.api_version(&self.version.name),
                "metadata": {"resourceVersion": self.server.store.revision().to_string()}, "items": items,
            }),
        ))
    }

    async fn object(&self, name: &str, parts: &Parts, body: Body) -> Result<Response, ApiError> {
        let at = self.at();
        let form = negotiate::object_form(&parts.headers)?;
        match parts.method {
            Method::GET if self.path.watch || self.params.flag("watch") => Err(ApiError::not_implemented(
                "watches of one object by its path; watch the collection with fieldSelector=metadata.name=NAME",
            )),
            Method::GET => self.server.get(&at, name, self.params, form),
            Method::PUT => self.replace(name, Part::Main, parts, body).await,
            Method::PATCH => self.patch(name, Part::Main, parts, body).await,
            Method::DELETE => {
                let options = self.delete_options(parts, body).await?;
                self.delete(name, &options, form).await
            }
            _ => Err(self.wrong_method(parts)),
        }
    }

    /// Asks the webhooks about a deletion and begins it; with their warnings.
    async fn remove(&self, key: &ObjectKey, options: &DeleteOptions) -> (Vec<String>, Result<Deleted, ApiError>) {
        let mut warnings = Vec::new();
        if let Some(live) = self.server.store.get(&self.resource.key, key) {
            let at = Target { namespace: key.namespace(), ..self.at() };
            let admission = Admission {
                at: &at,
                operation: "DELETE",
                subresource: None,
                name: key.name(),
                old: Some(live.value()),
                user: Some(&self.asked.user),
                dry_run: options.dry_run,
            };
            if let Err(error) = self.server.validate_by_webhooks(&admission, None, &mut warnings).await {
                return (warnings, Err(error));
            }
        }
        (warnings, self.server.delete(self.resource, key, options))
    }

    async fn delete(&self, name: &str, options: &DeleteOptions, form: Form) -> Result<Response, ApiError> {
        let at = self.at();
        let key = ObjectKey::new(at.namespace, name);
        let (warnings, result) = self.remove(&key, options).await;
        let mut response = match result? {
            Deleted::Pending(object) => object_response(&at, &object, self.params, form, StatusCode::OK),
            // As in Kubernetes, a pod that is gone is shown once more.
            Deleted::Gone(object) if self.resource.key.as_str() == "pods" => {
                object_response(&at, &object, self.params, form, StatusCode::OK)
            }
            Deleted::Gone(object) => {
                let status = status::deleted(&self.resource.group, &self.resource.plural, name, object.uid());
                json_response(StatusCode::OK, &status)
            }
        };
        warn(&mut response, &warnings);
        Ok(response)
    }

    async fn subresource(&self, name: &str, sub: &str, parts: &mut Parts, body: Body) -> Result<Response, ApiError> {
        let at = self.at();
        let form = negotiate::object_form(&parts.headers).unwrap_or(Form::Plain);
        match (self.resource.key.as_str(), sub, parts.method.clone()) {
            (_, "status", method) if self.version.status => match method {
                Method::GET => self.server.get(&at, name, self.params, form),
                Method::PUT => self.replace(name, Part::Status, parts, body).await,
                Method::PATCH => self.patch(name, Part::Status, parts, body).await,
                _ => Err(self.wrong_method(parts)),
            },
            (_, "scale", _) if self.version.scale.is_some() => self.scale(name, parts, body).await,
            ("namespaces", "finalize", Method::PUT) => self.replace(name, Part::Finalize, parts, body).await,
            ("pods", "log", Method::GET) => self.server.logs(&at, name, self.params).await,
            ("pods", "exec", _) => self.server.exec(&at, name, self.params, parts).await,
            ("pods", "portforward", _) => self.server.port_forward(&at, name, self.params, parts).await,
            ("pods", "binding", Method::POST) => self.bind(name, parts, body).await,
            ("pods", "eviction", Method::POST) => self.evict(name, parts, body).await,
            ("serviceaccounts", "token", Method::POST) => {
                let sent = body::decode(&parts.headers, &body::read(body).await?)?;
                let answer = self.server.request_token(at.namespace.unwrap_or_default(), name, sent.value)?;
                Ok(json_response(StatusCode::CREATED, &answer))
            }
            ("pods", sub @ ("attach" | "ephemeralcontainers" | "resize"), _) => {
                Err(ApiError::not_implemented(&format!("pods/{sub}")))
            }
            ("pods" | "services" | "nodes", sub, _) if sub.starts_with("proxy") => {
                Err(ApiError::not_implemented(&format!("{}/proxy", self.resource.plural)))
            }
            _ if self.resource.subresources.iter().any(|known| known.name == sub) => Err(self.wrong_method(parts)),
            _ => Err(ApiError::no_such_path()),
        }
    }

    async fn replace(&self, name: &str, part: Part, parts: &Parts, body: Body) -> Result<Response, ApiError> {
        let at = self.at();
        let options = self.write_options(parts)?;
        let sent = body::decode(&parts.headers, &body::read(body).await?)?;
        let form = negotiate::object_form(&parts.headers)?;
        // A replacement that names no revision replaces whatever is there.
        let unconditional =
            sent.value.pointer("/metadata/resourceVersion").and_then(Value::as_str).is_none_or(str::is_empty);
        if unconditional && self.resource.custom {
            let reason = "Invalid value: 0x0: must be specified for an update".to_owned();
            let error = crate::schema::FieldError { path: "metadata.resourceVersion".to_owned(), reason };
            return Err(ApiError::invalid(&self.resource.group, &self.resource.kind, name, vec![error]));
        }
        let mut tries = REPLACE_TRIES;
        loop {
            tries -= 1;
            let live = self.server.fetch(&at, name)?;
            match self.server.update(&at, &live, sent.clone(), (part, Tracking::Update), &options).await {
                Err(error)
                    if tries > 0
                        && unconditional
                        && error.reason == "Conflict"
                        && self.moved(name, live.revision()) => {}
                result => return result.map(|written| self.written(&written, form)),
            }
        }
    }

    /// Whether somebody else wrote since `revision`.
    fn moved(&self, name: &str, revision: u64) -> bool {
        self.server.fetch(&self.at(), name).is_ok_and(|object| object.revision() != revision)
    }

    async fn patch(&self, name: &str, part: Part, parts: &Parts, body: Body) -> Result<Response, ApiError> {
        let at = self.at();
        let kind = PatchKind::of(body::media_type(&parts.headers), self.params.flag("force"))?;
        if matches!(kind, PatchKind::Apply { .. }) && self.params.text("fieldManager").is_none() {
            return Err(ApiError::unprocessable(
                "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch",
            ));
        }
        if self.params.flag("force") && !matches!(kind, PatchKind::Apply { .. }) {
            return Err(ApiError::unprocessable(
                "PatchOptions.meta.k8s.io \"\" is invalid: force: Forbidden: may not be specified for non-apply patch",
            ));
        }
        let options = self.write_options(parts)?;
        let bytes = body::read(body).await?;
        let written = self.server.patch(&at, name, (kind, &bytes), part, &options).await?;
        Ok(self.written(&written, negotiate::object_form(&parts.headers)?))
    }

    async fn scale(&self, name: &str, parts: &Parts, body: Body) -> Result<Response, ApiError> {
        let at = self.at();
        match parts.method {
            Method::GET => self.server.scale(&at, name),
            Method::PUT => {
                let options = self.write_options(parts)?;
                let sent = body::decode(&parts.headers, &body::read(body).await?)?;
                self.server.rescale(&at, name, &sent.value, &options).await
            }
            Method::PATCH => {
                let kind = PatchKind::of(body::media_type(&parts.headers), false)?;
                let options = self.write_options(parts)?;
                let sent = body::json(&body::read(body).await?)?;
                self.server.patch_scale(&at, name, (kind, &sent.value), &options).await
            }
            _ => Err(self.wrong_method(parts)),
        }
    }

    async fn bind(&self, name: &str, parts: &Parts, body: Body) -> Result<Response, ApiError> {
        let at = self.at();
        let options = self.write_options(parts)?;
        let sent = body::decode(&parts.headers, &body::read(body).await?)?;
        let pod = self.server.fetch(&at, name)?;
        let mut bound = pod.value().clone();
        pods::bind(&mut bound, &sent.value)?;
        if !options.dry_run {
            let expect = crate::store::Expect::Revision(pod.revision());
            let key = ObjectKey::new(at.namespace, name);
            let stored = self.server.store.put(&self.resource.key, &key, bound, expect);
            stored.map_err(|error| ApiError::from_commit(error, "", "pods/binding"))?;
        }
        let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
        Ok(json_response(StatusCode::CREATED, &status))
    }

    async fn evict(&self, name: &str, parts: &Parts, body: Body) -> Result<Response, ApiError> {
        let at = self.at();
        let sent = body::decode(&parts.headers, &body::read(body).await?)?;
        let pod = self.server.fetch(&at, name)?;
        self.server.check_disruption(&pod)?;
        let options = sent.value.get("deleteOptions").cloned().unwrap_or_default();
        let options = DeleteOptions::read(self.params, &options)?;
        self.remove(&ObjectKey::new(at.namespace, name), &options).await.1?;
        let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
        Ok(json_response(StatusCode::CREATED, &status))
    }

    async fn delete_options(&self, parts: &Parts, body: Body) -> Result<DeleteOptions, ApiError> {
        let bytes = body::read(body).await?;
        let sent = if bytes.is_empty() { Decoded::default() } else { body::decode(&parts.headers, &bytes)? };
        DeleteOptions::read(self.params, &sent.value)
    }

    fn write_options(&self, parts: &Parts) -> Result<WriteOptions, ApiError> {
        let agent = parts.headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
        let agent = agent.split('/').next().filter(|agent| !agent.is_empty()).unwrap_or("unknown");
        let manager = self.params.text("fieldManager").unwrap_or(agent);
        if manager.chars().count() > MANAGER_CHARS_MAX {
            return Err(ApiError::bad_request(format!("fieldManager is longer than {MANAGER_CHARS_MAX} characters")));
        }
        Ok(WriteOptions {
            manager: manager.to_owned(),
            dry_run: self.params.dry_run()?,
            validation: self.params.field_validation()?,
            user: Some(self.asked.user.clone()),
        })
    }

    fn written(&self, written: &Written, form: Form) -> Response {
        let code = if written.created { StatusCode::CREATED } else { StatusCode::OK };
        let mut response = object_response(&self.at(), &written.object, self.params, form, code);
        warn(&mut response, &written.warnings);
        response
    }

    fn wrong_method(&self, parts: &Parts) -> ApiError {
        let sub = self.path.subresource.as_ref().map(|sub| format!("/{sub}")).unwrap_or_default();
        ApiError::method_not_allowed(format!("{} is not supported on {}{sub}", parts.method, self.resource.qualified()))
    }
}

fn warn(response: &mut Response, warnings: &[String]) {
    for warning in warnings {
        // RFC 7234: a warning text is a quoted string.
        let text = warning.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{text}\"")) {
            response.headers_mut().append(HeaderName::from_static("warning"), value);
        }
    }
}
