//! What the process may use of the system.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Context as _;
use mesh_sys::netns::NetNs;
use mesh_sys::socket::TcpListenOptions;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::config::{Config, Mode, OriginalSource};

/// One descriptor or two per connection: take all that the system gives.
pub(super) fn raise_descriptor_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(soft, hard)| if soft < hard { setrlimit(Resource::RLIMIT_NOFILE, hard, hard) } else { Ok(()) });
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

/// Does once what every pod needs: enter a network namespace, mark a socket and, where it is required, present foreign
/// addresses. Better to fail now than at the first pod.
///
/// # Errors
/// Names what is missing.
pub(super) fn check_capabilities(config: &Config) -> anyhow::Result<()> {
    if config.mode == Mode::Shared {
        // On a thread of its own: one that is inside the namespace already would prove nothing, and it does not come back.
        let entered = std::thread::spawn(|| NetNs::current()?.enter()).join();
        entered
            .unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
            .context("network namespaces cannot be entered: shared mode needs CAP_SYS_ADMIN")?;
    }
    let mut options = TcpListenOptions::new(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    options.mark = config.packet_mark;
    options.transparent = config.original_source == OriginalSource::Require;
    options.bind().context("sockets cannot be marked or made transparent: this needs CAP_NET_ADMIN and CAP_NET_RAW")?;
    Ok(())
}

/// Settles what to do where clients' addresses are shown only if that works: says once that it does not, instead of at
/// every listener and connection.
pub(super) fn settle_original_source(config: &mut Config) {
    let mut options = TcpListenOptions::new(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    options.transparent = true;
    if config.original_source == OriginalSource::Try
        && let Err(error) = options.bind()
    {
        tracing::warn!(%error, "applications see the address of the proxy: this process may not present others");
        config.original_source = OriginalSource::Off;
    }
}
