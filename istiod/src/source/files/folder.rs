//! What a directory says: pure, apart from [`Scan::read`].
//!
//! A file that cannot be read as a whole keeps what it said before, and so does an object whose document cannot be
//! read. Of two files that define the same object the first by name is used.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mesh_core::names::NamespacedName;
use mesh_xds::server::content_version;

use super::document::{self, Document};
use crate::world::{Change, Kind};

/// Texts of the files of a directory, as they are now.
#[derive(Debug, Default)]
pub(super) struct Scan(pub(super) BTreeMap<PathBuf, Result<String, String>>);

impl Scan {
    /// Reads every file.
    ///
    /// # Errors
    /// The directory cannot be listed; a file that cannot be read is told for itself.
    pub(super) fn read(dir: &Path) -> io::Result<Self> {
        let mut files = BTreeMap::new();
        for dir in directories(dir)? {
            for path in entries(&dir)?.into_iter().filter(|path| is_readable(path)) {
                if files.len() == FILES_MAX {
                    files.insert(path, Err(format!("one file too many, {FILES_MAX} are read")));
                    return Ok(Self(files));
                }
                let text = text(&path);
                files.insert(path, text);
            }
        }
        Ok(Self(files))
    }
}

/// The directory and those in it.
pub(super) fn directories(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", dir.display()));
    let mut found = vec![dir.to_owned()];
    found.extend(entries(dir).map_err(named)?.into_iter().filter(|path| path.is_dir()));
    Ok(found)
}

/// Entries of a directory, by name. Hidden ones are left out: editors and mounted ConfigMaps keep copies there.
fn entries(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if !entry.file_name().to_string_lossy().starts_with('.') {
            paths.push(entry.path());
        }
    }
    paths.sort();
    Ok(paths)
}

fn is_readable(path: &Path) -> bool {
    let extension = path.extension().and_then(|one| one.to_str());
    matches!(extension, Some("yaml" | "yml" | "json")) && path.is_file()
}

fn text(path: &Path) -> Result<String, String> {
    let size = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
    if size > FILE_BYTES_MAX {
        return Err(format!("{size} bytes, expected at most {FILE_BYTES_MAX}"));
    }
    std::fs::read_to_string(path).map_err(|error| error.to_string())
}

/// What files said so far.
#[derive(Debug)]
pub(super) struct Folder {
    kinds: &'static [Kind],
    revision: Arc<str>,
    files: BTreeMap<PathBuf, File>,
    /// Objects in force, by where they come from and what they say.
    told: BTreeMap<Id, Origin>,
    /// Objects that a second file defines, by that file.
    doubles: BTreeSet<(PathBuf, Id)>,
}

type Id = (Kind, NamespacedName);
type Origin = (PathBuf, Arc<str>);

#[derive(Debug, Default)]
struct File {
    /// Of the text that was read last.
    version: Option<Arc<str>>,
    objects: BTreeMap<Id, Said>,
}

#[derive(Clone, Debug)]
struct Said {
    version: Arc<str>,
    change: Change,
}

/// What a scan changes.
#[derive(Debug, Default)]
pub(super) struct Read {
    /// For the world.
    pub(super) changes: Vec<Change>,
    /// For whoever wrote the files.
    pub(super) problems: Vec<Problem>,
}

/// Something in a file that is not used as written.
#[derive(Debug)]
pub(super) struct Problem {
    /// The file.
    pub(super) file: PathBuf,
    /// Document, field and what is wrong.
    pub(super) reason: String,
}

impl Folder {
    pub(super) fn new(kinds: &'static [Kind], revision: Arc<str>) -> Self {
        Self { kinds, revision, files: BTreeMap::new(), told: BTreeMap::new(), doubles: BTreeSet::new() }
    }

    /// Takes what is in the directory now.
    pub(super) fn apply(&mut self, scan: Scan) -> Read {
        let mut read = Read::default();
        self.files.retain(|path, _| scan.0.contains_key(path));
        for (path, text) in scan.0 {
            match text {
                Ok(text) => self.file(path, &text, &mut read.problems),
                Err(reason) => {
                    self.files.entry(path.clone()).or_default();
                    read.problems.push(Problem { file: path, reason });
                }
            }
        }
        self.tell(&mut read);
        read
    }

    fn file(&mut self, path: PathBuf, text: &str, problems: &mut Vec<Problem>) {
        let file = self.files.entry(path.clone()).or_default();
        let version = content_version(text.as_bytes());
        if file.version.replace(version.clone()) == Some(version) {
            return;
        }
        let mut problem = |reason: String| problems.push(Problem { file: path.clone(), reason });
        let documents = match document::documents(text) {
            Ok(documents) => documents,
            Err(reason) => return problem(format!("{reason}; what the file said before stays in force")),
        };
        let mut objects = BTreeMap::new();
        let mut unknown = false;
        for (number, document) in documents {
            let version = content_version(document.to_string().as_bytes());
            match document::read(document, self.kinds, &self.revision) {
                Document::Object { kind, key, change } => {
                    if let Change::Broken { reason, .. } | Change::Partial { reason, .. } = &*change {
                        problem(format!("document {number}, {} {key}: {reason}", kind.name()));
                    }
                    let said = Said { version, change: *change };
                    if objects.insert((kind, key.clone()), said).is_some() {
                        problem(format!(
                            "document {number}, {} {key}: the file has it before, this one is used",
                            kind.name()
                        ));
                    }
                }
                Document::Other(reason) => {
                    tracing::info!(file = %path.display(), number, reason, "document is skipped")
                }
                Document::Unknown(reason) => {
                    unknown = true;
                    problem(format!("document {number}: {reason}"));
                }
            }
        }
        // What seems to be missing may be what nobody can read.
        if unknown {
            for (id, said) in std::mem::take(&mut file.objects) {
                objects.entry(id).or_insert(said);
            }
        }
        file.objects = objects;
    }

    /// Compares what files say with what was told.
    fn tell(&mut self, read: &mut Read) {
        let mut wanted: BTreeMap<&Id, (&PathBuf, &Said)> = BTreeMap::new();
        let mut doubles = BTreeSet::new();
        for (path, file) in &self.files {
            for (id, said) in &file.objects {
                if let Some((first, _)) = wanted.get(id) {
                    if !self.doubles.contains(&(path.clone(), id.clone())) {
                        let (kind, key) = (id.0.name(), &id.1);
                        let reason = format!("{kind} {key} is not used: {} has it too", first.display());
                        read.problems.push(Problem { file: path.clone(), reason });
                    }
                    doubles.insert((path.clone(), id.clone()));
                } else {
                    wanted.insert(id, (path, said));
                }
            }
        }
        let mut told = BTreeMap::new();
        for (id, (path, said)) in &wanted {
            let origin = ((*path).clone(), said.version.clone());
            if self.told.get(*id) != Some(&origin) {
                read.changes.push(said.change.clone());
            }
            told.insert((*id).clone(), origin);
        }
        let gone = self.told.keys().filter(|id| !told.contains_key(*id));
        read.changes.extend(gone.map(|(kind, key)| Change::Delete(*kind, key.clone())));
        self.told = told;
        self.doubles = doubles;
    }
}

/// Larger files are refused.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// More files are not read.
const FILES_MAX: usize = 10_000;
