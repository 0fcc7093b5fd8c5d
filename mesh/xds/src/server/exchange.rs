//! One stream against the hub, without I/O: requests, changes and time go in, responses come out.
//!
//! A proxy must never pass through a state in which a policy that holds before and after does not hold. So, beside the
//! order within a push (see [`Hub`]):
//! - the first answer about what refers to others (workloads) waits a short while for the client to ask for what is
//!   referred to (policies): it is *held*;
//! - after a reconnect, what was narrowed or removed meanwhile is kept back until the client has been told what refers to
//!   it now: it is *deferred*.

use std::sync::Arc;

use mesh_wire::discovery::{DeltaDiscoveryRequest, Node};
use tokio::time::Instant;
use tonic::Status;

use super::hub::{Hub, Registration};
use super::session::{Ask, Meaning, Peer, Session};
use super::wire::Push;

/// One open stream.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) registration: Registration,
    /// Set by the first request.
    peer: Option<Peer>,
    /// First answers that wait for the client to ask for another type first.
    held: Vec<(usize, Ask)>,
    /// When held answers are sent anyway.
    release_at: Option<Instant>,
    /// When what is deferred is sent anyway.
    undefer_at: Option<Instant>,
    /// Number of responses sent, for nonces.
    sent: u64,
}

impl Exchange {
    pub(super) fn new(registration: Registration) -> Self {
        Self { registration, peer: None, held: Vec::new(), release_at: None, undefer_at: None, sent: 0 }
    }

    fn hub(&self) -> Arc<Hub> {
        self.registration.hub.clone()
    }

    /// Whether the client has said who it is.
    pub(super) fn is_identified(&self) -> bool {
        self.peer.is_some()
    }

    /// `node.id`, or nothing yet.
    pub(super) fn node(&self) -> &str {
        self.peer.as_ref().map_or("", |peer| &peer.id)
    }

    /// The node that was checked: later requests may repeat it, it is not looked at again.
    pub(super) fn identify(&mut self, node: Node, principal: Option<Arc<str>>) {
        let text = |name: &str| {
            let value = node.metadata.as_ref().and_then(|all| all.fields.get(name)).and_then(|one| one.kind.as_ref());
            match value {
                Some(prost_types::value::Kind::StringValue(text)) if !text.is_empty() => Some(text.as_str()),
                _ => None,
            }
        };
        let node_name = text("NODE_NAME").map(Arc::from);
        let (cluster, version) = (text("CLUSTER_ID").unwrap_or_default(), text("ISTIO_VERSION").unwrap_or_default());
        self.registration.identified(&node.id, cut(cluster), cut(version));
        self.peer = Some(Peer { id: node.id, node_name, principal });
    }

    /// When [`Self::on_time`] wants to be called.
    pub(super) fn deadline(&self) -> Option<Instant> {
        [self.release_at, self.undefer_at].into_iter().flatten().min()
    }

    /// Takes a request. Its answer may come later.
    ///
    /// # Errors
    /// The status to end the stream with.
    pub(super) fn on_request(&mut self, request: DeltaDiscoveryRequest, now: Instant) -> Result<Vec<Push>, Status> {
        let hub = self.hub();
        let Some(index) = hub.index(&request.type_url) else {
            tracing::debug!(type_url = request.type_url, "subscription to a type that is not served");
            return Ok(Vec::new());
        };
        let mut pushes = Vec::new();
        let connection = self.registration.connection.clone();
        let mut session = connection.session();
        let (meaning, dropped) = session.on_request(index, request);
        if !dropped.is_empty() {
            hub.forget(&mut session, &self.known_peer(), index, &dropped);
        }
        match meaning {
            Meaning::Ask(ask) => {
                self.held.push((index, ask));
                pushes = self.release(&mut session, false, now);
            }
            Meaning::Nack { again } => {
                let message = session.watch(index).and_then(|watch| watch.last_error.as_deref());
                // One that refuses again and again is counted; the log has it once a response.
                let message = message.filter(|_| !again).unwrap_or_default();
                hub.observer.rejected(hub.url(index), self.node(), message);
            }
            Meaning::Stale => hub.observer.stale(hub.url(index)),
            Meaning::Ack | Meaning::Quiet => {}
        }
        if session.watch(index).is_some_and(|watch| watch.explicit.len() > NAMES_MAX) {
            return Err(Status::resource_exhausted(format!("more than {NAMES_MAX} names subscribed")));
        }
        Ok(pushes)
    }

