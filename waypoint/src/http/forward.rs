//! From a route to a response: attempts, each with its limits, until one is good enough or there may be no more.
//!
//! ```text
//! attempt -> response    -> retriable and allowed? back off, again : the answer
//!         -> failure     -> retriable and allowed? back off, again : 503 (UF, UC, UR, UO, UH)
//!         -> per try     -> retriable and allowed? again           : 504 (UT)
//!         -> route limit                                           : 504 (UT)
//! ```
//!
//! # Source
//! Resilience specification, retries and timeouts.

mod attempt;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::header::HeaderValue;
use http::{HeaderName, Response, StatusCode};
use http_body::Body;
use mesh_route::grpc;
use mesh_route::retry::{Outcome, backoff, retriable};
use mesh_route::{Retry, Rule};
use tokio::time::Instant;

use super::RequestUpload;
use super::connection::Connection;
use super::copies::Copies;
use super::deadline::Deadline;
use super::download::{Expired, Limits};
use super::identify::Client;
use super::interim::{Interims, waits};
use super::local::Local;
use super::outgoing::Outgoing;
use super::record::Record;
use super::response::Dress;
use super::sticky::Sticky;
use super::unread::ClientBody;
use super::upload::{Upload, UploadOptions};
use super::web::Bridge;
use crate::connection::Destination;
use crate::report::Flags;
use crate::snapshot::{Backend, Chain};
use crate::upstream::{Cluster, Failure, HashChoice, HashInput, Permit, PickContext, Picked, Reply, ReplyBody};
use attempt::{Attempt, Ended};

/// Where a request goes.
pub(crate) struct Route<'a> {
    pub(crate) connection: &'a Rc<Connection>,
    pub(crate) chain: &'a Arc<Chain>,
    pub(crate) rule: &'a Rule,
    pub(crate) backend: &'a Backend,
    /// Of a wildcard backend: the pool for the host of the request.
    pub(crate) cluster: Arc<Cluster>,
    /// Host of the request.
    pub(crate) host: Option<String>,
    pub(crate) client: Client,
    /// Of the backend among the rule's.
    pub(crate) position: usize,
    /// When routing began: delays on purpose do not count.
    pub(crate) started: Instant,
}

/// A response on its way to the client.
pub(crate) struct Forwarded {
    pub(crate) response: Response<ReplyBody>,
    pub(crate) limits: Limits,
    pub(crate) upload: Option<Rc<RequestUpload>>,
}

/// What the attempts of one request share.
struct Attempts<'a, 'b> {
    route: &'a Route<'a>,
    outgoing: Outgoing,
    upload: Option<Rc<RequestUpload>>,
    limits: Limits,
    interims: Option<Interims>,
    hash: HashChoice,
    sticky: Option<Sticky>,
    tried: Vec<Picked>,
    permit: Option<Permit>,
    record: &'b mut Record,
}

/// Sends a request until it is answered.
///
/// # Errors
/// The answer that says why there is none.
///
/// # Cancel safety
/// Dropping it cancels the attempt that is under way.
pub(crate) async fn run(
    route: &Route<'_>,
    outgoing: Outgoing,
    body: ClientBody,
    copies: Copies,
    sticky: Option<Sticky>,
    record: &mut Record,
    dress: &mut Dress<'_>,
) -> Result<Forwarded, Local> {
    let retries = route.rule.retry.as_ref().filter(|retry| retry.attempts > 0);
    let upload = (!body.is_end_stream()).then(|| {
        let options = UploadOptions {
            keep: retries.is_some().then(|| route.connection.context.worker.replays.clone()),
            // HTTP/2 has no need to ask: what is not wanted is reset.
            gated: waits(&outgoing.headers) && !route.cluster.speaks_http2(outgoing.is_http2()),
            grpc: record.grpc,
            decode: dress.bridge.as_ref().and_then(Bridge::decode),
            copies,
            passed_on: route.connection.passed_on(),
        };
        Upload::new(body, options)
    });
    let mut attempts = Attempts::new(route, outgoing, record);
    (attempts.upload, attempts.sticky) = (upload, sticky);
    let answered = attempts.run(retries).await;
    attempts.settle();
    let reply = answered?;
    if reply.response.status() == StatusCode::SWITCHING_PROTOCOLS {
        // Nobody asked for another protocol: what follows is no HTTP, and not for this client.
        return Err(Local::new(StatusCode::BAD_GATEWAY, "upstream_protocol_error").flags(Flags::UPE));
    }
    dress.cookies.extend(attempts.hash.set_cookie.take());
    if let Some(session) = &route.rule.session {
        Sticky::write(attempts.sticky.as_ref(), session, route.position, &reply.endpoint, dress);
    }
    Ok(Forwarded { response: reply.response, limits: attempts.limits, upload: attempts.upload })
}

/// Sends a request that has no body, and gives back whatever comes, an upgrade included.
///
/// # Errors
/// As [`run`].
pub(crate) async fn without_body(route: &Route<'_>, outgoing: Outgoing, record: &mut Record) -> Result<Reply, Local> {
    let retries = route.rule.retry.as_ref().filter(|retry| retry.attempts > 0);
    let mut attempts = Attempts::new(route, outgoing, record);
    attempts.interims = None;
    let answered = attempts.run(retries).await;
    attempts.settle();
    answered
}

