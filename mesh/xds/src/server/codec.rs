//! What goes over the wire: requests are decoded as usual, responses are encoded straight from shared resources.

use std::sync::Arc;

use mesh_wire::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use prost::Message;
use tokio::sync::OwnedSemaphorePermit;
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

use super::resource::Resource;
use super::store::{Backing, TypeSpec};

/// One response before encoding: it shares the resources with the hub.
#[derive(Debug)]
pub(super) struct Push {
    pub(super) spec: TypeSpec,
    pub(super) type_index: usize,
    pub(super) version: Arc<str>,
    pub(super) nonce: String,
    pub(super) resources: Vec<Arc<Resource>>,
    pub(super) removed: Vec<String>,
    /// Bounds how many responses are built and encoded at the same time; released when encoded.
    pub(super) permit: Option<OwnedSemaphorePermit>,
}

impl Push {
    /// Whether it would tell the client nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.resources.is_empty() && self.removed.is_empty()
    }
}

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct AdsCodec;

impl Codec for AdsCodec {
    type Encode = Push;
    type Decode = DeltaDiscoveryRequest;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for AdsCodec {
    type Item = Push;
    type Error = Status;

    fn encode(&mut self, push: Push, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        let full = |error: prost::EncodeError| Status::internal(format!("encoding a response: {error}"));
        let head = DeltaDiscoveryResponse {
            system_version_info: push.version.to_string(),
            type_url: push.spec.url.to_owned(),
            nonce: push.nonce,
            removed_resources: push.removed,
            ..DeltaDiscoveryResponse::default()
        };
        head.encode(buffer).map_err(full)?;
        // Protocol buffers concatenate: the repeated field may follow in as many parts as we like.
        for resource in &push.resources {
            let body = match push.spec.backing {
                Backing::Own => Some(resource.body.clone()),
                Backing::View { project, .. } => project(resource),
            };
            let Some(body) = body else { continue };
            let wire = resource.to_wire(push.spec.url, &body);
            prost::encoding::message::encode(RESOURCES_FIELD, &wire, buffer);
        }
        Ok(())
    }
}

impl Decoder for AdsCodec {
    type Item = DeltaDiscoveryRequest;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<DeltaDiscoveryRequest>, Status> {
        let request = DeltaDiscoveryRequest::decode(buffer);
        request.map(Some).map_err(|error| Status::invalid_argument(format!("unreadable discovery request: {error}")))
    }
}

/// Number of `resources` in the response message.
const RESOURCES_FIELD: u32 = 2;
