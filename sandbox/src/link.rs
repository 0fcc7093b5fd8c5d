//! Links, addresses, routes and network settings of one namespace.
//!
//! [`configure`] moves the calling thread into the namespace and hands out a [`Links`] whose
//! calls go straight to the kernel (rtnetlink(7)), so that a whole pod takes milliseconds.

use std::fs;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd;

use ipnet::IpNet;
use mesh_sys::netns::NetNs;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::AddressHeaderFlags;
use rtnetlink::packet_route::link::{InfoData, InfoVeth};
use rtnetlink::packet_route::route::RouteScope;
use rtnetlink::{Handle, LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};

/// Everything in the sandbox is Ethernet-sized, as in a cluster without an overlay.
pub const MTU_BYTES: u32 = 1500;

/// A change of a namespace's network that the kernel refused.
#[derive(Debug, thiserror::Error)]
#[error("{action}: {reason}")]
pub struct LinkError {
    /// What was tried, such as `adding link veth1`.
    action: String,
    /// The kernel's answer.
    reason: String,
}

/// The network of the namespace that [`configure`] entered.
#[derive(Debug, Clone)]
pub struct Links {
    handle: Handle,
}

/// Where packets to a destination go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// The destination; `/0` is the default route.
    pub destination: IpNet,
    /// The next router; `None` for a destination that is directly on the link.
    pub gateway: Option<IpAddr>,
}

/// Runs `work` with the calling thread inside `netns`, on a runtime of its own. Blocks: call it
/// from a blocking thread or a single-threaded program.
///
/// # Errors
///
/// Those of `work`, and [`LinkError`] when the namespace cannot be entered.
pub fn configure<T, F>(netns: &NetNs, work: impl FnOnce(Links) -> F) -> Result<T, LinkError>
where
    F: Future<Output = Result<T, LinkError>>,
{
    let entered = netns.run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .map_err(|error| failed("starting a netlink runtime", &error))?;
        runtime.block_on(async {
            let (connection, handle, _) =
                rtnetlink::new_connection().map_err(|error| failed("opening a netlink socket", &error))?;
            let pump = tokio::spawn(connection);
            let result = work(Links { handle }).await;
            pump.abort();
            result
        })
    });
    entered.map_err(|error| failed("entering the network namespace", &error))?
}

impl Links {
    /// Whether a link of that name exists.
    pub fn exists(&self, name: &str) -> bool {
        index(name).is_ok()
    }

    /// Makes a bridge and sets it up.
    ///
    /// # Errors
    ///
    /// [`LinkError`]; the name is taken.
    pub async fn add_bridge(&self, name: &str) -> Result<(), LinkError> {
        // Without an address of its own a bridge takes the lowest of its ports' and changes it
        // when ports come and go, which would invalidate every neighbour entry.
        let message = LinkBridge::new(name).mtu(MTU_BYTES).address(stable_mac(name).to_vec()).up().build();
        self.handle.link().add(message).execute().await.map_err(|error| failed(format!("adding bridge {name}"), &error))
    }

    /// Makes a pair of connected links: `name` here, `peer` in the namespace `peer_netns`.
    ///
    /// # Errors
    ///
    /// [`LinkError`]; either name is taken.
    pub async fn add_veth(&self, name: &str, peer: &str, peer_netns: &NetNs) -> Result<(), LinkError> {
        let far = LinkMessageBuilder::<LinkUnspec>::new()
            .name(peer)
            .mtu(MTU_BYTES)
            .setns_by_fd(std::os::fd::AsFd::as_fd(peer_netns).as_raw_fd())
            .build();
        let message =
            LinkVeth::new(name, peer).set_info_data(InfoData::Veth(InfoVeth::Peer(far))).mtu(MTU_BYTES).build();
        self.handle.link().add(message).execute().await.map_err(|error| failed(format!("adding link {name}"), &error))
    }

    /// Makes `name` a port of the bridge `bridge` and sets it up.
    ///
    /// # Errors
    ///
    /// [`LinkError`]; either does not exist.
    pub async fn enslave(&self, name: &str, bridge: &str) -> Result<(), LinkError> {
        let message = LinkUnspec::new_with_index(index(name)?).controller(index(bridge)?).up().build();
        self.set(name, message).await
    }

    /// Sets a link up.
    ///
    /// # Errors
    ///
    /// [`LinkError`]; it does not exist.
    pub async fn up(&self, name: &str) -> Result<(), LinkError> {
        let message = LinkUnspec::new_with_index(index(name)?).up().build();
        self.set(name, message).await
    }

    /// Deletes a link, and with it the other end of a pair. Succeeds when there is none.
    ///
    /// # Errors
    ///
    /// [`LinkError`] with the kernel's answer.
    pub async fn delete(&self, name: &str) -> Result<(), LinkError> {
        let Ok(index) = index(name) else { return Ok(()) };
        self.handle.link().del(index).execute().await.map_err(|error| failed(format!("deleting link {name}"), &error))
    }

