//! A scripted node agent: the server of the pod protocol.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::Duration;

use mesh_sys::seqpacket::{SeqpacketListener, SeqpacketStream};
use prost::Message;

use crate::net::Pod;
use crate::wait::{soon, within};
use crate::wire::zds::{Add, Answer, Del, Hello, Info, Keep, Payload, Request, Response, SnapshotSent};

/// Waits for proxies.
pub struct Agent {
    listener: SeqpacketListener,
}

/// One connection of a proxy.
pub struct Session {
    stream: SeqpacketStream,
    /// The proxy's first packet.
    pub hello: Vec<u8>,
}

impl Agent {
    /// Listens on a path.
    #[must_use]
    pub fn listen(path: &Path) -> Self {
        Self { listener: SeqpacketListener::bind(path).unwrap() }
    }

    /// The next proxy that connects, once it has sent its hello.
    pub async fn session(&self) -> Session {
        let stream = within("a proxy connects", Duration::from_secs(20), self.listener.accept()).await.unwrap();
        let mut session = Session { stream, hello: Vec::new() };
        session.hello = session.packet().await.expect("a hello comes first");
        session
    }
}

impl Session {
    /// The hello, decoded.
    #[must_use]
    pub fn version(&self) -> i32 {
        Hello::decode(&*self.hello).unwrap().version
    }

    /// The next packet; `None` at the end of the connection.
    pub async fn packet(&self) -> Option<Vec<u8>> {
        let mut buffer = [0; 4096];
        let received = soon("a packet of the proxy", self.stream.recv(&mut buffer)).await;
        let Ok(received) = received else { return None };
        assert!(!received.truncated && received.fds.is_empty(), "{received:?}");
        (received.len > 0).then(|| buffer[..received.len].to_vec())
    }

    /// The next packet as an acknowledgement: its error, empty on success.
    ///
    /// # Panics
    /// When the connection ends, or the packet is something else or longer than a receiver's buffer.
    pub async fn ack(&self) -> String {
        let packet = self.packet().await.expect("the proxy answers before it leaves");
        assert!(packet.len() <= 1024, "an Ack of {} bytes does not fit", packet.len());
        let response = Response::decode(&*packet).unwrap();
        let Some(Answer::Ack(ack)) = response.answer else { panic!("no Ack: {packet:?}") };
        ack.error
    }

    /// Whether the proxy leaves without another packet.
    pub async fn ends(&self) -> bool {
        self.packet().await.is_none()
    }

    /// Sends raw bytes with descriptors.
    pub async fn send_raw(&self, packet: &[u8], descriptors: &[BorrowedFd<'_>]) {
        self.stream.send_all(packet, descriptors).await.unwrap();
    }

    /// Sends a message.
    pub async fn send(&self, payload: Payload, descriptors: &[BorrowedFd<'_>]) {
        self.send_raw(&Request { payload: Some(payload) }.encode_to_vec(), descriptors).await;
    }

    /// Adds a pod; the answer.
    pub async fn add(&self, pod: &Pod) -> String {
        self.send(add(pod), &[pod.netns.as_fd()]).await;
        self.ack().await
    }

    /// Keeps a pod; the answer.
    pub async fn keep(&self, uid: &str) -> String {
        self.send(Payload::Keep(Keep { uid: uid.to_owned() }), &[]).await;
        self.ack().await
    }

    /// Deletes a pod; the answer.
    pub async fn del(&self, uid: &str) -> String {
        self.send(Payload::Del(Del { uid: uid.to_owned() }), &[]).await;
        self.ack().await
    }

    /// Ends the snapshot; the answer.
    pub async fn snapshot_sent(&self) -> String {
        self.send(Payload::SnapshotSent(SnapshotSent {}), &[]).await;
        self.ack().await
    }

    /// Watches for a while that the proxy sends nothing.
    pub async fn stays_quiet(&self, window: Duration) {
        let mut buffer = [0; 64];
        let received = tokio::time::timeout(window, self.stream.recv(&mut buffer)).await;
        assert!(received.is_err(), "the proxy sent something unasked: {received:?}");
    }
}

/// The message that adds a pod.
#[must_use]
pub fn add(pod: &Pod) -> Payload {
    let info = Info { name: pod.name.clone(), namespace: pod.namespace.clone(), service_account: pod.name.clone() };
    Payload::Add(Add { uid: pod.uid.clone(), info: Some(info) })
}
