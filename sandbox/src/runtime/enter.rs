//! The helper process that becomes a container, a command in one, or a CNI plugin.
//!
//! The daemon starts its own executable with [`HELPER_ARGUMENT`] and a connected socket as
//! descriptor [`CONTROL_FD`]. The helper reads an [`EnterSpec`] from it, enters or makes the
//! namespaces, builds the root, and executes the program. Success closes the socket (it does not
//! survive the exec); a failure is written to it as text first. Being a fresh single-threaded
//! process it may use every system call, which a fork of the daemon could not.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{chdir, sethostname, setsid};
use serde::{Deserialize, Serialize};

use super::root_fs::{self, RootSpec};

/// First argument that turns the executable into the helper.
pub const HELPER_ARGUMENT: &str = "__enter";

/// The descriptor that carries the specification and the error text.
pub const CONTROL_FD: i32 = 3;

/// How the error about a missing program ends.
pub(crate) const NOT_FOUND: &str = "executable file not found";

/// Longest specification; a pod object is at most 1.5 MiB, its expanded environment may be more.
pub(crate) const SPEC_BYTES_MAX: usize = 8 << 20;

/// What the helper shall become.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct EnterSpec {
    /// The mount and host-name namespaces.
    pub(crate) world: World,
    /// File of the network namespace to enter; `None` keeps the daemon's.
    pub(crate) netns: Option<PathBuf>,
    /// Program (searched in `PATH` of `env`) and arguments; not empty.
    pub(crate) argv: Vec<String>,
    /// The whole environment.
    pub(crate) env: Vec<(String, String)>,
    /// Working directory, created when missing in a new root.
    pub(crate) cwd: PathBuf,
    /// Standard input is a terminal and becomes the controlling one.
    pub(crate) terminal: bool,
}

/// Which files and host name the program sees.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum World {
    /// A new root and host name.
    New {
        /// How the root is put together.
        root: RootSpec,
        /// The host name.
        hostname: String,
    },
    /// Those of a running process.
    Of {
        /// Its process id.
        pid: i32,
    },
}

/// Runs the helper; only returns when the program could not be executed, after having told the
/// daemon. The result is the process's exit code.
pub fn main() -> u8 {
    let control = match mesh_sys::process::inherited_fd(CONTROL_FD) {
        Ok(fd) => fd,
        Err(_) => return 2,
    };
    let mut control = UnixStream::from(control);
    let error = match run(&mut control) {
        Ok(never) => match never {},
        Err(error) => error,
    };
    // Nobody is left to tell when the daemon has gone away.
    let _ = control.write_all(error.as_bytes());
    1
}

fn run(control: &mut UnixStream) -> Result<std::convert::Infallible, String> {
    let spec = read_spec(control)?;
    mesh_sys::process::reset_signals().map_err(|error| format!("resetting signals: {error}"))?;
    umask(Mode::from_bits_truncate(0o022));
    setsid().map_err(|error| format!("starting a session: {error}"))?;
    let (program, arguments) = spec.argv.split_first().ok_or("the command is empty")?;
    match &spec.world {
        World::New { root, hostname } => {
            enter_netns(spec.netns.as_deref())?;
            unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS)
                .map_err(|error| format!("making a mount namespace: {error}"))?;
            sethostname(hostname).map_err(|error| format!("setting host name {hostname:?}: {error}"))?;
            root_fs::build_and_enter(root, &spec.cwd)?;
        }
        World::Of { pid } => {
            join(*pid)?;
            enter_netns(None)?;
        }
    }
    chdir(&spec.cwd).map_err(|error| format!("changing to directory {}: {error}", spec.cwd.display()))?;
    if spec.terminal {
        mesh_sys::process::set_controlling_terminal(&io::stdin())
            .map_err(|error| format!("taking the terminal: {error}"))?;
    }
    // The sandbox's first process blocks signals to take them in order, and a mask is inherited:
    // a program that starts with SIGTERM blocked could only be killed.
    nix::sys::signal::SigSet::empty().thread_set_mask().map_err(|error| format!("unblocking signals: {error}"))?;
    let error = Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(spec.env.iter().map(|(name, value)| (name, value)))
        .exec();
    Err(format!("exec {program:?}: {}", describe(&error)))
}

/// `ErrorKind::NotFound` is the one every user meets; say it in the words of other runtimes.
fn describe(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => NOT_FOUND.to_owned(),
        _ => error.to_string(),
    }
}

fn enter_netns(path: Option<&Path>) -> Result<(), String> {
    let Some(path) = path else { return Ok(()) };
    let file = File::open(path).map_err(|error| format!("opening {}: {error}", path.display()))?;
    setns(file.as_fd(), CloneFlags::CLONE_NEWNET)
        .map_err(|error| format!("entering network namespace {}: {error}", path.display()))
}

/// Enters the namespaces of a running process. All are opened first: after the mount namespace
/// has changed the paths mean something else.
fn join(pid: i32) -> Result<(), String> {
    let kinds =
        [("net", CloneFlags::CLONE_NEWNET), ("uts", CloneFlags::CLONE_NEWUTS), ("mnt", CloneFlags::CLONE_NEWNS)];
    let mut files = Vec::with_capacity(kinds.len());
    for (kind, flag) in kinds {
        let path = format!("/proc/{pid}/ns/{kind}");
        let file = File::open(&path).map_err(|error| format!("opening {path}: {error}"))?;
        files.push((file, flag, path));
    }
    for (file, flag, path) in files {
        setns(file.as_fd(), flag).map_err(|error| format!("entering {path}: {error}"))?;
    }
    Ok(())
}

/// Reads the length (4 bytes, little endian) and the JSON of the specification.
fn read_spec(control: &mut impl Read) -> Result<EnterSpec, String> {
    let mut length = [0_u8; 4];
    control.read_exact(&mut length).map_err(|error| format!("reading the specification: {error}"))?;
    let length = u32::from_le_bytes(length) as usize;
    if length > SPEC_BYTES_MAX {
        return Err(format!("the specification has {length} bytes, at most {SPEC_BYTES_MAX} are allowed"));
    }
    let mut json = vec![0; length];
    control.read_exact(&mut json).map_err(|error| format!("reading the specification: {error}"))?;
    serde_json::from_slice(&json).map_err(|error| format!("reading the specification: {error}"))
}
