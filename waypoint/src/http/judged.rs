//! An upgrade that was allowed, and whether it still is: it may last for days, while policies change.

use std::future::pending;
use std::rc::Rc;
use std::sync::Arc;

use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, Method};
use mesh_policy::l7::Http;

use super::canonical::{self, Canonical, authority};
use super::connection::Connection;
use super::forward::Route;
use super::identify::Client;
use super::local::Local;
use super::outgoing::Outgoing;
use crate::filter::authorize;
use crate::snapshot::{Backend, Chain, ChainHandle};

/// A request as policies saw it, and the chain that they were of.
pub(crate) struct Judged {
    asked: Asked,
    client: Client,
    /// As its backend saw it.
    sent: Outgoing,
    backend: Backend,
    by: Arc<Chain>,
}

/// The head of a request after everything that clients may not say was taken out.
pub(crate) struct Asked {
    method: Method,
    target: PathAndQuery,
    headers: HeaderMap,
}

impl Asked {
    pub(crate) fn of(parts: &Parts, canonical: &Canonical) -> Self {
        Self { method: parts.method.clone(), target: canonical.target.clone(), headers: parts.headers.clone() }
    }

    fn seen(&self) -> Http<'_> {
        canonical::seen(&self.method, &self.target, &self.headers)
    }
}

impl Judged {
    /// A request that may go to the route's backend.
    pub(crate) fn new(route: &Route<'_>, asked: Asked, sent: &Outgoing) -> Box<Self> {
        let (client, backend, by) = (route.client, route.backend.clone(), route.chain.clone());
        Box::new(Self { asked, client, sent: sent.clone(), backend, by })
    }

    /// Returns when the policies of now no longer allow it. Where nothing serves its host any more, it goes on.
    pub(crate) async fn denied_later(&self, connection: &Rc<Connection>) -> Local {
        let handle = &connection.context.chain;
        let host = authority(&self.asked.headers);
        let mut hosts = handle.changes();
        let mut judged = Some(self.by.clone());
        loop {
            let mut changes = handle.of_host(host).as_ref().map(ChainHandle::changes);
            // It may have changed already, while the upstream was asked.
            let now = handle.for_host(host).ok();
            let is_same = now.as_ref().zip(judged.as_ref()).is_some_and(|(now, before)| Arc::ptr_eq(now, before));
            if !is_same && let Err(denial) = self.judge(connection, now.as_deref()) {
                return denial;
            }
            judged = now;
            let own = async {
                match &mut changes {
                    Some(changes) => changes.changed().await,
                    None => pending().await,
                }
            };
            let changed = tokio::select! {
                changed = hosts.changed() => changed,
                changed = own => changed,
            };
            if changed.is_err() {
                return pending().await;
            }
        }
    }

    fn judge(&self, connection: &Connection, chain: Option<&Chain>) -> Result<(), Local> {
        if let Some(chain) = chain {
            authorize::authorize(connection, chain, self.asked.seen(), &self.client)?;
            if let Some(now) = chain.backends.iter().find(|one| one.is_same_port(&self.backend)) {
                return authorize::send_on(connection, now, &self.sent, &self.client);
            }
        }
        match &self.backend.guard {
            None => Ok(()),
            Some(_) => Err(authorize::unguarded(&self.backend)),
        }
    }
}
