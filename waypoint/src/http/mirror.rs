//! Mirrors: copies of requests whose answers nobody waits for.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http_body::Body;
use http_body_util::BodyExt;
use http_body_util::combinators::MapErr;

use super::copies::{Copies, CopyBody, CopyError};
use super::forward::Route;
use super::outgoing::Outgoing;
use crate::filter::authorize;
use crate::limits::{MIRROR_BUDGET, WORKER_MIRRORS_MAX};
use crate::upstream::{BoxError, Cluster, PickContext, RequestBody};
use crate::worker::Worker;

/// Sends the copies that the rule wants; what comes back feeds their bodies.
pub(crate) fn begin(route: &Route<'_>, outgoing: &Outgoing, has_body: bool) -> Copies {
    let mut copies = Copies::default();
    for mirror in &route.rule.mirrors {
        let sampled = mirror.sampled(route.connection.random());
        let backend = sampled.and_then(|index| route.chain.backend(index));
        let Some(backend) = backend else { continue };
        // The original goes on: its own backend is another one.
        if authorize::send_on(route.connection, backend, outgoing, &route.client).is_err() {
            continue;
        }
        let Some(turn) = Turn::take() else { continue };
        let body = if has_body { boxed(copies.add()) } else { RequestBody::Empty };
        let Some(request) = outgoing.mirrored(backend, body) else { continue };
        let worker = route.connection.context.worker.clone();
        let Some(cluster) = worker.cluster(backend, route.host.as_deref().unwrap_or_default()) else { continue };
        let budget = route.rule.timeout.unwrap_or(MIRROR_BUDGET);
        let http2 = outgoing.is_http2();
        let source = Some(route.connection.context.peer.source_address);
        tokio::task::spawn_local(async move {
            let context = PickContext { source, client_http2: http2, ..PickContext::default() };
            send(&worker, &cluster, request, &context, budget).await;
            drop(turn);
        });
    }
    copies
}

async fn send(
    worker: &Rc<Worker>,
    cluster: &Arc<Cluster>,
    request: http::Request<RequestBody>,
    context: &PickContext<'_>,
    budget: Duration,
) {
    let sent = async {
        let Ok(reply) = worker.upstreams.request(cluster, request, context).await else { return };
        let mut body = reply.response.into_body();
        while !body.is_end_stream() {
            let Some(Ok(_)) = body.frame().await else { return };
        }
    };
    // Nobody waits for it.
    let _ = tokio::time::timeout(budget, sent).await;
}

fn boxed(copy: CopyBody) -> RequestBody {
    let copy: MapErr<CopyBody, fn(CopyError) -> BoxError> = copy.map_err(BoxError::from);
    RequestBody::Boxed(Box::pin(copy))
}

/// One of the mirrored requests that a worker may have under way.
struct Turn;

impl Turn {
    fn take() -> Option<Self> {
        UNDER_WAY.with(|count| {
            let free = count.get() < WORKER_MIRRORS_MAX;
            if free {
                count.set(count.get() + 1);
            }
            free.then_some(Self)
        })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        UNDER_WAY.with(|count| count.set(count.get().saturating_sub(1)));
    }
}

thread_local! {
    static UNDER_WAY: Cell<usize> = const { Cell::new(0) };
}
