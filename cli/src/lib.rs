//! `meltemi`: installs, inspects and explains the mesh, in the manner of istioctl.

pub mod args;
pub mod charts;
pub mod cluster;
pub mod control_plane;
mod dump;
pub mod enroll;
pub mod explain;
mod gateway_pod;
pub mod install;
pub mod output;
pub mod policy;
pub mod progress;
pub mod proxy;
pub mod proxy_config;
pub mod proxy_status;
pub mod readiness;
pub mod sandbox;
pub mod uninstall;
pub mod version;
pub mod waypoint;
pub mod ztunnel_config;
