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
    /// Names that an on-demand client asked for or was sent.
    pub(super) names: HashSet<Arc<str>>,
    /// Whether the first request was answered.
    pub(super) answered: bool,
    /// Nonce of the last response.
    pub(super) nonce_sent: String,
    /// Nonce that the client accepted last.
    pub(super) nonce_acked: String,
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
    /// The client refused the last response.
    Nack,
    /// About a response that is no longer the last one.
    Stale,
    /// Changes the subscription, needs no answer.
    Quiet,
}

impl Session {
    /// Takes a request for the type with this index.
    pub(super) fn on_request(&mut self, type_index: usize, request: DeltaDiscoveryRequest) -> Meaning {
        let subscribe = request.resource_names_subscribe;
        let unsubscribe = request.resource_names_unsubscribe;
        let star = |names: &[String]| names.iter().any(|name| name == WILDCARD);
        let Some(watch) = self.types.get_mut(&type_index) else {
            let wildcard = subscribe.is_empty() || (star(&subscribe) && !star(&unsubscribe));
            self.types.insert(type_index, Watch { wildcard, ..Watch::default() });
            let names = subscribe.into_iter().filter(|name| name != WILDCARD).collect();
            return Meaning::Ask(Ask::Initial { versions: request.initial_resource_versions, names });
        };
        if let Some(error) = request.error_detail {
            watch.last_error = Some(cut(error.message));
            return Meaning::Nack;
        }
        if !request.response_nonce.is_empty() {
            if request.response_nonce != watch.nonce_sent {
                return Meaning::Stale;
            }
            watch.nonce_acked = request.response_nonce;
            watch.last_error = None;
            if subscribe.is_empty() && unsubscribe.is_empty() {
                return Meaning::Ack;
            }
        }
        for name in &unsubscribe {
            watch.names.remove(name.as_str());
            watch.wildcard &= name != WILDCARD;
        }
        if star(&subscribe) && !star(&unsubscribe) && !watch.wildcard {
            watch.wildcard = true;
            return Meaning::Ask(Ask::Initial { versions: HashMap::new(), names: Vec::new() });
        }
        let names: Vec<_> = subscribe.into_iter().filter(|name| name != WILDCARD).collect();
        if names.is_empty() { Meaning::Quiet } else { Meaning::Ask(Ask::Names(names)) }
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
const WILDCARD: &str = "*";
