//! Safe, typed access to the parts of Linux that the mesh needs.
//!
//! The only crate that may hold `unsafe`: one call per block, each with its reason.

pub mod memory;
pub mod mount;
pub mod netns;
pub mod nft;
pub mod packet;
pub mod process;
pub mod rest;
pub mod reuseport;
pub mod roaming;
pub mod route;
pub mod seqpacket;
pub mod socket;
pub mod thread;
pub mod userns;
pub mod watch;
