//! Privileges: as they are, or once more inside a user namespace.

use std::process::Command;

use anyhow::{Context, Result, bail};
use mesh_sys::netns::NetNs;

/// Runs `work` if this process may make network namespaces; else the whole process once more, with the same arguments,
/// as root of a user namespace. `again` are arguments that lead there.
///
/// # Errors
/// What `work` said, or that there is no privilege to be had.
pub fn isolated(again: &[String], work: impl FnOnce() -> Result<()>) -> Result<()> {
    if NetNs::create().is_ok() {
        return work();
    }
    if std::env::var_os(MARK).is_some() {
        bail!("network namespaces are needed; run as root or allow user namespaces");
    }
    let status = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net", "--mount"])
        .arg(std::env::current_exe()?)
        .args(again)
        .env(MARK, "1")
        .status()
        .context("unshare(1) is part of every Linux distribution")?;
    if !status.success() {
        bail!("failed in its user namespace: {status}");
    }
    Ok(())
}

/// [`isolated`] for a test: `name` is its path as libtest knows it.
///
/// # Errors
/// As [`isolated`].
pub fn isolated_test(name: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
    isolated(&["--exact".to_owned(), name.to_owned(), "--nocapture".to_owned()], work)
}

const MARK: &str = "MELTEMI_TEST_ISOLATED";
