//! A control plane that runs for real, and everything around it that may fail: the API server, the objects in it, the
//! proxies that connect.
//!
//! The API server is the sandbox's, in this process; the control plane is the binary, a process of its own. Proxies are
//! delta-ADS clients that cost little, so that a thousand of them fit beside it.

pub mod ads;
pub mod cluster;
pub mod crowd;
pub mod machine;
pub mod mirror;
pub mod objects;
pub mod plane;
pub mod process;
pub mod stage;
pub mod wait;

pub use cluster::Cluster;
pub use crowd::Crowd;
pub use mirror::Mirror;
pub use objects::Size;
pub use plane::Plane;
pub use stage::Stage;
