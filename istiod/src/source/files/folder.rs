//! What a directory says: pure, apart from [`Scan::read`].
//!
//! A file that cannot be read as a whole keeps what it said before, and so does an object whose document cannot be
//! read. Of two files that define the same object the first by name is used.
//!
//! A file is used once it has held still, for nobody can tell half of a file from a whole one:
//!
//! ```text
//!  in use --changed--> fresh --the same for a while--> in use
//!                       | ^
//!                       +-+ changed again
//! ```
//!
//! Where something would be lost, because objects are missing, nobody can read it or the file is gone, it takes longer.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mesh_core::names::NamespacedName;
use mesh_xds::server::content_version;
use tokio::time::Instant;

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
    /// What is in use.
    used: Option<Look>,
    /// What it looks like now, if that is not in use yet.
    fresh: Option<Fresh>,
    /// It could be read once: there is something that can stay in force.
    known: bool,
    /// Why nothing of it is known, or not all.
    unread: Option<String>,
    objects: BTreeMap<Id, Said>,
}

/// What a file looks like.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Look {
    Text(Arc<str>),
    Closed(String),
    Gone,
}

#[derive(Debug)]
struct Fresh {
    look: Look,
    /// It has looked like that since then.
    since: Instant,
    /// It has not held still since then.
    restless: Instant,
}

/// What a text says.
#[derive(Debug, Default)]
struct Parsed {
    objects: BTreeMap<Id, Said>,
    problems: Vec<String>,
    /// Why part of it, or all, is not known.
    unread: Option<String>,
    /// Nothing of it can be used.
    is_useless: bool,
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
    /// When to look again: some files have not held still for long enough.
    pub(super) again: Option<Instant>,
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
    pub(super) fn apply(&mut self, mut scan: Scan, now: Instant) -> Read {
        let mut read = Read::default();
        let paths: BTreeSet<_> = scan.0.keys().chain(self.files.keys()).cloned().collect();
        for path in paths {
            let text = scan.0.remove(&path);
            self.file(path, text, now, &mut read);
        }
        self.tell(&mut read);
        read
    }

    /// Files of which nothing is known, or not all, with the reason: there is no earlier version that could stay in force.
    pub(super) fn unread(&self) -> impl Iterator<Item = (&Path, &str)> {
        self.files.iter().filter_map(|(path, file)| Some((path.as_path(), file.unread.as_deref()?)))
    }

    fn file(&mut self, path: PathBuf, text: Option<Result<String, String>>, now: Instant, read: &mut Read) {
        let file = self.files.entry(path.clone()).or_default();
        let look = match &text {
            Some(Ok(text)) => Look::Text(content_version(text.as_bytes())),
            Some(Err(reason)) => Look::Closed(reason.clone()),
            None => Look::Gone,
        };
        if file.used.as_ref() == Some(&look) {
            file.fresh = None;
            return;
        }
        let parsed = match text {
            Some(Ok(text)) => parse(&path, &text, self.kinds, &self.revision),
            Some(Err(reason)) => Parsed { is_useless: true, ..Parsed::unreadable(reason) },
            None => Parsed::default(),
        };
        let due = file.due(&look, &parsed, now);
        if now < due {
            read.again = Some(read.again.map_or(due, |again| again.min(due)));
            return;
        }
        if look == Look::Gone {
            self.files.remove(&path);
            return;
        }
        let problem = |reason| Problem { file: path.clone(), reason };
        read.problems.extend(file.take(look, parsed).into_iter().map(problem));
    }

    /// Compares what files say with what was told.
    fn tell(&mut self, read: &mut Read) {
        let mut wanted: BTreeMap<&Id, (&PathBuf, &Said)> = BTreeMap::new();
        let mut doubles = BTreeSet::new();
        for (path, file) in &self.files {
            for (id, said) in &file.objects {
                if let Some((first, _)) = wanted.get(id) {
                    // One that is about to go only stands in for the other.
                    let goes = self.files.get(*first).is_some_and(File::is_going);
                    if !goes && !self.doubles.contains(&(path.clone(), id.clone())) {
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

impl File {
    /// When what it looks like may be used.
    fn due(&mut self, look: &Look, parsed: &Parsed, now: Instant) -> Instant {
        let loses = parsed.is_useless || self.objects.keys().any(|id| !parsed.objects.contains_key(id));
        let restless = self.fresh.as_ref().map_or(now, |fresh| fresh.restless);
        let same = self.fresh.take().filter(|fresh| fresh.look == *look);
        let fresh = same.unwrap_or_else(|| Fresh { look: look.clone(), since: now, restless });
        let due = fresh.since + if loses { LOSS_QUIET } else { QUIET };
        let due = due.min(fresh.restless + RESTLESS_MAX);
        self.fresh = Some(fresh);
        due
    }

    /// Uses what was read, and tells what is wrong with it.
    fn take(&mut self, look: Look, parsed: Parsed) -> Vec<String> {
        self.used = Some(look);
        self.fresh = None;
        let Parsed { mut objects, mut problems, unread, is_useless } = parsed;
        if unread.is_none() {
            self.known = true;
        } else if is_useless && self.known {
            problems.iter_mut().for_each(|one| one.push_str("; what the file said before stays in force"));
        }
        // What seems to be missing may be what nobody can read.
        if unread.is_some() {
            for (id, said) in std::mem::take(&mut self.objects) {
                objects.entry(id).or_insert(said);
            }
        }
        self.objects = objects;
        self.unread = unread.filter(|_| !self.known);
        problems
    }

    fn is_going(&self) -> bool {
        self.fresh.as_ref().is_some_and(|fresh| fresh.look == Look::Gone)
    }
}

impl Parsed {
    fn unreadable(reason: String) -> Self {
        Self { problems: vec![reason.clone()], unread: Some(reason), ..Self::default() }
    }
}

fn parse(path: &Path, text: &str, kinds: &[Kind], revision: &str) -> Parsed {
    let documents = match document::documents(text) {
        Ok(documents) => documents,
        Err(reason) => return Parsed { is_useless: true, ..Parsed::unreadable(reason) },
    };
    let mut parsed = Parsed::default();
    for (number, document) in documents {
        let version = content_version(document.to_string().as_bytes());
        match document::read(document, kinds, revision) {
            Document::Object { kind, key, change } => {
                if let Change::Broken { reason, .. } | Change::Partial { reason, .. } = &*change {
                    parsed.problems.push(format!("document {number}, {} {key}: {reason}", kind.name()));
                }
                let said = Said { version, change: *change };
                if parsed.objects.insert((kind, key.clone()), said).is_some() {
                    let kind = kind.name();
                    let problem = format!("document {number}, {kind} {key}: the file has it before, this one is used");
                    parsed.problems.push(problem);
                }
            }
            Document::Other(reason) => {
                tracing::debug!(file = %path.display(), number, reason, "document is skipped");
            }
            Document::Unknown(reason) => {
                let problem = format!("document {number}: {reason}");
                parsed.unread.get_or_insert_with(|| problem.clone());
                parsed.problems.push(problem);
            }
        }
    }
    parsed
}

/// How long a changed file has to look the same before it is used.
const QUIET: Duration = Duration::from_millis(100);
/// The same, where something would be lost: a file that is being written looks like that.
const LOSS_QUIET: Duration = Duration::from_secs(1);
/// One that never holds still is used as it is after this time.
const RESTLESS_MAX: Duration = Duration::from_secs(10);
/// Larger files are refused.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// More files are not read.
const FILES_MAX: usize = 10_000;
