//! The live connections of a pod: for display, and to end those that a policy change no longer allows.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use mesh_policy::{Connection, Policy};
use tokio::sync::Notify;

use crate::report::Direction;

/// The live connections of one pod. Shared by its workers.
#[derive(Debug, Default)]
pub struct PodConnections {
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    next_id: u64,
    entries: HashMap<u64, Arc<Entry>>,
}

/// Who connects to what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionInfo {
    /// Arriving at the pod, or leaving it.
    pub direction: Direction,
    /// The client.
    pub src: SocketAddr,
    /// What the client dialled.
    pub original_dst: SocketAddr,
    /// What was dialled for it.
    pub actual_dst: SocketAddr,
    /// How it travels between proxies.
    pub protocol: Protocol,
}

/// How a connection travels between proxies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// In a tunnel.
    Hbone,
    /// As it is.
    Tcp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hbone => "HBONE",
            Self::Tcp => "TCP",
        })
    }
}

#[derive(Debug)]
struct Entry {
    info: ConnectionInfo,
    /// What policies see of it; outbound connections are judged at their destination.
    subject: Option<Connection>,
    /// Why it must end.
    closed: OnceLock<Denial>,
    closing: Notify,
}

/// A policy that no longer allows a connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("policy change: {verdict}")]
pub struct Denial {
    /// The deciding rule, as policies name themselves.
    pub verdict: String,
}

/// A connection's place in the table; leaves it on drop.
#[derive(Debug)]
pub struct Registered {
    pod: Arc<PodConnections>,
    id: u64,
    entry: Arc<Entry>,
}

impl PodConnections {
    /// Adds a connection. Inbound ones bring what policies see of them, and must be registered before they are judged:
    /// then no policy change can fall between the two.
    pub fn register(self: &Arc<Self>, info: ConnectionInfo, subject: Option<Connection>) -> Registered {
        let entry = Arc::new(Entry { info, subject, closed: OnceLock::new(), closing: Notify::new() });
        let mut table = locked(&self.table);
        let id = table.next_id;
        table.next_id += 1;
        table.entries.insert(id, entry.clone());
        drop(table);
        Registered { pod: self.clone(), id, entry }
    }

    /// Ends every inbound connection that `policies` do not allow. Tells how many.
    pub fn enforce(&self, policies: &[Arc<Policy>]) -> usize {
        // The lock is not held while policies are evaluated: registering must stay quick.
        let entries: Vec<_> = locked(&self.table).entries.values().cloned().collect();
        let mut ended = 0;
        for entry in entries {
            let Some(subject) = &entry.subject else {
                continue;
            };
            let verdict = mesh_policy::evaluate(policies, subject);
            if !verdict.allowed && entry.closed.set(Denial { verdict: verdict.reason.to_string() }).is_ok() {
                entry.closing.notify_one();
                ended += 1;
            }
        }
        ended
    }

    /// Live connections.
    #[must_use]
    pub fn list(&self) -> Vec<ConnectionInfo> {
        locked(&self.table).entries.values().map(|entry| entry.info).collect()
    }
}

impl Registered {
    /// Waits until the connection must end.
    ///
    /// # Cancel safety
    /// Cancel-safe; for one task only.
    pub async fn denied(&self) -> Denial {
        loop {
            if let Some(denial) = self.entry.closed.get() {
                return denial.clone();
            }
            self.entry.closing.notified().await;
        }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        locked(&self.pod.table).entries.remove(&self.id);
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code under these locks can panic between two changes that belong together.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_policy::{Action, Clause, Match, Rule, Scope, StringMatch};

    fn info(direction: Direction) -> ConnectionInfo {
        ConnectionInfo {
            direction,
            src: "10.1.0.5:4000".parse().unwrap(),
            original_dst: "10.1.0.77:8080".parse().unwrap(),
            actual_dst: "10.1.0.77:8080".parse().unwrap(),
            protocol: Protocol::Hbone,
        }
    }

    fn subject(account: &str) -> Connection {
        Connection {
            source_ip: "10.1.0.5".parse().unwrap(),
            identity: Some(format!("spiffe://td/ns/shop/sa/{account}").parse().unwrap()),
            destination: "10.1.0.77:8080".parse().unwrap(),
        }
    }

    fn deny(principal: &str) -> Arc<Policy> {
        let found = Match { principals: vec![StringMatch::Exact(principal.into())], ..Match::default() };
        Arc::new(Policy {
            key: "shop/no-web".parse().unwrap(),
            scope: Scope::Namespace,
            action: Action::Deny,
            dry_run: false,
            rules: vec![Rule { clauses: vec![Clause { matches: vec![found] }] }],
            notes: vec![],
        })
    }

    #[tokio::test]
    async fn a_policy_change_ends_exactly_the_connections_it_denies() {
        let pod = Arc::new(PodConnections::default());
        let web = pod.register(info(Direction::Inbound), Some(subject("web")));
        let cart = pod.register(info(Direction::Inbound), Some(subject("cart")));
        let out = pod.register(info(Direction::Outbound), None);
        assert_eq!(pod.enforce(&[]), 0);
        assert_eq!(pod.enforce(&[deny("td/ns/shop/sa/web")]), 1);
        assert_eq!(pod.enforce(&[deny("td/ns/shop/sa/web")]), 0, "each is ended once");
        let denial = web.denied().await;
        assert_eq!(denial.to_string(), "policy change: explicitly denied by policy shop/no-web rule 0");
        let mut waiting = Box::pin(cart.denied());
        assert!(futures::poll!(&mut waiting).is_pending());
        drop((out, web));
        assert_eq!(pod.list().len(), 1);
    }
}
