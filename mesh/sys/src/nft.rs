//! Packet filter rule sets, applied as one transaction by the `nft` tool.

use std::io::Write;
use std::process::{Command, Stdio};

/// Applies `ruleset` in the calling thread's network namespace: all of it or nothing.
///
/// # Errors
/// See [`NftError`].
pub fn apply(ruleset: &str) -> Result<(), NftError> {
    run(&["-f", "-"], Some(ruleset)).map(drop)
}

/// Names of the tables in the calling thread's network namespace, as `family name`.
///
/// # Errors
/// See [`NftError`].
pub fn list_tables() -> Result<Vec<String>, NftError> {
    let text = run(&["list", "tables"], None)?;
    Ok(text.lines().filter_map(|line| Some(line.strip_prefix("table ")?.trim().to_owned())).collect())
}

/// The rules of one table as text, or `None` when there is no such table.
///
/// # Errors
/// See [`NftError`].
pub fn list_table(family: &str, name: &str) -> Result<Option<String>, NftError> {
    let wanted = format!("{family} {name}");
    if !list_tables()?.contains(&wanted) {
        return Ok(None);
    }
    run(&["list", "table", family, name], None).map(Some)
}

fn run(args: &[&str], input: Option<&str>) -> Result<String, NftError> {
    let mut child = Command::new("nft")
        .args(args)
        .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|source| NftError::Start { source })?;
    if let (Some(text), Some(mut stdin)) = (input, child.stdin.take()) {
        // A tool that stops reading early says why on its error output.
        let _ = stdin.write_all(text.as_bytes());
    }
    let output = child.wait_with_output().map_err(|source| NftError::Start { source })?;
    if !output.status.success() {
        let mut message = String::from_utf8_lossy(&output.stderr).into_owned();
        message.truncate(message.floor_char_boundary(MESSAGE_BYTES_MAX));
        return Err(NftError::Refused { message });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Why a rule set is not in force.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NftError {
    /// The tool is missing or cannot be run. Retry after installing the package `nftables`.
    #[error("cannot run nft (package nftables)")]
    Start {
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The kernel or the tool refused the rules: nothing was changed. Never worth a retry unchanged.
    #[error("nft refused the rules: {message}")]
    Refused {
        /// The tool's own words.
        message: String,
    },
}

/// Enough for several rules with their marker lines.
const MESSAGE_BYTES_MAX: usize = 2048;
