//! The root directory of a container: programs and libraries of the sandbox host, everything else
//! fresh, and the pod's volumes on top.
//!
//! Runs in the helper process, in a mount namespace of its own. The root is a memory file system;
//! nothing of it outlives the container.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use mesh_sys::mount::{self, Propagation as Visibility};
use serde::{Deserialize, Serialize};

use super::NodeRuntime;
use super::enter::World;

/// How a root is put together.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RootSpec {
    /// Empty directory of the host on which the root is assembled.
    pub(crate) staging: PathBuf,
    /// Binds into the root, parents before children.
    pub(crate) binds: Vec<Bind>,
    /// The directory of built binaries, visible at its own path.
    pub(crate) bin_dir: PathBuf,
}

/// One bind mount.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Bind {
    /// File or directory on the host.
    pub(crate) source: PathBuf,
    /// Absolute path in the root.
    pub(crate) target: PathBuf,
    /// Writes fail.
    pub(crate) read_only: bool,
    /// Mounts made later below `source` appear.
    pub(crate) follows_host: bool,
}

/// Trees of the host that hold programs and libraries. On a merged-/usr system most are symbolic
/// links, which are copied as such.
const PROGRAM_TREES: &[&str] = &["usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32"];

/// What programs need of the host's `/etc`. Resolver, hosts and host name are the pod's.
const ETC_ENTRIES: &[&str] = &[
    "alternatives",
    "ca-certificates",
    "crypto-policies",
    "gai.conf",
    "group",
    "iproute2",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "mime.types",
    "passwd",
    "pki",
    "protocols",
    "services",
    "ssl",
];

/// Directories every root has; `/tmp` is world-writable.
const DIRECTORIES: &[&str] =
    &["etc", "home", "mnt", "opt", "root", "run", "srv", "tmp", "var/cache", "var/lib", "var/log", "var/tmp"];

const DEVICES: &[&str] = &["full", "null", "random", "tty", "urandom", "zero"];

