//! Store semantics: rows of the workload discovery specification, rejections, waiting, properties.

#![allow(clippy::indexing_slicing)] // reason: tests

mod model;
mod reject;
mod rows;
mod wait;
