//! The command line's side of the control socket.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::{Answer, Request, SOCKET_NAME};

/// Why the daemon did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// No daemon listens in this state directory.
    #[error("no sandbox runs in {dir}: start one with `meltemi-sandbox up`, or name its directory with --dir")]
    NotRunning {
        /// The state directory.
        dir: String,
    },
    /// The connection broke.
    #[error("talking to the sandbox")]
    Broken {
        /// The system's answer.
        source: io::Error,
    },
    /// The daemon refused; its own words.
    #[error("{reason}")]
    Refused {
        /// Why.
        reason: String,
    },
}

/// Sends a request and hands every line of the answer but the last to `each`; returns the sentence
/// of [`Answer::Done`]. `deadline` bounds the wait for each line.
///
/// # Errors
///
/// See [`ControlError`].
pub fn call(
    dir: &Path,
    request: &Request,
    deadline: Option<Duration>,
    mut each: impl FnMut(Answer),
) -> Result<String, ControlError> {
    let broken = |source| ControlError::Broken { source };
    let mut stream = connect(dir)?;
    stream.set_read_timeout(deadline).map_err(broken)?;
    let mut line = serde_json::to_string(request).map_err(|error| broken(error.into()))?;
    line.push('\n');
    stream.write_all(line.as_bytes()).map_err(broken)?;
    for line in BufReader::new(stream).lines() {
        let answer = serde_json::from_str(&line.map_err(broken)?).map_err(|error| broken(error.into()))?;
        match answer {
            Answer::Done(sentence) => return Ok(sentence),
            Answer::Error(reason) => return Err(ControlError::Refused { reason }),
            other => each(other),
        }
    }
    Err(broken(io::ErrorKind::UnexpectedEof.into()))
}

/// Whether a daemon answers in this directory.
pub fn is_running(dir: &Path) -> bool {
    connect(dir).is_ok()
}

fn connect(dir: &Path) -> Result<UnixStream, ControlError> {
    UnixStream::connect(dir.join(SOCKET_NAME)).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            ControlError::NotRunning { dir: dir.display().to_string() }
        }
        _ => ControlError::Broken { source: error },
    })
}
