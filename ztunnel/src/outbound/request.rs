//! The CONNECT request of an outbound connection.

use http::{HeaderMap, HeaderValue, Method, Request};
use mesh_hbone::Forwarded;
use mesh_hbone::baggage::BAGGAGE;
use mesh_hbone::forwarded::{FORWARDED, FORWARDED_NETWORK};
use mesh_hbone::traceparent::{self, TRACEPARENT};

use super::Resolved;
use crate::failure::Failure;
use crate::pod::PodWorker;
use crate::report::ResponseFlag;
use crate::route::Authority;

impl Resolved {
    /// The request for the next hop.
    pub(super) fn request(&self, worker: &PodWorker, authority: &Authority) -> Result<Request<()>, Failure> {
        let mut headers = HeaderMap::with_capacity(HEADERS_MAX);
        if let Some(baggage) = worker.baggage(&self.client.workload) {
            headers.insert(BAGGAGE, baggage);
        }
        let host = self.route.service.as_ref().map(|service| &**service.hostname());
        if let Some(forwarded) = (Forwarded { client: self.client.accepted.peer, host }).encode() {
            headers.insert(FORWARDED, forwarded);
        }
        headers.insert(TRACEPARENT, traceparent::random());
        build(&authority.to_string(), headers)
    }

    /// The same request for the destination behind the gateway, which cannot know our network otherwise.
    pub(super) fn request_across(&self, worker: &PodWorker, outer: &Request<()>) -> Result<Request<()>, Failure> {
        let network = &worker.shared.state.snapshot().local.network;
        let value = HeaderValue::from_str(network)
            .map_err(|e| Failure::new(ResponseFlag::Connect, format!("network {network:?} in a header: {e}")))?;
        let mut headers = outer.headers().clone();
        headers.insert(FORWARDED_NETWORK, value);
        build(&outer.uri().to_string(), headers)
    }
}

fn build(authority: &str, headers: HeaderMap) -> Result<Request<()>, Failure> {
    let mut request = Request::builder()
        .method(Method::CONNECT)
        .uri(authority)
        .body(())
        .map_err(|e| Failure::new(ResponseFlag::Connect, format!("authority {authority:?}: {e}")))?;
    *request.headers_mut() = headers;
    Ok(request)
}

const HEADERS_MAX: usize = 4;
