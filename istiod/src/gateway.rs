//! Makes the proxies of Gateways: what is made is decided purely ([`plan`](crate::translate::plan)), and applied by
//! whoever leads.

pub mod classes;
pub mod deploy;

pub use classes::ClassKeeper;
pub use deploy::Deployer;
