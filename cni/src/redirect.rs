//! The redirect rules of a pod, as data; writers turn them into the language of a packet filter.
//!
//! There is one writer today, for nftables. A second one gets the same data.

mod established;
mod host;
mod nft;
mod rules;

use std::net::{Ipv4Addr, Ipv6Addr};

use mesh_sys::netns::NetNs;
use mesh_sys::route::{Family, LocalPolicyRoute, RouteError};

pub use host::{HostRules, kubelet_uid};
pub use rules::{InterfaceName, PodRules, Rule, rules};

/// Source addresses that kubelet probes of enrolled pods come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeAddresses {
    /// IPv4.
    pub v4: Ipv4Addr,
    /// IPv6.
    pub v6: Ipv6Addr,
}

impl Default for ProbeAddresses {
    fn default() -> Self {
        Self {
            v4: Ipv4Addr::new(169, 254, 7, 127),
            v6: Ipv6Addr::new(0xfd16, 0x9254, 0x7127, 0x1337, 0xffff, 0xffff, 0xffff, 0xffff),
        }
    }
}

/// Puts the rules of a pod in force, or brings them up to date: one transaction, so that a packet sees either the
/// old rules or the new ones. Connections that the pod has when it is captured for the first time go on as they are.
/// Blocks for some milliseconds.
///
/// # Errors
/// See [`RedirectError`]; the rules are not in force then.
pub fn apply(netns: &NetNs, pod: &PodRules) -> Result<(), RedirectError> {
    netns.run(|| apply_here(pod)).map_err(|source| RedirectError::Enter { source })?
}

fn apply_here(pod: &PodRules) -> Result<(), RedirectError> {
    let flows = if captured_here()? {
        // The kernel still holds the list made when the capture began; connections of today belong to the proxy.
        Vec::new()
    } else {
        // From here on the kernel knows every new connection, so none can fall between this list and the rules.
        mesh_sys::nft::apply(&nft::tracking())?;
        established::current().map_err(|source| RedirectError::Connections { source })?
    };
    // Routes first: rules that mark connections before replies can come back would stall them.
    POLICY_ROUTE.add(Family::V4)?;
    if pod.ipv6 && loopback_has_ipv6() {
        POLICY_ROUTE.add(Family::V6)?;
    }
    Ok(mesh_sys::nft::apply(&nft::pod(pod, &flows))?)
}

fn captured_here() -> Result<bool, RedirectError> {
    Ok(mesh_sys::nft::list_tables()?.contains(&nft::capture_table()))
}

/// Takes the rules of a pod away. Rules that are not there are no error.
///
/// # Errors
/// See [`RedirectError`].
pub fn remove(netns: &NetNs) -> Result<(), RedirectError> {
    netns
        .run(|| {
            mesh_sys::nft::apply(&nft::remove())?;
            POLICY_ROUTE.delete(Family::V4)?;
            if loopback_has_ipv6() {
                POLICY_ROUTE.delete(Family::V6)?;
            }
            Ok(())
        })
        .map_err(|source| RedirectError::Enter { source })?
}

/// Why a pod's rules are not as wanted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RedirectError {
    /// The pod is gone, or the agent lacks CAP_SYS_ADMIN.
    #[error("entering the pod's network namespace")]
    Enter {
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The pod's open connections are unknown, so capturing it could cut them.
    #[error("reading the pod's connections")]
    Connections {
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The packet filter refused the rules.
    #[error(transparent)]
    Filter(#[from] mesh_sys::nft::NftError),
    /// The policy route is not in force.
    #[error(transparent)]
    Route(#[from] RouteError),
}

/// Mark of every socket that the node proxy makes in a pod.
pub(crate) const PROXY_MARK: u32 = 0x539;
/// Mark of connections from the node proxy to the application.
pub(crate) const CONNECTION_MARK: u32 = 0x111;
/// The bits of marks that are ours.
pub(crate) const MARK_MASK: u32 = 0xfff;

const POLICY_ROUTE: LocalPolicyRoute =
    LocalPolicyRoute { mark: CONNECTION_MARK, mask: MARK_MASK, table: 100, priority: 32764 };

fn loopback_has_ipv6() -> bool {
    std::fs::read_to_string("/proc/sys/net/ipv6/conf/lo/disable_ipv6").is_ok_and(|text| text.trim() == "0")
}
