//! `up`: from a command line on the host to a running daemon.
//!
//! The listening socket is made first, in the host's network namespace; then this process leaves
//! the host's namespaces and starts [`super::init`] in the new ones. It must be single-threaded.

use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mesh_sys::process;
use mesh_sys::userns::{self, IsolateError};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;

use super::init::{INIT_ARGUMENT, OWN_EXECUTABLE};
use super::state::{self, Keep, LOG, Process, StateError};
use super::{LISTENER_FD, Options, READY_FD, Readiness};
use crate::control::{Status, client};

/// How long a daemon that was interrupted may take to end.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// Lines of the daemon's log that are shown when it did not come up.
const LOG_TAIL_LINES: usize = 20;

/// Why the sandbox did not come up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UpError {
    /// One runs already.
    #[error(
        "a sandbox runs already in {dir}: use it (`meltemi-sandbox status`), or stop it first (`meltemi-sandbox down`)"
    )]
    AlreadyRunning {
        /// Its state directory.
        dir: String,
    },
    /// The state directory cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// The port on the loopback address is taken.
    #[error("listening on 127.0.0.1:{port} (choose another port with --port; 0 takes any free one)")]
    Port {
        /// Which.
        port: u16,
        /// The system's answer.
        source: io::Error,
    },
    /// The kernel refused the namespaces.
    #[error(transparent)]
    Isolate(#[from] IsolateError),
    /// The daemon gave up; its own words.
    #[error("{reason}")]
    Failed {
        /// Why.
        reason: String,
    },
    /// The daemon was not ready in time and was ended.
    #[error("the sandbox was not ready within {waited:?}; its last words were:\n{log}\nGive it longer with --wait")]
    TooSlow {
        /// The deadline.
        waited: Duration,
        /// The end of its log.
        log: String,
    },
    /// A process or socket could not be made.
    #[error("{what}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// The system's answer.
        source: io::Error,
    },
}

/// What came up.
#[derive(Debug)]
pub struct Up {
    /// What the daemon says of itself.
    pub status: Status,
    /// Whether a user namespace was made.
    pub unprivileged: bool,
    /// Whether objects of an earlier sandbox are back.
    pub resumed: bool,
    /// From the call to readiness.
    pub took: Duration,
    child: Child,
    process: Process,
}

/// Starts a sandbox and waits until it is ready.
///
/// # Errors
///
/// See [`UpError`]; nothing is left running.
pub fn up(options: &Options, port: u16, patience: Duration) -> Result<Up, UpError> {
    let started = Instant::now();
    let dir = &options.dir;
    if client::is_running(dir) || Process::recorded(dir).is_some_and(|earlier| earlier.alive()) {
        return Err(UpError::AlreadyRunning { dir: dir.display().to_string() });
    }
    // What a sandbox that crashed left behind; its objects are taken up again.
    state::clear(dir, Keep::Store)?;
    state::create(dir)?;
    let resumed = dir.join(state::STORE_DIR).exists();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map_err(|source| UpError::Port { port, source })?;
    state::claim(dir)?;
    let launched = launch(options, listener, patience);
    let (unprivileged, child, process, status) = launched.inspect_err(|_| {
        // The log is kept: it says more than one line can.
        let _ = state::clear(dir, if resumed { Keep::StoreAndLog } else { Keep::Log });
    })?;
    Ok(Up { status, resumed, unprivileged, took: started.elapsed(), child, process })
}

/// Leaves the host's namespaces and waits for the daemon. Nothing is left running after an error.
fn launch(
    options: &Options,
    listener: TcpListener,
    patience: Duration,
) -> Result<(bool, Child, Process, Status), UpError> {
    let dir = &options.dir;
    let (channel, theirs) = UnixStream::pair().map_err(io("making a socket pair"))?;
    let unprivileged = userns::isolate()?;
    let mut child = spawn(options, listener, theirs)?;
    // A child that was not waited for has an entry, even when it has ended.
    let pid = i32::try_from(child.id()).unwrap_or_default();
    let process = Process::of(pid).unwrap_or(Process { pid, start_ticks: 0 });
    let outcome = process.record(dir).map_err(UpError::from).and_then(|()| match wait_ready(channel, patience, dir) {
        Some(Readiness::Ready(status)) => Ok(status),
        Some(Readiness::Failed(reason)) => Err(UpError::Failed { reason }),
        None => Err(UpError::TooSlow { waited: patience, log: log_tail(dir) }),
    });
    match outcome {
        Ok(status) => Ok((unprivileged, child, process, status)),
        Err(error) => {
            let _ = child.kill();
            let _ = child.wait();
            Err(error)
        }
    }
}

