//! Leaving the host: new namespaces for the calling process, with a user namespace of its own when
//! it has no privilege.
//!
//! # Source
//!
//! user_namespaces(7), unshare(2).

use std::fs;
use std::io;

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid};

/// Why the namespaces could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IsolateError {
    /// The kernel does not let this user make a user namespace.
    #[error(
        "this user may not create a user namespace: run as root, or allow it with `sysctl -w \
         kernel.unprivileged_userns_clone=1 user.max_user_namespaces=10000` (on Ubuntu also \
         `kernel.apparmor_restrict_unprivileged_userns=0`)"
    )]
    UserNamespace {
        /// The system's answer.
        source: io::Error,
    },
    /// Root, but without the right to make namespaces (a plain container).
    #[error("making namespaces")]
    Namespaces {
        /// The system's answer.
        source: io::Error,
    },
    /// The identity map was refused.
    #[error("writing {file}")]
    IdentityMap {
        /// The file below `/proc/self`.
        file: &'static str,
        /// The system's answer.
        source: io::Error,
    },
}

/// Moves the calling, single-threaded process into new network, IPC and host-name namespaces; its
/// next children live in a new process id namespace. Mounts stay the host's, see
/// [`separate_mounts`].
///
/// Without privilege a user namespace is made first in which the caller is root (one user and one
/// group are mapped). Returns whether that was needed.
///
/// # Errors
///
/// See [`IsolateError`]; nothing has changed when the first step fails.
pub fn isolate() -> Result<bool, IsolateError> {
    let namespaces =
        CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS;
    if geteuid().is_root() {
        match unshare(namespaces) {
            Ok(()) => return Ok(false),
            // Root of a container without CAP_SYS_ADMIN: a user namespace may still be allowed.
            Err(Errno::EPERM) => {}
            Err(error) => return Err(IsolateError::Namespaces { source: error.into() }),
        }
    }
    let (user, group) = (geteuid(), getegid());
    unshare(CloneFlags::CLONE_NEWUSER | namespaces)
        .map_err(|error| IsolateError::UserNamespace { source: error.into() })?;
    // A group map needs setgroups off first when the writer has no privilege outside.
    write_map("setgroups", "deny")?;
    write_map("uid_map", &format!("0 {user} 1"))?;
    write_map("gid_map", &format!("0 {group} 1"))?;
    Ok(true)
}

/// Gives the calling process mounts of its own, which start as a copy.
///
/// # Errors
///
/// [`IsolateError::Namespaces`] without the right to do so.
pub fn separate_mounts() -> Result<(), IsolateError> {
    unshare(CloneFlags::CLONE_NEWNS).map_err(|error| IsolateError::Namespaces { source: error.into() })
}

fn write_map(file: &'static str, line: &str) -> Result<(), IsolateError> {
    fs::write(format!("/proc/self/{file}"), line).map_err(|source| IsolateError::IdentityMap { file, source })
}
