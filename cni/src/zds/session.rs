//! One connected proxy: packets out, acknowledgements in.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use mesh_sys::netns::NetNs;
use mesh_sys::seqpacket::SeqpacketStream;
use mesh_wire::zds::workload_request::Payload;
use mesh_wire::zds::{
    Ack, AddWorkload, DelWorkload, KeepWorkload, SnapshotSent, Version, WorkloadInfo, WorkloadRequest,
    WorkloadResponse, ZdsHello, workload_response,
};
use prost::Message;
use tokio::time::{Instant, timeout, timeout_at};

use super::{HELLO_TIMEOUT, PACKET_BYTES_MAX, PACKET_TIMEOUT, PodEntry, ZdsError};

/// The protocol over one connection. Lock-step: `request` answers before the next may start.
#[derive(Debug)]
pub struct Session {
    stream: SeqpacketStream,
    /// Requests whose answer did not come in time and may still come: answers are known by their order only.
    late: usize,
}

/// What the agent asks of a proxy.
#[derive(Debug, Clone)]
pub enum Request {
    /// Serve the pod.
    Add {
        /// UID of the pod.
        uid: String,
        /// Its name, namespace and service account.
        info: WorkloadInfo,
        /// Its network namespace.
        netns: std::sync::Arc<NetNs>,
    },
    /// Go on serving the pod if it is served.
    Keep {
        /// UID of the pod.
        uid: String,
    },
    /// Stop serving the pod.
    Delete {
        /// UID of the pod.
        uid: String,
    },
    /// The snapshot is complete.
    SnapshotSent,
}

/// Why a request has no good answer.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The proxy said no.
    #[error("refused: {0}")]
    Refused(String),
    /// No answer yet; the connection is still good.
    #[error("no answer within {0:?}")]
    NoAnswer(Duration),
    /// The connection is of no use any more.
    #[error("{0}")]
    Broken(String),
}

impl Session {
    /// Takes over a connection and waits for the proxy's greeting.
    ///
    /// # Errors
    /// [`SessionError::Broken`] when the greeting does not come, is not one, or names another version.
    pub async fn greet(stream: SeqpacketStream) -> Result<Self, SessionError> {
        let session = Self { stream, late: 0 };
        let packet = timeout(HELLO_TIMEOUT, session.packet())
            .await
            .map_err(|_| SessionError::Broken(format!("no greeting within {HELLO_TIMEOUT:?}")))??;
        let hello = ZdsHello::decode(packet.as_slice()).map_err(|error| broken("greeting", error))?;
        if hello.version() != Version::V1 {
            return Err(SessionError::Broken(format!("greeting names version {}, expected 1", hello.version)));
        }
        Ok(session)
    }

    /// Sends all pods and the end mark. Pods that the proxy refuses are logged; it retries them by itself.
    ///
    /// # Errors
    /// [`SessionError::Broken`].
    pub async fn snapshot(&mut self, pods: Vec<PodEntry>) -> Result<(), SessionError> {
        let count = pods.len();
        for pod in pods {
            let uid = pod.uid.clone();
            let request = match pod.netns {
                Some(netns) => Request::Add { uid: pod.uid, info: pod.info, netns },
                None => Request::Keep { uid: pod.uid },
            };
            match self.request(&request).await {
                Err(error @ SessionError::Broken(_)) => return Err(error),
                Err(error) => tracing::warn!(target: SCOPE, uid, %error, "proxy does not serve a pod of the snapshot"),
                Ok(()) => {}
            }
        }
        match self.request(&Request::SnapshotSent).await {
            Err(error @ SessionError::Broken(_)) => return Err(error),
            Err(error) => tracing::warn!(target: SCOPE, %error, "proxy did not confirm the snapshot"),
            Ok(()) => tracing::debug!(target: SCOPE, pods = count, "snapshot sent"),
        }
        Ok(())
    }

