//! A node agent that says what the test wants, to one proxy or to two that overlap.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use mesh_sys::netns::NetNs;
use mesh_sys::seqpacket::{SeqpacketListener, SeqpacketStream};
use mesh_wire::zds::{self, workload_request::Payload};
use prost::Message;
use tokio::sync::{Mutex, watch};

use crate::pod::{NAMESPACE, Pod};

/// The agent. Serves its socket until it is dropped.
#[derive(Debug)]
pub struct Agent {
    state: Arc<Mutex<State>>,
    /// How many proxies have had their snapshot.
    served: watch::Receiver<usize>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Debug, Default)]
struct State {
    pods: BTreeMap<String, (zds::WorkloadInfo, Arc<NetNs>)>,
    /// Oldest first.
    connections: Vec<SeqpacketStream>,
}

impl Agent {
    /// Listens on `path`. Every proxy that comes gets a snapshot of the pods known then. Needs a runtime.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn start(path: &Path, pods: &[&Pod]) -> Result<Self> {
        let listener = SeqpacketListener::bind(path)?;
        let mut state = State::default();
        state.pods.extend(pods.iter().map(|pod| entry(pod)));
        let state = Arc::new(Mutex::new(state));
        let (count, served) = watch::channel(0);
        let shared = state.clone();
        let task = tokio::spawn(async move {
            while let Ok(stream) = listener.accept().await {
                // Adds and deletes wait meanwhile, so that nothing falls between snapshot and what follows.
                let mut state = shared.lock().await;
                if snapshot(&stream, &state.pods).await.is_ok() {
                    state.connections.push(stream);
                    count.send_modify(|count| *count += 1);
                }
            }
        });
        Ok(Self { state, served, task })
    }

    /// Waits until as many proxies as `count` have had their snapshot and acknowledged it.
    ///
    /// # Errors
    /// They have not within 30 s.
    pub async fn served(&self, count: usize) -> Result<()> {
        let mut served = self.served.clone();
        let wait = served.wait_for(|served| *served >= count);
        tokio::time::timeout(PATIENCE, wait).await.context("no proxy has taken its snapshot")??;
        Ok(())
    }

    /// Adds a pod, on the newest connection.
    ///
    /// # Errors
    /// The proxy refused, or is gone.
    pub async fn add(&self, pod: &Pod) -> Result<()> {
        let mut state = self.state.lock().await;
        let (uid, (info, netns)) = entry(pod);
        state.pods.insert(uid.clone(), (info.clone(), netns.clone()));
        let newest = state.connections.last().context("no proxy is connected")?;
        let add = zds::AddWorkload { uid, workload_info: Some(info) };
        ask(newest, Payload::Add(add), Some(netns.as_fd())).await
    }

    /// Takes late acknowledgements off all connections: of proxies that did not answer in time.
    ///
    /// # Errors
    /// None came within 5 s.
    pub async fn settle(&self) -> Result<()> {
        let state = self.state.lock().await;
        let late = state.connections.iter().map(|connection| Box::pin(acknowledged(connection)));
        let (first, ..) = futures::future::select_ok(late).await?;
        Ok(first)
    }

    /// Takes a pod away, on all connections. Tells how many proxies acknowledged it; those that are gone are forgotten,
    /// those that do not answer in time are not.
    pub async fn delete(&self, pod: &Pod) -> usize {
        let mut state = self.state.lock().await;
        let uid = uid_of(pod);
        state.pods.remove(&uid);
        let mut acknowledged = 0;
        for connection in &state.connections {
            let asked = ask(connection, Payload::Del(zds::DelWorkload { uid: uid.clone() }), None);
            acknowledged += usize::from(asked.await.is_ok());
        }
        acknowledged
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn snapshot(stream: &SeqpacketStream, pods: &BTreeMap<String, (zds::WorkloadInfo, Arc<NetNs>)>) -> Result<()> {
    let mut buffer = [0; 1024];
    let received = tokio::time::timeout(PATIENCE, stream.recv(&mut buffer)).await??;
    let hello = zds::ZdsHello::decode(buffer.get(..received.len).unwrap_or_default())?;
    ensure!(hello.version() == zds::Version::V1, "hello is {hello:?}");
    for (uid, (info, netns)) in pods {
        let add = zds::AddWorkload { uid: uid.clone(), workload_info: Some(info.clone()) };
        ask(stream, Payload::Add(add), Some(netns.as_fd())).await?;
    }
    ask(stream, Payload::SnapshotSent(zds::SnapshotSent {}), None).await
}

async fn ask(stream: &SeqpacketStream, payload: Payload, netns: Option<BorrowedFd<'_>>) -> Result<()> {
    let request = zds::WorkloadRequest { payload: Some(payload) };
    stream.send(&request.encode_to_vec(), netns).await?;
    acknowledged(stream).await
}

async fn acknowledged(stream: &SeqpacketStream) -> Result<()> {
    let mut buffer = [0; 1024];
    let received = tokio::time::timeout(ACK, stream.recv(&mut buffer)).await.context("no acknowledgement")??;
    ensure!(received.len > 0, "the proxy hung up");
    let response = zds::WorkloadResponse::decode(buffer.get(..received.len).unwrap_or_default())?;
    match response.payload {
        Some(zds::workload_response::Payload::Ack(ack)) if ack.error.is_empty() => Ok(()),
        other => bail!("the proxy answered {other:?}"),
    }
}

fn entry(pod: &Pod) -> (String, (zds::WorkloadInfo, Arc<NetNs>)) {
    let info = zds::WorkloadInfo {
        name: pod.name.clone(),
        namespace: NAMESPACE.to_owned(),
        service_account: pod.name.clone(),
    };
    (uid_of(pod), (info, pod.netns.clone()))
}

fn uid_of(pod: &Pod) -> String {
    format!("uid-of-{}", pod.name)
}

const PATIENCE: Duration = Duration::from_secs(30);
/// What a node agent waits for an acknowledgement.
const ACK: Duration = Duration::from_secs(5);
