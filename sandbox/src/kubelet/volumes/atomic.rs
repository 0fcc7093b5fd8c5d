//! A directory whose whole content changes at once.
//!
//! ```text
//! <volume>/..2026_01_01_00_00_00.123456789/   the files
//! <volume>/..data        -> ..2026_01_01_00_00_00.123456789
//! <volume>/<first part>  -> ..data/<first part>
//! ```
//! A reader that opens `..data` sees either all old files or all new ones. Programs that watch
//! the directory see `..data` replaced.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Component, Path};

use super::content::Payload;

/// Replaces the content of `volume` by `payload`; makes the directory when it is missing.
///
/// # Errors
/// The system's answer; then the old content is still in place.
pub(super) fn write(volume: &Path, payload: &Payload) -> io::Result<()> {
    fs::create_dir_all(volume)?;
    let stamp = format!("..{}", jiff::Timestamp::now().strftime("%Y_%m_%d_%H_%M_%S.%9f"));
    let fresh = volume.join(&stamp);
    fs::create_dir(&fresh)?;
    let filled = fill(&fresh, payload).and_then(|()| swap(volume, &stamp));
    if filled.is_err() {
        // The old content is untouched; only the unfinished copy goes.
        let _ = fs::remove_dir_all(&fresh);
        return filled;
    }
    let parts = first_parts(payload);
    for part in &parts {
        let link = volume.join(part);
        if fs::symlink_metadata(&link).is_err() {
            symlink(Path::new(DATA).join(part), &link)?;
        }
    }
    sweep(volume, &stamp, &parts)
}

fn fill(directory: &Path, payload: &Payload) -> io::Result<()> {
    for (path, file) in payload {
        let plain = path.components().all(|part| matches!(part, Component::Normal(_)));
        if !plain {
            let message = format!("path {path:?} leaves the volume");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        let target = directory.join(path);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&target, &file.content)?;
        fs::set_permissions(&target, fs::Permissions::from_mode(file.mode))?;
    }
    Ok(())
}

fn swap(volume: &Path, stamp: &str) -> io::Result<()> {
    let next = volume.join(NEXT);
    let _ = fs::remove_file(&next);
    symlink(stamp, &next)?;
    fs::rename(&next, volume.join(DATA))
}

/// Removes earlier copies and links to files that are gone.
fn sweep(volume: &Path, stamp: &str, parts: &BTreeSet<OsString>) -> io::Result<()> {
    for entry in fs::read_dir(volume)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == *stamp || name == *DATA || parts.contains(&name) {
            continue;
        }
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn first_parts(payload: &Payload) -> BTreeSet<OsString> {
    payload.keys().filter_map(|path| path.components().next()).map(|part| part.as_os_str().to_owned()).collect()
}

/// The link that names the present copy.
const DATA: &str = "..data";
/// The link under its temporary name.
const NEXT: &str = "..data_tmp";

#[cfg(test)]
mod tests {
    use super::super::content::File;
    use super::*;

    fn payload(files: &[(&str, &str)]) -> Payload {
        files
            .iter()
            .map(|(path, content)| {
                let file = File { content: content.as_bytes().to_vec(), mode: 0o640 };
                ((*path).into(), file)
            })
            .collect()
    }

    #[test]
    fn content_changes_as_a_whole_through_one_link() {
        let dir = tempfile::tempdir().unwrap();
        let volume = dir.path().join("volume");
        write(&volume, &payload(&[("a", "1"), ("sub/b", "2")])).unwrap();
        let read = |path: &str| fs::read_to_string(volume.join(path));
        assert_eq!(read("a").unwrap(), "1");
        assert_eq!(read("sub/b").unwrap(), "2");
        assert_eq!(fs::read_link(volume.join("a")).unwrap(), Path::new("..data/a"));
        let first = fs::read_link(volume.join(DATA)).unwrap();
        assert_eq!(fs::metadata(volume.join("a")).unwrap().permissions().mode() & 0o777, 0o640);

        write(&volume, &payload(&[("a", "3"), ("c", "4")])).unwrap();
        assert_eq!(read("a").unwrap(), "3");
        assert_eq!(read("c").unwrap(), "4");
        assert!(read("sub/b").is_err());
        assert!(!volume.join(first).exists(), "the old copy is removed");
        assert_eq!(fs::read_dir(&volume).unwrap().count(), 4);
    }

    #[test]
    fn a_path_that_leaves_the_volume_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &payload(&[("a", "1")])).unwrap();
        assert!(write(dir.path(), &payload(&[("../x", "2")])).is_err());
        assert_eq!(fs::read_to_string(dir.path().join("a")).unwrap(), "1");
    }
}
