//! What a Gateway stands for: its family, the names and labels of what is made for it, the objects themselves, and the
//! Services that lead to it. Of its listeners nothing is known here.

mod family;
pub mod infrastructure;
mod kinds;
pub mod labels;
pub(crate) mod overlay;
pub(crate) mod render;
mod services;

pub use family::Family;
pub use kinds::Kinds;
pub(crate) use render::is_own_port;
pub(crate) use services::{HOSTNAME, hosts, service, target_port};
