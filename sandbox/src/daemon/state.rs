//! The state directory: what a running sandbox leaves for its command line, and what is removed
//! with it.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mesh_sys::process::start_time_ticks;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use serde::{Deserialize, Serialize};

use crate::control::SOCKET_NAME;

/// Directory of the nodes' file systems.
pub const NODES_DIR: &str = "nodes";

/// Directory of the API server's objects and keys.
pub const STORE_DIR: &str = "store";

/// The administrator's kubeconfig.
pub const KUBECONFIG: &str = "kubeconfig";

/// What the daemon says.
pub const LOG: &str = "daemon.log";

/// Which process the sandbox is.
const PROCESS: &str = "sandbox.json";

/// Everything that a sandbox puts into its directory.
const FILES: &[&str] = &[KUBECONFIG, LOG, SOCKET_NAME, PROCESS];

/// How often a process that was told to end is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// Names the first process of a sandbox for ever, also when its id is given out again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Process {
    /// Process id as the host sees it.
    pub pid: i32,
    /// When it was started, in clock ticks since boot.
    pub start_ticks: u64,
}

/// Why the state directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// Somebody else made it: it could be a trap.
    #[error("{path} belongs to user {owner}, not to you: choose another directory with --dir")]
    NotOurs {
        /// The directory.
        path: PathBuf,
        /// Its owner's user id.
        owner: u32,
    },
    /// There is something that no sandbox made and that a sandbox would write over.
    #[error("{path} exists and was not made by a sandbox: choose another directory with --dir")]
    Occupied {
        /// What exists.
        path: PathBuf,
    },
    /// A file could not be read, written or removed.
    #[error("using {path}")]
    File {
        /// Which one.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

/// The directory used when none is given: below `$XDG_RUNTIME_DIR`, else `/tmp/meltemi-<uid>`.
pub fn default_dir(runtime_dir: Option<&str>) -> PathBuf {
    match runtime_dir.filter(|dir| Path::new(dir).is_absolute()) {
        Some(dir) => Path::new(dir).join("meltemi"),
        None => PathBuf::from(format!("/tmp/meltemi-{}", geteuid())),
    }
}

/// Makes the directory, for its owner only, and returns its absolute path.
///
/// # Errors
///
/// See [`StateError`].
pub fn create(dir: &Path) -> Result<PathBuf, StateError> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(at(dir))?;
    let owner = fs::symlink_metadata(dir).map_err(at(dir))?.uid();
    if owner != geteuid().as_raw() {
        return Err(StateError::NotOurs { path: dir.to_owned(), owner });
    }
    dir.canonicalize().map_err(at(dir))
}

/// Claims a cleared directory for the sandbox that the calling process is about to start.
///
/// # Errors
///
/// [`StateError::Occupied`] when it holds something in the way.
pub fn claim(dir: &Path) -> Result<(), StateError> {
    let (nodes, store) = (dir.join(NODES_DIR), dir.join(STORE_DIR));
    // Objects stay with the record of the sandbox that made them.
    let foreign = [(nodes.exists(), nodes), (store.exists() && !dir.join(PROCESS).exists(), store)];
    if let Some((_, path)) = foreign.into_iter().find(|(found, _)| *found) {
        return Err(StateError::Occupied { path });
    }
    let own = Process::of(nix::unistd::getpid().as_raw());
    own.unwrap_or(Process { pid: 0, start_ticks: 0 }).record(dir)
}

impl Process {
    /// The process with this id as it is now.
    pub fn of(pid: i32) -> Option<Self> {
        Some(Self { pid, start_ticks: start_time_ticks(pid)? })
    }

    /// The sandbox recorded in a state directory.
    pub fn recorded(dir: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(dir.join(PROCESS)).ok()?).ok()
    }

    /// Records the sandbox.
    ///
    /// # Errors
    ///
    /// [`StateError::File`].
    pub fn record(&self, dir: &Path) -> Result<(), StateError> {
        let path = dir.join(PROCESS);
        let text = serde_json::to_vec(self).unwrap_or_default();
        fs::write(&path, text).map_err(at(&path))
    }

    /// Whether it still runs.
    pub fn alive(&self) -> bool {
        start_time_ticks(self.pid) == Some(self.start_ticks)
    }

    /// Waits until it has ended, and kills it when that takes longer than `patience`; the kernel
    /// ends all of the sandbox with it. Returns whether it is gone.
    pub fn end(&self, patience: Duration) -> bool {
        let wait = |until: Instant| {
            while self.alive() && Instant::now() < until {
                std::thread::sleep(LOOK_INTERVAL);
            }
            !self.alive()
        };
        if wait(Instant::now() + patience) {
            return true;
        }
        // Between the look and the signal the id cannot be reused for long enough to matter: ids
        // are given out in a circle.
        let _ = kill(Pid::from_raw(self.pid), Signal::SIGKILL);
        wait(Instant::now() + patience)
    }
}

