//! Running programs to their end, with a deadline.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How a program ended.
#[derive(Debug, Clone)]
pub struct Ended {
    /// Exit code; -1 when a signal ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Ended {
    /// Standard output, if the program succeeded.
    ///
    /// # Errors
    /// Shows what the program said.
    pub fn ok(self) -> Result<String> {
        if self.code != 0 {
            bail!("exit code {}: {}{}", self.code, self.stdout, self.stderr);
        }
        Ok(self.stdout)
    }

    /// Both outputs, if the program failed.
    ///
    /// # Errors
    /// When it succeeded.
    pub fn failed(self) -> Result<String> {
        if self.code == 0 {
            bail!("succeeded, but should not have: {}", self.stdout);
        }
        Ok(self.stdout + &self.stderr)
    }
}

/// Runs `command` with `input` and waits for its end.
///
/// # Errors
/// When it cannot be started, or has not ended within `within` (it is killed then).
pub fn run(command: &mut Command, input: &str, within: Duration) -> Result<Ended> {
    let name = format!("{command:?}");
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {name}"))?;
    let mut stdin = child.stdin.take().context("no input")?;
    let (mut out, mut err) = (child.stdout.take().context("no output")?, child.stderr.take().context("no output")?);
    let input = input.to_owned();
    // A program may stop reading before the end of its input.
    std::thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
    let collect = |stream: &mut dyn Read| {
        let mut bytes = Vec::new();
        drop(stream.read_to_end(&mut bytes));
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let stdout = std::thread::spawn(move || collect(&mut out));
    let stderr = std::thread::spawn(move || collect(&mut err));
    let deadline = Instant::now() + within;
    let status = loop {
        match child.try_wait()? {
            Some(status) => break status,
            None if Instant::now() >= deadline => {
                child.kill()?;
                child.wait()?;
                bail!("{name} has not ended within {}s", within.as_secs());
            }
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    let text = |thread: std::thread::JoinHandle<String>| thread.join().unwrap_or_default();
    Ok(Ended { code: status.code().unwrap_or(-1), stdout: text(stdout), stderr: text(stderr) })
}

/// The folder of the built programs: where the running test or program is.
///
/// # Errors
/// When it cannot be told.
pub fn bin_dir() -> Result<std::path::PathBuf> {
    let own = std::env::current_exe()?;
    let dir = own.parent().context("no folder")?;
    // Test programs are one folder deeper.
    let dir = if dir.ends_with("deps") { dir.parent().context("no folder")? } else { dir };
    Ok(dir.to_owned())
}

/// A kubectl of at least 1.29: `$KUBECTL`, else the one on the PATH.
#[must_use]
pub fn kubectl() -> Option<std::path::PathBuf> {
    let named = std::env::var_os("KUBECTL").map(std::path::PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|dir| dir.join("kubectl")).find(|file| file.is_file());
    named.filter(|file: &std::path::PathBuf| Path::is_file(file)).or(found)
}
