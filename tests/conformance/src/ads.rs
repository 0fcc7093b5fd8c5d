//! A scripted discovery server: answers as the specification says a server does, or as the test says.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::{HeaderMap, Request};
use prost::Message;
use tokio::sync::mpsc;

use crate::grpc::{self, Messages};
use crate::wait::eventually;
use crate::wire::discovery::{DeltaRequest, DeltaResponse, Resource};
use crate::wire::{ADDRESS, AUTHORIZATION};

/// The server.
#[derive(Clone, Default)]
pub struct Ads(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// By type, then name.
    resources: BTreeMap<&'static str, BTreeMap<String, Resource>>,
    streams: Vec<Stream>,
    requests: Vec<Received>,
    metadata: Vec<(String, String)>,
    silent: bool,
    refusal: Option<(u32, String)>,
    nonces: u64,
    versions: u64,
}

struct Stream {
    headers: HeaderMap,
    opened: Instant,
    out: Option<mpsc::Sender<Out>>,
    types: BTreeMap<String, Interest>,
}

#[derive(Default)]
struct Interest {
    wildcard: bool,
    names: BTreeSet<String>,
    sent: BTreeSet<String>,
}

enum Out {
    Message(DeltaResponse),
    End(u32, String),
    Reset(h2::Reason),
    /// The end of the stream with no trailers' error: a status of 0.
    Clean,
}

/// One request of the client.
#[derive(Clone, Debug)]
pub struct Received {
    /// Streams are counted from 0.
    pub stream: usize,
    /// When it came.
    pub at: Instant,
    /// What it said.
    pub request: DeltaRequest,
}

impl Ads {
    /// Answers nothing by itself from now on.
    pub fn be_silent(&self) {
        self.state().silent = true;
    }

    /// Answers again by itself; new streams only.
    pub fn be_talkative(&self) {
        self.state().silent = false;
    }

    /// Sends this initial metadata on new streams.
    pub fn set_metadata(&self, name: &str, value: &str) {
        self.state().metadata = vec![(name.to_owned(), value.to_owned())];
    }

    /// Refuses new streams with this status; `None`: takes them again.
    pub fn refuse(&self, refusal: Option<(u32, &str)>) {
        self.state().refusal = refusal.map(|(code, message)| (code, message.to_owned()));
    }

    /// Puts resources in place before anybody asks, or changes them: those that listen are told in one response for
    /// each type. Returns its nonces, one per stream that listens.
    pub fn set(&self, resources: Vec<(&'static str, Resource)>) -> Vec<String> {
        self.change(resources, &[])
    }

    /// Withdraws resources of one type.
    pub fn remove(&self, type_url: &'static str, names: &[&str]) -> Vec<String> {
        let names: Vec<_> = names.iter().map(|name| (type_url, (*name).to_owned())).collect();
        self.change(Vec::new(), &names)
    }

    /// Upserts and removals together, one response for each type.
    pub fn change(&self, resources: Vec<(&'static str, Resource)>, removed: &[(&'static str, String)]) -> Vec<String> {
        let mut state = self.state();
        let mut changes: BTreeMap<&'static str, (Vec<Resource>, Vec<String>)> = BTreeMap::new();
        for (kind, mut resource) in resources {
            state.versions += 1;
            if resource.version.is_empty() && kind == ADDRESS {
                resource.version = format!("v{}", state.versions);
            }
            state.resources.entry(kind).or_default().insert(resource.name.clone(), resource.clone());
            changes.entry(kind).or_default().0.push(resource);
        }
        for (kind, name) in removed {
            state.resources.entry(kind).or_default().remove(name);
            changes.entry(kind).or_default().1.push(name.clone());
        }
        let mut nonces = Vec::new();
        for (kind, (upserts, removals)) in changes {
            nonces.extend(state.push(kind, &upserts, &removals));
        }
        nonces
    }

