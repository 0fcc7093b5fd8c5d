//! The nodes as the API server sees them.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use futures::future::BoxFuture;

use tokio::sync::oneshot;

use super::cri_log;
use super::enter::NOT_FOUND;
use super::{NodeRuntime, RuntimeError};
use crate::backend::{
    BackendError, BoxDuplex, BoxReader, ExecRequest, ExecSession, LogOptions, LogStream, NodeBackend,
};

/// A loopback connection either works at once or never.
const LOOPBACK_CONNECT_DEADLINE: Duration = Duration::from_secs(2);

/// All nodes of a sandbox, by name.
#[derive(Debug, Clone, Default)]
pub struct Nodes {
    by_name: BTreeMap<String, NodeRuntime>,
}

impl Nodes {
    /// The backend over these nodes.
    pub fn new(nodes: impl IntoIterator<Item = NodeRuntime>) -> Self {
        Self { by_name: nodes.into_iter().map(|node| (node.node_name().to_owned(), node)).collect() }
    }

    /// A node by name.
    pub fn get(&self, name: &str) -> Option<&NodeRuntime> {
        self.by_name.get(name)
    }

    /// All nodes in name order.
    pub fn iter(&self) -> impl Iterator<Item = &NodeRuntime> {
        self.by_name.values()
    }

    fn find(&self, name: &str) -> Result<&NodeRuntime, BackendError> {
        self.get(name).ok_or_else(|| BackendError::NotFound { what: "node".to_owned(), node: name.to_owned() })
    }
}

impl NodeBackend for Nodes {
    fn logs<'a>(
        &'a self,
        node: &'a str,
        pod_uid: &'a str,
        container: &'a str,
        options: LogOptions,
    ) -> BoxFuture<'a, Result<LogStream, BackendError>> {
        Box::pin(async move { self.find(node)?.logs(pod_uid, container, &options) })
    }

    fn exec<'a>(
        &'a self,
        node: &'a str,
        pod_uid: &'a str,
        container: &'a str,
        request: ExecRequest,
    ) -> BoxFuture<'a, Result<ExecSession, BackendError>> {
        Box::pin(async move {
            let runtime = self.find(node)?;
            let tty = request.tty;
            match runtime.exec(pod_uid, container, request).await {
                Err(RuntimeError::Start { reason, .. }) => Ok(never_started(&reason, tty)),
                other => other.map_err(|error| told(node, "exec", error)),
            }
        })
    }

    fn port_forward<'a>(
        &'a self,
        node: &'a str,
        pod_uid: &'a str,
        port: u16,
    ) -> BoxFuture<'a, Result<BoxDuplex, BackendError>> {
        Box::pin(async move {
            let runtime = self.find(node)?;
            runtime.port_forward(pod_uid, port).await.map_err(|error| told(node, "port-forward", error))
        })
    }
}

/// A command that could not be executed, shown as other runtimes show it: a sentence and the exit
/// code that a shell would give.
fn never_started(reason: &str, tty: bool) -> ExecSession {
    let (sender, exit) = oneshot::channel();
    // The receiver is right here.
    let _ = sender.send(if reason.contains(NOT_FOUND) { 127 } else { 126 });
    let text: BoxReader = Box::pin(io::Cursor::new(format!("{reason}\n").into_bytes()));
    let nothing: BoxReader = Box::pin(tokio::io::empty());
    let (stdout, stderr) = if tty { (text, nothing) } else { (nothing, text) };
    ExecSession { stdin: Some(Box::pin(tokio::io::sink())), stdout, stderr, exit }
}

/// Opens a container's log.
pub(crate) fn logs(
    node: &NodeRuntime,
    uid: &str,
    container: &str,
    options: &LogOptions,
) -> Result<LogStream, BackendError> {
    let not_found = |what: String| BackendError::NotFound { what, node: node.node_name().to_owned() };
    let pod = node.pod(uid).map_err(|_| not_found(format!("pod {uid}")))?;
    let instance = pod.container(container).map_err(|_| not_found(format!("container {container:?} of pod {uid}")))?;
    let source = if options.previous {
        let earlier = instance.restart_count.checked_sub(1);
        let path = earlier.map(|restart| cri_log::file_path(&pod.log_dir.join(container), restart));
        let path = path
            .filter(|path| path.exists())
            .ok_or_else(|| not_found(format!("previous terminated container {container:?} of pod {uid}")))?;
        cri_log::Source { path, live: None }
    } else {
        cri_log::Source { path: instance.log.path().to_owned(), live: Some(instance.log.subscribe()) }
    };
    Ok(cri_log::stream(source, options.clone()))
}

/// Connects to a port on the loopback addresses of a pod.
pub(crate) async fn connect_loopback(node: &NodeRuntime, uid: &str, port: u16) -> Result<BoxDuplex, RuntimeError> {
    let netns = node.pod(uid)?.netns.try_clone();
    let connected = tokio::task::spawn_blocking(move || netns?.run(|| connect(port))?)
        .await
        .unwrap_or_else(|panicked| Err(io::Error::other(panicked)));
    let stream = connected.and_then(|stream| {
        stream.set_nonblocking(true)?;
        tokio::net::TcpStream::from_std(stream)
    });
    match stream {
        Ok(stream) => Ok(Box::pin(stream)),
        Err(source) => Err(RuntimeError::Io { what: format!("connecting to port {port} of pod {uid}"), source }),
    }
}

fn connect(port: u16) -> io::Result<TcpStream> {
    let dial = |ip: IpAddr| TcpStream::connect_timeout(&SocketAddr::new(ip, port), LOOPBACK_CONNECT_DEADLINE);
    dial(Ipv4Addr::LOCALHOST.into()).or_else(|first| dial(Ipv6Addr::LOCALHOST.into()).map_err(|_| first))
}

fn told(node: &str, action: &str, error: RuntimeError) -> BackendError {
    match error {
        RuntimeError::UnknownPod { uid, .. } => {
            BackendError::NotFound { what: format!("pod {uid}"), node: node.to_owned() }
        }
        RuntimeError::UnknownContainer { uid, container } => BackendError::NotFound {
            what: format!("running container {container:?} of pod {uid}"),
            node: node.to_owned(),
        },
        other => BackendError::Failed { action: action.to_owned(), reason: with_cause(&other) },
    }
}

/// An error and what caused it, as one sentence.
pub(crate) fn with_cause(error: &RuntimeError) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}
