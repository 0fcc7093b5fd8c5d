//! Starting helper processes from the daemon.

use std::io;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::process::Child;

use super::enter::{CONTROL_FD, EnterSpec, HELPER_ARGUMENT};

/// The running executable, whatever has become of its file.
pub(crate) const OWN_EXECUTABLE: &str = "/proc/self/exe";

/// A helper needs milliseconds; one that takes this long hangs in a mount.
const SETUP_DEADLINE: Duration = Duration::from_secs(10);

/// Longest error text taken from a helper.
const ERROR_BYTES_MAX: u64 = 4096;

/// The three standard descriptors of a new process.
pub(crate) struct StandardStreams {
    pub(crate) stdin: Stdio,
    pub(crate) stdout: Stdio,
    pub(crate) stderr: Stdio,
}

/// Starts a helper and returns it once it has executed its program.
///
/// # Errors
///
/// The helper's sentence about the step that failed; the process is then gone.
pub(crate) async fn launch(spec: &EnterSpec, streams: StandardStreams) -> Result<Child, String> {
    let json = serde_json::to_vec(spec).map_err(|error| format!("encoding the specification: {error}"))?;
    let (mut child, mut control) =
        spawn(streams).await.map_err(|error| format!("starting a helper process: {error}"))?;
    let setup = tokio::time::timeout(SETUP_DEADLINE, instruct(&mut control, &json)).await;
    let problem = match setup {
        Ok(Ok(text)) if text.is_empty() => return Ok(child),
        Ok(Ok(text)) => text,
        Ok(Err(error)) => format!("talking to the helper process: {error}"),
        Err(_) => format!("the helper process did not finish within {SETUP_DEADLINE:?}"),
    };
    // Already ended in the usual case.
    let _ = child.start_kill();
    let _ = child.wait().await;
    Err(problem)
}

/// Forking a process of the daemon's size takes a moment: not on an async thread.
async fn spawn(streams: StandardStreams) -> io::Result<(Child, UnixStream)> {
    let (here, there) = StdUnixStream::pair()?;
    here.set_nonblocking(true)?;
    let child = tokio::task::spawn_blocking(move || {
        let mut command = Command::new(OWN_EXECUTABLE);
        command
            .arg0("meltemi-sandbox")
            .arg(HELPER_ARGUMENT)
            .env_clear()
            .stdin(streams.stdin)
            .stdout(streams.stdout)
            .stderr(streams.stderr);
        mesh_sys::process::pass_fd(&mut command, there.into(), CONTROL_FD)?;
        tokio::process::Command::from(command).spawn()
    })
    .await
    .map_err(io::Error::other)??;
    Ok((child, UnixStream::from_std(here)?))
}

/// Sends the specification and reads until the helper has executed its program or given up.
async fn instruct(control: &mut UnixStream, json: &[u8]) -> io::Result<String> {
    let length = u32::try_from(json.len()).map_err(io::Error::other)?;
    control.write_all(&length.to_le_bytes()).await?;
    control.write_all(json).await?;
    let mut answer = Vec::new();
    control.take(ERROR_BYTES_MAX).read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
