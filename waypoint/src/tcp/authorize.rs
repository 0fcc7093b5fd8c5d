//! Whether a connection of bytes may be. Policies about requests count as if they held where that is stricter.

use std::sync::Arc;

use mesh_policy::l7::{Decision, L7Request, Policies};

use crate::connection::PeerInfo;
use crate::snapshot::{Backend, Chain};
use crate::worker::Worker;

/// Why not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Denial {
    /// For the access log.
    pub(super) details: String,
    /// In words: who, to whom, by which rule, and what would have been allowed.
    pub(super) reason: String,
}

/// # Errors
/// [`Denial`].
pub(super) fn check(chain: &Chain, peer: &PeerInfo, worker: &Worker) -> Result<(), Denial> {
    let request = L7Request {
        source: peer.source_identity.as_ref(),
        source_ip: peer.source_address.ip(),
        remote_ip: peer.source_address.ip(),
        destination_ip: peer.destination.ip(),
        destination_port: peer.destination.port(),
        sni: peer.sni.as_deref().or_else(|| peer.tls.as_ref().and_then(|tls| tls.sni.as_deref())),
        http: None,
    };
    judge(chain.refuse_all.as_ref(), &chain.policies, &request, worker, &|| peer.destination.to_string())
}

/// Whether a connection may be sent on to a backend: where it is another service than the one that was called, the caller
/// must be allowed to call it.
///
/// # Errors
/// [`Denial`].
pub(super) fn send_on(backend: &Backend, peer: &PeerInfo, worker: &Worker) -> Result<(), Denial> {
    let Some(guard) = &backend.guard else { return Ok(()) };
    let request = guard.request(peer, peer.source_address.ip(), None);
    let name = || format!("{backend}, where a route of {} leads", peer.destination);
    judge(guard.refuse_all.as_ref(), &guard.policies, &request, worker, &name).inspect_err(|_| {
        backend.cluster.stats().rq_denied.add();
    })
}

/// Whether a connection to a backend may go on under another configuration, `None` where the entry point is gone. What
/// nobody guards any more, because no route leads there any more, ends: its policies could not be followed.
///
/// # Errors
/// [`Denial`].
pub(super) fn go_on(chain: Option<&Chain>, backend: &Backend, peer: &PeerInfo, worker: &Worker) -> Result<(), Denial> {
    if let Some(chain) = chain {
        check(chain, peer, worker)?;
        if let Some(now) = chain.backends.iter().find(|one| one.is_same_port(backend)) {
            return send_on(now, peer, worker);
        }
    }
    match &backend.guard {
        None => Ok(()),
        Some(_) => {
            let reason = format!("no route of {} leads to {backend} any more", peer.destination);
            Err(Denial { details: NO_POLICY.to_owned(), reason })
        }
    }
}

fn judge(
    refuse_all: Option<&Arc<str>>,
    policies: &Policies,
    request: &L7Request<'_>,
    worker: &Worker,
    destination: &dyn Fn() -> String,
) -> Result<(), Denial> {
    let who = || request.source.map_or_else(|| "nobody that is known".to_owned(), ToString::to_string);
    if let Some(reason) = refuse_all {
        let reason = format!("{} to {} is refused: {reason}", who(), destination());
        return Err(Denial { details: NO_POLICY.to_owned(), reason });
    }
    if policies.is_empty() {
        return Ok(());
    }
    let verdict = policies.evaluate(request);
    for audit in &verdict.audits {
        tracing::info!(source = who(), destination = destination(), policy = %audit, "audit policy matched");
    }
    if verdict.allowed() {
        return Ok(());
    }
    let nearest = match verdict.decision {
        Decision::NoneMatched if worker.may_explain() => policies.nearest_allow(request),
        _ => None,
    };
    let hint = nearest.map(|hint| format!("; nearest: {hint}")).unwrap_or_default();
    Err(Denial {
        details: format!("rbac_access_denied_matched_policy[{}]", verdict.decision.policy_id()),
        reason: format!("{} to {} is denied: {}{hint}", who(), destination(), verdict.decision),
    })
}

/// Nothing in particular denied it.
const NO_POLICY: &str = "rbac_access_denied_matched_policy[none]";