/// What stays when the rest of a sandbox is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Nothing.
    Nothing,
    /// The log, for reading.
    Log,
    /// The objects, for the next sandbox in the directory.
    Store,
    /// Both.
    StoreAndLog,
}

impl Keep {
    fn log(self) -> bool {
        matches!(self, Self::Log | Self::StoreAndLog)
    }

    fn store(self) -> bool {
        matches!(self, Self::Store | Self::StoreAndLog)
    }
}

/// Removes what a sandbox that is gone left behind, and the directory when nothing else is in it.
/// Only names that a sandbox makes are touched, and only where one was recorded. The record stays as
/// long as the objects do.
///
/// # Errors
///
/// [`StateError::File`].
pub fn clear(dir: &Path, keep: Keep) -> Result<(), StateError> {
    if !dir.join(PROCESS).exists() {
        return Ok(());
    }
    let (nodes, store) = (dir.join(NODES_DIR), dir.join(STORE_DIR));
    ignore_missing(fs::remove_dir_all(&nodes)).map_err(at(&nodes))?;
    if !keep.store() {
        ignore_missing(fs::remove_dir_all(&store)).map_err(at(&store))?;
    }
    let recorded = store.exists();
    // The record goes last: an interrupted call can be repeated.
    for name in FILES.iter().filter(|&&name| !(keep.log() && name == LOG || recorded && name == PROCESS)) {
        let path = dir.join(name);
        ignore_missing(fs::remove_file(&path)).map_err(at(&path))?;
    }
    // Fails when the user keeps something there, or when it was never made.
    let _ = fs::remove_dir(dir);
    Ok(())
}

fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> StateError {
    let path = path.to_owned();
    move |source| StateError::File { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_directory_follows_the_runtime_dir() {
        assert_eq!(default_dir(Some("/run/user/7")), Path::new("/run/user/7/meltemi"));
        let fallback = PathBuf::from(format!("/tmp/meltemi-{}", geteuid()));
        assert_eq!(default_dir(None), fallback);
        assert_eq!(default_dir(Some("relative")), fallback);
    }

    #[test]
    fn clearing_touches_only_what_a_sandbox_makes() {
        let dir = tempfile::tempdir().unwrap();
        let state = create(&dir.path().join("s")).unwrap();
        fs::create_dir_all(state.join("nodes/node-1/etc")).unwrap();
        assert!(matches!(claim(&state), Err(StateError::Occupied { .. })));
        clear(&state, Keep::Nothing).unwrap();
        assert!(state.join("nodes").exists(), "no sandbox was recorded");
        fs::remove_dir_all(state.join("nodes")).unwrap();
        claim(&state).unwrap();
        fs::create_dir_all(state.join("nodes/node-1/etc")).unwrap();
        fs::write(state.join(KUBECONFIG), "").unwrap();
        fs::write(state.join("mine"), "").unwrap();
        clear(&state, Keep::Nothing).unwrap();
        assert!(state.join("mine").exists());
        assert!(!state.join("nodes").exists() && !state.join(KUBECONFIG).exists());
        fs::remove_file(state.join("mine")).unwrap();
        claim(&state).unwrap();
        clear(&state, Keep::Nothing).unwrap();
        assert!(!state.exists());
        clear(&state, Keep::Nothing).unwrap();
    }

    #[test]
    fn objects_stay_when_they_are_to_be_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let state = create(&dir.path().join("s")).unwrap();
        claim(&state).unwrap();
        fs::create_dir_all(state.join("nodes/node-1")).unwrap();
        fs::create_dir_all(state.join("store")).unwrap();
        fs::write(state.join(LOG), "").unwrap();
        clear(&state, Keep::StoreAndLog).unwrap();
        assert!(state.join("store").exists() && state.join(LOG).exists() && !state.join("nodes").exists());
        clear(&state, Keep::Store).unwrap();
        assert!(state.join("store").exists() && !state.join(LOG).exists());
        clear(&state, Keep::Nothing).unwrap();
        assert!(!state.exists(), "and go when they are not");
    }

    #[test]
    fn a_recorded_process_is_recognised_and_its_successor_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let own = Process::of(std::process::id() as i32).unwrap();
        own.record(dir.path()).unwrap();
        assert_eq!(Process::recorded(dir.path()), Some(own));
        assert!(own.alive());
        assert!(!Process { start_ticks: own.start_ticks + 1, ..own }.alive());
    }
}
