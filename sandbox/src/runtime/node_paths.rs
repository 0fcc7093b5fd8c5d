//! Where a path of a node's "host file system" lives on the sandbox host.

use std::path::{Component, Path, PathBuf};

/// Trees that every node shares with the sandbox host: programs, devices and the kernel.
const SHARED_TREES: &[&str] = &["/usr", "/bin", "/sbin", "/lib", "/lib64", "/sys", "/dev", "/boot"];

/// Maps an absolute path of the node to one of the sandbox host. `.` and `..` are resolved within
/// the node's tree, so that no `hostPath` leads out of it.
pub(crate) fn map(node_root: &Path, path: &Path) -> PathBuf {
    let mut inside = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => inside.push(name),
            Component::ParentDir => {
                inside.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    if SHARED_TREES.iter().any(|tree| inside.starts_with(tree)) {
        return inside;
    }
    let relative = inside.strip_prefix("/").unwrap_or(&inside);
    if relative.as_os_str().is_empty() { node_root.to_owned() } else { node_root.join(relative) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_paths_stay_in_the_nodes_tree() {
        let root = Path::new("/d/nodes/node-1");
        for (path, mapped) in [
            ("/opt/cni/bin", "/d/nodes/node-1/opt/cni/bin"),
            ("/", "/d/nodes/node-1"),
            ("/var/run/../log", "/d/nodes/node-1/var/log"),
            ("/../../etc", "/d/nodes/node-1/etc"),
            ("relative", "/d/nodes/node-1/relative"),
            ("/usr/share", "/usr/share"),
            ("/sys/fs/bpf", "/sys/fs/bpf"),
            ("/usrlocal", "/d/nodes/node-1/usrlocal"),
            ("/usr/../etc", "/d/nodes/node-1/etc"),
        ] {
            assert_eq!(map(root, Path::new(path)), Path::new(mapped), "{path}");
        }
    }
}
