//! Makes the proxies of Gateways: what is made is decided purely ([`plan`]), and applied by whoever leads.

pub mod classes;
pub mod deploy;
pub mod family;
pub mod infrastructure;
mod kinds;
pub mod labels;
mod overlay;
pub mod plan;
mod render;
pub mod status;

pub use classes::ClassKeeper;
pub use deploy::Deployer;
pub use family::Family;
pub use kinds::Kinds;
pub use plan::{Deployment, Plan, plan};
pub(crate) use render::is_own_port;
