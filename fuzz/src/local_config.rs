//! The local file: workloads, services and policies for development.

use std::sync::Arc;

use ztunnel::state::{LocalConfig, State};

use crate::hbone_request::{NoIdentities, local};

/// A file is taken, or refused with words.
pub fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (state, mut feed) = State::new(local(""), Arc::new(NoIdentities));
    match LocalConfig::parse(text) {
        Ok(config) => {
            let _ = config.to_json();
            if let Err(error) = config.apply(&mut feed) {
                assert!(!error.to_string().is_empty());
            }
            let _ = state.snapshot().dump();
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
