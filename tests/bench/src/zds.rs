//! The node agent's side of the socket that hands pods to the proxy: one pod, one session.

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use mesh_sys::netns::NetNs;
use mesh_sys::seqpacket::{SeqpacketListener, SeqpacketStream};
use mesh_wire::zds::workload_request::Payload;
use mesh_wire::zds::workload_response::Payload as Answer;
use mesh_wire::zds::{AddWorkload, SnapshotSent, WorkloadInfo, WorkloadRequest, WorkloadResponse, ZdsHello};
use prost::Message as _;

/// The pod that the proxy is told to serve.
pub(crate) struct Enrolment {
    pub(crate) uid: String,
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) service_account: String,
    pub(crate) netns: Arc<NetNs>,
}

/// Told when the proxy serves the pod.
pub(crate) struct Enrolled(Receiver<Result<()>>);

impl Enrolled {
    /// Waits for the proxy's word.
    pub(crate) fn wait(&self) -> Result<()> {
        self.0.recv_timeout(ENROL_BUDGET).context("the proxy did not ask for its pods")?
    }
}

/// Listens on `path` for the life of the process.
pub(crate) fn serve(path: PathBuf, pod: Enrolment) -> Result<Enrolled> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (sender, receiver) = sync_channel(1);
    let (bound, is_bound) = sync_channel(1);
    std::thread::Builder::new().name("zds".to_owned()).spawn(move || {
        // Fails only for an unknown way to change it.
        let _ = crate::town::ending_signals().thread_block();
        runtime.block_on(async {
            let listener = SeqpacketListener::bind(&path).with_context(|| path.display().to_string());
            let listener = match listener {
                Ok(listener) => listener,
                Err(error) => return drop(bound.send(Err(error))),
            };
            let _ = bound.send(Ok(()));
            let session = async {
                let stream = listener.accept().await?;
                enrol(&stream, &pod).await?;
                anyhow::Ok(stream)
            };
            let session = session.await;
            let (told, stream) = session.map_or_else(|error| (Err(error), None), |stream| (Ok(()), Some(stream)));
            let _ = sender.send(told);
            if let Some(stream) = stream {
                // Nothing more to say; ends with the proxy.
                let _ = stream.recv(&mut [0; PACKET_BYTES_MAX]).await;
            }
        });
    })?;
    is_bound.recv()??;
    Ok(Enrolled(receiver))
}

async fn enrol(stream: &SeqpacketStream, pod: &Enrolment) -> Result<()> {
    let mut buffer = [0; PACKET_BYTES_MAX];
    let hello = stream.recv(&mut buffer).await?;
    ZdsHello::decode(buffer.get(..hello.len).unwrap_or_default()).context("first packet of the proxy")?;
    let info = WorkloadInfo {
        name: pod.name.clone(),
        namespace: pod.namespace.clone(),
        service_account: pod.service_account.clone(),
    };
    let add = Payload::Add(AddWorkload { uid: pod.uid.clone(), workload_info: Some(info) });
    let packet = WorkloadRequest { payload: Some(add) }.encode_to_vec();
    stream.send(&packet, Some(pod.netns.as_fd())).await?;
    acknowledged(stream).await.context("handing over the pod")?;
    let all = WorkloadRequest { payload: Some(Payload::SnapshotSent(SnapshotSent {})) }.encode_to_vec();
    stream.send(&all, None).await?;
    acknowledged(stream).await.context("ending the list of pods")
}

async fn acknowledged(stream: &SeqpacketStream) -> Result<()> {
    let mut buffer = [0; PACKET_BYTES_MAX];
    let answer = stream.recv(&mut buffer).await?;
    match WorkloadResponse::decode(buffer.get(..answer.len).unwrap_or_default())?.payload {
        Some(Answer::Ack(ack)) if ack.error.is_empty() => Ok(()),
        Some(Answer::Ack(ack)) => bail!("the proxy says: {}", ack.error),
        None => bail!("an answer without content"),
    }
}

const PACKET_BYTES_MAX: usize = 1024;
const ENROL_BUDGET: Duration = Duration::from_secs(20);
