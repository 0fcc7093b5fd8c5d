//! The `/proc` that a node shows to pods which mount it from the host: the node's first process,
//! and for every pod an idle "pause" process and the containers' main processes.
//!
//! Node agents find pods by walking it (`ns/net`, `cgroup`, `stat`), as they do on a real node. It
//! is a plain directory; the `ns/net` entries are links that lead, through the sandbox's own
//! `/proc`, to the real namespaces.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI32, Ordering};

/// Pause processes do not exist; their ids start above the largest that Linux gives out (2^22).
const PAUSE_PID_FIRST: i32 = 5_000_000;

/// The directory that stands for `/proc` on one node.
#[derive(Debug)]
pub(crate) struct ProcView {
    root: PathBuf,
    next_pause: AtomicI32,
}

impl ProcView {
    /// The view in `root`, which exists.
    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root, next_pause: AtomicI32::new(PAUSE_PID_FIRST) }
    }

    /// Shows a pod's sandbox, whose namespace this process holds open as descriptor `netns_fd`.
    pub(crate) fn add_pause(&self, pod_uid: &str, sandbox_id: &str, netns_fd: i32) -> i32 {
        let pid = self.next_pause.fetch_add(1, Ordering::Relaxed);
        let own = std::process::id();
        let start_ticks = i32::try_from(own).ok().and_then(mesh_sys::process::start_time_ticks).unwrap_or(1);
        self.add(&Process {
            pid,
            comm: "pause",
            cgroup: &cgroup(pod_uid, sandbox_id),
            // Older than every container of the pod, as a real one would be.
            start_ticks,
            netns: &format!("/proc/{own}/fd/{netns_fd}"),
        });
        pid
    }

    /// Shows a container's main process.
    pub(crate) fn add_process(&self, pod_uid: &str, container_id: &str, pid: i32) {
        let comm = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        self.add(&Process {
            pid,
            comm: comm.trim_end(),
            cgroup: &cgroup(pod_uid, container_id),
            start_ticks: mesh_sys::process::start_time_ticks(pid).unwrap_or(u64::MAX),
            netns: &format!("/proc/{pid}/ns/net"),
        });
    }

    /// Takes a process away; nothing happens when it is not shown.
    pub(crate) fn remove_process(&self, pid: i32) {
        let _ = fs::remove_dir_all(self.root.join(pid.to_string()));
    }

    fn add(&self, process: &Process<'_>) {
        if let Err(error) = process.write_below(&self.root) {
            // An agent that walks the view will miss the pod until its next event; say so.
            tracing::warn!(pid = process.pid, %error, "process could not be shown in the node's /proc");
        }
    }
}

/// Writes the node's first process: the kubelet. `netns_file` is a file below it on which the
/// node's namespace gets mounted; its path is returned.
pub(crate) fn prepare(root: &Path) -> io::Result<PathBuf> {
    let first = root.join("1");
    fs::create_dir_all(first.join("ns"))?;
    let netns_file = first.join("ns/net");
    fs::write(&netns_file, "")?;
    Process { pid: 1, comm: "kubelet", cgroup: "0::/", start_ticks: 0, netns: "" }.write_files(&first)?;
    Ok(netns_file)
}

struct Process<'a> {
    pid: i32,
    comm: &'a str,
    cgroup: &'a str,
    start_ticks: u64,
    netns: &'a str,
}

impl Process<'_> {
    /// Assembled aside and renamed, so that a walker sees all of it or nothing.
    fn write_below(&self, root: &Path) -> io::Result<()> {
        let aside = root.join(format!(".{}", self.pid));
        let place = root.join(self.pid.to_string());
        let _ = fs::remove_dir_all(&aside);
        fs::create_dir_all(aside.join("ns"))?;
        symlink(self.netns, aside.join("ns/net"))?;
        self.write_files(&aside)?;
        let _ = fs::remove_dir_all(&place);
        fs::rename(aside, place)
    }

    fn write_files(&self, dir: &Path) -> io::Result<()> {
        let Self { pid, comm, cgroup, start_ticks, .. } = self;
        fs::write(dir.join("comm"), format!("{comm}\n"))?;
        fs::write(dir.join("cmdline"), format!("{comm}\0"))?;
        fs::write(dir.join("cgroup"), format!("{cgroup}\n"))?;
        // Field 22 is the start time; the others are never looked at.
        let before = "0 ".repeat(18);
        fs::write(dir.join("stat"), format!("{pid} ({comm}) S {before}{start_ticks} 0 0\n"))?;
        fs::write(dir.join("status"), format!("Name:\t{comm}\nPid:\t{pid}\nUid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0\n"))
    }
}

/// The cgroup line of a container in the v2 hierarchy with the cgroupfs driver.
fn cgroup(pod_uid: &str, container_id: &str) -> String {
    format!("0::/kubepods/pod{pod_uid}/{container_id}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_appears_whole_and_goes_away() {
        let dir = tempfile::tempdir().unwrap();
        prepare(dir.path()).unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("1/comm")).unwrap(), "kubelet\n");
        let view = ProcView::new(dir.path().to_owned());
        let pid = std::process::id() as i32;
        view.add_process("u-1", "c0ffee", pid);
        let entry = dir.path().join(pid.to_string());
        assert_eq!(fs::read_to_string(entry.join("cgroup")).unwrap(), "0::/kubepods/podu-1/c0ffee\n");
        let stat = fs::read_to_string(entry.join("stat")).unwrap();
        let (_, fields) = stat.rsplit_once(") ").unwrap();
        let start: u64 = fields.split(' ').nth(19).unwrap().parse().unwrap();
        assert_eq!(Some(start), mesh_sys::process::start_time_ticks(pid));
        assert!(fs::metadata(entry.join("ns/net")).is_ok(), "leads to a namespace");
        view.remove_process(pid);
        assert!(!entry.exists());
    }

    #[test]
    fn pause_ids_differ() {
        let dir = tempfile::tempdir().unwrap();
        let view = ProcView::new(dir.path().to_owned());
        assert_ne!(view.add_pause("a", "x", 0), view.add_pause("b", "y", 0));
    }
}
