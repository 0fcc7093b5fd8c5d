//! A rule of a table: what happens to a request that takes it.

mod compile;
mod effects;

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use serde::{Deserialize, Serialize};

use crate::{Cors, Edits, Fault, Redirect, Retry, Rewrite, per_million, share};

pub(crate) use compile::{Context, duration, final_status};

/// What happens to a request that takes it.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Where it was written.
    pub origin: Origin,
    /// What answers.
    pub action: Action,
    /// Edits of the request, before those of the backend.
    pub request_headers: Edits,
    /// Edits of every answer, the proxy's own included.
    pub response_headers: Edits,
    /// New path and authority, unless the backend has one.
    pub rewrite: Option<Rewrite>,
    /// Copies of the request, whose answers nobody waits for.
    pub mirrors: Vec<Mirror>,
    /// Who may call from a browser.
    pub cors: Option<Cors>,
    /// Trouble on purpose.
    pub fault: Option<Fault>,
    /// Of the whole request; `None`: for ever.
    pub timeout: Option<Duration>,
    /// `None`: never.
    pub retry: Option<Retry>,
    /// Keeps a client at one endpoint.
    pub session: Option<SessionPersistence>,
    /// What the proxy itself answers follows the rules of gRPC.
    pub grpc: bool,
    /// Upper bound for the client's `grpc-timeout`.
    pub grpc_timeout_max: Option<Duration>,
}

/// Where a rule was written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// `HTTPRoute`, `GRPCRoute`, `VirtualService`, ...
    pub kind: String,
    /// Of the object.
    pub namespace: String,
    /// Of the object.
    pub name: String,
    /// Position among the object's rules.
    pub rule: u32,
    /// The rule's own name, or empty.
    pub rule_name: String,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{} rule {}", self.kind, self.namespace, self.name, self.rule)?;
        if self.rule_name.is_empty() { Ok(()) } else { write!(f, " ({})", self.rule_name) }
    }
}

/// What answers a request.
#[derive(Clone, Debug)]
pub enum Action {
    /// A backend.
    Forward(Forward),
    /// A redirect.
    Redirect(Redirect),
    /// A fixed answer.
    Direct(Direct),
    /// An error, because something that the rule needs is not there.
    Unusable(Unusable),
}

/// A fixed answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Direct {
    /// Its status.
    pub status: StatusCode,
    /// Its body.
    pub body: Bytes,
}

/// An answer in place of something that is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unusable {
    /// Status of the answer.
    pub status: StatusCode,
    /// Response flag of the access log, `NC` or empty.
    pub flag: String,
    /// For the log and for `explain`.
    pub reason: String,
}

/// Backends by weight.
#[derive(Clone, Debug, Default)]
pub struct Forward {
    backends: Vec<Weighted>,
    total: u64,
}

/// One of several backends.
#[derive(Clone, Debug)]
pub struct Weighted {
    /// Its share of the sum.
    pub weight: u32,
    /// Where to.
    pub target: Target,
    /// After those of the rule.
    pub request_headers: Edits,
    /// Before those of the rule.
    pub response_headers: Edits,
    /// In place of the rule's.
    pub rewrite: Option<Rewrite>,
}

/// Where a share of the requests goes.
#[derive(Clone, Debug)]
pub enum Target {
    /// Index into the backends of the resource.
    Backend(usize),
    /// Answered with an error.
    Unusable(Unusable),
    /// Answered with a redirect.
    Redirect(Redirect),
}

/// What [`Forward::pick`] chose.
#[derive(Clone, Copy, Debug)]
pub enum Picked<'a> {
    /// A backend.
    Backend {
        /// Index into the backends of the resource.
        index: usize,
        /// Position among the rule's backends, for [`Forward::at`].
        position: usize,
        /// Its edits and rewrite.
        weighted: &'a Weighted,
    },
    /// This share is answered with an error.
    Unusable {
        /// The answer.
        unusable: &'a Unusable,
        /// Its edits of the answer.
        weighted: &'a Weighted,
    },
    /// This share is answered with a redirect.
    Redirect {
        /// The answer.
        redirect: &'a Redirect,
        /// Its edits of the answer.
        weighted: &'a Weighted,
    },
    /// No backend has any weight: answered with 500, or UNAVAILABLE for gRPC.
    None,
}

impl Forward {
    /// Sums up the weights.
    #[must_use]
    pub fn new(backends: Vec<Weighted>) -> Self {
        let total = backends.iter().map(|backend| u64::from(backend.weight)).sum();
        Self { backends, total }
    }

    /// All of them, also those without weight.
    #[must_use]
    pub fn backends(&self) -> &[Weighted] {
        &self.backends
    }

    /// Chooses by weight; `random` is drawn evenly from all 64-bit numbers.
    #[must_use]
    pub fn pick(&self, random: u64) -> Picked<'_> {
        if self.total == 0 {
            return Picked::None;
        }
        let mut left = share::below(random, self.total);
        for (position, backend) in self.backends.iter().enumerate() {
            let weight = u64::from(backend.weight);
            if left < weight {
                return backend.picked(position);
            }
            left -= weight;
        }
        Picked::None
    }

    /// The backend at a position that [`Picked::Backend`] named, for a session that continues; `None` when it has no
    /// weight any more.
    #[must_use]
    pub fn at(&self, position: usize) -> Option<Picked<'_>> {
        self.backends.get(position).filter(|backend| backend.weight > 0).map(|backend| backend.picked(position))
    }
}

impl Weighted {
    fn picked(&self, position: usize) -> Picked<'_> {
        match &self.target {
            Target::Backend(index) => Picked::Backend { index: *index, position, weighted: self },
            Target::Unusable(unusable) => Picked::Unusable { unusable, weighted: self },
            Target::Redirect(redirect) => Picked::Redirect { redirect, weighted: self },
        }
    }
}

/// A copy of a request.
#[derive(Clone, Debug)]
pub struct Mirror {
    /// Where to; a copy for nobody is not sent.
    pub target: Result<usize, Unusable>,
    /// Share of the requests.
    pub per_million: u32,
}

impl Mirror {
    /// The backend that gets a copy of this request; `random` is drawn for each mirror.
    #[must_use]
    pub fn sampled(&self, random: u64) -> Option<usize> {
        let index = *self.target.as_ref().ok()?;
        per_million(random, self.per_million).then_some(index)
    }
}

/// Keeps a client at one endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionPersistence {
    /// What carries the session.
    pub kind: SessionKind,
    /// Name of the cookie or header.
    pub name: String,
    /// Of the cookie; empty: `/`.
    pub path: String,
    /// How long the cookie lives; `None`: as long as the browser.
    pub lifetime: Option<Duration>,
    /// Ends a session that was not used.
    pub idle_timeout: Option<Duration>,
    /// Ends this long after it began, whatever the client keeps.
    pub absolute_timeout: Option<Duration>,
}

/// What carries a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionKind {
    /// A cookie.
    Cookie,
    /// A header.
    Header,
}

#[cfg(test)]
mod tests;
