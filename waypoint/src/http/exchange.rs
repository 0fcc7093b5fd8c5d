//! One request, from its head to its answer: the pipeline in the order of the specification.
//!
//! # Source
//! Waypoint specification, request pipeline.

use std::cell::OnceCell;
use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;

use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{Request, Response, StatusCode};
use http_body::Body;
use mesh_route::{Action, Entry, Forward, Picked, RequestView, Retry, Rule, Target, Weighted, host};
use tokio::time::Instant;

use super::canonical::{Canonical, authority, seen};
use super::connection::Connection;
use super::download::Download;
use super::forward::{self, Forwarded};
use super::identify::{Client, identify};
use super::judged::{Asked, Judged};
use super::local::Local;
use super::outgoing::Outgoing;
use super::record::{Record, X_REQUEST_ID};
use super::response::{self, Dress};
use super::sticky::Sticky;
use super::unread::ClientBody;
use super::web::Bridge;
use super::{mirror, tunnel};
use crate::filter::{answer, authorize, cors, fault};
use crate::overload::Level;
use crate::report::Flags;
use crate::snapshot::{Chain, NoChain, Protocol};

/// What goes back to the client.
pub(crate) enum Answer {
    /// What an upstream says.
    Forwarded(Forwarded),
    /// An upgrade, granted or not.
    Upgraded(tunnel::Opened),
}

/// Answers a request. The configuration of the moment when it came is in force until its end.
///
/// # Cancel safety
/// Dropping it is how a client leaves: upstream attempts are cancelled and the record says so.
pub(crate) async fn serve(
    connection: Rc<Connection>,
    request: Request<ClientBody>,
) -> Result<Response<Download>, Infallible> {
    let chain = chain_of(&connection, &request);
    let mut record = Record::new(connection.clone(), chain.as_ref().ok().cloned(), &request);
    let fallback = OnceCell::new();
    let mut dress = Dress::new(request.headers());
    record.grpc = dress.is_grpc;
    connection.look_twice().await;
    let answer = match &chain {
        _ if connection.context.worker.shared.overload.level() == Level::Over => Err(Local::overload()),
        Ok(chain) => run(&connection, chain, &fallback, &mut record, &mut dress, request).await,
        Err(local) => Err(local.clone()),
    };
    Ok(match answer {
        Ok(Answer::Forwarded(forwarded)) => response::forwarded(&connection, dress, record, forwarded),
        Ok(Answer::Upgraded(opened)) => response::upgraded(&connection, dress, record, opened),
        Err(local) => response::local(&connection, dress, record, local),
    })
}

/// The configuration that is in force for the request's host.
fn chain_of(connection: &Connection, request: &Request<ClientBody>) -> Result<Arc<Chain>, Local> {
    let named = request.uri().authority().map(|authority| authority.as_str());
    let host = named.unwrap_or_else(|| authority(request.headers()));
    connection.context.chain.for_host(host).map_err(|missing| match missing {
        NoChain::Gone => Local::new(StatusCode::NOT_FOUND, "filter_chain_not_found").flags(Flags::NR).close(),
        NoChain::NoHost if host.is_empty() => Local::bad_request("http1.host|host is missing"),
        NoChain::NoHost => Local::no_route(),
        NoChain::Misdirected => Local::new(StatusCode::MISDIRECTED_REQUEST, "misdirected_request").flags(Flags::NR),
    })
}

