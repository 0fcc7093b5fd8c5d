//! `meltemi`: installs, inspects and explains the mesh, in the manner of istioctl.

pub mod args;
pub mod charts;
pub mod cluster;
pub mod control_plane;
pub mod enroll;
pub mod explain;
pub mod install;
pub mod output;
pub mod policy;
pub mod progress;
pub mod proxy;
pub mod proxy_status;
pub mod readiness;
pub mod sandbox;
pub mod uninstall;
pub mod version;
pub mod ztunnel_config;
