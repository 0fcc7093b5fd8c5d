//! What the control plane tells about itself.

pub mod http;
mod pages;
pub mod view;
