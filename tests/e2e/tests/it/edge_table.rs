//! What `docs/gateway-api.md` says of features holds.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// A line of a table: the tests that it names, and whether they pass.
struct Line {
    tests: Vec<String>,
    passes: bool,
}

#[test]
fn docs_every_feature_that_passes_has_its_tests_and_every_published_one_passes() -> Result<()> {
    let lines = lines(&read("docs/gateway-api.md")?)?;
    let known = tests()?;
    for (feature, line) in lines.iter().filter(|(_, line)| line.passes) {
        ensure!(!line.tests.is_empty(), "{feature} passes, but no test shows it");
        for test in &line.tests {
            ensure!(known.iter().any(|name| name.contains(test.as_str())), "{feature}: there is no test {test}");
        }
    }
    let published = published()?;
    ensure!(published.len() > 50, "{published:?}");
    for feature in published {
        let line = lines.get(&feature).with_context(|| format!("{feature} is published, but has no line"))?;
        ensure!(line.passes, "{feature} is published, but does not pass");
    }
    Ok(())
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: &str) -> Result<String> {
    std::fs::read_to_string(root().join(path)).context(path.to_owned())
}

/// The lines of all tables: feature, level, tests, result.
fn lines(page: &str) -> Result<BTreeMap<String, Line>> {
    let mut all = BTreeMap::new();
    for text in page.lines().filter(|text| text.starts_with('|')) {
        let cells: Vec<&str> = text.trim_matches('|').split('|').map(str::trim).collect();
        let [feature, _, tests, result] = cells.as_slice() else { continue };
        if *feature == "Feature" || feature.starts_with('-') {
            continue;
        }
        let tests = tests.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        let line = Line { tests, passes: result.starts_with("passes") };
        ensure!(all.insert((*feature).to_owned(), line).is_none(), "{feature} has two lines");
    }
    Ok(all)
}

/// Names of all tests, and of all checks that tests consist of.
fn tests() -> Result<BTreeSet<String>> {
    let mut all = BTreeSet::new();
    for file in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it"))? {
        let text = std::fs::read_to_string(file?.path())?;
        for mark in ["#[test]\nfn ", "named!("] {
            let after = text.split(mark).skip(1);
            let names = after.map(|rest| rest.trim_start().split(|c: char| c != '_' && !c.is_alphanumeric()).next());
            all.extend(names.flatten().filter(|name| !name.is_empty()).map(str::to_owned));
        }
    }
    Ok(all)
}

/// The features that GatewayClasses are told to have.
fn published() -> Result<Vec<String>> {
    let source = read("istiod/src/translate/conditions/gateway/features.rs")?;
    let list = source.split("&[&str] = &[").nth(1).context("the list of features")?;
    let names = list.lines().filter_map(|line| line.trim().strip_prefix('"')?.strip_suffix("\","));
    Ok(names.map(str::to_owned).collect())
}
