//! A published resource.

use std::hash::Hasher;
use std::sync::Arc;

use bytes::Bytes;

/// One resource as every client gets it. Immutable; a new content is a new resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// Primary name, unique within its type.
    pub name: Arc<str>,
    /// Other names it can be asked by; several resources may share one.
    pub aliases: Box<[Arc<str>]>,
    /// Opaque content version; empty means that a reconnecting client is always sent it again.
    pub version: Arc<str>,
    /// The serialised message.
    pub body: Bytes,
    /// Names of the groups it belongs to: who asks for a group gets its members too.
    pub groups: Box<[Arc<str>]>,
    /// Whether this resource is itself a group.
    pub is_group: bool,
    /// Node it is local to: on-demand clients of that node get it unasked.
    pub node: Option<Arc<str>>,
    /// It has an effect only where resources of another type name it. One that turns so is sent after those that begin
    /// to name it: before, it would have no effect anywhere.
    pub referenced: bool,
    /// The only principal, `<namespace>/<service account>`, that may have it; none: everybody may. For anyone else, and on
    /// streams without authentication, it does not exist.
    pub audience: Option<Arc<str>>,
}

impl Resource {
    /// Whether a client may have it that has proved to be `principal`.
    #[must_use]
    pub(super) fn is_for(&self, principal: Option<&Arc<str>>) -> bool {
        self.audience.as_ref().is_none_or(|audience| principal == Some(audience))
    }
}

/// The version of a resource with this content: the hexadecimal 64-bit xxHash of its bytes.
#[must_use]
pub fn content_version(body: &[u8]) -> Arc<str> {
    let mut hasher = twox_hash::XxHash64::with_seed(0);
    hasher.write(body);
    format!("{:x}", hasher.finish()).into()
}