    /// Something was published.
    pub(super) fn on_changed(&mut self) -> Vec<Push> {
        let connection = self.registration.connection.clone();
        self.pending(&mut connection.session())
    }

    fn pending(&self, session: &mut Session) -> Vec<Push> {
        self.registration.hub.pending(&self.registration.connection, session, &self.known_peer())
    }

    /// A change may come before the first request. It must not fill in who the client is: that would skip the check.
    fn known_peer(&self) -> Peer {
        self.peer.clone().unwrap_or_default()
    }

    /// Time has passed.
    pub(super) fn on_time(&mut self, now: Instant) -> Vec<Push> {
        let connection = self.registration.connection.clone();
        let mut session = connection.session();
        let mut pushes = Vec::new();
        if self.release_at.is_some_and(|at| now >= at) {
            pushes = self.release(&mut session, true, now);
        }
        if self.undefer_at.is_some_and(|at| now >= at) {
            self.undefer_at = None;
            session.undefer();
            pushes.extend(self.pending(&mut session));
        }
        pushes
    }

    /// Answers what is held, as far as what it refers to was answered before, or regardless when `all`.
    fn release(&mut self, session: &mut Session, all: bool, now: Instant) -> Vec<Push> {
        let hub = self.hub();
        let mut waiting = std::mem::take(&mut self.held);
        let all = all || waiting.len() > HELD_MAX;
        // What others wait for goes first.
        waiting.sort_by_key(|(index, _)| hub.spec(*index).is_some_and(|spec| spec.after.is_some()));
        let peer = self.known_peer();
        let mut pushes = Vec::new();
        for (index, ask) in waiting {
            let after = hub.spec(index).and_then(|spec| spec.after).and_then(|url| hub.index(url));
            let answered = |index| session.watch(index).is_some_and(|watch| watch.answered);
            if all || after.is_none_or(answered) || answered(index) {
                pushes.extend(hub.answer(&self.registration.connection, session, &peer, index, ask));
            } else {
                self.held.push((index, ask));
            }
        }
        self.release_at = match (self.held.is_empty(), self.release_at) {
            (true, _) => None,
            (false, None) => Some(now + hub.options().hold),
            (false, at) => at,
        };
        if session.is_deferring() {
            if hub.undefer(session) {
                self.undefer_at = None;
                pushes.extend(self.pending(session));
            } else {
                self.undefer_at.get_or_insert(now + DEFER);
            }
        }
        pushes
    }

    /// Numbers a response that goes out now.
    pub(super) fn stamp(&mut self, push: &mut Push) {
        self.sent += 1;
        push.nonce = format!("{}-{}-{}", push.version, self.registration.id, self.sent);
        if let Some(watch) = self.registration.connection.session().watch_mut(push.type_index) {
            watch.nonce_sent.clone_from(&push.nonce);
        }
        self.registration.hub.observer.pushed(push.spec.url);
    }
}

/// The beginning of what a client says of itself: it is kept for as long as the client stays.
fn cut(text: &str) -> String {
    text.chars().take(SHOWN_MAX).collect()
}

/// Characters kept of a cluster's name and of a version.
const SHOWN_MAX: usize = 256;
/// Held requests of one stream; more are answered without waiting.
const HELD_MAX: usize = 16;
/// Names that one stream may subscribe to, of one type.
const NAMES_MAX: usize = 1 << 20;
/// How long a client that asks for policies has to ask for workloads too, before it is told what was narrowed or removed.
const DEFER: std::time::Duration = std::time::Duration::from_secs(5);