impl Up {
    /// Stays with the sandbox until it ends; an interruption is passed on to it. Removes its files.
    ///
    /// # Errors
    ///
    /// [`UpError::Io`] when signals cannot be waited for.
    pub fn attend(mut self, dir: &Path) -> Result<(), UpError> {
        let mut signals = SigSet::empty();
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGCHLD] {
            signals.add(signal);
        }
        signals.thread_block().map_err(|error| UpError::Io { what: "blocking signals", source: error.into() })?;
        while matches!(self.child.try_wait(), Ok(None)) {
            let signal =
                signals.wait().map_err(|error| UpError::Io { what: "waiting for signals", source: error.into() })?;
            if signal != Signal::SIGCHLD {
                let _ = kill(Pid::from_raw(self.process.pid), Signal::SIGTERM);
                // Reaped below: a process that has ended counts as gone.
                self.process.end(STOP_PATIENCE);
            }
        }
        Ok(state::clear(dir, Keep::Nothing)?)
    }
}

fn spawn(options: &Options, listener: TcpListener, ready: UnixStream) -> Result<Child, UpError> {
    let text = serde_json::to_string(options)
        .map_err(|error| UpError::Io { what: "encoding the options", source: error.into() })?;
    let mut command = Command::new(OWN_EXECUTABLE);
    command.arg0("meltemi-sandbox").arg(INIT_ARGUMENT).arg(text).stdin(Stdio::null());
    if !options.foreground {
        let path = options.dir.join(LOG);
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&path)
            .map_err(|source| StateError::File { path, source })?;
        let copy = log.try_clone().map_err(io("sharing the log"))?;
        command.stdout(copy).stderr(log);
    }
    // Paths inside the sandbox are absolute; a directory held open would keep a mount busy.
    command.current_dir("/");
    let pass = |command: &mut Command| {
        process::pass_fd(command, ready.into(), READY_FD)?;
        process::pass_fd(command, listener.into(), LISTENER_FD)
    };
    pass(&mut command).map_err(io("passing descriptors on"))?;
    command.spawn().map_err(io("starting the sandbox's first process"))
}

/// Reads what the daemon says; `None` when nothing complete came in time.
fn wait_ready(mut channel: UnixStream, patience: Duration, dir: &Path) -> Option<Readiness> {
    let until = Instant::now() + patience;
    let mut text = Vec::new();
    let mut chunk = [0_u8; 4096];
    loop {
        let left = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        channel.set_read_timeout(Some(left)).ok()?;
        match channel.read(&mut chunk) {
            // The first process keeps its end open; a whole message is what ends the wait.
            Ok(length @ 1..) => text.extend_from_slice(chunk.get(..length).unwrap_or_default()),
            Ok(_) => {
                let reason = format!("the sandbox ended while it was starting:\n{}", log_tail(dir));
                return Some(Readiness::Failed(reason));
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
        if let Ok(readiness) = serde_json::from_slice(&text) {
            return Some(readiness);
        }
    }
}

fn log_tail(dir: &Path) -> String {
    let log = fs::read_to_string(dir.join(LOG)).unwrap_or_default();
    let lines: Vec<&str> = log.lines().collect();
    lines.get(lines.len().saturating_sub(LOG_TAIL_LINES)..).unwrap_or_default().join("\n")
}

fn io(what: &'static str) -> impl FnOnce(io::Error) -> UpError {
    move |source| UpError::Io { what, source }
}
