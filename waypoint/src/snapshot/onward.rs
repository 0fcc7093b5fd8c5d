//! Policies of services that routes of others lead to: whoever is sent on to one must be allowed to call it itself.

use std::net::IpAddr;
use std::sync::Arc;

use mesh_core::Identity;
use mesh_policy::l7::{Http, L7Request, Policies};
use mesh_wire::l7;

use super::compile;
use super::proxy::Proxy;
use crate::connection::PeerInfo;

/// What guards a backend that is another service than the one that was called.
#[derive(Debug)]
pub struct BackendGuard {
    /// Of the service, and of the proxy: as if the service had been called.
    pub policies: Policies,
    /// Why nobody is sent on to it.
    pub refuse_all: Option<Arc<str>>,
    /// Address of the service.
    address: Option<IpAddr>,
    /// Its port.
    port: u16,
}

impl BackendGuard {
    /// Policies that cannot be used let nobody through.
    pub(super) fn compile(message: &l7::BackendGuard, port: u32, proxy: &Proxy) -> Self {
        let refuse_all = Some(message.refuse_all.as_str()).filter(|reason| !reason.is_empty());
        let mut refuse_all = refuse_all.or(proxy.refuse_all.as_deref()).map(Arc::from);
        let own = &message.authorizations;
        let policies = compile::policies(&proxy.authorizations, own, &proxy.settings.trust_domains);
        let policies = policies.unwrap_or_else(|error| {
            refuse_all = Some(error.to_string().into());
            Policies::default()
        });
        let address = mesh_core::addr::ip_from_bytes(&message.address);
        Self { policies, refuse_all, address, port: u16::try_from(port).unwrap_or_default() }
    }

    /// What the policies see: the caller, and the service as what was called. `remote` is the caller's address as trusted
    /// proxies say.
    #[must_use]
    pub fn request<'a>(&self, peer: &'a PeerInfo, remote: IpAddr, http: Option<Http<'a>>) -> L7Request<'a> {
        let sni = peer.tls.as_ref().and_then(|tls| tls.sni.as_deref()).or(peer.sni.as_deref());
        let direct = peer.source_address.ip().to_canonical();
        L7Request { sni, ..self.request_of(peer.source_identity.as_ref(), direct, remote, http) }
    }

    /// The same of a caller that is only known by what is said of it.
    #[must_use]
    pub fn request_of<'a>(
        &self,
        source: Option<&'a Identity>,
        source_ip: IpAddr,
        remote_ip: IpAddr,
        http: Option<Http<'a>>,
    ) -> L7Request<'a> {
        let (destination_ip, destination_port) = (self.address, self.port);
        L7Request { source, source_ip, remote_ip, destination_ip, destination_port, sni: None, http }
    }
}
