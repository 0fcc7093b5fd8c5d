//! What the control plane tells about itself.

pub mod http;
mod pages;
mod sheet;
mod turns;
pub mod view;

pub use turns::Turns;
