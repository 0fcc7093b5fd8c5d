//! The first process of the sandbox: mounts, then one child, then nothing but reaping.
//!
//! It stays apart from the daemon so that nobody but it waits for children it does not know; the
//! daemon can wait for its own in the ordinary way.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use anyhow::Context;
use mesh_sys::mount::{self, MountError, Propagation};
use mesh_sys::process;
use mesh_sys::userns;
use nix::errno::Errno;
use nix::sys::signal::Signal;

use super::{DAEMON_ARGUMENT, LISTENER_FD, Options, READY_FD, Readiness};

/// First argument that turns the executable into the first process; the second is [`Options`].
pub const INIT_ARGUMENT: &str = "__init";

/// The running executable, whatever has become of its file.
pub(crate) const OWN_EXECUTABLE: &str = "/proc/self/exe";

/// What `ps` shows; 15 bytes at most.
pub(crate) const PROCESS_NAME: &std::ffi::CStr = c"meltemi-sandbox";

/// Why the first process gave up.
#[derive(Debug, thiserror::Error)]
enum InitError {
    /// The container around the sandbox hides parts of `/proc`.
    #[error(
        "a fresh /proc cannot be mounted: the container this runs in hides parts of /proc. Start it with \
         `--security-opt systempaths=unconfined` (Docker), `--security-opt unmask=ALL` (Podman) or `procMount: \
         Unmasked` (Kubernetes), or run outside a container"
    )]
    MaskedProc {
        /// The system's answer.
        source: std::io::Error,
    },
    /// Another mount failed.
    #[error(transparent)]
    Mount(#[from] MountError),
}

/// Runs the first process; the result is its exit code.
pub fn main(options: &str) -> u8 {
    let inherited = (process::inherited_fd(READY_FD), process::inherited_fd(LISTENER_FD));
    let (Ok(ready), Ok(listener)) = inherited else { return 2 };
    let mut ready = UnixStream::from(ready);
    match run(options, &ready, listener) {
        Ok(code) => u8::try_from(code).unwrap_or(u8::MAX),
        Err(error) => {
            Readiness::Failed(format!("{error:#}")).tell(&mut ready);
            1
        }
    }
}

fn run(text: &str, ready: &UnixStream, listener: OwnedFd) -> anyhow::Result<i32> {
    let options: Options = serde_json::from_str(text).context("reading the options")?;
    // Started through /proc/self/exe, the process would be called "exe".
    nix::sys::prctl::set_name(PROCESS_NAME).context("naming the process")?;
    nix::unistd::setsid().context("starting a session")?;
    if options.foreground {
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).context("tying the sandbox to its starter")?;
    }
    // Not before: `up` must keep seeing the host's files and processes.
    userns::separate_mounts()?;
    prepare_mounts()?;
    // The host's name stays visible to nobody; shown in prompts of commands on nodes.
    nix::unistd::sethostname("meltemi-sandbox").context("setting the host name")?;
    process::reset_signals().context("resetting signals")?;
    process::init_signals().thread_block().context("blocking signals")?;
    let mut command = Command::new(OWN_EXECUTABLE);
    command.arg0("meltemi-sandbox").arg(DAEMON_ARGUMENT).arg(text);
    process::pass_fd(&mut command, ready.try_clone()?.into(), READY_FD)?;
    process::pass_fd(&mut command, listener, LISTENER_FD)?;
    let child = command.spawn().context("starting the daemon")?;
    // Closes our copy of the listening socket: the daemon's is the only one.
    drop(command);
    let pid = i32::try_from(child.id()).context("daemon's process id")?;
    Ok(process::reap_until(pid)?)
}

/// Detaches from the host's mounts and shows this process id namespace, this network namespace and
/// terminals of our own.
fn prepare_mounts() -> Result<(), InitError> {
    mount::propagate(Path::new("/"), Propagation::Private)?;
    mount::new_instance("proc", Path::new("/proc"), "").map_err(|error| {
        if error.source.raw_os_error() == Some(Errno::EPERM as i32) {
            InitError::MaskedProc { source: error.source }
        } else {
            InitError::Mount(error)
        }
    })?;
    // Where the kernel refuses these, the host's stay visible, which only shows more devices.
    let _ = mount::new_instance("sysfs", Path::new("/sys"), "");
    let terminals = mount::new_instance("devpts", Path::new("/dev/pts"), "newinstance,ptmxmode=0666,mode=0620");
    if terminals.is_ok() {
        let _ = mount::bind(Path::new("/dev/pts/ptmx"), Path::new("/dev/ptmx"));
    }
    Ok(())
}
