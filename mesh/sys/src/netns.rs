//! Network namespaces: open, create, enter and leave.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::sched::{CloneFlags, setns, unshare};

/// A network namespace held open: it lives at least as long as this value.
#[derive(Debug)]
pub struct NetNs {
    file: File,
    id: NetNsId,
}

/// What tells two namespaces apart, whatever path or descriptor led to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NetNsId {
    /// Device of the namespace file.
    pub dev: u64,
    /// Inode of the namespace file.
    pub inode: u64,
}

impl NetNs {
    /// The namespace of the calling thread.
    ///
    /// # Errors
    /// When `/proc` is not mounted.
    pub fn current() -> io::Result<Self> {
        Self::open(THREAD_NETNS)
    }

    /// The namespace that a file such as `/proc/<pid>/ns/net` or a bind mount of one stands for.
    ///
    /// # Errors
    /// When the file cannot be opened or is not a network namespace.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        Self::from_file(File::open(path)?)
    }

    /// Takes over a descriptor received from elsewhere.
    ///
    /// # Errors
    /// When it is not a network namespace.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        Self::from_file(File::from(fd))
    }

    fn from_file(file: File) -> io::Result<Self> {
        if namespace_type(file.as_fd()) != Ok(libc::CLONE_NEWNET) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "descriptor is not a network namespace"));
        }
        let meta = file.metadata()?;
        Ok(Self { id: NetNsId { dev: meta.dev(), inode: meta.ino() }, file })
    }

    /// A new, empty namespace whose loopback interface is up.
    ///
    /// # Errors
    /// Without CAP_SYS_ADMIN in the caller's user namespace.
    pub fn create() -> io::Result<Self> {
        // A thread of its own: it never comes back to the old namespace, so nothing has to be undone.
        std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            loopback_up()?;
            Self::current()
        })
        .join()
        .map_err(|_| io::Error::other("namespace thread panicked"))?
    }

    /// Identity of the namespace.
    #[must_use]
    pub fn id(&self) -> NetNsId {
        self.id
    }

    /// A second handle on the same namespace.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { file: self.file.try_clone()?, id: self.id })
    }

    /// Runs `work` on the calling thread inside this namespace, then switches back. Sockets made by `work`
    /// stay in this namespace for good. `work` must not await, yield or spawn threads that outlive it
    /// unless they are meant to live in this namespace.
    ///
    /// # Errors
    /// When the namespace cannot be entered; `work` has not run then.
    ///
    /// # Panics
    /// Never: a thread that cannot get back to its own namespace must not go on, so the process aborts.
    pub fn run<T>(&self, work: impl FnOnce() -> T) -> io::Result<T> {
        let home = Self::current()?;
        if home.id == self.id {
            return Ok(work());
        }
        setns(&self.file, CloneFlags::CLONE_NEWNET)?;
        let guard = ReturnHome(home);
        let result = work();
        drop(guard);
        Ok(result)
    }

    /// Moves the calling thread into this namespace for good.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    pub fn enter(&self) -> io::Result<()> {
        Ok(setns(&self.file, CloneFlags::CLONE_NEWNET)?)
    }
}

impl AsFd for NetNs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Switches back even when the work panics.
struct ReturnHome(NetNs);

impl Drop for ReturnHome {
    fn drop(&mut self) {
        if let Err(error) = setns(&self.0.file, CloneFlags::CLONE_NEWNET) {
            tracing::error!(%error, "cannot return to the own network namespace, aborting");
            std::process::abort();
        }
    }
}

#[allow(unsafe_code)] // NS_GET_NSTYPE has no wrapper in nix
fn namespace_type(fd: BorrowedFd<'_>) -> nix::Result<i32> {
    use std::os::fd::AsRawFd;
    // SAFETY: ioctl_ns(2): NS_GET_NSTYPE takes no argument and only reads; the descriptor is borrowed, so open.
    let kind = unsafe { libc::ioctl(fd.as_raw_fd(), NS_GET_NSTYPE) };
    nix::errno::Errno::result(kind)
}

/// Brings the loopback interface of the calling thread's namespace up.
///
/// # Errors
/// Without CAP_NET_ADMIN in the namespace.
#[allow(unsafe_code)] // interface flags have no wrapper in nix
pub fn loopback_up() -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None)?;
    // SAFETY: netdevice(7): all-zero bytes are a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(*b"lo") {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as i16;
    // SAFETY: netdevice(7): SIOCSIFFLAGS reads one ifreq, which lives on this frame.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &request) };
    nix::errno::Errno::result(done)?;
    Ok(())
}

const THREAD_NETNS: &str = "/proc/thread-self/ns/net";
/// ioctl_ns(2), `_IO(0xb7, 0x3)`.
const NS_GET_NSTYPE: libc::c_ulong = 0xb703;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_no_namespace_is_refused() {
        assert_eq!(NetNs::open("/dev/null").unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert!(NetNs::open("/proc/self/ns/uts").is_err());
    }

    #[test]
    fn the_own_namespace_has_one_identity() {
        let (a, b) = (NetNs::current().unwrap(), NetNs::open("/proc/self/ns/net").unwrap());
        assert_eq!(a.id(), b.id());
        assert_eq!(a.try_clone().unwrap().id(), a.id());
        assert_eq!(a.run(|| 7).unwrap(), 7);
    }
}
