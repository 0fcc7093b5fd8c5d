//! Takes the queries of one pod: what the mesh knows is answered on the spot, the rest is passed on.

mod tcp;
mod udp;

use std::rc::Rc;
use std::sync::Arc;

use mesh_core::drain::DrainWatch;
use rand::seq::SliceRandom;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::answer::{self, Transport};
use super::lookup::{self, Client, Zone};
use super::message::{RecordType, Request};
use super::place::Sockets;
use super::report::{self, Asked, Metrics, Outcome, PodMetrics};
use super::upstream::Upstream;
use crate::limits::{DNS_CONNECTIONS_MAX, DNS_FORWARDED_MAX};
use crate::state::{Snapshot, State, Workload};

/// Whose queries.
#[derive(Clone, Debug)]
pub struct Owner {
    /// Pod name.
    pub name: Arc<str>,
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its service account.
    pub service_account: Arc<str>,
}

/// The DNS proxy of one pod. Stays on its worker.
#[derive(Debug)]
pub struct Server {
    state: State,
    owner: Owner,
    zone: Arc<Zone>,
    upstream: Upstream,
    metrics: PodMetrics,
    /// Queries that wait for a name server.
    forwarded: Arc<Semaphore>,
    /// Connections of clients.
    connections: Arc<Semaphore>,
}

/// What to do about a message.
enum Step {
    /// Send this.
    Answer(Vec<u8>),
    /// Ask a name server.
    Forward(Request),
    /// Nothing: nobody could be told.
    Ignore,
}

impl Server {
    /// Answers from `state`, and passes on to `upstream` what it does not know.
    #[must_use]
    pub fn new(state: State, owner: Owner, zone: Arc<Zone>, upstream: Upstream, metrics: Metrics) -> Self {
        Self {
            state,
            owner,
            zone,
            upstream,
            metrics: PodMetrics::new(metrics),
            forwarded: Arc::new(Semaphore::new(DNS_FORWARDED_MAX)),
            connections: Arc::new(Semaphore::new(DNS_CONNECTIONS_MAX)),
        }
    }

    /// Serves until the drain starts; queries that are under way then are still answered. Needs a single-threaded
    /// runtime.
    pub async fn serve(self: Rc<Self>, sockets: Sockets, watch: DrainWatch) {
        let udp = sockets.udp.into_iter().map(|socket| udp::serve(self.clone(), socket, watch.clone()));
        let tcp = sockets.tcp.into_iter().map(|listener| tcp::serve(self.clone(), listener, watch.clone()));
        tokio::join!(futures::future::join_all(udp), futures::future::join_all(tcp));
    }

    fn client(&self, snapshot: &Snapshot) -> Option<Arc<Workload>> {
        let Owner { name, namespace, service_account } = &self.owner;
        snapshot.local_workload(name, namespace, service_account).cloned()
    }

    fn step(&self, message: &[u8], transport: Transport) -> Step {
        let snapshot = self.state.snapshot();
        let client = self.client(&snapshot);
        let request = match Request::read(message) {
            Ok(request) => request,
            Err(error) => {
                self.metrics.request(None, transport, client.as_ref());
                report::log(&self.asked(None), &Outcome::Refused(&error.to_string()));
                return answer::complaint(&error).map_or(Step::Ignore, Step::Answer);
            }
        };
        self.metrics.request(kind_of(&request), transport, client.as_ref());
        // The pod's namespace is known from the node agent, so that nothing has to wait for its record; without one it
        // is taken to be where this proxy is.
        let network = client.as_ref().map_or(&snapshot.local.network, |client| &client.network);
        let asking = Client { namespace: &self.owner.namespace, network };
        let own = request.question().and_then(|question| {
            // A version of EDNS that we do not know is for the name server to refuse.
            let readable = request.edns().is_none_or(|edns| edns.version == 0);
            lookup::answer(&snapshot, &self.zone, asking, question).filter(|_| readable)
        });
        let Some(mut own) = own else { return Step::Forward(request) };
        own.addresses.shuffle(&mut rand::rng());
        report::log(&self.asked(Some(&request)), &Outcome::Answered(&own));
        match answer::encode(&request, &own, transport) {
            Some(answer) => Step::Answer(answer),
            None => Step::Forward(request),
        }
    }

    /// The answer of a name server; `None` when there is none: then the client is left to find that out, as if nobody
    /// stood between.
    async fn forward(&self, request: &Request, transport: Transport) -> Option<Vec<u8>> {
        let begun = Instant::now();
        let answered = self.upstream.ask(request, transport).await;
        let after = answered.is_ok().then(|| begun.elapsed());
        let client = self.client(&self.state.snapshot());
        self.metrics.forwarded(kind_of(request), transport, client.as_ref(), after);
        report::log(&self.asked(Some(request)), &Outcome::Forwarded(&answered));
        answered.ok()
    }

    fn room_to_forward(&self) -> Option<OwnedSemaphorePermit> {
        self.forwarded.clone().try_acquire_owned().ok()
    }

    fn refuse_for_lack_of_room(&self, request: &Request) {
        report::log(&self.asked(Some(request)), &Outcome::Refused("too many queries of this pod wait for an answer"));
    }

    fn asked<'a>(&'a self, request: Option<&'a Request>) -> Asked<'a> {
        Asked {
            pod: &self.owner.name,
            namespace: &self.owner.namespace,
            kind: request.and_then(kind_of),
            name: request.and_then(Request::question).map(|question| question.name.as_str()),
        }
    }
}

fn kind_of(request: &Request) -> Option<RecordType> {
    request.question().map(|question| question.kind)
}

#[cfg(test)]
mod tests;
