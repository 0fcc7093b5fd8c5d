//! The node agent: which pods of this node are captured, and keeping it that way.
//!
//! `start` puts everything together. `watch` knows the pods and namespaces of the node and feeds `queue`; `settle`
//! takes from it, asks `decide` what a change means and has `enrol` do it. New pods come through `admission`.

pub mod admission;
pub mod annotate;
pub mod cache;
pub mod decide;
pub mod discover;
pub mod enrol;
pub mod health;
pub mod notice;
pub mod overdue;
pub mod plugin_log;
pub mod queue;
pub mod settle;
pub mod start;
pub mod watch;
