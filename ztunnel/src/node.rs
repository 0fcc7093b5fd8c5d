//! The session with the node agent: which pods this proxy serves.
//!
//! [`Node`] is the shell: a socket, a timer, and calls into [`Pods`], which starts and stops the
//! proxy of one pod. What to do with each message is decided by [`session::Session`], without I/O.
//! The proxy never speaks unasked after its hello; each request is answered by exactly one Ack.

pub mod packet;
mod pods;
mod session;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use futures::future::join_all;
use mesh_core::backoff::Backoff;
use mesh_core::drain::{DrainMode, DrainWatch};
use mesh_sys::seqpacket::SeqpacketStream;
use mesh_telemetry::ready::Gate;
use mesh_wire::zds;
use prost::Message as _;
use tokio::time::{Instant, MissedTickBehavior};

pub use packet::{Message, PacketError};
pub use pods::{PodStarter, PodView, Pods, RunningPod};
pub use session::Pod;
use session::{Action, Session};

/// Name of the readiness task.
pub const READY_TASK: &str = "workload proxy manager";

/// The session with the node agent.
pub struct Node {
    uds: PathBuf,
    pods: Pods,
    session: Session,
    ready: Gate,
}

/// Why the process must end: the agent speaks another version of the protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the node agent broke the protocol: {reason}")]
pub struct ProtocolError {
    /// What it did.
    pub reason: String,
}

/// How one connection ended.
enum End {
    /// Worth another connection.
    Lost(String),
    Protocol(ProtocolError),
    Drain,
}

impl Node {
    /// `ready` is the task that says whether all pods of the node are served.
    #[must_use]
    pub fn new(uds: PathBuf, pods: Pods, ready: Gate) -> Self {
        Self { uds, pods, session: Session::default(), ready }
    }

