//! The head of the answer to a client: what routes and settings put into it.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::UNIX_EPOCH;

use http::header::{CONNECTION, SERVER, SET_COOKIE};
use http::{HeaderMap, HeaderName, HeaderValue, Response, Version};
use mesh_route::header::{Edits, TemplateContext, apply, strip_hop_by_hop};
use mesh_route::{RequestView, Rule, Weighted};

use super::connection::Connection;
use super::download::{Download, Source};
use super::exchange::speaks_grpc;
use super::forward::Forwarded;
use super::local::{self, Local};
use super::record::{Record, protocol};
use super::tunnel::Opened;
use super::web::Bridge;
use crate::connection::Destination;
use crate::snapshot::Chain;

/// How an answer will look; filled in as the request passes the stages that have a say.
pub(crate) struct Dress<'a> {
    pub(crate) is_grpc: bool,
    pub(crate) bridge: Option<Bridge>,
    pub(crate) cors: Option<HeaderMap>,
    pub(crate) chain: Option<&'a Chain>,
    pub(crate) rule: Option<&'a Rule>,
    pub(crate) weighted: Option<&'a Weighted>,
    /// Cookies that lead back to an endpoint.
    pub(crate) cookies: Vec<HeaderValue>,
    /// A header that does.
    pub(crate) session: Option<(HeaderName, HeaderValue)>,
    /// The request as templates see it; only where there are some.
    pub(crate) seen: Option<Box<Seen>>,
}

/// A request as it came, for templates.
pub(crate) struct Seen {
    method: String,
    scheme: &'static str,
    authority: String,
    path: String,
    headers: HeaderMap,
    started: std::time::Duration,
    protocol: &'static str,
    source: SocketAddr,
    local: Option<SocketAddr>,
    server_name: String,
    peer_uri: String,
    local_uri: String,
    route: String,
}

impl<'a> Dress<'a> {
    pub(crate) fn new(headers: &HeaderMap) -> Self {
        Self {
            is_grpc: speaks_grpc(headers),
            bridge: None,
            cors: None,
            chain: None,
            rule: None,
            weighted: None,
            cookies: Vec::new(),
            session: None,
            seen: None,
        }
    }

    /// The rule was found: from here on its edits apply to every answer.
    pub(crate) fn routed(
        &mut self,
        rule: &'a Rule,
        view: &RequestView<'_>,
        connection: &Connection,
        record: &mut Record,
    ) {
        self.rule = Some(rule);
        self.is_grpc |= rule.grpc;
        record.grpc = self.is_grpc;
        if rule_has_templates(rule) {
            self.seen = Some(Box::new(Seen::new(rule, view, connection, record)));
        }
    }

    fn edit(&self, headers: &mut HeaderMap, status: u16, record: &Record) {
        let own = self.weighted.map(|weighted| &weighted.response_headers);
        let ruled = self.rule.map(|rule| &rule.response_headers);
        for edits in [own, ruled].into_iter().flatten().filter(|edits| !edits.is_empty()) {
            self.apply(edits, headers, status, record);
        }
    }

    fn apply(&self, edits: &Edits, headers: &mut HeaderMap, status: u16, record: &Record) {
        let flags = record.flags.to_string();
        let mut context = self.seen.as_ref().map(|seen| seen.context()).unwrap_or_default();
        context.request_headers = self.seen.as_ref().map(|seen| &seen.headers);
        context.status = Some(status);
        context.flags = &flags;
        context.upstream = record.upstream;
        context.upstream_cluster = record.cluster();
        context.edits_response = true;
        apply(edits, headers, &mut None, &context);
    }
}

/// Whether templates want to know about the request.
fn rule_has_templates(rule: &Rule) -> bool {
    let forwards = match &rule.action {
        mesh_route::Action::Forward(forward) => forward.backends(),
        _ => &[],
    };
    let own = [&rule.request_headers, &rule.response_headers];
    let backends = forwards.iter().flat_map(|weighted| [&weighted.request_headers, &weighted.response_headers]);
    own.into_iter().chain(backends).any(Edits::has_templates)
}

impl Seen {
    fn new(rule: &Rule, view: &RequestView<'_>, connection: &Connection, record: &Record) -> Self {
        let peer = &connection.context.peer;
        let local = match &peer.destination {
            Destination::Address(address) => Some(*address),
            Destination::Name(..) => None,
        };
        let uri = |identity: Option<&mesh_core::Identity>| identity.map(ToString::to_string).unwrap_or_default();
        Self {
            method: view.method.to_owned(),
            scheme: if view.scheme == "https" { "https" } else { "http" },
            authority: view.authority.to_owned(),
            path: view.query.map_or_else(|| view.path.to_owned(), |query| format!("{}?{query}", view.path)),
            headers: view.headers.clone(),
            started: record.started_at().duration_since(UNIX_EPOCH).unwrap_or_default(),
            protocol: protocol(record.version()),
            source: peer.source_address,
            local,
            server_name: peer.sni.as_deref().unwrap_or_default().to_owned(),
            peer_uri: uri(peer.source_identity.as_ref()),
            local_uri: uri(peer.local_identity.as_ref()),
            route: rule.origin.to_string(),
        }
    }