impl<'a, 'b> Attempts<'a, 'b> {
    fn new(route: &'a Route<'a>, outgoing: Outgoing, record: &'b mut Record) -> Self {
        let headers = &outgoing.headers;
        // Hints are sent on to clients of HTTP/1 only.
        let wants_interims = if outgoing.is_http2() { waits(headers) } else { Interims::are_wanted(headers) };
        Self {
            route,
            limits: limits_of(route, &outgoing, record),
            hash: hash_of(route, &outgoing),
            interims: wants_interims.then(Interims::default),
            outgoing,
            upload: None,
            sticky: None,
            tried: Vec::new(),
            permit: None,
            record,
        }
    }

    async fn run(&mut self, retries: Option<&Retry>) -> Result<Reply, Local> {
        let most = retries.map_or(0, |retry| retry.attempts);
        for number in 1.. {
            self.record.attempts = number;
            let last = number > most;
            let began = Instant::now();
            let ended = self.attempt(number, last, retries).await;
            let again = retries.filter(|retry| self.is_worth_another(retry, &ended));
            let allowed = again.is_some() && !last && self.may_try_again();
            if again.is_some() && last {
                self.record.flags |= Flags::URX;
                if last {
                    self.route.cluster.stats().rq_retry_limit_exceeded.add();
                }
            }
            let (Some(retry), true) = (again, allowed) else { return self.finish(ended, began) };
            self.note_tried(ended);
            let pause = backoff(retry, number, self.route.connection.random());
            self.route.cluster.stats().rq_retry_backoff_exponential.add();
            if let Err(expired) = self.pause(pause).await {
                return Err(self.timed_out(expired));
            }
        }
        // The numbers of attempts do not end.
        Err(Local::new(StatusCode::SERVICE_UNAVAILABLE, "retries_exhausted"))
    }

    async fn attempt(&mut self, number: u32, last: bool, retries: Option<&Retry>) -> Ended {
        let body = attempt::body_of(self.upload.as_ref());
        if let Some(left) = self.limits.client.as_ref().map(|client| client.left_of(self.record.started)) {
            let value = HeaderValue::try_from(grpc::format_timeout(left));
            self.outgoing.headers.extend(value.map(|value| (GRPC_TIMEOUT, value)));
        }
        let mut request = self.outgoing.attempt(number, last, body);
        if let Some(interims) = &self.interims {
            interims.watch(&mut request);
        }
        let connection = self.route.connection;
        let peer = &connection.context.peer;
        let reuse = retries.is_some_and(|retry| retry.reuse_hosts);
        let per_try = retries.and_then(|retry| retry.per_try_timeout);
        let chosen = RefCell::new(None);
        let watched = per_try.is_some() && self.upload.is_none();
        let context = PickContext {
            hash: self.hash.hash,
            tried: if reuse { &[] } else { &self.tried },
            remote_localities: retries.is_some_and(|retry| retry.remote_localities),
            source: Some(peer.source_address),
            destination: address_of(&peer.destination),
            session: self.sticky.map(|sticky| sticky.session),
            client_http2: self.outgoing.is_http2(),
            // Without a body the request has been received whole: the pool itself may watch the time.
            timeout: per_try.filter(|_| self.upload.is_none()),
            server_name: None,
            chosen: Some(&chosen),
        };
        let sending = connection.context.worker.upstreams.request(&self.route.cluster, request, &context);
        let attempt = Attempt {
            connection,
            upload: self.upload.as_ref(),
            limits: &mut self.limits,
            started: self.record.started,
            per_try: per_try.filter(|_| self.upload.is_some()).map(|budget| Deadline::new(budget, Instant::now())),
            interims: self.interims.as_ref(),
        };
        let ended = attempt.run(sending).await;
        if let (Ended::PerTry | Ended::Expired(_), Some(picked)) = (&ended, chosen.take()) {
            match ended {
                // How little time a client gives says nothing about the endpoint.
                Ended::Expired(Expired::Client) => self.route.cluster.stats().rq_timeout.add(),
                Ended::Expired(Expired::Route) => self.route.cluster.timed_out(&picked),
                // The pool has already noted what it watched itself.
                _ if watched => {}
                _ => self.route.cluster.timed_out(&picked),
            }
            self.tried.push(picked);
        }
        ended
    }

    fn is_worth_another(&self, retry: &Retry, ended: &Ended) -> bool {
        let outcome = match ended {
            Ended::Reply(reply) => {
                Outcome::Response { status: reply.response.status(), headers: reply.response.headers() }
            }
            Ended::Failed(failure) => match attempt::outcome_of(&failure.error) {
                Some(outcome) => outcome,
                None => return false,
            },
            Ended::PerTry => Outcome::PerTryTimeout,
            Ended::Expired(_) => return false,
        };
        retriable(retry, &outcome)
    }

