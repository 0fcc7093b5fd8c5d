//! Layer-7 routing as pure functions: which rule of a table a request takes, and what each part of that rule does to it.
//!
//! The life of a request, in the order in which a proxy calls this crate:
//!
//! 1. [`host::canonical`] and [`path::canonical`]: the one form that policy, routing, upstream and log all see.
//! 2. [`header::check_connection`], [`header::sanitise`]: what a client may not say.
//! 3. [`Table::find`]: the rule; [`Table::explain`] says why, and why not the others.
//! 4. [`fault::sample`], [`cors::judge`], [`redirect::location`]: answers that need no upstream.
//! 5. [`Forward::pick`], [`Mirror::sampled`]: where to.
//! 6. [`rewrite::path`], [`header::apply`]: what is sent.
//! 7. [`retry::retriable`], [`retry::backoff`]: once more, and when.
//! 8. [`grpc`]: the same answers for gRPC clients.
//!
//! Tables are compiled from the wire's [`mesh_wire::l7::HttpTable`] once and shared by all workers. Nothing here performs
//! I/O, reads a clock or draws random numbers: those come in as values.

pub mod cors;
mod error;
pub mod fault;
pub mod forwarded;
pub mod grpc;
pub mod header;
pub mod host;
pub mod host_table;
pub mod limits;
mod matching;
pub mod path;
pub mod pattern;
pub mod precedence;
pub mod redirect;
mod request;
pub mod retry;
pub mod rewrite;
mod rule;
mod share;
mod table;

pub use cors::Cors;
pub use error::CompileError;
pub use fault::Fault;
pub use header::Edits;
pub use limits::Limits;
pub use redirect::Redirect;
pub use request::{Claims, RequestView};
pub use retry::Retry;
pub use rewrite::{PathRewrite, Rewrite};
pub use rule::{
    Action, Direct, Forward, Mirror, Origin, Picked, Rule, SessionKind, SessionPersistence, Target, Unusable, Weighted,
};
pub use share::{per_million, percent};
pub use table::{Candidate, Entry, Explanation, Found, Miss, PathCondition, Table};
