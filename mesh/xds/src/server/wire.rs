//! What goes over the wire: requests are decoded as usual, responses are written piece by piece straight from the shared
//! resources. A client that reads slowly costs one piece and a list of pointers, however large its response is.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use mesh_wire::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};
use tokio::time::Instant;
use tonic::Status;
use tonic::codec::{DecodeBuf, Decoder};

use super::hub::Hub;
use super::resource::Resource;
use super::store::{Backing, TypeSpec, Whole};

/// One response: it shares the resources with the hub.
#[derive(Debug)]
pub(super) struct Push {
    pub(super) spec: TypeSpec,
    pub(super) type_index: usize,
    pub(super) version: Arc<str>,
    pub(super) nonce: String,
    /// All that there is, before `resources`.
    pub(super) whole: Option<Whole>,
    pub(super) resources: Vec<Arc<Resource>>,
    pub(super) removed: Vec<String>,
    /// When the oldest change that it tells of was seen, on the last response of a round.
    pub(super) since: Option<Instant>,
}

impl Push {
    /// A response that tells nothing yet.
    pub(super) fn empty(spec: TypeSpec, type_index: usize, version: Arc<str>) -> Self {
        let (nonce, resources, removed) = (String::new(), Vec::new(), Vec::new());
        Self { spec, type_index, version, nonce, whole: None, resources, removed, since: None }
    }

    /// Whether it would tell the client nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.whole.is_none() && self.resources.is_empty() && self.removed.is_empty()
    }

    /// The resource at a place of the response.
    fn resource(&self, at: usize) -> Option<&Arc<Resource>> {
        let whole = self.whole.as_ref().map(|whole| &*whole.resources).unwrap_or_default();
        whole.get(at).or_else(|| self.resources.get(at.checked_sub(whole.len())?))
    }
}

/// A response on its way out.
#[derive(Debug)]
pub(super) struct Writing {
    push: Push,
    /// The frame's length, and the message up to its resources.
    head: Bytes,
    /// The next resource to be written.
    next: usize,
    /// Bytes of this and of those behind it.
    left: usize,
    /// Bytes of the message.
    pub(super) size: usize,
}

impl Writing {
    /// Starts to write a response.
    ///
    /// # Errors
    /// The response is longer than gRPC allows.
    pub(super) fn new(mut push: Push) -> Result<Self, Status> {
        let message = DeltaDiscoveryResponse {
            system_version_info: push.version.to_string(),
            type_url: push.spec.url.to_owned(),
            nonce: std::mem::take(&mut push.nonce),
            removed_resources: std::mem::take(&mut push.removed),
            ..DeltaDiscoveryResponse::default()
        };
        let whole = push.whole.as_ref().map_or(0, |whole| whole.bytes);
        let size = message.encoded_len() + whole + resources_len(&push.resources, push.spec);
        let length = u32::try_from(size).map_err(|_| Status::internal("a response is longer than 4 GiB"))?;
        let mut head = BytesMut::with_capacity(FRAME_HEADER_BYTES + message.encoded_len());
        head.put_u8(0); // not compressed
        head.put_u32(length);
        message.encode_raw(&mut head);
        let left = size - message.encoded_len();
        Ok(Self { push, head: head.freeze(), next: 0, left, size })
    }

    /// The next piece; none when all is written.
    pub(super) fn piece(&mut self) -> Option<Bytes> {
        // Protocol buffers concatenate: the repeated field may follow in as many parts as we like.
        let head = std::mem::take(&mut self.head);
        let mut piece = BytesMut::with_capacity(head.len() + self.left.min(PIECE_BYTES + LAST_BYTES));
        piece.put_slice(&head);
        while let Some(resource) = self.push.resource(self.next)
            && piece.len() < PIECE_BYTES
        {
            if let Some(entry) = Entry::of(resource, self.push.spec) {
                let before = piece.len();
                entry.write(&mut piece);
                self.left = self.left.saturating_sub(piece.len() - before);
            }
            self.next += 1;
        }
        (!piece.is_empty()).then(|| piece.freeze())
    }

    pub(super) fn since(&self) -> Option<Instant> {
        self.push.since
    }

    pub(super) fn url(&self) -> &'static str {
        self.push.spec.url
    }
}

/// A resource in a response: the message that carries its body (its own, or a view of it) under the type of the response.
struct Entry<'a> {
    resource: &'a Resource,
    url: &'static str,
    /// Another body than the resource's own.
    view: Option<Bytes>,
}

impl<'a> Entry<'a> {
    fn of(resource: &'a Resource, spec: TypeSpec) -> Option<Self> {
        let view = match spec.backing {
            Backing::Own => None,
            Backing::View { project, .. } => Some(project(resource)?),
        };
        Some(Self { resource, url: spec.url, view })
    }

    fn body(&self) -> &[u8] {
        self.view.as_deref().unwrap_or(&self.resource.body)
    }

    fn any_len(&self) -> usize {
        field_len(ANY_URL, self.url.len()) + field_len(ANY_VALUE, self.body().len())
    }

    fn inner_len(&self) -> usize {
        let aliases: usize =
            self.resource.aliases.iter().map(|alias| repeated_len(RESOURCE_ALIASES, alias.len())).sum();
        field_len(RESOURCE_VERSION, self.resource.version.len())
            + repeated_len(RESOURCE_BODY, self.any_len())
            + field_len(RESOURCE_NAME, self.resource.name.len())
            + aliases
    }

