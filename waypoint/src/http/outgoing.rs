//! What is sent upstream: the request after the edits of its rule and backend.

use http::header::HOST;
use http::request::Parts;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, Version};
use mesh_policy::l7::Http;
use mesh_route::header::{Edits, TemplateContext, apply};
use mesh_route::path::Normalization;
use mesh_route::{Entry, Rewrite, Weighted, host, path, rewrite};
use mesh_wire::l7;

use super::canonical::Canonical;
use super::forward::Route;
use super::local::Local;
use super::response::Dress;
use crate::snapshot::Backend;
use crate::upstream::RequestBody;

/// The head of a request, as often as there are attempts and mirrors. Its host is in the `host` header.
#[derive(Debug, Clone)]
pub(crate) struct Outgoing {
    method: Method,
    version: Version,
    target: PathAndQuery,
    /// Of the backend that was picked.
    uri: Uri,
    pub(crate) headers: HeaderMap,
    attempt_count: bool,
}

impl Outgoing {
    /// Applies edits and rewrites: those of the rule, then those of the backend.
    ///
    /// # Errors
    /// What comes out cannot be sent.
    pub(crate) fn new(
        route: &Route<'_>,
        weighted: &Weighted,
        entry: Option<&Entry>,
        parts: Parts,
        canonical: Canonical,
        dress: &Dress<'_>,
    ) -> Result<Self, Local> {
        let settings = &route.chain.proxy.settings;
        let Parts { method, version, mut headers, .. } = parts;
        let mut new_host = None;
        let both = [&route.rule.request_headers, &weighted.request_headers];
        if both.iter().any(|edits| !edits.is_empty()) {
            let mut context = dress.seen.as_ref().map(|seen| seen.context()).unwrap_or_default();
            context.upstream_cluster = route.cluster.name();
            edit(&mut headers, &mut new_host, both, &context);
        }
        let rewritten = weighted.rewrite.as_ref().or(route.rule.rewrite.as_ref());
        let mut target = canonical.target;
        if let Some(rewrite) = rewritten {
            if let Some(new) = rewritten_target(rewrite, &target, entry, settings.normalization)? {
                if settings.debug_headers {
                    keep_original(&mut headers, &ORIGINAL_PATH, target.as_str());
                }
                target = new;
            }
            new_host = rewrite.authority.clone().or(new_host);
        }
        if let Some(new_host) = new_host {
            let original = super::canonical::authority(&headers).to_owned();
            if original != new_host {
                if settings.debug_headers {
                    keep_original(&mut headers, &ORIGINAL_HOST, &original);
                }
                let canonical = host::canonical(&new_host).ok().and_then(|host| HeaderValue::from_str(&host).ok());
                headers.insert(HOST, canonical.ok_or_else(cannot_be_sent)?);
            }
        }
        if settings.debug_headers
            && let Some(timeout) = route.rule.timeout
        {
            headers.insert(EXPECTED_TIMEOUT, u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX).into());
        }
        let uri = uri_for(route.backend, version, &headers, &target)?;
        Ok(Self { method, version, target, uri, headers, attempt_count: settings.attempt_count })
    }

    /// The request of attempt `number`, from 1. The last one takes the headers with it.
    pub(crate) fn attempt(&mut self, number: u32, last: bool, body: RequestBody) -> Request<RequestBody> {
        let headers = if last { std::mem::take(&mut self.headers) } else { self.headers.clone() };
        let mut request = self.with(self.uri.clone(), headers, body);
        if self.attempt_count {
            let count = if number == 1 { HeaderValue::from_static("1") } else { HeaderValue::from(number) };
            request.headers_mut().insert(ATTEMPT_COUNT, count);
        }
        request
    }

    /// A copy for a mirror. `None`: it cannot be sent there.
    pub(crate) fn mirrored(&self, backend: &Backend, body: RequestBody) -> Option<Request<RequestBody>> {
        let uri = uri_for(backend, self.version, &self.headers, &self.target).ok()?;
        Some(self.with(uri, self.headers.clone(), body))
    }

    /// Whether the client speaks HTTP/2.
    pub(crate) fn is_http2(&self) -> bool {
        self.version == Version::HTTP_2
    }

    /// Turns an extended CONNECT into an upgrade and back.
    pub(crate) fn set_method(&mut self, method: Method) {
        self.method = method;
    }

    /// What policies of the upstream's service see of it.
    pub(crate) fn seen(&self) -> Http<'_> {
        super::canonical::seen(&self.method, &self.target, &self.headers)
    }

    /// What follows the path, without its question mark.
    pub(crate) fn query(&self) -> Option<&str> {
        self.target.query()
    }

    fn with(&self, uri: Uri, headers: HeaderMap, body: RequestBody) -> Request<RequestBody> {
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        *request.version_mut() = self.version;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        request
    }
}

/// HTTP/2 and TLS need the authority; for HTTP/1.1 the `host` header is enough.
fn uri_for(backend: &Backend, version: Version, headers: &HeaderMap, target: &PathAndQuery) -> Result<Uri, Local> {
    let tls = backend.config.policy.as_ref().and_then(|policy| policy.tls.as_ref());
    let tls = tls.is_some_and(|tls| tls.mode() != l7::client_tls::Mode::Disable);
    let http2 = match backend.config.http() {
        l7::backend::Http::Http1 => false,
        l7::backend::Http::Http2 => true,
        l7::backend::Http::Same => version == Version::HTTP_2,
    };
    if !tls && !http2 {
        return Ok(Uri::from(target.clone()));
    }
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(if tls { Scheme::HTTPS } else { Scheme::HTTP });
    parts.authority = Some(Authority::try_from(super::canonical::authority(headers)).map_err(|_| cannot_be_sent())?);
    parts.path_and_query = Some(target.clone());
    Uri::from_parts(parts).map_err(|_| cannot_be_sent())
}

fn edit(headers: &mut HeaderMap, new_host: &mut Option<String>, edits: [&Edits; 2], context: &TemplateContext<'_>) {
    for edits in edits {
        apply(edits, headers, new_host, context);
    }
}

/// The target after a rewrite, if it is another one: in canonical form, which policies and the upstream see alike.
pub(crate) fn rewritten_target(
    rewrite: &Rewrite,
    target: &PathAndQuery,
    entry: Option<&Entry>,
    normalization: Normalization,
) -> Result<Option<PathAndQuery>, Local> {
    let (Some(path), Some(entry)) = (&rewrite.path, entry) else { return Ok(None) };
    let new = rewrite::path(path, target.path(), entry).map_err(|_| cannot_be_sent())?;
    let new = path::normalise(&new, normalization).map_err(|_| cannot_be_sent())?;
    if new == target.path() {
        return Ok(None);
    }
    let text = match target.query() {
        Some(query) => format!("{new}?{query}"),
        None => new.into_owned(),
    };
    PathAndQuery::try_from(text).map(Some).map_err(|_| cannot_be_sent())
}

fn cannot_be_sent() -> Local {
    Local::new(StatusCode::INTERNAL_SERVER_ERROR, "rewritten_request_cannot_be_sent")
}

fn keep_original(headers: &mut HeaderMap, name: &HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name.clone(), value);
    }
}

const ORIGINAL_PATH: HeaderName = HeaderName::from_static("x-envoy-original-path");
const ORIGINAL_HOST: HeaderName = HeaderName::from_static("x-envoy-original-host");
const EXPECTED_TIMEOUT: HeaderName = HeaderName::from_static("x-envoy-expected-rq-timeout-ms");
const ATTEMPT_COUNT: HeaderName = HeaderName::from_static("x-envoy-attempt-count");
