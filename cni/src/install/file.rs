//! Writing files that others read at any moment.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Replaces `path` with `content` and `mode`: whoever opens it sees the old file or the new one, never a part.
///
/// # Errors
/// When the directory is missing or not writable; the old file is untouched then.
pub fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let name = path.file_name().and_then(|name| name.to_str()).ok_or(io::ErrorKind::InvalidInput)?;
    let temporary = path.with_file_name(format!("{name}{TEMPORARY}{:08x}", rand::random::<u32>()));
    let result = write(&temporary, content, mode).and_then(|()| fs::rename(&temporary, path));
    if result.is_err() {
        // Nothing else to do about it: the next start removes leftovers.
        let _ = fs::remove_file(&temporary);
    }
    result
}

fn write(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(content)?;
    // The mode given at creation is narrowed by the umask.
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.sync_all()
}

/// Removes what a crash during [`replace`] of `name` has left.
pub fn remove_leftovers(dir: &Path, name: &str) {
    let prefix = format!("{name}{TEMPORARY}");
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_name().to_str().is_some_and(|found| found.starts_with(&prefix)) {
            // Another agent may have been faster.
            let _ = fs::remove_file(entry.path());
        }
    }
}

const TEMPORARY: &str = ".tmp.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_with_its_mode_and_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        fs::write(&path, "old").unwrap();
        replace(&path, b"new", 0o640).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(replace(&dir.path().join("missing/a"), b"", 0o600).is_err());
    }

    #[test]
    fn leftovers_of_one_name_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a.tmp.1", "a.tmp.ff", "b.tmp.1", "a"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        remove_leftovers(dir.path(), "a");
        let mut names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["a", "b.tmp.1"]);
    }
}