    /// Of the request; what the response adds is for the caller.
    pub(crate) fn context(&self) -> TemplateContext<'_> {
        TemplateContext {
            method: &self.method,
            scheme: self.scheme,
            authority: &self.authority,
            path: &self.path,
            protocol: self.protocol,
            started: self.started,
            remote: Some(self.source),
            direct_remote: Some(self.source),
            local: self.local,
            route: &self.route,
            server_name: &self.server_name,
            peer_uri: &self.peer_uri,
            local_uri: &self.local_uri,
            ..TemplateContext::default()
        }
    }
}

/// What an upstream said.
pub(crate) fn forwarded(
    connection: &Rc<Connection>,
    dress: Dress<'_>,
    mut record: Box<Record>,
    forwarded: Forwarded,
) -> Response<Download> {
    let Forwarded { response, limits, upload } = forwarded;
    let (mut parts, body) = response.into_parts();
    parts.version = Version::HTTP_11;
    let headers = &mut parts.headers;
    if strip_hop_by_hop(headers, false).is_err() {
        // It cannot name what it must not take away.
        headers.remove(CONNECTION);
    }
    record.details = "via_upstream".into();
    if let Some(settings) = dress.chain.map(|chain| &chain.proxy.settings)
        && settings.debug_headers
        && let Some(time) = record.upstream_time
    {
        headers.insert(UPSTREAM_SERVICE_TIME, u64::try_from(time.as_millis()).unwrap_or(u64::MAX).into());
    }
    dress.edit(headers, parts.status.as_u16(), &record);
    finish_head(connection, &dress, headers);
    let source = match &dress.bridge {
        Some(bridge) => {
            bridge.answer(headers);
            Source::Web(Box::new(bridge.encode(body)))
        }
        None => Source::Upstream(body),
    };
    record.response(parts.status, headers);
    let limits = (!limits.is_empty()).then(|| Box::new(limits));
    Response::from_parts(parts, Download::new(source, Some(record)).limited(limits).uploading(upload))
}

/// What the proxy itself says.
pub(crate) fn local(
    connection: &Rc<Connection>,
    dress: Dress<'_>,
    mut record: Box<Record>,
    local: Local,
) -> Response<Download> {
    record.flags |= local.flags;
    record.details = local.details.clone();
    if local.denial.is_some() {
        record.denial.clone_from(&local.denial);
    }
    if local.close {
        connection.closing.set(true);
    }
    let response = local.render(dress.is_grpc);
    let (mut parts, body) = response.into_parts();
    dress.edit(&mut parts.headers, parts.status.as_u16(), &record);
    if let Some(bridge) = &dress.bridge {
        bridge.answer(&mut parts.headers);
    }
    finish_head(connection, &dress, &mut parts.headers);
    record.response(parts.status, &parts.headers);
    let source = if body.is_empty() { Source::Empty } else { Source::Full(body) };
    Response::from_parts(parts, Download::new(source, Some(record)))
}

/// An upgrade that the upstream granted, or its answer in place of it.
pub(crate) fn upgraded(
    connection: &Rc<Connection>,
    dress: Dress<'_>,
    mut record: Box<Record>,
    opened: Opened,
) -> Response<Download> {
    record.details = "via_upstream".into();
    match opened {
        Opened::Granted { mut head, pending } => {
            dress.edit(&mut head.headers, head.status.as_u16(), &record);
            set_server(&dress, &mut head.headers);
            record.response(head.status, &head.headers);
            pending.hand_over(connection, record);
            Response::from_parts(head, Download::new(Source::Empty, None))
        }
        Opened::Refused { mut head, body } => {
            head.version = Version::HTTP_11;
            if strip_hop_by_hop(&mut head.headers, false).is_err() {
                head.headers.remove(CONNECTION);
            }
            dress.edit(&mut head.headers, head.status.as_u16(), &record);
            connection.closing.set(true);
            finish_head(connection, &dress, &mut head.headers);
            record.response(head.status, &head.headers);
            Response::from_parts(head, Download::new(Source::Upstream(body), Some(record)))
        }
    }
}

fn finish_head(connection: &Connection, dress: &Dress<'_>, headers: &mut HeaderMap) {
    if let Some(cors) = &dress.cors {
        mesh_route::cors::decorate(cors, headers);
    }
    for cookie in &dress.cookies {
        headers.append(SET_COOKIE, cookie.clone());
    }
    if let Some((name, value)) = &dress.session {
        headers.insert(name.clone(), value.clone());
    }
    set_server(dress, headers);
    let holding = connection.watch.as_ref().is_some_and(|watch| watch.is_holding());
    if !connection.is_http2() && (connection.closing.get() || holding) {
        local::close(headers);
    }
}

fn set_server(dress: &Dress<'_>, headers: &mut HeaderMap) {
    if let Some(server) = dress.chain.and_then(|chain| chain.proxy.settings.server_header.as_ref()) {
        headers.insert(SERVER, server.clone());
    }
}

const UPSTREAM_SERVICE_TIME: HeaderName = HeaderName::from_static("x-envoy-upstream-service-time");
