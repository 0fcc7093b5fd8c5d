//! Connections of bytes: policy, rule, endpoint, and then bytes both ways until both ends are done.
//!
//! ```text
//! authorize -> route -> connect -> relay -> report
//!     ^                              |
//!     +--- whenever policies change -+
//! ```

mod authorize;
mod east_west;
mod relay;
mod route;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use mesh_hbone::ConnectRequest;
use tokio::io::{AsyncRead, AsyncWrite};

pub(crate) use east_west::hand_on;

use crate::connection::ConnectionContext;
use crate::limits::{TCP_CONNECT_ATTEMPTS_MAX, TCP_IDLE_BUDGET};
use crate::listener::hello::{self, Hello};
use crate::report::{Connection, Flags, Local, Opening, Service};
use crate::snapshot::{Backend, Chain};
use crate::upstream::{PickContext, Picked, StreamLimits, UpstreamIo};
use authorize::Denial;
use relay::Relay;

/// Why a connection came to nothing.
struct Refused {
    flags: Flags,
    details: String,
    reason: String,
    /// For whoever asked through a tunnel.
    status: StatusCode,
    /// What is known of where it was to go.
    opening: Option<Box<Opening>>,
}

/// A way to an endpoint.
struct Ready {
    io: UpstreamIo,
    opening: Opening,
    backend: Backend,
}

/// A tunnel's stream on a port that is declared to be bytes. The client is told whether it came to anything.
pub(crate) async fn serve_tunnel(request: ConnectRequest, context: ConnectionContext, chain: &Chain) {
    match open(&context, chain).await {
        Ok(ready) => match request.accept(None) {
            Ok(stream) => carry(stream, context, ready, chain).await,
            Err(error) => {
                tracing::debug!(%error, "client left before its tunnel was accepted");
                ready.io.break_off();
            }
        },
        Err(refused) => {
            let status = refused.status;
            refuse(&context, refused);
            request.reject(status);
        }
    }
}

/// A connection that is bytes, whatever it came over.
pub(crate) async fn serve<T: AsyncRead + AsyncWrite + Unpin>(io: T, context: ConnectionContext) {
    let Some(chain) = context.chain.current() else { return };
    match open(&context, &chain).await {
        Ok(ready) => carry(io, context, ready, &chain).await,
        // The stream is dropped, which the client sees as a reset.
        Err(refused) => refuse(&context, refused),
    }
}

/// A connection that should be TLS, whose server name decides.
pub(crate) async fn serve_tls<T: AsyncRead + AsyncWrite + Unpin>(io: T, mut context: ConnectionContext) {
    let read = tokio::select! {
        biased;
        read = hello::read(io) => read,
        () = context.nothing_said() => return,
    };
    match read {
        Ok((hello, io)) => {
            if let Hello::Tls(Some(name)) = hello {
                let mut peer = (*context.peer).clone();
                peer.sni = Some(name);
                context.peer = Rc::new(peer);
            }
            serve(io, context).await;
        }
        Err(error) => tracing::debug!(%error, "connection was lost before it said anything"),
    }
}

/// Everything up to the endpoint.
async fn open(context: &ConnectionContext, chain: &Chain) -> Result<Ready, Refused> {
    let service = || chain.service().cloned();
    authorize::check(chain, &context.peer, &context.worker).map_err(|denial| denied(context, &denial, service()))?;
    let random = context.worker.random();
    let choice = route::choose(chain, context.peer.sni.as_deref(), &context.peer.destination, random);
    let choice = choice.map_err(|miss| Refused {
        flags: miss.flags(),
        details: miss.details().to_owned(),
        reason: miss.to_string(),
        status: StatusCode::SERVICE_UNAVAILABLE,
        opening: None,
    })?;
    let Some(backend) = chain.backend(choice.backend) else {
        return Err(Refused::internal("the rule names a backend that is not there"));
    };
    let service = || Some(backend.service.clone());
    authorize::send_on(backend, &context.peer, &context.worker)
        .map_err(|denial| denied(context, &denial, service()))?;
    connect(context, chain, backend, choice.rule).await
}

async fn connect(
    context: &ConnectionContext,
    chain: &Chain,
    backend: &Backend,
    rule: Arc<str>,
) -> Result<Ready, Refused> {
    let peer = &context.peer;
    let destination = match peer.destination {
        crate::connection::Destination::Address(address) => Some(address),
        crate::connection::Destination::Name(..) => None,
    };
    let service = if chain.service().is_some_and(|service| *service.hostname == *backend.service.hostname) {
        chain.service().cloned()
    } else {
        Some(backend.service.clone()).filter(|service| !service.hostname.is_empty())
    };
    let opening = |picked: Option<&Picked>, failure: Option<Arc<str>>| Opening {
        peer: peer.clone(),
        service: service.clone(),
        destination: picked.map(|picked| picked.host().endpoint().end.clone()),
        upstream: picked.map(|picked| picked.host().address()),
        route: rule.clone(),
        failure,
    };
    let Some(cluster) = context.worker.cluster(backend, peer.sni.as_deref().unwrap_or_default()) else {
        return Err(Refused::internal("the name that was asked for is none of this service's"));
    };
    let mut tried: Vec<Picked> = Vec::new();
    loop {
        let pick = PickContext {
            tried: &tried,
            source: Some(peer.source_address),
            destination,
            server_name: peer.sni.as_deref(),
            ..PickContext::default()
        };
        match context.worker.upstreams.connect(&cluster, &pick).await {
            Ok((io, picked)) => {
                return Ok(Ready { io, opening: opening(Some(&picked), None), backend: backend.clone() });
            }
            Err(failure) => {
                let reason = failure.error.to_string();
                let last = opening(failure.endpoint.as_ref(), Some(reason.as_str().into()));
                match failure.endpoint {
                    Some(picked) if tried.len() + 1 < TCP_CONNECT_ATTEMPTS_MAX => tried.push(picked),
                    _ => {
                        return Err(Refused {
                            flags: failure.error.flag(),
                            details: String::new(),
                            reason,
                            status: StatusCode::SERVICE_UNAVAILABLE,
                            opening: Some(Box::new(last)),
                        });
                    }
                }
            }
        }
    }
}

