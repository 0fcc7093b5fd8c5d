//! The protocol of one stream, without I/O: requests go in, what to answer comes out.
//!
//! ```text
//!              first request
//!   (unknown) ---------------> subscribed --+-- ACK, NACK, stale nonce, unsubscribe: no answer
//!                  answer          ^        |
//!                                  +--------+-- subscribe: answer
//! ```

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use mesh_wire::discovery::DeltaDiscoveryRequest;

/// Who is at the other end, as its node message says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Peer {
    /// `node.id`.
    pub id: String,
    /// Metadata `NODE_NAME`: the Kubernetes node, for what is local to it.
    pub node_name: Option<Arc<str>>,
    /// Whom the stream was authenticated as, `<namespace>/<service account>`.
    pub principal: Option<Arc<str>>,
}

/// What one stream subscribes to, by index of the type in the hub's list.
#[derive(Debug, Default)]
pub(super) struct Session {
    types: BTreeMap<usize, Watch>,
}

/// The subscription to one type.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// Everything of the type.
    pub(super) wildcard: bool,
    /// Names that the client asked for: of resources, aliases, groups, or of nothing yet.
    pub(super) explicit: HashSet<Arc<str>>,
    /// Resources that an on-demand client holds because it was sent them. Empty with a wildcard.
    pub(super) sent: HashSet<Arc<str>>,
    /// What is narrowed or removed is kept back until the client was told what refers to it.
    pub(super) deferring: bool,
    /// Whether the first request was answered.
    pub(super) answered: bool,
    /// Nonce of the last response.
    pub(super) nonce_sent: String,
    /// Nonce that the client accepted last.
    pub(super) nonce_acked: String,
    /// Nonce of the response that it refused last.
    nonce_nacked: String,
    /// Why it refused the last response, if it did.
    pub(super) last_error: Option<String>,
}

/// What a request asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ask {
    /// The first of its type on this stream: everything subscribed that differs from what the client has.
    Initial {
        /// What the client kept from an earlier stream.
        versions: HashMap<String, String>,
        /// Names it subscribes to.
        names: Vec<String>,
    },
    /// These names.
    Names(Vec<String>),
}

/// What a request means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// To be answered.
    Ask(Ask),
    /// The client accepted the last response.
    Ack,
    /// The client refused a response.
    Nack {
        /// It has told so before, or it was not the last response.
        again: bool,
    },
    /// About a response that is no longer the last one.
    Stale,
    /// Changes the subscription, needs no answer.
    Quiet,
}

impl Session {
    /// Takes a request for the type with this index. Tells what it means, and which names it gives up.
    pub(super) fn on_request(&mut self, type_index: usize, request: DeltaDiscoveryRequest) -> (Meaning, Vec<String>) {
        let subscribe = request.resource_names_subscribe;
        let unsubscribe = request.resource_names_unsubscribe;
        let star = |names: &[String]| names.iter().any(|name| name == WILDCARD);
        let Some(watch) = self.types.get_mut(&type_index) else {
            let wildcard = subscribe.is_empty() || (star(&subscribe) && !star(&unsubscribe));
            self.types.insert(type_index, Watch { wildcard, ..Watch::default() });
            let names = subscribe.into_iter().filter(|name| name != WILDCARD).collect();
            return (Meaning::Ask(Ask::Initial { versions: request.initial_resource_versions, names }), Vec::new());
        };
        let nonce = request.response_nonce;
        if let Some(error) = request.error_detail {
            watch.last_error = Some(cut(error.message));
            let again = nonce != watch.nonce_sent || nonce == watch.nonce_nacked;
            if !again {
                watch.nonce_nacked = nonce;
            }
            return (Meaning::Nack { again }, Vec::new());
        }
        if !nonce.is_empty() {
            if nonce != watch.nonce_sent {
                return (Meaning::Stale, Vec::new());
            }
            watch.nonce_acked = nonce;
            watch.last_error = None;
            if subscribe.is_empty() && unsubscribe.is_empty() {
                return (Meaning::Ack, Vec::new());
            }
        }
        let becomes_wildcard = star(&subscribe) && !star(&unsubscribe) && !watch.wildcard;
        let names: Vec<_> = subscribe.into_iter().filter(|name| name != WILDCARD).collect();
        let meaning = if becomes_wildcard {
            watch.wildcard = true;
            watch.sent = HashSet::new();
            watch.explicit.extend(names.iter().map(|name| Arc::from(name.as_str())));
            Meaning::Ask(Ask::Initial { versions: HashMap::new(), names: Vec::new() })
        } else if names.is_empty() {
            Meaning::Quiet
        } else {
            Meaning::Ask(Ask::Names(names))
        };
        (meaning, unsubscribe)
    }

    /// Nothing is kept back any longer.
    pub(super) fn undefer(&mut self) {
        self.types.values_mut().for_each(|watch| watch.deferring = false);
    }

    /// Whether anything is kept back.
    pub(super) fn is_deferring(&self) -> bool {
        self.types.values().any(|watch| watch.deferring)
    }

    /// The subscription to a type.
    pub(super) fn watch(&self, type_index: usize) -> Option<&Watch> {
        self.types.get(&type_index)
    }

    /// The subscription to a type, to be changed.
    pub(super) fn watch_mut(&mut self, type_index: usize) -> Option<&mut Watch> {
        self.types.get_mut(&type_index)
    }

    /// Every subscription.
    pub(super) fn watches(&self) -> impl Iterator<Item = (usize, &Watch)> {
        self.types.iter().map(|(index, watch)| (*index, watch))
    }
}

/// The beginning of a message that a client wrote: it is kept and logged.
fn cut(mut message: String) -> String {
    let end = (0..=ERROR_BYTES_MAX.min(message.len())).rev().find(|at| message.is_char_boundary(*at));
    message.truncate(end.unwrap_or_default());
    message.shrink_to_fit();
    message
}

/// Bytes kept of a refusal's message.
const ERROR_BYTES_MAX: usize = 16 << 10;
/// Subscribes to everything of a type.
pub(super) const WILDCARD: &str = "*";
