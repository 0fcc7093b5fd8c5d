//! Commands run inside a container that is already running.

use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::process::Stdio;
use std::sync::Arc;
use std::task::{Context, Poll};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::pty::openpty;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::unix::pipe;
use tokio::process::Child;
use tokio::sync::oneshot;

use super::container::{Instance, exit_code};
use super::enter::{EnterSpec, World};
use super::launch::{self, StandardStreams};
use super::{NodeRuntime, RuntimeError};
use crate::backend::{BoxReader, BoxWriter, ExecRequest, ExecSession};

/// Starts a command in the namespaces of a running container.
pub(crate) async fn start(
    _node: &NodeRuntime,
    instance: Arc<Instance>,
    request: ExecRequest,
) -> Result<ExecSession, RuntimeError> {
    if !instance.running() {
        return Err(instance.gone());
    }
    let mut env = instance.env.clone();
    if request.tty && !env.iter().any(|(name, _)| name == "TERM") {
        env.push(("TERM".to_owned(), "xterm".to_owned()));
    }
    let spec = EnterSpec {
        world: World::Of { pid: instance.pid },
        netns: None,
        argv: request.argv,
        env,
        cwd: instance.cwd.clone(),
        terminal: request.tty,
    };
    let failed = |reason: String| RuntimeError::Start { container: instance.name.clone(), reason };
    if request.tty {
        on_terminal(&spec, request.stdin).await.map_err(failed)
    } else {
        on_pipes(&spec, request.stdin).await.map_err(failed)
    }
}

async fn on_pipes(spec: &EnterSpec, stdin: bool) -> Result<ExecSession, String> {
    let streams = StandardStreams {
        stdin: if stdin { Stdio::piped() } else { Stdio::null() },
        stdout: Stdio::piped(),
        stderr: Stdio::piped(),
    };
    let mut child = launch::launch(spec, streams).await?;
    let stdin = child.stdin.take().map(|input| Box::pin(input) as BoxWriter);
    let stdout: BoxReader = match child.stdout.take() {
        Some(output) => Box::pin(output),
        None => Box::pin(tokio::io::empty()),
    };
    let stderr: BoxReader = match child.stderr.take() {
        Some(output) => Box::pin(output),
        None => Box::pin(tokio::io::empty()),
    };
    Ok(ExecSession { stdin, stdout, stderr, exit: exit_of(child) })
}

async fn on_terminal(spec: &EnterSpec, stdin: bool) -> Result<ExecSession, String> {
    let terminal = Terminal::open().map_err(|error| format!("opening a terminal: {error}"))?;
    let child = launch::launch(spec, terminal.streams).await?;
    Ok(ExecSession {
        stdin: stdin.then(|| Box::pin(terminal.input) as BoxWriter),
        stdout: Box::pin(TerminalOutput(terminal.output)),
        stderr: Box::pin(tokio::io::empty()),
        exit: exit_of(child),
    })
}

fn exit_of(mut child: Child) -> oneshot::Receiver<i32> {
    let (sender, receiver) = oneshot::channel();
    tokio::spawn(async move {
        let code = child.wait().await.map_or(255, exit_code);
        // A caller that left does not need it.
        let _ = sender.send(code);
    });
    receiver
}

/// A pseudo terminal: our ends, and the command's three streams.
struct Terminal {
    input: pipe::Sender,
    output: pipe::Receiver,
    streams: StandardStreams,
}

impl Terminal {
    fn open() -> io::Result<Self> {
        let pair = openpty(None, None)?;
        let input = nonblocking(pair.master.try_clone()?)?;
        let output = nonblocking(pair.master)?;
        let command = pair.slave;
        Ok(Self {
            // Not pipes, but the same calls on a non-blocking descriptor.
            input: pipe::Sender::from_owned_fd_unchecked(input)?,
            output: pipe::Receiver::from_owned_fd_unchecked(output)?,
            streams: StandardStreams {
                stdin: Stdio::from(command.try_clone()?),
                stdout: Stdio::from(command.try_clone()?),
                stderr: Stdio::from(command),
            },
        })
    }
}

fn nonblocking(fd: OwnedFd) -> io::Result<OwnedFd> {
    let flags = OFlag::from_bits_truncate(fcntl(&fd, FcntlArg::F_GETFL)?);
    fcntl(&fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    fcntl(&fd, FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC))?;
    Ok(fd)
}

/// Output of a terminal, whose end Linux reports as `EIO`.
struct TerminalOutput(pipe::Receiver);

impl AsyncRead for TerminalOutput {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.0).poll_read(context, buffer) {
            Poll::Ready(Err(error)) if error.raw_os_error() == Some(nix::libc::EIO) => Poll::Ready(Ok(())),
            other => other,
        }
    }
}