async fn run<'a>(
    connection: &Rc<Connection>,
    chain: &'a Arc<Chain>,
    fallback: &'a OnceCell<Rule>,
    record: &mut Record,
    dress: &mut Dress<'a>,
    request: Request<ClientBody>,
) -> Result<Answer, Local> {
    let (mut parts, body) = request.into_parts();
    dress.chain = Some(chain);
    let canonical = Canonical::of(&mut parts, !body.is_end_stream(), &chain.proxy.settings)?;
    let client = identify(&mut parts.headers, connection, chain);
    record.seen(&parts.headers, &canonical.target, &X_REQUEST_ID);
    if chain.protocol == Protocol::GrpcWeb {
        // Whoever is denied is told so in its own language, too.
        dress.bridge = Bridge::of(&parts.headers);
    }
    authorize::authorize(connection, chain, seen(&parts.method, &canonical.target, &parts.headers), &client)?;
    if let Some(bridge) = &dress.bridge {
        bridge.translate(&mut parts.headers);
    }
    let view = view(connection, &parts, &canonical, &client);
    let (rule, entry) = find(chain, fallback, record, &view)?;
    dress.routed(rule, &view, connection, record);
    if let Some(fault) = &rule.fault {
        record.flags |= fault::inject(fault, connection.random()).await?;
    }
    dress.cors = cors::check(rule, view.method, view.headers)?;
    let forward = match &rule.action {
        Action::Forward(forward) => forward,
        Action::Redirect(redirect) => return Err(answer::redirect(redirect, &view, entry)),
        Action::Direct(direct) => return Err(answer::direct(direct)),
        Action::Unusable(unusable) => return Err(answer::unusable(unusable)),
    };
    let sticky = rule.session.as_ref().and_then(|session| Sticky::read(session, &parts.headers));
    let picked = sticky.as_ref().and_then(|sticky| forward.at(sticky.position));
    let picked = picked.unwrap_or_else(|| forward.pick(connection.random()));
    let (index, position, weighted) = backend_of(picked, dress, &view, entry)?;
    let Some(backend) = chain.backend(index) else {
        return Err(Local::new(StatusCode::SERVICE_UNAVAILABLE, "cluster_not_found").flags(Flags::NC));
    };
    record.backend = Some(index);
    let worker = &connection.context.worker;
    let cluster = worker.cluster(backend, &host::name(view.authority)).ok_or_else(Local::no_route)?;
    let host = (!rule.mirrors.is_empty()).then(|| host::name(view.authority).into_owned());
    let started = Instant::now();
    let route = forward::Route { connection, chain, rule, backend, cluster, host, client, position, started };
    let upgrade = canonical.upgrade;
    let on_upgrade = upgrade.and_then(|_| parts.extensions.remove());
    let asked = upgrade.map(|_| Asked::of(&parts, &canonical));
    let outgoing = Outgoing::new(&route, weighted, entry, parts, canonical, dress)?;
    authorize::send_on(connection, backend, &outgoing, &client)?;
    if let Some(asked) = asked {
        let judged = Judged::new(&route, asked, &outgoing);
        return tunnel::open(&route, outgoing, on_upgrade, judged, record).await.map(Answer::Upgraded);
    }
    let copies = mirror::begin(&route, &outgoing, !body.is_end_stream());
    forward::run(&route, outgoing, body, copies, sticky, record, dress).await.map(Answer::Forwarded)
}

/// The backend that was picked: its index, its position among the rule's, and what it adds.
fn backend_of<'a>(
    picked: Picked<'a>,
    dress: &mut Dress<'a>,
    view: &RequestView<'_>,
    entry: Option<&Entry>,
) -> Result<(usize, usize, &'a Weighted), Local> {
    match picked {
        Picked::Backend { index, position, weighted } => {
            dress.weighted = Some(weighted);
            Ok((index, position, weighted))
        }
        Picked::Unusable { unusable, weighted } => {
            dress.weighted = Some(weighted);
            Err(answer::unusable(unusable))
        }
        Picked::Redirect { redirect, weighted } => {
            dress.weighted = Some(weighted);
            Err(answer::redirect(redirect, view, entry))
        }
        Picked::None => Err(answer::no_backend()),
    }
}

fn view<'a>(connection: &Connection, parts: &'a Parts, canonical: &'a Canonical, client: &Client) -> RequestView<'a> {
    RequestView {
        method: parts.method.as_str(),
        scheme: client.scheme,
        authority: authority(&parts.headers),
        path: canonical.path(),
        query: canonical.query(),
        headers: &parts.headers,
        port: connection.context.peer.destination.port(),
        claims: None,
    }
}

/// The rule that a request takes. Without a table, everything goes to the default backend.
fn find<'a>(
    chain: &'a Chain,
    fallback: &'a OnceCell<Rule>,
    record: &mut Record,
    view: &RequestView<'_>,
) -> Result<(&'a Rule, Option<&'a Entry>), Local> {
    if let Some(table) = &chain.http {
        let found = table.find(view).ok_or_else(Local::no_route)?;
        record.rule = Some((table.clone(), found.rule_index));
        return Ok((found.rule, Some(found.entry)));
    }
    let index = chain.default_backend.ok_or_else(Local::no_route)?;
    Ok((fallback.get_or_init(|| default_rule(index)), None))
}

fn default_rule(backend: usize) -> Rule {
    let only = Weighted {
        weight: 1,
        target: Target::Backend(backend),
        request_headers: Default::default(),
        response_headers: Default::default(),
        rewrite: None,
    };
    Rule {
        origin: Default::default(),
        action: Action::Forward(Forward::new(vec![only])),
        request_headers: Default::default(),
        response_headers: Default::default(),
        rewrite: None,
        mirrors: Vec::new(),
        cors: None,
        fault: None,
        timeout: None,
        retry: Some(Retry::default()),
        session: None,
        grpc: false,
        grpc_timeout_max: None,
    }
}

/// Whether the client understands answers of gRPC, gRPC-Web included.
pub(crate) fn speaks_grpc(headers: &http::HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}