    fn may_try_again(&mut self) -> bool {
        if self.upload.as_ref().is_some_and(|upload| !upload.can_replay()) {
            return false;
        }
        // One retry at a time counts.
        self.permit = None;
        self.permit = self.route.cluster.try_retry();
        self.permit.is_some()
    }

    fn note_tried(&mut self, ended: Ended) {
        let picked = match ended {
            Ended::Reply(reply) => Some(reply.endpoint),
            Ended::Failed(failure) => failure.endpoint,
            Ended::PerTry | Ended::Expired(_) => None,
        };
        self.tried.extend(picked);
    }

    async fn pause(&mut self, pause: Duration) -> Result<(), Expired> {
        let limits = &mut self.limits;
        let (started, upload) = (self.record.started, self.upload.as_ref());
        tokio::select! {
            expired = std::future::poll_fn(|cx| limits.poll(cx, started, upload)) => Err(expired),
            () = tokio::time::sleep(pause) => Ok(()),
        }
    }

    /// The last word of the last attempt.
    fn finish(&mut self, ended: Ended, began: Instant) -> Result<Reply, Local> {
        match ended {
            Ended::Reply(reply) => {
                if self.record.attempts > 1 && !self.record.flags.contains(Flags::URX) {
                    self.route.cluster.stats().rq_retry_success.add();
                }
                self.record.upstream_time = Some(began.elapsed());
                self.note_endpoint(&reply.endpoint);
                Ok(reply)
            }
            Ended::Failed(failure) => Err(self.failed(failure)),
            Ended::PerTry => {
                let local = Local::new(StatusCode::GATEWAY_TIMEOUT, "upstream_per_try_timeout");
                Err(local.body("upstream request timeout").flags(Flags::UT))
            }
            Ended::Expired(expired) => Err(self.timed_out(expired)),
        }
    }

    fn failed(&mut self, failure: Failure) -> Local {
        if let Some(endpoint) = &failure.endpoint {
            self.note_endpoint(endpoint);
        }
        if self.upload.as_ref().is_some_and(|upload| upload.failed()) {
            return self.client_broke_off();
        }
        let error = &failure.error;
        if error.is_connect_failure() {
            self.record.transport_failure = Some(error.to_string());
        }
        let status = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
        let local = Local::new(status, error.details()).body(error.body_text()).flags(error.flag());
        if error.is_overflow() {
            return local.header(OVERLOADED, HeaderValue::from_static("true"));
        }
        local
    }

    /// What the client sends is no body, or it has left.
    fn client_broke_off(&self) -> Local {
        self.route.connection.given_up();
        let fault = self.route.connection.watch.as_ref().and_then(|watch| watch.fault());
        match fault {
            Some(fault) => Local::bad_request(format!("http1.codec_error|{fault}")),
            None => Local::bad_request("downstream_body_incomplete"),
        }
    }

    fn timed_out(&self, expired: Expired) -> Local {
        let local = Local::new(StatusCode::GATEWAY_TIMEOUT, "upstream_response_timeout");
        let local = local.body("upstream request timeout").flags(Flags::UT);
        match expired {
            Expired::Route => local,
            Expired::Client => local.grpc_status(grpc::status::DEADLINE_EXCEEDED),
        }
    }

    fn note_endpoint(&mut self, picked: &Picked) {
        let endpoint = picked.host().endpoint();
        self.record.destination = Some(endpoint.end.clone());
        self.record.upstream = Some(picked.host().address());
    }

    /// There will be no other attempt.
    fn settle(&mut self) {
        self.permit = None;
        if let Some(upload) = &self.upload {
            upload.settle();
            (self.record.body_received, self.record.messages_received) = upload.counts();
        }
    }
}

/// The time limits of a request: of its route, and of gRPC clients that say how long they wait.
fn limits_of(route: &Route<'_>, outgoing: &Outgoing, record: &Record) -> Limits {
    let asked = record.grpc.then(|| outgoing.headers.get(&GRPC_TIMEOUT)).flatten();
    let asked = asked.and_then(|value| grpc::parse_timeout(value.to_str().ok()?));
    let client = match (asked, route.rule.grpc_timeout_max) {
        (Some(asked), Some(most)) => Some(asked.min(most)),
        (asked, _) => asked,
    };
    Limits {
        route: route.rule.timeout.map(|budget| Deadline::new(budget, route.started)),
        client: client.map(|budget| Deadline::new(budget, record.started)),
    }
}

fn hash_of(route: &Route<'_>, outgoing: &Outgoing) -> HashChoice {
    let peer = &route.connection.context.peer;
    route.cluster.hash(&HashInput {
        headers: &outgoing.headers,
        query: outgoing.query(),
        source: Some(peer.source_address),
        destination: address_of(&peer.destination),
    })
}

fn address_of(destination: &Destination) -> Option<std::net::SocketAddr> {
    match destination {
        Destination::Address(address) => Some(*address),
        Destination::Name(..) => None,
    }
}

const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
const OVERLOADED: HeaderName = HeaderName::from_static("x-envoy-overloaded");
