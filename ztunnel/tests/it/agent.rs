//! A node agent that does what the test says, and two pods for it.

use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Duration;

use mesh_sys::seqpacket::{SeqpacketListener, SeqpacketStream};
use mesh_wire::zds::{self, workload_request::Payload};
use prost::Message as _;

use crate::pod::Pod;

/// A node agent that does what the test says.
pub(crate) struct Agent {
    listener: SeqpacketListener,
    path: PathBuf,
    _dir: tempfile::TempDir,
}

impl Agent {
    pub(crate) fn bind() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("zds.sock");
        Self { listener: SeqpacketListener::bind(&path).unwrap(), path, _dir: dir }
    }

    /// `INPOD_UDS`.
    pub(crate) fn uds(&self) -> String {
        self.path.display().to_string()
    }

    /// The next connection, after its hello.
    pub(crate) async fn accept(&self) -> SeqpacketStream {
        let stream = tokio::time::timeout(Duration::from_secs(20), self.listener.accept()).await.unwrap().unwrap();
        let mut buffer = [0; 1024];
        let received = stream.recv(&mut buffer).await.unwrap();
        let hello = zds::ZdsHello::decode(&buffer[..received.len]).unwrap();
        assert_eq!(hello.version, i32::from(zds::Version::V1));
        stream
    }
}

/// The error of the Ack; empty: none.
pub(crate) async fn ask(stream: &SeqpacketStream, payload: Payload, pod: Option<&Pod>) -> String {
    let packet = zds::WorkloadRequest { payload: Some(payload) }.encode_to_vec();
    stream.send(&packet, pod.map(|pod| pod.netns.as_fd())).await.unwrap();
    let mut buffer = [0; 1024];
    let received = stream.recv(&mut buffer).await.unwrap();
    let response = zds::WorkloadResponse::decode(&buffer[..received.len]).unwrap();
    let Some(zds::workload_response::Payload::Ack(ack)) = response.payload else { panic!("no ack") };
    ack.error
}

pub(crate) fn add(pod: &Pod) -> Payload {
    let info = zds::WorkloadInfo { name: pod.name.into(), namespace: "shop".into(), service_account: pod.name.into() };
    Payload::Add(zds::AddWorkload { uid: uid(pod), workload_info: Some(info) })
}

pub(crate) fn workload(name: &str, namespace: &str, ip: IpAddr, services: &str) -> String {
    format!(
        "{{uid: c//Pod/{namespace}/{name}, name: {name}, namespace: {namespace}, serviceAccount: {name}, \
         workloadIps: [{ip}], protocol: HBONE, services: {{{services}}}}}"
    )
}

pub(crate) fn keep(pod: &Pod) -> Payload {
    Payload::Keep(zds::KeepWorkload { uid: uid(pod) })
}

pub(crate) fn del(pod: &Pod) -> Payload {
    Payload::Del(zds::DelWorkload { uid: uid(pod) })
}

pub(crate) fn snapshot_sent() -> Payload {
    Payload::SnapshotSent(zds::SnapshotSent {})
}

fn uid(pod: &Pod) -> String {
    format!("uid-of-{}", pod.name)
}

/// `web` and `cart` with a cable between them, on the node `host`; `cart` is behind 172.20.0.9:80.
pub(crate) struct Town {
    pub(crate) host: Pod,
    pub(crate) web: Pod,
    pub(crate) cart: Pod,
    pub(crate) agent: Agent,
    /// `LOCAL_XDS`.
    pub(crate) mesh: String,
}

impl Town {
    pub(crate) fn build() -> Self {
        let host = Pod::new("host", "10.10.0.1", "fd00:10::1");
        let web = Pod::new("web", "10.11.0.5", "fd00:11::5");
        let cart = Pod::new("cart", "10.11.0.77", "fd00:11::77");
        web.join(&cart);
        let mesh = format!(
            "workloads: [{}, {}]\nservices: [{{namespace: shop, hostname: cart.shop.svc.cluster.local, \
             vips: [/172.20.0.9], ports: {{80: 8080}}}}]",
            workload("web", "shop", web.v4, ""),
            workload("cart", "shop", cart.v4, "shop/cart.shop.svc.cluster.local: {80: 8080}"),
        );
        Self { host, web, cart, agent: Agent::bind(), mesh }
    }

    /// Adds both pods and completes the snapshot.
    pub(crate) async fn enrol(&self, stream: &SeqpacketStream) {
        for pod in [&self.web, &self.cart] {
            assert_eq!(ask(stream, add(pod), Some(pod)).await, "");
            pod.redirect();
        }
        assert_eq!(ask(stream, snapshot_sent(), None).await, "");
    }
}
