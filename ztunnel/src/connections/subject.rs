//! What is asked about a connection when something changed that may end it.

use std::sync::Arc;

use mesh_core::Identity;
use mesh_identity::PeerChain;
use mesh_policy::Connection;

/// What decides about the fate of a connection or a tunnel, apart from what may change. Those with equal ones are judged
/// once and end together.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Subject {
    /// What policies see of it. Outbound connections are judged at their destination, tunnels through their streams.
    pub(crate) connection: Option<Connection>,
    /// The tunnel that it arrived through.
    pub(crate) proof: Option<Arc<Proof>>,
    /// The servers of the tunnels that it leaves through, as far as revocation is watched.
    pub(crate) servers: Vec<Arc<PeerChain>>,
}

/// What a handshake with a client has proven, both ways.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Proof {
    /// Whom we presented ourselves as.
    pub(crate) own: Identity,
    /// What the client presented, where revocation is watched.
    pub(crate) client: Option<Arc<PeerChain>>,
}

impl Subject {
    /// A tunnel by itself, with or without streams.
    pub(crate) fn tunnel(proof: Arc<Proof>) -> Self {
        Self { proof: Some(proof), ..Self::default() }
    }

    /// Everything that could be revoked.
    pub(super) fn chains(&self) -> impl Iterator<Item = &Arc<PeerChain>> {
        self.proof.iter().filter_map(|proof| proof.client.as_ref()).chain(&self.servers)
    }
}
