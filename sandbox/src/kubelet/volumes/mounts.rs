//! From `volumeMounts` to bind mounts.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, Pod, VolumeMount};

use super::super::env::expand;
use super::{Kubelet, pod_root, volume_path};
use crate::runtime::{Mount, Propagation};

/// The mounts of a container: its volumes and the pod's files of name resolution.
///
/// # Errors
/// A message naming the mount; reason `CreateContainerConfigError`.
pub(in crate::kubelet) fn mounts_of(
    kubelet: &Kubelet,
    pod: &Pod,
    container: &Container,
    env: &BTreeMap<String, String>,
) -> Result<Vec<Mount>, String> {
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let root = pod_root(kubelet, uid);
    let mut mounts = Vec::new();
    for wanted in container.volume_mounts.iter().flatten() {
        mounts.push(mount(kubelet, pod, &root, wanted, env)?);
    }
    for (file, target) in RESOLUTION_FILES {
        let target = PathBuf::from(target);
        if !mounts.iter().any(|mount| mount.target == target) {
            mounts.push(Mount { source: root.join(file), target, read_only: false, propagation: Propagation::Private });
        }
    }
    Ok(mounts)
}

fn mount(
    kubelet: &Kubelet,
    pod: &Pod,
    root: &Path,
    wanted: &VolumeMount,
    env: &BTreeMap<String, String>,
) -> Result<Mount, String> {
    let mut volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let volume = volumes
        .find(|volume| volume.name == wanted.name)
        .ok_or_else(|| format!("volumeMount names volume {:?}, which the pod does not have", wanted.name))?;
    let base = match &volume.host_path {
        Some(host_path) => kubelet.runtime.host_path(Path::new(&host_path.path)),
        None => volume_path(root, volume)?,
    };
    let sub_path = match (&wanted.sub_path, &wanted.sub_path_expr) {
        (Some(path), _) if !path.is_empty() => path.clone(),
        (_, Some(expression)) if !expression.is_empty() => expand(expression, env),
        _ => String::new(),
    };
    let source = below(&base, &sub_path)?;
    if !sub_path.is_empty() && volume.empty_dir.is_some() {
        fs::create_dir_all(&source).map_err(|error| format!("subPath {sub_path:?}: {error}"))?;
    }
    // Content that the kubelet keeps current belongs to the kubelet.
    let written_by_kubelet = volume.host_path.is_none() && volume.empty_dir.is_none();
    Ok(Mount {
        target: PathBuf::from(&wanted.mount_path),
        source,
        read_only: wanted.read_only == Some(true) || written_by_kubelet,
        propagation: match wanted.mount_propagation.as_deref() {
            Some("HostToContainer" | "Bidirectional") => Propagation::HostToContainer,
            _ => Propagation::Private,
        },
    })
}

/// `base/sub_path`, refusing paths that lead out of `base`.
fn below(base: &Path, sub_path: &str) -> Result<PathBuf, String> {
    let sub_path = Path::new(sub_path);
    let inside = sub_path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if inside { Ok(base.join(sub_path)) } else { Err(format!("subPath {sub_path:?} leaves its volume")) }
}

/// Makes or checks a host path as its type says.
///
/// # Errors
/// A message naming the path when it is not what the type asks for.
pub(super) fn prepare_host_path(path: &Path, kind: &str) -> Result<(), String> {
    let shown = path.display();
    let fail = |error: std::io::Error| format!("hostPath {shown}: {error}");
    let is = |test: fn(&fs::FileType) -> bool| fs::metadata(path).is_ok_and(|found| test(&found.file_type()));
    use std::os::unix::fs::FileTypeExt;
    let right = match kind {
        // Unchecked by the API's rules; a mount needs something to be there.
        "" | "DirectoryOrCreate" => {
            if !path.exists() {
                fs::create_dir_all(path).map_err(fail)?;
            }
            kind.is_empty() || path.is_dir()
        }
        "FileOrCreate" => {
            if !path.exists() {
                fs::write(path, "").map_err(fail)?;
            }
            path.is_file()
        }
        "Directory" => path.is_dir(),
        "File" => path.is_file(),
        "Socket" => is(|kind| kind.is_socket()),
        "CharDevice" => is(|kind| kind.is_char_device()),
        "BlockDevice" => is(|kind| kind.is_block_device()),
        _ => return Err(format!("hostPath type {kind:?} is not known")),
    };
    if right { Ok(()) } else { Err(format!("hostPath type check failed: {shown} is not a {kind}")) }
}

/// Files of the pod's directory that every container sees.
const RESOLUTION_FILES: [(&str, &str); 3] =
    [("etc-hosts", "/etc/hosts"), ("resolv.conf", "/etc/resolv.conf"), ("hostname", "/etc/hostname")];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sub_paths_stay_in_their_volume() {
        let base = Path::new("/v");
        assert_eq!(below(base, "a/b"), Ok("/v/a/b".into()));
        assert_eq!(below(base, ""), Ok("/v/".into()));
        assert!(below(base, "../x").is_err());
        assert!(below(base, "/etc").is_err());
        assert!(below(base, "a/../../x").is_err());
    }

    #[test]
    fn host_paths_are_made_or_checked_by_type() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        assert!(prepare_host_path(&at("d"), "Directory").is_err());
        prepare_host_path(&at("d"), "DirectoryOrCreate").unwrap();
        prepare_host_path(&at("d"), "Directory").unwrap();
        prepare_host_path(&at("f"), "FileOrCreate").unwrap();
        assert!(prepare_host_path(&at("f"), "DirectoryOrCreate").is_err());
        assert!(prepare_host_path(&at("f"), "Socket").is_err());
        assert!(prepare_host_path(&at("f"), "Odd").unwrap_err().contains("Odd"));
        prepare_host_path(&at("any/where"), "").unwrap();
        assert!(at("any/where").is_dir());
    }
}
