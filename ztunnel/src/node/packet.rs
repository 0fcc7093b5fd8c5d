//! One packet of the node agent: a message and, for a new pod, its network namespace.

use std::os::fd::OwnedFd;

use mesh_wire::zds::{self, workload_request::Payload};
use prost::Message as _;

/// A request of the agent.
#[derive(Debug)]
pub enum Message {
    /// Serve this pod.
    Add {
        /// Pod UID.
        uid: String,
        /// Who it is; its absence breaks the protocol.
        info: Option<zds::WorkloadInfo>,
        /// Its network namespace.
        netns: OwnedFd,
    },
    /// Leave this pod as it is.
    Keep {
        /// Pod UID.
        uid: String,
    },
    /// Stop serving this pod.
    Del {
        /// Pod UID.
        uid: String,
    },
    /// All pods of the node were named.
    SnapshotSent,
}

/// A packet that is no request. The connection is given up, a new one may go better.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PacketError {
    /// Data or descriptors did not fit.
    #[error("packet or its descriptors are longer than {max} bytes or one descriptor")]
    Truncated {
        /// Bytes that fit.
        max: usize,
    },
    /// Not a WorkloadRequest.
    #[error("packet is no workload request: {reason}")]
    Undecodable {
        /// What the decoder says.
        reason: String,
    },
    /// A request without a known payload.
    #[error("workload request holds none of add, keep, del, snapshot_sent")]
    Empty,
    /// Add without its namespace.
    #[error("add of pod {uid} came without a network namespace descriptor")]
    NoDescriptor {
        /// Pod UID.
        uid: String,
    },
    /// Descriptors where none or one belong. All are closed.
    #[error("{message} came with {found} descriptors, expected {expected}")]
    Descriptors {
        /// Kind of message.
        message: &'static str,
        /// How many came.
        found: usize,
        /// How many belong there.
        expected: usize,
    },
}

/// Reads a packet. Descriptors that do not belong to it are closed.
///
/// # Errors
/// It is no request, was cut, or its descriptors do not fit.
pub fn decode(bytes: &[u8], fds: Vec<OwnedFd>, truncated: bool) -> Result<Message, PacketError> {
    if truncated {
        return Err(PacketError::Truncated { max: super::PACKET_BYTES_MAX });
    }
    let request =
        zds::WorkloadRequest::decode(bytes).map_err(|error| PacketError::Undecodable { reason: error.to_string() })?;
    let payload = request.payload.ok_or(PacketError::Empty)?;
    let (message, expected) = match &payload {
        Payload::Add(_) => ("add", 1),
        Payload::Keep(_) => ("keep", 0),
        Payload::Del(_) => ("del", 0),
        Payload::SnapshotSent(_) => ("snapshot_sent", 0),
    };
    if fds.len() > expected {
        return Err(PacketError::Descriptors { message, found: fds.len(), expected });
    }
    Ok(match payload {
        Payload::Add(add) => match fds.into_iter().next() {
            Some(netns) => Message::Add { uid: add.uid, info: add.workload_info, netns },
            None => return Err(PacketError::NoDescriptor { uid: add.uid }),
        },
        Payload::Keep(keep) => Message::Keep { uid: keep.uid },
        Payload::Del(del) => Message::Del { uid: del.uid },
        Payload::SnapshotSent(_) => Message::SnapshotSent,
    })
}
