//! Copies the plugin to where the container runtime looks for it.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::file;

/// Copies every regular file of `from` into `to`, each replaced as a whole: the runtime may be executing the old one.
/// Files that are the same already stay. Returns the names.
///
/// # Errors
/// Names the file and what the system said.
pub fn copy_all(from: &Path, to: &Path) -> Result<Vec<String>, String> {
    let entries = fs::read_dir(from).map_err(|error| format!("{}: {error}", from.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| format!("{}: {error}", from.display()))?;
        // Follows links: an image may link to the binary.
        let is_file = fs::metadata(entry.path()).is_ok_and(|meta| meta.is_file());
        let Some(name) = entry.file_name().to_str().map(str::to_owned).filter(|_| is_file) else { continue };
        file::remove_leftovers(to, &name);
        if !is_same(&entry.path(), &to.join(&name)) {
            copy(&entry.path(), &to.join(&name)).map_err(|error| explain(&error, to, &name))?;
        }
        names.push(name);
    }
    if names.is_empty() {
        return Err(format!("{}: no binary to install", from.display()));
    }
    names.sort();
    Ok(names)
}

/// Whether both files have the same size, content and mode.
#[must_use]
pub fn is_same(a: &Path, b: &Path) -> bool {
    let meta = |path| fs::metadata(path).map(|meta| (meta.len(), meta.permissions().mode() & 0o7777)).ok();
    meta(a).is_some() && meta(a) == meta(b) && matches!((fs::read(a), fs::read(b)), (Ok(a), Ok(b)) if a == b)
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let mode = fs::metadata(from)?.permissions().mode() & 0o7777;
    file::replace(to, &fs::read(from)?, mode)
}

fn explain(error: &io::Error, to: &Path, name: &str) -> String {
    let hint = match error.kind() {
        io::ErrorKind::ReadOnlyFilesystem => {
            "; the directory is read-only: set global.platform or cniBinDir to that of this platform"
        }
        _ => "",
    };
    format!("{}/{name}: {error}{hint}", to.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regular_files_are_copied_with_their_mode_and_repaired_when_they_differ() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(from.path().join("istio-cni"), "binary").unwrap();
        fs::set_permissions(from.path().join("istio-cni"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(from.path().join("dir")).unwrap();
        fs::write(to.path().join("istio-cni.tmp.123"), "left by a crash").unwrap();
        assert_eq!(copy_all(from.path(), to.path()).unwrap(), ["istio-cni"]);
        assert!(is_same(&from.path().join("istio-cni"), &to.path().join("istio-cni")));
        assert_eq!(fs::read_dir(to.path()).unwrap().count(), 1);
        fs::write(to.path().join("istio-cni"), "damage").unwrap();
        assert!(!is_same(&from.path().join("istio-cni"), &to.path().join("istio-cni")));
        copy_all(from.path(), to.path()).unwrap();
        assert_eq!(fs::read(to.path().join("istio-cni")).unwrap(), b"binary");
    }

    #[test]
    fn an_image_without_binaries_is_an_error() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        assert!(copy_all(from.path(), to.path()).unwrap_err().contains("no binary"));
    }
}
