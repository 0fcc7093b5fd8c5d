//! Mounts: binds, memory file systems, propagation and a new root, with errors that name the path.
//!
//! # Source
//!
//! mount(2), mount_namespaces(7), pivot_root(2), mount_setattr(2).

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// A mount operation that failed.
#[derive(Debug, thiserror::Error)]
#[error("{action} {path}")]
pub struct MountError {
    /// What was tried, such as `binding /usr to`.
    pub action: String,
    /// The mount point.
    pub path: PathBuf,
    /// The system's answer.
    pub source: io::Error,
}

/// Who sees mounts made later below a mount point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    /// Nobody else.
    Private,
    /// Every copy of this mount, both ways.
    Shared,
    /// This copy sees the original's, not the other way round.
    Slave,
}

/// Makes `source` (file or directory) visible at `target`, with everything mounted below it.
///
/// # Errors
///
/// [`MountError`] with the system's answer; `ENOENT` when either path is missing.
pub fn bind(source: &Path, target: &Path) -> Result<(), MountError> {
    let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount(Some(source), target, None::<&str>, flags, None::<&str>)
        .map_err(|error| failed(format!("binding {} to", source.display()), target, error.into()))
}

/// Makes the mount at `path` and everything below it read-only.
///
/// # Errors
///
/// [`MountError`]; `EINVAL` when `path` is no mount point.
pub fn read_only(path: &Path) -> Result<(), MountError> {
    let error = |source| failed("making read-only".to_owned(), path, source);
    let name =
        CString::new(path.as_os_str().as_bytes()).map_err(|_| error(io::Error::from_raw_os_error(libc::EINVAL)))?;
    let attributes = libc::mount_attr { attr_set: libc::MOUNT_ATTR_RDONLY, attr_clr: 0, propagation: 0, userns_fd: 0 };
    #[allow(unsafe_code)] // libc has no wrapper for this system call
    // SAFETY: mount_setattr(2): `name` is a NUL-terminated string and `attributes` a mount_attr of
    // the size given; both outlive the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            name.as_ptr(),
            libc::AT_RECURSIVE as libc::c_uint,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if result < 0 { Err(error(io::Error::last_os_error())) } else { Ok(()) }
}

/// Sets who sees later mounts at `path` and everything below it.
///
/// # Errors
///
/// [`MountError`]; `EINVAL` when `path` is no mount point.
pub fn propagate(path: &Path, propagation: Propagation) -> Result<(), MountError> {
    let flag = match propagation {
        Propagation::Private => MsFlags::MS_PRIVATE,
        Propagation::Shared => MsFlags::MS_SHARED,
        Propagation::Slave => MsFlags::MS_SLAVE,
    };
    mount(None::<&str>, path, None::<&str>, flag | MsFlags::MS_REC, None::<&str>)
        .map_err(|error| failed(format!("setting propagation {propagation:?} of"), path, error.into()))
}

/// Mounts a new instance of the file system `kind` (`tmpfs`, `proc`, `sysfs`, `devpts`).
///
/// # Errors
///
/// [`MountError`]; `EPERM` in a container whose own `/proc` or `/sys` is partly hidden.
pub fn new_instance(kind: &str, target: &Path, options: &str) -> Result<(), MountError> {
    let mut flags = MsFlags::MS_NOSUID;
    if kind == "proc" || kind == "sysfs" {
        flags |= MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    }
    mount(Some(kind), target, Some(kind), flags, Some(options))
        .map_err(|error| failed(format!("mounting a new {kind} on"), target, error.into()))
}

/// Takes the topmost mount at `target` away at once; users of it keep what they have open.
///
/// # Errors
///
/// [`MountError`]; `EINVAL` when nothing is mounted there.
pub fn detach(target: &Path) -> Result<(), MountError> {
    umount2(target, MntFlags::MNT_DETACH).map_err(|error| failed("unmounting".to_owned(), target, error.into()))
}

/// Makes the mount point `root` the root of the calling process's mount namespace and drops the
/// old root. The working directory is `/` afterwards.
///
/// # Errors
///
/// [`MountError`]; `EINVAL` when `root` is no mount point.
pub fn change_root(root: &Path) -> Result<(), MountError> {
    let error = |source: nix::errno::Errno| failed("changing the root to".to_owned(), root, source.into());
    nix::unistd::chdir(root).map_err(error)?;
    // With "." twice the old root is stacked on the new one and can be detached without a
    // directory to put it in: pivot_root(2), "pivot_root(".", ".")".
    nix::unistd::pivot_root(".", ".").map_err(error)?;
    umount2(".", MntFlags::MNT_DETACH).map_err(error)?;
    nix::unistd::chdir("/").map_err(error)
}

fn failed(action: String, path: &Path, source: io::Error) -> MountError {
    MountError { action, path: path.to_owned(), source }
}