    fn len(&self) -> usize {
        repeated_len(RESPONSE_RESOURCES, self.inner_len())
    }

    fn write(&self, out: &mut BytesMut) {
        begin(RESPONSE_RESOURCES, self.inner_len(), out);
        field(RESOURCE_VERSION, self.resource.version.as_bytes(), out);
        begin(RESOURCE_BODY, self.any_len(), out);
        field(ANY_URL, self.url.as_bytes(), out);
        field(ANY_VALUE, self.body(), out);
        field(RESOURCE_NAME, self.resource.name.as_bytes(), out);
        for alias in &self.resource.aliases {
            begin(RESOURCE_ALIASES, alias.len(), out);
            out.put_slice(alias.as_bytes());
        }
    }
}

/// Length of these resources within a response of this type.
pub(super) fn resources_len(resources: &[Arc<Resource>], spec: TypeSpec) -> usize {
    resources.iter().map(|one| Entry::of(one, spec).map_or(0, |one| one.len())).sum()
}

fn repeated_len(number: u32, content: usize) -> usize {
    key_len(number) + encoded_len_varint(content as u64) + content
}

/// A field that is left out when empty.
fn field_len(number: u32, content: usize) -> usize {
    if content == 0 { 0 } else { repeated_len(number, content) }
}

fn begin(number: u32, content: usize, out: &mut BytesMut) {
    encode_key(number, WireType::LengthDelimited, out);
    encode_varint(content as u64, out);
}

fn field(number: u32, content: &[u8], out: &mut BytesMut) {
    if !content.is_empty() {
        begin(number, content.len(), out);
        out.put_slice(content);
    }
}

/// Reads requests, and tells the hub's observer how long they are.
#[derive(Debug)]
pub(super) struct RequestDecoder(pub(super) Arc<Hub>);

impl Decoder for RequestDecoder {
    type Item = DeltaDiscoveryRequest;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<DeltaDiscoveryRequest>, Status> {
        self.0.observer.received(bytes::Buf::remaining(buffer));
        let request = DeltaDiscoveryRequest::decode(buffer);
        request.map(Some).map_err(|error| Status::invalid_argument(format!("unreadable discovery request: {error}")))
    }
}

/// A flag and four bytes of length.
const FRAME_HEADER_BYTES: usize = 5;
/// Bytes written at a time.
const PIECE_BYTES: usize = 32 << 10;
/// What the last resource of a piece may have beyond that, without the piece being moved for it.
const LAST_BYTES: usize = 2 << 10;
// Field numbers of the discovery protocol.
const RESPONSE_RESOURCES: u32 = 2;
const RESOURCE_VERSION: u32 = 1;
const RESOURCE_BODY: u32 = 2;
const RESOURCE_NAME: u32 = 3;
const RESOURCE_ALIASES: u32 = 4;
const ANY_URL: u32 = 1;
const ANY_VALUE: u32 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(number: usize) -> Arc<Resource> {
        Arc::new(Resource {
            name: format!("name-{number}").into(),
            aliases: (0..number % 3).map(|alias| format!("alias-{alias}").into()).collect(),
            version: if number.is_multiple_of(2) { "".into() } else { "v".into() },
            body: Bytes::from(vec![7; (number * 37) % 4000]),
            groups: Box::default(),
            is_group: false,
            node: None,
            referenced: false,
            audience: None,
        })
    }

    #[test]
    fn pieces_are_the_message_that_the_generated_code_would_write() {
        let spec = TypeSpec { url: "type.googleapis.com/x", backing: Backing::Own, after: None };
        for count in [0, 1, 2, 500] {
            let mut push = Push::empty(spec, 0, "v1".into());
            push.nonce = "n".into();
            push.removed = vec!["gone".into()];
            push.resources = (0..count).map(resource).collect();
            // Half of them as part of what everybody is sent.
            let whole: Arc<[_]> = push.resources.drain(..count / 2).collect();
            push.whole = Some(Whole { bytes: resources_len(&whole, spec), resources: whole });
            let mut writing = Writing::new(push).unwrap();
            let (size, mut all) = (writing.size, Vec::new());
            while let Some(piece) = writing.piece() {
                assert!(piece.len() <= PIECE_BYTES + 5000, "{} bytes at once", piece.len());
                all.extend_from_slice(&piece);
            }
            assert_eq!((all[0], &all[1..5]), (0, &u32::try_from(size).unwrap().to_be_bytes()[..]));
            let read = DeltaDiscoveryResponse::decode(&all[5..]).unwrap();
            assert_eq!((read.nonce.as_str(), read.removed_resources.len(), read.resources.len()), ("n", 1, count));
            assert_eq!(read.encoded_len(), size);
            for (number, one) in read.resources.iter().enumerate() {
                let expected = resource(number);
                assert_eq!((one.name.as_str(), one.version.as_str()), (&*expected.name, &*expected.version));
                assert_eq!(one.aliases.len(), expected.aliases.len());
                let any = one.resource.as_ref().unwrap();
                assert_eq!((any.type_url.as_str(), any.value.as_slice()), (spec.url, &*expected.body));
            }
        }
    }
}
