//! Every row of the specifications' tables of examples is a test somewhere in the workspace, and says so in its name.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Each specification with its number of rows.
const TABLES: [(&str, usize); 13] = [
    ("hbone", 20),
    ("wds", 20),
    ("policy", 20),
    ("ca", 18),
    ("zds", 17),
    ("ops", 20),
    ("model", 20),
    ("xds", 20),
    ("api", 20),
    ("gateway", 20),
    ("routing", 20),
    ("resilience", 18),
    ("waypoint", 20),
];

#[test]
fn every_row_has_a_test_that_names_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let function = regex::Regex::new(r"\bfn ([a-z0-9_]+)\(").unwrap();
    let mut names = BTreeSet::new();
    for file in sources(&root) {
        let text = std::fs::read_to_string(&file).unwrap();
        names.extend(function.captures_iter(&text).map(|found| format!("_{}_", &found[1])));
    }
    assert!(names.len() > 1000, "{} functions: is this the workspace?", names.len());
    let has_test = |spec: &str, row: usize| names.iter().any(|name| name.contains(&format!("_{spec}_row_{row}_")));
    let rows = TABLES.iter().flat_map(|&(spec, count)| (1..=count).map(move |row| (spec, row)));
    let missing: Vec<_> = rows.filter(|&(spec, row)| !has_test(spec, row)).collect();
    assert!(missing.is_empty(), "no test is named <specification>_row_<number> for {missing:?}");
}

#[test]
fn a_row_belongs_to_a_specification() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let bare = regex::Regex::new(r"\bfn (rows?_[0-9]\w*)\(").unwrap();
    let mut found = Vec::new();
    for part in ["mesh", "ztunnel", "istiod", "waypoint", "tests"] {
        for file in sources(&root.join(part)) {
            let text = std::fs::read_to_string(&file).unwrap();
            found.extend(bare.captures_iter(&text).map(|name| format!("{}: {}", file.display(), &name[1])));
        }
    }
    assert!(found.is_empty(), "names of the form <specification>_row_<number> are expected: {found:#?}");
}

/// All Rust files below a folder, build products excluded.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap().flatten() {
            let (path, name) = (entry.path(), entry.file_name());
            let hidden = name.as_encoded_bytes().starts_with(b".");
            if path.is_dir() && name != "target" && !hidden {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                files.push(path);
            }
        }
    }
    files
}
