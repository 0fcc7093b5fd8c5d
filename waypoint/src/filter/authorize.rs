//! Who may: policies of the service, the proxy and its class together; and those of another service that a route leads to.

use http::StatusCode;
use mesh_policy::l7::{Http, L7Request, Policies};

use crate::http::local::Local;
use crate::http::{Client, Connection, Outgoing};
use crate::snapshot::{Backend, Chain};

/// Lets a request pass, or tells the client that it may not.
///
/// # Errors
/// 403; the answer to the client says no more than that, the log says which rule decided and which would have allowed it.
pub(crate) fn authorize(connection: &Connection, chain: &Chain, seen: Http<'_>, client: &Client) -> Result<(), Local> {
    if let Some(reason) = chain.refuse_all.as_ref().or(chain.proxy.refuse_all.as_ref()) {
        return Err(refused(reason));
    }
    if chain.policies.is_empty() {
        return Ok(());
    }
    let peer = &connection.context.peer;
    let request = L7Request {
        source: peer.source_identity.as_ref(),
        source_ip: peer.source_address.ip().to_canonical(),
        remote_ip: client.remote,
        destination_ip: peer.destination.ip(),
        destination_port: peer.destination.port(),
        sni: peer.tls.as_ref().and_then(|tls| tls.sni.as_deref()).or(peer.sni.as_deref()),
        http: Some(seen),
    };
    judge(connection, &chain.policies, &request)
}

/// Lets a request be sent on to a backend, or tells the client that it may not: where the backend is another service than
/// the one that was called, whoever is sent on to it must be allowed to call it with what it gets. Most are not.
///
/// # Errors
/// As [`authorize`].
pub(crate) fn send_on(
    connection: &Connection,
    backend: &Backend,
    outgoing: &Outgoing,
    client: &Client,
) -> Result<(), Local> {
    let Some(guard) = &backend.guard else { return Ok(()) };
    let judged = match &guard.refuse_all {
        Some(reason) => Err(refused(reason)),
        None => {
            let request = guard.request(&connection.context.peer, client.remote, Some(outgoing.seen()));
            judge(connection, &guard.policies, &request)
        }
    };
    judged.map_err(|mut local| {
        backend.cluster.stats().rq_denied.add();
        local.denial = local.denial.take().map(|why| format!("a route leads to {backend}: {why}"));
        local
    })
}

/// Nobody guards a backend any more that a policy guarded: its policies can no longer be followed.
pub(crate) fn unguarded(backend: &Backend) -> Local {
    refused(&format!("no route leads to {backend} any more"))
}

fn judge(connection: &Connection, policies: &Policies, request: &L7Request<'_>) -> Result<(), Local> {
    let verdict = policies.evaluate(request);
    for audit in &verdict.audits {
        let path = request.http.map(|http| http.path);
        tracing::info!(target: "audit", policy = %audit.id(), source = ?request.source, path, "request matches an audit policy");
    }
    if verdict.allowed() {
        return Ok(());
    }
    let mut local = denied(&verdict.decision.policy_id());
    let explains = connection.context.worker.may_explain();
    let nearest = explains.then(|| policies.nearest_allow(request)).flatten();
    let nearest = nearest.map(|nearest| format!("; {nearest}")).unwrap_or_default();
    local.denial = Some(format!("{}{nearest}", verdict.decision));
    Err(local)
}

fn refused(reason: &str) -> Local {
    let mut local = denied("none");
    local.denial = Some(format!("nothing may pass: {reason}"));
    local
}

fn denied(policy: &str) -> Local {
    let details = format!("rbac_access_denied_matched_policy[{policy}]");
    Local::new(StatusCode::FORBIDDEN, details).body("RBAC: access denied")
}
