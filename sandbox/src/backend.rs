//! What the API server needs from the nodes: logs, `exec` and port forwarding.
//!
//! The API server knows objects only. Whatever has to touch a running container goes through
//! [`NodeBackend`], which the node runtime implements and tests replace by a scripted one.

use std::{pin::Pin, sync::Arc};

use bytes::Bytes;
use futures::{future::BoxFuture, stream::BoxStream};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::oneshot,
};

/// Reads of one running container, one connection into a pod, one command in a container.
///
/// Every method addresses a pod by the node it is bound to and by its UID, so that a pod that was
/// replaced by one of the same name is never reached by mistake.
pub trait NodeBackend: Send + Sync {
    /// Streams the log of a container, oldest line first.
    ///
    /// # Errors
    ///
    /// [`BackendError::NotFound`] when the pod or container never started on that node.
    fn logs<'a>(
        &'a self,
        node: &'a str,
        pod_uid: &'a str,
        container: &'a str,
        options: LogOptions,
    ) -> BoxFuture<'a, Result<LogStream, BackendError>>;

    /// Starts a command inside a running container.
    ///
    /// # Errors
    ///
    /// [`BackendError::NotFound`] when the container does not run, [`BackendError::Failed`] when
    /// the command could not be started.
    fn exec<'a>(
        &'a self,
        node: &'a str,
        pod_uid: &'a str,
        container: &'a str,
        request: ExecRequest,
    ) -> BoxFuture<'a, Result<ExecSession, BackendError>>;

    /// Connects to a TCP port on the loopback address of the pod.
    ///
    /// # Errors
    ///
    /// [`BackendError::NotFound`] when the pod does not run, [`BackendError::Failed`] when nothing
    /// listens there.
    fn port_forward<'a>(
        &'a self,
        node: &'a str,
        pod_uid: &'a str,
        port: u16,
    ) -> BoxFuture<'a, Result<BoxDuplex, BackendError>>;
}

/// Chunks of log bytes. Ends when the container has ended, or at once unless `follow` was asked.
pub type LogStream = BoxStream<'static, Result<Bytes, BackendError>>;

/// A byte stream in both directions.
pub type BoxDuplex = Pin<Box<dyn Duplex>>;

/// The read half of a child's output.
pub type BoxReader = Pin<Box<dyn AsyncRead + Send>>;

/// The write half of a child's input.
pub type BoxWriter = Pin<Box<dyn AsyncWrite + Send>>;

/// Anything that can be read and written, such as a TCP connection.
pub trait Duplex: AsyncRead + AsyncWrite + Send {}

impl<T: AsyncRead + AsyncWrite + Send> Duplex for T {}

/// Which part of a container's log is wanted (the fields of `PodLogOptions`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Keep streaming as the container writes.
    pub follow: bool,
    /// Only that many lines from the end.
    pub tail_lines: Option<u64>,
    /// The log of the container's previous, ended instance.
    pub previous: bool,
    /// Put an RFC 3339 time stamp before each line.
    pub timestamps: bool,
    /// Only lines written at or after this moment.
    pub since: Option<jiff::Timestamp>,
    /// Stop after that many bytes.
    pub limit_bytes: Option<u64>,
}

/// One command to run in a container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecRequest {
    /// Program and arguments; never empty.
    pub argv: Vec<String>,
    /// Whether the caller will send input.
    pub stdin: bool,
    /// Whether the command gets a terminal; its output then arrives on `stdout` only.
    pub tty: bool,
}

/// A started command.
pub struct ExecSession {
    /// Input of the command, present exactly when it was asked for. Dropping it is end of file.
    pub stdin: Option<BoxWriter>,
    /// Standard output.
    pub stdout: BoxReader,
    /// Standard error; empty with a terminal.
    pub stderr: BoxReader,
    /// The exit code, sent once after the command has ended (128 + n after signal n).
    pub exit: oneshot::Receiver<i32>,
}

/// Why a node could not serve a request.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackendError {
    /// The node, pod, container or earlier instance does not exist. Answered as 404.
    #[error("{what} not found on node {node}")]
    NotFound {
        /// What was looked for, such as `container "app" of pod 6f…`.
        what: String,
        /// The node that was asked.
        node: String,
    },
    /// The node tried and failed. Answered as 500.
    #[error("{action}: {reason}")]
    Failed {
        /// What was tried.
        action: String,
        /// What went wrong.
        reason: String,
    },
}

/// The backend of an API server that has no nodes: every request is answered `NotFound`.
#[derive(Debug, Default, Clone, Copy)]
pub struct NoNodes;

impl NoNodes {
    /// A shareable instance.
    pub fn shared() -> Arc<dyn NodeBackend> {
        Arc::new(Self)
    }

    fn refuse<T: Send + 'static>(node: &str, pod_uid: &str) -> BoxFuture<'static, Result<T, BackendError>> {
        let error = BackendError::NotFound { what: format!("pod {pod_uid}"), node: node.to_owned() };
        Box::pin(std::future::ready(Err(error)))
    }
}

impl NodeBackend for NoNodes {
    fn logs<'a>(
        &'a self,
        node: &'a str,
        pod_uid: &'a str,
        _container: &'a str,
        _options: LogOptions,
    ) -> BoxFuture<'a, Result<LogStream, BackendError>> {
        Self::refuse(node, pod_uid)
    }

    fn exec<'a>(
        &'a self,
        node: &'a str,
        pod_uid: &'a str,
        _container: &'a str,
        _request: ExecRequest,
    ) -> BoxFuture<'a, Result<ExecSession, BackendError>> {
        Self::refuse(node, pod_uid)
    }

    fn port_forward<'a>(
        &'a self,
        node: &'a str,
        pod_uid: &'a str,
        _port: u16,
    ) -> BoxFuture<'a, Result<BoxDuplex, BackendError>> {
        Self::refuse(node, pod_uid)
    }
}
