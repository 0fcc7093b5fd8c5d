//! The daemon's side of the control socket.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Notify, Semaphore, mpsc};

use super::capture::Captures;
use super::{Answer, REQUEST_BYTES_MAX, Request, SOCKET_NAME, Status, node_exec};
use crate::api::ApiServer;
use crate::runtime::NodeRuntime;
use crate::runtime::backend::{Nodes, with_cause};

/// Requests served at once; more wait. People and scripts send one at a time.
const CONNECTIONS_MAX: usize = 32;

/// Answer lines that may wait for a slow reader.
const QUEUED_ANSWERS_MAX: usize = 16;

/// What the server acts on.
#[derive(Debug)]
pub struct Control {
    api: Arc<ApiServer>,
    nodes: Nodes,
    /// The fixed part of the answer to `status`.
    about: Status,
    captures: Captures,
    down: Arc<Notify>,
}

impl Control {
    /// A server over this API server and these nodes. `down` is notified when the sandbox is asked to
    /// stop.
    pub fn new(api: Arc<ApiServer>, nodes: Nodes, about: Status, down: Arc<Notify>) -> Self {
        Self { api, nodes, about, captures: Captures::default(), down }
    }

    /// Binds the socket in the state directory and serves it for ever.
    ///
    /// # Errors
    ///
    /// When the socket cannot be made; serving itself does not fail.
    pub fn listen(dir: &Path) -> io::Result<UnixListener> {
        let path = dir.join(SOCKET_NAME);
        // The caller checked that nobody answers there.
        let _ = fs::remove_file(&path);
        let listener = UnixListener::bind(&path)?;
        fs::set_permissions(&path, Permissions::from_mode(0o600))?;
        Ok(listener)
    }

    /// Serves the socket for ever.
    pub async fn serve(self: Arc<Self>, listener: UnixListener) {
        let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, _)) => {
                    let control = Arc::clone(&self);
                    tokio::spawn(async move {
                        if let Err(error) = control.converse(stream).await {
                            tracing::debug!(%error, "control connection ended early");
                        }
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "control socket could not accept");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
            }
        }
    }

    async fn converse(self: Arc<Self>, mut stream: UnixStream) -> io::Result<()> {
        let (reader, mut writer) = stream.split();
        let mut line = String::new();
        BufReader::new(reader.take(REQUEST_BYTES_MAX)).read_line(&mut line).await?;
        let (answers, mut queue) = mpsc::channel(QUEUED_ANSWERS_MAX);
        let work = tokio::spawn(Arc::clone(&self).answer(line, answers));
        // Dropping the queue on a write error tells the work that nobody listens.
        while let Some(answer) = queue.recv().await {
            let mut text = serde_json::to_vec(&answer)?;
            text.push(b'\n');
            writer.write_all(&text).await?;
        }
        let stop = work.await.unwrap_or(false);
        writer.shutdown().await?;
        if stop {
            self.down.notify_one();
        }
        Ok(())
    }

    /// Carries out a request; the result says whether the sandbox shall stop.
    async fn answer(self: Arc<Self>, line: String, answers: mpsc::Sender<Answer>) -> bool {
        let (last, stop) = match serde_json::from_str(&line) {
            Ok(Request::Down) => (Ok("the sandbox is stopping".to_owned()), true),
            Ok(request) => (self.act(request, &answers).await, false),
            Err(error) => (Err(format!("request is not understood: {error}")), false),
        };
        // A client that left does not need the last word.
        let _ = answers.send(last.map_or_else(Answer::Error, Answer::Done)).await;
        stop
    }

    async fn act(&self, request: Request, answers: &mpsc::Sender<Answer>) -> Result<String, String> {
        match request {
            Request::Status => {
                let _ = answers.send(Answer::Status(self.status())).await;
                Ok(String::new())
            }
            Request::Down => Ok(String::new()),
            Request::Kill { namespace, pod, container, signal } => {
                self.kill(&namespace, &pod, container.as_deref(), signal)
            }
            Request::NodeExec { node, argv } => {
                node_exec::run(self.node(&node)?, argv, answers).await.map(|()| String::new())
            }
            Request::CaptureStart { node, file } => {
                self.captures.start(&node, self.node(&node)?.node_netns(), &file)?;
                Ok(format!("capturing eth0 of {node} to {}", file.display()))
            }
            Request::FaultAdd { rule } => {
                let id = self.api.faults().add(rule).map_err(|error| error.to_string())?;
                Ok(format!("fault {id} is set; end it with `fault clear {id}`"))
            }
            Request::FaultList => {
                let _ = answers.send(Answer::Faults(self.api.faults().list())).await;
                Ok(format!("clients have {} watches open", self.api.faults().open_watches()))
            }
            Request::FaultClear { id } => match (self.api.faults().clear(id), id) {
                (0, Some(id)) => Err(format!("there is no fault {id}")),
                (cleared, _) => Ok(format!("{cleared} faults cleared")),
            },
            Request::DropWatches { filter, ending } => {
                Ok(format!("{} watches dropped", self.api.faults().drop_watches(&filter, ending)))
            }
            Request::CaptureStop { node } => tokio::task::block_in_place(|| self.captures.stop(node.as_deref())),
        }
    }

    fn status(&self) -> Status {
        let nodes = self.nodes.iter().map(NodeRuntime::status);
        Status { nodes: nodes.collect(), ..self.about.clone() }
    }

    fn kill(&self, namespace: &str, pod: &str, container: Option<&str>, signal: i32) -> Result<String, String> {
        let found = self.nodes.iter().find_map(|node| Some((node, node.find_pod(namespace, pod)?)));
        let (node, uid) = found.ok_or_else(|| format!("pod {namespace}/{pod} runs on no node"))?;
        let running = node.running_containers(&uid);
        let container = match (container, running.as_slice()) {
            (Some(container), _) => container,
            (None, [only]) => only,
            (None, []) => return Err(format!("no container of pod {namespace}/{pod} runs")),
            (None, several) => {
                return Err(format!(
                    "pod {namespace}/{pod} has several containers ({}): choose one with -c",
                    several.join(", ")
                ));
            }
        };
        node.signal_container(&uid, container, signal).map_err(|error| with_cause(&error))?;
        Ok(format!("sent signal {signal} to container {container} of {namespace}/{pod} on {}", node.node_name()))
    }

    fn node(&self, name: &str) -> Result<&NodeRuntime, String> {
        self.nodes.get(name).ok_or_else(|| {
            let known: Vec<&str> = self.nodes.iter().map(NodeRuntime::node_name).collect();
            format!("there is no node {name:?}; the nodes are {}", known.join(", "))
        })
    }
}