const DEVICE_LINKS: &[(&str, &str)] = &[
    ("fd", "/proc/self/fd"),
    ("ptmx", "pts/ptmx"),
    ("stderr", "/proc/self/fd/2"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
];

/// Assembles the root and makes it the calling process's. `cwd` is created in it when missing.
///
/// # Errors
///
/// A sentence naming the path and the system's answer.
pub(crate) fn build_and_enter(spec: &RootSpec, cwd: &Path) -> Result<(), String> {
    // Mounts made here must not reach the daemon, later mounts of the daemon may arrive here.
    mount::propagate(Path::new("/"), Visibility::Slave).map_err(text)?;
    let root = &spec.staging;
    mount::new_instance("tmpfs", root, "mode=0755").map_err(text)?;
    for directory in DIRECTORIES {
        create_dir(&root.join(directory))?;
    }
    for directory in ["tmp", "var/tmp"] {
        let path = root.join(directory);
        fs::set_permissions(&path, Permissions::from_mode(0o1777)).map_err(|error| at(&path, &error))?;
    }
    link("../run", &root.join("var/run"))?;
    link("/proc/self/mounts", &root.join("etc/mtab"))?;
    programs(root)?;
    etc(root)?;
    kernel_views(root)?;
    devices(root)?;
    // Parents first, whatever order the volumes are listed in: a volume at /tmp must not hide binaries below it.
    let programs = Bind::fixed(&spec.bin_dir, &spec.bin_dir);
    let mut binds: Vec<&Bind> = spec.binds.iter().chain([&programs]).collect();
    binds.sort_by_key(|bind| bind.target.components().count());
    for bind in binds {
        bind_in(root, bind)?;
    }
    let cwd = inside(root, cwd);
    if !cwd.exists() {
        create_dir(&cwd)?;
    }
    mount::change_root(root).map_err(text)
}

impl Bind {
    /// A writable bind that does not follow the host.
    pub(crate) fn fixed(source: &Path, target: &Path) -> Self {
        Self { source: source.to_owned(), target: target.to_owned(), read_only: false, follows_host: false }
    }
}

/// Directories that a process of the node itself sees instead of the host's.
const NODE_DIRECTORIES: &[(&str, &str)] = &[
    ("opt/cni/bin", "/opt/cni/bin"),
    ("etc/cni", "/etc/cni"),
    ("run", "/run"),
    ("var/lib/cni", "/var/lib/cni"),
    ("var/log/pods", "/var/log/pods"),
];

/// The root of a process that belongs to the node: a CNI plugin, or a command run there.
pub(crate) fn node_world(node: &NodeRuntime) -> World {
    let root = node.node_root();
    let binds = NODE_DIRECTORIES
        .iter()
        .map(|(below, target)| Bind {
            source: root.join(below),
            target: PathBuf::from(target),
            read_only: false,
            follows_host: true,
        })
        .collect();
    World::New {
        root: RootSpec { staging: node.staging_dir(), binds, bin_dir: node.bin_dir().to_owned() },
        hostname: node.node_name().to_owned(),
    }
}

fn programs(root: &Path) -> Result<(), String> {
    for name in PROGRAM_TREES {
        let source = Path::new("/").join(name);
        match fs::symlink_metadata(&source) {
            Ok(found) if found.is_symlink() => {
                let target = fs::read_link(&source).map_err(|error| at(&source, &error))?;
                symlink(target, root.join(name)).map_err(|error| at(&source, &error))?;
            }
            Ok(_) => bind_in(root, &Bind::fixed(&source, &source))?,
            Err(_) => {} // not every architecture has every library directory
        }
    }
    Ok(())
}

fn etc(root: &Path) -> Result<(), String> {
    for name in ETC_ENTRIES {
        let source = Path::new("/etc").join(name);
        if source.exists() {
            bind_in(root, &Bind::fixed(&source, &source))?;
        }
    }
    for (name, content) in [("nsswitch.conf", "hosts: files dns\n"), ("hosts", "127.0.0.1 localhost\n::1 localhost\n")]
    {
        let path = root.join("etc").join(name);
        fs::write(&path, content).map_err(|error| at(&path, &error))?;
    }
    Ok(())
}

/// `/proc` is the sandbox's, shared by all pods; `/sys` shows the devices of the pod's own network
/// namespace where the kernel allows a new instance.
fn kernel_views(root: &Path) -> Result<(), String> {
    bind_in(root, &Bind::fixed(Path::new("/proc"), Path::new("/proc")))?;
    let sys = root.join("sys");
    create_dir(&sys)?;
    mount::new_instance("sysfs", &sys, "").or_else(|_| mount::bind(Path::new("/sys"), &sys)).map_err(text)
}

fn devices(root: &Path) -> Result<(), String> {
    let dev = root.join("dev");
    create_dir(&dev.join("shm"))?;
    for name in DEVICES {
        let source = Path::new("/dev").join(name);
        bind_in(root, &Bind::fixed(&source, &source))?;
    }
    bind_in(root, &Bind::fixed(Path::new("/dev/pts"), Path::new("/dev/pts")))?;
    mount::new_instance("tmpfs", &dev.join("shm"), "mode=1777,size=64m").map_err(text)?;
    DEVICE_LINKS.iter().try_for_each(|(name, target)| link(target, &dev.join(name)))
}

fn bind_in(root: &Path, bind: &Bind) -> Result<(), String> {
    let target = inside(root, &bind.target);
    let source = fs::metadata(&bind.source).map_err(|error| at(&bind.source, &error))?;
    prepare(&target, source.is_dir())?;
    mount::bind(&bind.source, &target).map_err(text)?;
    if !bind.follows_host {
        mount::propagate(&target, Visibility::Private).map_err(text)?;
    }
    if bind.read_only {
        mount::read_only(&target).map_err(text)?;
    }
    Ok(())
}

/// Creates the mount point: a directory for a directory, an empty file for anything else.
fn prepare(target: &Path, directory: bool) -> Result<(), String> {
    if target.exists() {
        return Ok(());
    }
    if directory {
        return create_dir(target);
    }
    if let Some(parent) = target.parent() {
        create_dir(parent)?;
    }
    File::create(target).map(drop).map_err(|error| at(target, &error))
}

fn create_dir(path: &Path) -> Result<(), String> {
    DirBuilder::new().recursive(true).mode(0o755).create(path).map_err(|error| at(path, &error))
}

fn link(target: &str, path: &Path) -> Result<(), String> {
    symlink(target, path).map_err(|error| at(path, &error))
}

/// `path` below `root`, with `.` and `..` resolved inside it.
fn inside(root: &Path, path: &Path) -> PathBuf {
    let mut result = root.to_owned();
    let mut depth = 0_usize;
    for component in path.components() {
        match component {
            Component::Normal(name) => {
                result.push(name);
                depth += 1;
            }
            Component::ParentDir if depth > 0 => {
                result.pop();
                depth -= 1;
            }
            _ => {}
        }
    }
    result
}

fn at(path: &Path, error: &io::Error) -> String {
    format!("{}: {error}", path.display())
}

fn text(error: mount::MountError) -> String {
    format!("{error}: {}", error.source)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_cannot_leave_the_root() {
        let root = Path::new("/s");
        for (path, expected) in
            [("/a/b", "/s/a/b"), ("/../../etc", "/s/etc"), ("/a/../b", "/s/b"), ("/", "/s"), ("a", "/s/a")]
        {
            assert_eq!(inside(root, Path::new(path)), Path::new(expected), "{path}");
        }
    }
}
