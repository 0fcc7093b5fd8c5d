//! What the control plane tells about itself.

pub mod http;
pub mod view;