    /// Sends one request and waits for its answer.
    ///
    /// # Errors
    /// See [`SessionError`]. After [`SessionError::NoAnswer`] the session may still be used.
    pub async fn request(&mut self, request: &Request) -> Result<(), SessionError> {
        let (packet, descriptor) = encode(request);
        let sent = timeout(PACKET_TIMEOUT, self.stream.send(&packet, descriptor)).await;
        sent.map_err(|_| SessionError::Broken(format!("could not send within {PACKET_TIMEOUT:?}")))?
            .map_err(|error| broken("send", error))?;
        let deadline = Instant::now() + PACKET_TIMEOUT;
        loop {
            let Ok(answer) = timeout_at(deadline, self.ack()).await else {
                self.late += 1;
                return Err(SessionError::NoAnswer(PACKET_TIMEOUT));
            };
            let answer = answer?;
            if self.late > 0 {
                self.late -= 1;
                continue;
            }
            return if answer.error.is_empty() { Ok(()) } else { Err(SessionError::Refused(answer.error)) };
        }
    }

    /// Watches an idle connection. Returns only when it is of no use any more.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn idle(&mut self) -> SessionError {
        loop {
            match self.ack().await {
                Ok(_) if self.late > 0 => self.late -= 1,
                Ok(_) => return SessionError::Broken("unexpected packet".to_owned()),
                Err(error) => return error,
            }
        }
    }

    async fn ack(&self) -> Result<Ack, SessionError> {
        let packet = self.packet().await?;
        let response = WorkloadResponse::decode(packet.as_slice()).map_err(|error| broken("answer", error))?;
        match response.payload {
            Some(workload_response::Payload::Ack(ack)) => Ok(ack),
            None => Err(SessionError::Broken("answer is not an acknowledgement".to_owned())),
        }
    }

    async fn packet(&self) -> Result<Vec<u8>, SessionError> {
        let mut buffer = vec![0; PACKET_BYTES_MAX];
        let received = self.stream.recv(&mut buffer).await.map_err(|error| broken("receive", error))?;
        if received.len == 0 {
            return Err(SessionError::Broken("closed by the proxy".to_owned()));
        }
        if received.truncated {
            return Err(SessionError::Broken(format!("packet longer than {PACKET_BYTES_MAX} bytes")));
        }
        buffer.truncate(received.len);
        Ok(buffer)
    }
}

impl SessionError {
    /// What the caller of the agent is told.
    #[must_use]
    pub fn to_zds(&self) -> ZdsError {
        match self {
            Self::Refused(message) => ZdsError::Refused { message: message.clone() },
            Self::NoAnswer(limit) => ZdsError::NoAnswer { limit: *limit },
            Self::Broken(reason) => ZdsError::Disconnected { reason: reason.clone() },
        }
    }
}

fn encode(request: &Request) -> (Vec<u8>, Option<std::os::fd::BorrowedFd<'_>>) {
    let (payload, descriptor) = match request {
        Request::Add { uid, info, netns } => {
            let add = AddWorkload { uid: uid.clone(), workload_info: Some(info.clone()) };
            (Payload::Add(add), Some(netns.as_fd()))
        }
        Request::Keep { uid } => (Payload::Keep(KeepWorkload { uid: uid.clone() }), None),
        Request::Delete { uid } => (Payload::Del(DelWorkload { uid: uid.clone() }), None),
        Request::SnapshotSent => (Payload::SnapshotSent(SnapshotSent {}), None),
    };
    (WorkloadRequest { payload: Some(payload) }.encode_to_vec(), descriptor)
}

fn broken(what: &str, error: impl std::fmt::Display) -> SessionError {
    SessionError::Broken(format!("{what}: {error}"))
}

/// A broken pipe and the like are ordinary ends of a connection.
impl From<io::Error> for SessionError {
    fn from(error: io::Error) -> Self {
        broken("connection", error)
    }
}

/// Log scope.
pub(crate) const SCOPE: &str = "cni-agent::ztunnel";