    /// Serves the agent, over as many connections as it takes, until the drain starts. Pods go on
    /// being served when it returns; stop them with [`Pods::stop_all`].
    ///
    /// # Errors
    /// The agent broke the protocol, which means that this process cannot work with it.
    pub async fn run(mut self, drain: DrainWatch) -> Result<(), ProtocolError> {
        let mut connect = Backoff::new(CONNECT_DELAY_MIN, DELAY_MAX, 0);
        let mut hello = Backoff::new(HELLO_DELAY_MIN, DELAY_MAX, HELLO_JITTER_PERCENT);
        let mut reported = false;
        loop {
            let mut stop = drain.clone();
            let delay = match SeqpacketStream::connect(&self.uds) {
                Err(error) => {
                    self.ready.explain(format!("node agent cannot be reached at {}: {error}", self.uds.display()));
                    if !std::mem::replace(&mut reported, true) {
                        tracing::warn!(uds = %self.uds.display(), %error, "node agent cannot be reached, trying on");
                    }
                    connect.next_delay()
                }
                Ok(stream) => match send_hello(&stream).await {
                    Err(error) => {
                        tracing::warn!(%error, "hello to the node agent failed");
                        hello.next_delay()
                    }
                    Ok(()) => {
                        tracing::info!(uds = %self.uds.display(), "connected to the node agent");
                        reported = false;
                        self.session.connected();
                        self.pods.set_pending(Vec::new());
                        self.ready.explain("node agent has not named all pods yet");
                        let end = self.serve(&stream, drain.clone()).await;
                        self.ready.set(false);
                        match end {
                            End::Drain => return Ok(()),
                            End::Protocol(error) => return Err(error),
                            End::Lost(reason) => {
                                self.ready.explain(format!("connection to the node agent lost: {reason}"));
                                tracing::warn!(reason, "connection to the node agent lost");
                            }
                        }
                        // An agent that accepts and hangs up at once must not be asked in a tight loop.
                        if self.session.heard_anything() {
                            connect.reset();
                            hello.reset();
                        }
                        connect.next_delay()
                    }
                },
            };
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                _ = stop.signaled() => return Ok(()),
            }
        }
    }

    async fn serve(&mut self, stream: &SeqpacketStream, mut drain: DrainWatch) -> End {
        let mut buffer = vec![0; PACKET_BYTES_MAX];
        let mut retry = tokio::time::interval_at(Instant::now() + RETRY_INTERVAL, RETRY_INTERVAL);
        retry.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let received = tokio::select! {
                // No pod is added once the end has begun.
                biased;
                _ = drain.signaled() => return End::Drain,
                received = stream.recv(&mut buffer) => received,
                _ = retry.tick(), if self.session.has_pending() => {
                    self.retry_pending().await;
                    continue;
                }
            };
            let received = match received {
                Ok(received) if received.len == 0 && received.fds.is_empty() => {
                    return End::Lost("closed by the agent".into());
                }
                Ok(received) => received,
                Err(error) => return End::Lost(error.to_string()),
            };
            let bytes = buffer.get(..received.len).unwrap_or_default();
            let message = match packet::decode(bytes, received.fds, received.truncated) {
                Ok(message) => message,
                Err(error) => {
                    // Best effort: the connection is given up either way.
                    let _ = send_ack(stream, &error.to_string()).await;
                    return End::Lost(error.to_string());
                }
            };
            match self.act(message).await {
                Ok(error) => {
                    // Before the Ack, so that an agent that has it can rely on it.
                    self.ready.set(self.session.is_ready());
                    if let Err(error) = send_ack(stream, &error).await {
                        return End::Lost(error.to_string());
                    }
                }
                Err(error) => {
                    let _ = send_ack(stream, &error.to_string()).await;
                    return End::Protocol(error);
                }
            }
        }
    }

    /// Does what a message asks for. Yields the text of the Ack: empty is success.
    async fn act(&mut self, message: Message) -> Result<String, ProtocolError> {
        let mut ack = String::new();
        let mut stops = Vec::new();
        for action in self.session.handle(message)? {
            match action {
                Action::Stop { uid } => stops.push(uid),
                Action::Start(pod) => {
                    self.stop(std::mem::take(&mut stops)).await;
                    let started = self.pods.start(&pod).await;
                    ack = started.as_ref().err().cloned().unwrap_or_default();
                    if let Err(error) = &started {
                        self.ready.explain(format!("pod {}/{} cannot be served: {error}", pod.namespace, pod.name));
                    }
                    self.session.started(pod, started.is_ok());
                }
                Action::Refuse { uid, error } => {
                    tracing::warn!(uid, error, "pod stays as it is: it cannot be moved");
                    ack = error;
                }
            }
        }
        self.stop(stops).await;
        self.pods.set_pending(self.session.pending_names());
        Ok(ack)
    }

    /// All at the same time: each may take its while, and the agent waits for the Ack.
    async fn stop(&self, uids: Vec<String>) {
        join_all(uids.iter().map(|uid| self.pods.stop(uid, DrainMode::Immediate))).await;
    }

    async fn retry_pending(&mut self) {
        for pod in self.session.pending() {
            match self.pods.start(&pod).await {
                Ok(()) => self.session.started(pod, true),
                Err(error) => tracing::warn!(uid = pod.uid, error, "pod still cannot be served"),
            }
        }
        self.pods.set_pending(self.session.pending_names());
        self.ready.set(self.session.is_ready());
    }
}

async fn send_hello(stream: &SeqpacketStream) -> io::Result<()> {
    let hello = zds::ZdsHello { version: zds::Version::V1.into() };
    stream.send(&hello.encode_to_vec(), None).await
}

async fn send_ack(stream: &SeqpacketStream, error: &str) -> io::Result<()> {
    let mut end = error.len().min(ACK_ERROR_BYTES_MAX);
    while !error.is_char_boundary(end) {
        end -= 1;
    }
    let error = error.get(..end).unwrap_or_default().to_owned();
    let payload = zds::workload_response::Payload::Ack(zds::Ack { error });
    let response = zds::WorkloadResponse { payload: Some(payload) };
    let sent = tokio::time::timeout(ACK_BUDGET, async { stream.send(&response.encode_to_vec(), None).await }).await;
    sent.unwrap_or_else(|_| Err(io::Error::other(format!("the agent does not read its Acks for {ACK_BUDGET:?}"))))
}

/// Both sides' receive buffer; a longer packet is an error.
const PACKET_BYTES_MAX: usize = 1024;
/// Leaves room for the message around the text.
const ACK_ERROR_BYTES_MAX: usize = 900;
/// How long the agent may take to read an Ack.
const ACK_BUDGET: Duration = Duration::from_secs(5);
/// Between attempts to start pods that could not be started.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);
/// First delay after a failed connect.
const CONNECT_DELAY_MIN: Duration = Duration::from_millis(10);
/// First delay after a failed hello.
const HELLO_DELAY_MIN: Duration = Duration::from_millis(5);
const HELLO_JITTER_PERCENT: u32 = 20;
/// Longest delay of either.
const DELAY_MAX: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests;
