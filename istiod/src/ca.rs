//! The certificate authority: who gets a certificate for which identity, and the keys behind it.

pub mod anchors;
pub mod authority;
pub mod impersonation;
pub mod material;
pub mod rotation;
pub mod self_signed;
pub mod service;
pub mod serving;

use std::sync::Arc;

use tokio::sync::watch;

pub use authority::Authority;

/// The authority in force; changes with its key material.
pub type CurrentAuthority = watch::Receiver<Arc<Authority>>;