/// Bytes both ways. Policies that change are asked again; a drain lets the connection end by itself, until it is cut.
async fn carry<T: AsyncRead + AsyncWrite + Unpin>(io: T, context: ConnectionContext, ready: Ready, judged: &Chain) {
    let Ready { io: upstream, opening, backend } = ready;
    let mut drain = context.drain.clone();
    let mut told =
        Told { report: &context.worker.report, connection: context.worker.report.connection(opening), ended: false };
    let StreamLimits { idle, age } = upstream.limits();
    let mut relay = Relay::new(io, upstream, idle.unwrap_or(TCP_IDLE_BUDGET));
    let denied = denied_later(&context, judged, &backend);
    tokio::pin!(denied);
    let aged = async {
        match age {
            Some(age) => tokio::time::sleep(age).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(aged);
    let (mut last, mut pause) = ((0, 0), REPORT_PAUSE);
    let ended = loop {
        let rest = tokio::time::sleep(pause);
        tokio::select! {
            ended = relay.run() => break Ended::Relay(ended),
            denial = &mut denied => break Ended::Denied(denial),
            () = drain.cut() => break Ended::Cut,
            () = &mut aged => break Ended::Aged,
            () = rest => {
                // A connection on which nothing moves is looked at less and less often.
                pause = if relay.moved() == last { (pause * 2).min(REPORT_PAUSE_MAX) } else { REPORT_PAUSE };
                note(&mut told.connection, relay.moved(), &mut last);
            }
        }
    };
    note(&mut told.connection, relay.moved(), &mut last);
    match ended {
        Ended::Relay(Ok(())) => told.end(Flags::NONE, ""),
        Ended::Relay(Err(relay::RelayError::Idle)) => told.end(Flags::SI, "idle_timeout"),
        Ended::Relay(Err(relay::RelayError::Client(_))) => {
            told.end(Flags::NONE, "downstream_remote_disconnect");
            relay.into_server().break_off();
        }
        Ended::Relay(Err(relay::RelayError::Server(_))) => told.end(Flags::UC, "upstream_reset"),
        Ended::Cut => told.end(Flags::LR, "drain"),
        Ended::Aged => told.end(Flags::UMSDR, "max_connection_duration"),
        Ended::Denied(denial) => {
            tracing::info!(peer = %context.peer.source_address, reason = %denial.reason, "connection was cut by a changed policy");
            told.end(Flags::LR, &denial.details);
        }
    }
}

/// Tells of the end of a connection, also when it is dropped on the way: then it had to make room for others.
struct Told<'a> {
    report: &'a Local,
    connection: Connection,
    ended: bool,
}

impl Told<'_> {
    fn end(&mut self, flags: Flags, details: &str) {
        self.ended = true;
        self.report.closed(&self.connection, flags, details);
    }
}

impl Drop for Told<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.end(Flags::OM, "overload");
        }
    }
}

enum Ended {
    Relay(Result<(), relay::RelayError>),
    Denied(Denial),
    Cut,
    /// It has lived as long as the backend's policy allows.
    Aged,
}

fn note(connection: &mut Connection, now: (u64, u64), last: &mut (u64, u64)) {
    connection.moved(now.0 - last.0, now.1 - last.1);
    *last = now;
}

/// Returns when the policies of now no longer allow the connection, which those of `judged` did. One whose own service is
/// gone goes on.
async fn denied_later(context: &ConnectionContext, judged: &Chain, backend: &Backend) -> Denial {
    let mut changes = context.chain.changes();
    // They may have changed already, while the endpoint was being connected to. What was judged is still there: nothing
    // else has its address.
    let mut chain = context.chain.current();
    let mut is_judged = chain.as_ref().is_some_and(|now| std::ptr::eq(judged, Arc::as_ptr(now)));
    loop {
        if !is_judged && let Err(denial) = authorize::go_on(chain.as_deref(), backend, &context.peer, &context.worker) {
            return denial;
        }
        if changes.changed().await.is_err() {
            return std::future::pending().await;
        }
        (chain, is_judged) = (context.chain.current(), false);
    }
}

fn denied(context: &ConnectionContext, denial: &Denial, service: Option<Arc<Service>>) -> Refused {
    Refused {
        flags: Flags::NONE,
        details: denial.details.clone(),
        reason: denial.reason.clone(),
        status: StatusCode::FORBIDDEN,
        opening: Some(Box::new(Opening { service, ..Opening::nowhere(context.peer.clone(), &denial.reason) })),
    }
}

fn refuse(context: &ConnectionContext, refused: Refused) {
    let Refused { flags, details, reason, opening, .. } = refused;
    let opening = opening.map_or_else(|| Opening::nowhere(context.peer.clone(), &reason), |opening| *opening);
    context.worker.report.refused(opening, flags, &details);
}

impl Refused {
    fn internal(reason: &str) -> Self {
        Self {
            flags: Flags::NC,
            details: "cluster_not_found".to_owned(),
            reason: reason.to_owned(),
            status: StatusCode::SERVICE_UNAVAILABLE,
            opening: None,
        }
    }
}

/// How often bytes are counted while they flow.
const REPORT_PAUSE: Duration = Duration::from_secs(5);
/// The same where none do.
const REPORT_PAUSE_MAX: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests;