    /// [`Ads::set`], then waits until every stream that listens has accepted.
    ///
    /// # Panics
    /// When one refuses.
    pub async fn apply(&self, resources: Vec<(&'static str, Resource)>) {
        for nonce in self.set(resources) {
            let answer = self.answer(&nonce).await;
            assert_eq!(answer.error_detail, None, "the client refused: {answer:?}");
        }
    }

    /// [`Ads::remove`], then waits until every stream that listens has accepted.
    ///
    /// # Panics
    /// When one refuses.
    pub async fn withdraw(&self, type_url: &'static str, names: &[&str]) {
        for nonce in self.remove(type_url, names) {
            let answer = self.answer(&nonce).await;
            assert_eq!(answer.error_detail, None, "the client refused: {answer:?}");
        }
    }

    /// Sends exactly this on the newest stream; the nonce is filled in and returned.
    pub fn send(&self, mut response: DeltaResponse) -> String {
        let mut state = self.state();
        response.nonce = state.nonce();
        let nonce = response.nonce.clone();
        state.newest(Out::Message(response));
        nonce
    }

    /// Ends the newest stream with a status.
    pub fn end(&self, code: u32, message: &str) {
        self.state().newest(Out::End(code, message.to_owned()));
    }

    /// Ends the newest stream with the status OK.
    pub fn end_cleanly(&self) {
        self.state().newest(Out::Clean);
    }

    /// Resets the newest stream.
    pub fn reset(&self, reason: h2::Reason) {
        self.state().newest(Out::Reset(reason));
    }

    /// The client's answer to the response with this nonce.
    pub async fn answer(&self, nonce: &str) -> DeltaRequest {
        self.request(&format!("an answer to {nonce}"), |received| received.request.response_nonce == nonce)
            .await
            .request
    }

    /// The first request that satisfies `wanted`.
    pub async fn request(&self, what: &str, wanted: impl Fn(&Received) -> bool) -> Received {
        eventually(what, async || self.state().requests.iter().find(|received| wanted(received)).cloned()).await
    }

    /// The first request of a type on a stream.
    pub async fn first(&self, stream: usize, type_url: &str) -> DeltaRequest {
        self.request(&format!("stream {stream} asks for {type_url}"), |received| {
            received.stream == stream && received.request.type_url == type_url
        })
        .await
        .request
    }

    /// The first request of a type on the stream after those that are open now.
    pub async fn streams_first(&self, type_url: &str) -> DeltaRequest {
        let next = self.state().streams.len();
        self.first(next, type_url).await
    }

    /// All requests so far.
    #[must_use]
    pub fn requests(&self) -> Vec<Received> {
        self.state().requests.clone()
    }

    /// The request headers of a stream, once it is open.
    pub async fn headers(&self, stream: usize) -> HeaderMap {
        eventually(&format!("stream {stream} opens"), async || {
            self.state().streams.get(stream).map(|stream| stream.headers.clone())
        })
        .await
    }

    /// When each stream was opened.
    #[must_use]
    pub fn opened(&self) -> Vec<Instant> {
        self.state().streams.iter().map(|stream| stream.opened).collect()
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Serves one stream.
    pub(crate) async fn serve(&self, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
        let (parts, body) = request.into_parts();
        let (out, mut outgoing) = mpsc::channel(1024);
        let (number, metadata, refusal) = {
            let mut state = self.state();
            let opened = Instant::now();
            state.streams.push(Stream { headers: parts.headers, opened, out: Some(out), types: BTreeMap::new() });
            (state.streams.len() - 1, state.metadata.clone(), state.refusal.clone())
        };
        if let Some((code, message)) = refusal {
            self.state().streams[number].out = None;
            return grpc::refuse(respond, code, &message);
        }
        if let Ok(stream) = grpc::start(&mut respond, &metadata) {
            self.converse(number, stream, Messages::new(body), &mut outgoing).await;
        }
        self.state().streams[number].out = None;
    }

    async fn converse(
        &self,
        number: usize,
        mut stream: h2::SendStream<Bytes>,
        mut messages: Messages,
        outgoing: &mut mpsc::Receiver<Out>,
    ) {
        loop {
            tokio::select! {
                message = messages.next::<DeltaRequest>() => match message {
                    Ok(Some(request)) => self.received(number, request),
                    Ok(None) | Err(_) => return,
                },
                out = outgoing.recv() => match out {
                    Some(Out::Message(message)) => if grpc::send(&mut stream, &message).is_err() { return },
                    Some(Out::End(code, message)) => return grpc::end(&mut stream, code, &message),
                    Some(Out::Clean) | None => return grpc::end(&mut stream, 0, ""),
                    Some(Out::Reset(reason)) => return stream.send_reset(reason),
                },
            }
        }
    }

    fn received(&self, stream: usize, request: DeltaRequest) {
        let mut state = self.state();
        state.requests.push(Received { stream, at: Instant::now(), request: request.clone() });
        if !state.silent {
            state.answer(stream, &request);
        }
    }
}

impl State {
    fn nonce(&mut self) -> String {
        self.nonces += 1;
        format!("n{}", self.nonces)
    }

    fn newest(&mut self, out: Out) {
        let stream = self.streams.iter().rev().find_map(|stream| stream.out.as_ref()).expect("a stream is open");
        assert!(stream.try_send(out).is_ok(), "the client does not read");
    }

    /// What a server does by itself: answers subscriptions, ignores acknowledgements.
    fn answer(&mut self, stream: usize, request: &DeltaRequest) {
        let kind = request.type_url.clone();
        let first = !self.streams[stream].types.contains_key(&kind);
        let mut names: BTreeSet<String> = request.subscribe.iter().filter(|name| *name != "*").cloned().collect();
        let mut upserts = Vec::new();
        let mut removals = Vec::new();
        let known = self.resources.get(kind.as_str()).cloned().unwrap_or_default();
        let interest = self.streams[stream].types.entry(kind.clone()).or_default();
        if first {
            interest.wildcard = request.subscribe.is_empty() && request.unsubscribe.is_empty();
            if interest.wildcard {
                let same = |r: &&Resource| {
                    !r.version.is_empty() && request.initial_resource_versions.get(&r.name) == Some(&r.version)
                };
                upserts.extend(known.values().filter(|resource| !same(resource)).cloned());
                interest.sent.extend(known.keys().cloned());
                let gone = request.initial_resource_versions.keys().filter(|name| !known.contains_key(*name));
                removals.extend(gone.cloned());
            } else {
                names.extend(request.initial_resource_versions.keys().cloned());
            }
        } else if names.is_empty() {
            return;
        }
        for name in &names {
            match known.values().find(|resource| resource.name == *name || resource.aliases.contains(name)) {
                Some(resource) => upserts.push(resource.clone()),
                None => removals.push(name.clone()),
            }
        }
        interest.sent.extend(upserts.iter().map(|resource| resource.name.clone()));
        interest.names.extend(names);
        self.respond(stream, &kind, upserts, removals);
    }

    fn respond(&mut self, stream: usize, kind: &str, resources: Vec<Resource>, removed: Vec<String>) -> Option<String> {
        let nonce = self.nonce();
        let out = self.streams[stream].out.as_ref()?;
        let response =
            DeltaResponse { resources, removed, type_url: kind.to_owned(), nonce: nonce.clone(), ..Default::default() };
        out.try_send(Out::Message(response)).ok()?;
        Some(nonce)
    }

    fn push(&mut self, kind: &str, upserts: &[Resource], removals: &[String]) -> Vec<String> {
        let mut nonces = Vec::new();
        for number in 0..self.streams.len() {
            let stream = &mut self.streams[number];
            let (Some(interest), true) = (stream.types.get_mut(kind), stream.out.is_some()) else { continue };
            let wanted = |resource: &&Resource| {
                let named = |name: &String| interest.names.contains(name);
                interest.wildcard || named(&resource.name) || resource.aliases.iter().any(named)
            };
            let upserts: Vec<_> = upserts.iter().filter(wanted).cloned().collect();
            let removals: Vec<_> = removals.iter().filter(|name| interest.sent.remove(*name)).cloned().collect();
            interest.sent.extend(upserts.iter().map(|resource| resource.name.clone()));
            if !upserts.is_empty() || !removals.is_empty() {
                nonces.extend(self.respond(number, kind, upserts, removals));
            }
        }
        nonces
    }
}

/// A resource as it goes into a response. The version is filled in when the server sends it.
#[must_use]
pub fn resource(type_url: &'static str, name: &str, body: &impl Message) -> (&'static str, Resource) {
    let any = prost_types::Any { type_url: type_url.to_owned(), value: body.encode_to_vec() };
    (type_url, Resource { name: name.to_owned(), resource: Some(any), ..Default::default() })
}

/// A policy as a resource.
#[must_use]
pub fn policy(policy: &crate::wire::security::Authorization) -> (&'static str, Resource) {
    resource(AUTHORIZATION, &format!("{}/{}", policy.namespace, policy.name), policy)
}