    /// Adds an address that is usable at once (IPv6 without duplicate detection: the sandbox gives
    /// every address out once).
    ///
    /// # Errors
    ///
    /// [`LinkError`]; the link is missing or the address is already there.
    pub async fn add_address(&self, name: &str, address: IpNet) -> Result<(), LinkError> {
        let mut request = self.handle.address().add(index(name)?, address.addr(), address.prefix_len());
        if address.addr().is_ipv6() {
            request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
        }
        request.execute().await.map_err(|error| failed(format!("adding address {address} to {name}"), &error))
    }

    /// Adds or replaces a route over the link `name`.
    ///
    /// # Errors
    ///
    /// [`LinkError`]; the gateway is not reachable, or is of another family.
    pub async fn add_route(&self, name: &str, route: Route) -> Result<(), LinkError> {
        let link = index(name)?;
        let message = match (route.destination, route.gateway) {
            (IpNet::V4(net), Some(IpAddr::V4(gateway))) => RouteMessageBuilder::<Ipv4Addr>::new()
                .destination_prefix(net.network(), net.prefix_len())
                .gateway(gateway)
                .output_interface(link)
                .build(),
            (IpNet::V4(net), None) => RouteMessageBuilder::<Ipv4Addr>::new()
                .destination_prefix(net.network(), net.prefix_len())
                .scope(RouteScope::Link)
                .output_interface(link)
                .build(),
            (IpNet::V6(net), Some(IpAddr::V6(gateway))) => RouteMessageBuilder::<Ipv6Addr>::new()
                .destination_prefix(net.network(), net.prefix_len())
                .gateway(gateway)
                .output_interface(link)
                .build(),
            (IpNet::V6(net), None) => RouteMessageBuilder::<Ipv6Addr>::new()
                .destination_prefix(net.network(), net.prefix_len())
                .output_interface(link)
                .build(),
            (_, Some(gateway)) => {
                let action = format!("adding route to {}", route.destination);
                return Err(failed(action, &format!("gateway {gateway} is of another family")));
            }
        };
        self.handle
            .route()
            .add(message)
            .replace()
            .execute()
            .await
            .map_err(|error| failed(format!("adding route to {} over {name}", route.destination), &error))
    }

    async fn set(&self, name: &str, message: rtnetlink::packet_route::link::LinkMessage) -> Result<(), LinkError> {
        self.handle
            .link()
            .change(message)
            .execute()
            .await
            .map_err(|error| failed(format!("changing link {name}"), &error))
    }
}

impl Route {
    /// The default route of the gateway's family.
    pub fn default_via(gateway: IpAddr) -> Self {
        let destination = match family(gateway) {
            AddressFamily::Inet => IpNet::from(ipnet::Ipv4Net::default()),
            _ => IpNet::from(ipnet::Ipv6Net::default()),
        };
        Self { destination, gateway: Some(gateway) }
    }
}

/// Writes a setting below `/proc/sys/net` of the calling thread's namespace, such as
/// `ipv4/ip_forward`.
///
/// # Errors
///
/// [`LinkError`] naming the setting; absent when the kernel lacks the feature.
pub fn set_sysctl(name: &str, value: &str) -> Result<(), LinkError> {
    fs::write(format!("/proc/sys/net/{name}"), value)
        .map_err(|error| failed(format!("setting net/{name} to {value}"), &error))
}

/// Whether this kernel has IPv6 switched on.
pub fn ipv6_enabled() -> bool {
    fs::read_to_string("/proc/sys/net/ipv6/conf/all/disable_ipv6").is_ok_and(|text| text.trim() == "0")
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

/// The index of a link in the calling thread's namespace.
fn index(name: &str) -> Result<u32, LinkError> {
    nix::net::if_::if_nametoindex(name)
        .map_err(|error| failed(format!("looking up link {name}"), &io::Error::from(error)))
}

/// A locally administered unicast address that only depends on the name.
fn stable_mac(name: &str) -> [u8; 6] {
    let mut hash: u32 = 0x811c_9dc5; // FNV-1a
    for byte in name.bytes() {
        hash = (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    }
    let [a, b, c, d] = hash.to_be_bytes();
    [0x0a, 0x4d, a, b, c, d]
}

fn failed(action: impl Into<String>, reason: &impl ToString) -> LinkError {
    LinkError { action: action.into(), reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stable_mac_is_local_unicast_and_depends_on_the_name() {
        let mac = stable_mac("cni0");
        assert_eq!(mac[0] & 0b11, 0b10, "locally administered, unicast");
        assert_eq!(mac, stable_mac("cni0"));
        assert_ne!(mac, stable_mac("fabric0"));
    }

    #[test]
    fn default_route_follows_the_gateways_family() {
        let v6 = Route::default_via("fd00::1".parse().unwrap());
        assert_eq!(v6.destination.to_string(), "::/0");
        let v4 = Route::default_via("10.0.0.1".parse().unwrap());
        assert_eq!(v4.destination.to_string(), "0.0.0.0/0");
    }
}
