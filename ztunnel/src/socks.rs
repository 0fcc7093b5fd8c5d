//! Applications that ask for a proxy instead of being captured: SOCKS version 5 on loopback (port 15080).
//!
//! Only what is needed to name a destination: no authentication, CONNECT, addresses and names. From there on a
//! connection is like any other that the pod opens.
//!
//! # Source
//! RFC 1928.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;

use rand::seq::IndexedRandom;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::dns::Families;
use crate::dns::lookup::{self, Client};
use crate::dns::message::RecordType;
use crate::joined::{Work, in_stages};
use crate::limits::SOCKS_BUDGET;
use crate::outbound;
use crate::pod::PodWorker;
use crate::pod::listen::Accepted;
use crate::report::Direction;

/// Where a client wants to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// As it stands.
    Address(SocketAddr),
    /// To be resolved, with the port.
    Name(String, u16),
}

/// Why a client is turned away.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)] // reason: the messages say it
pub enum SocksError {
    #[error("client said nothing usable within {SOCKS_BUDGET:?}")]
    TimedOut,
    #[error("client went away: {0}")]
    Io(#[from] io::Error),
    #[error("SOCKS version {found}, expected 5")]
    Version { found: u8 },
    #[error("client offers authentication methods {offered:02x?}, expected 00 (none) among them")]
    Methods { offered: Vec<u8> },
    #[error("command {found}, expected 1 (CONNECT)")]
    Command { found: u8 },
    #[error("address type {found}, expected 1, 3 or 4")]
    AddressType { found: u8 },
    #[error("host name is not UTF-8")]
    Name,
    #[error("host name {name:?} cannot be resolved: {reason}")]
    Resolve { name: String, reason: String },
}

impl SocksError {
    /// What the client is told in place of success; `None`: nothing that it would understand.
    fn reply(&self) -> Option<[u8; 10]> {
        let code = match self {
            Self::TimedOut | Self::Io(_) | Self::Version { .. } | Self::Methods { .. } => return None,
            Self::Name => GENERAL_FAILURE,
            Self::Resolve { .. } => HOST_UNREACHABLE,
            Self::Command { .. } => COMMAND_NOT_SUPPORTED,
            Self::AddressType { .. } => ADDRESS_NOT_SUPPORTED,
        };
        Some(reply(code))
    }
}

/// One client from acceptance to the end of its connection.
pub(crate) fn serve(worker: Rc<PodWorker>, mut accepted: Accepted) -> Work {
    in_stages(async move {
        let Accepted { tcp, peer } = &mut accepted;
        let negotiated = async {
            let target = negotiate(tcp).await?;
            let destination = locate(&worker, *peer, target).await?;
            // Before dialling, as the reference has it: what goes wrong later shows as an end of the connection.
            tcp.write_all(&reply(SUCCEEDED)).await?;
            Ok(destination)
        };
        let negotiated = tokio::time::timeout(SOCKS_BUDGET, negotiated).await;
        match negotiated.unwrap_or(Err(SocksError::TimedOut)) {
            Ok(destination) => Some(outbound::serve_to(worker, accepted, destination)),
            Err(error) => {
                if let Some(reply) = error.reply() {
                    // It is going away either way.
                    let _ = tcp.write_all(&reply).await;
                }
                worker.shared.report.refused(Direction::Outbound, *peer, *peer, &format!("SOCKS: {error}"));
                None
            }
        }
    })
}

/// The conversation up to the destination. How long it takes is bounded by the caller.
///
/// # Errors
/// What the client says is not what is served here.
///
/// # Cancel safety
/// Not cancel-safe: what was read is lost.
pub async fn negotiate(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> Result<Target, SocksError> {
    let [version, methods] = read(stream).await?;
    if version != VERSION {
        return Err(SocksError::Version { found: version });
    }
    let mut offered = vec![0; methods.into()];
    stream.read_exact(&mut offered).await?;
    if !offered.contains(&NO_AUTHENTICATION) {
        stream.write_all(&[VERSION, NO_METHOD]).await?;
        return Err(SocksError::Methods { offered });
    }
    stream.write_all(&[VERSION, NO_AUTHENTICATION]).await?;
    let [version, command, _, kind] = read(stream).await?;
    if version != VERSION {
        return Err(SocksError::Version { found: version });
    }
    // Read to its end, so that the answer is not lost to a reset.
    let target = target(stream, kind).await?;
    if command == CONNECT { Ok(target) } else { Err(SocksError::Command { found: command }) }
}

async fn target(stream: &mut (impl AsyncRead + Unpin), kind: u8) -> Result<Target, SocksError> {
    match kind {
        IPV4 => {
            let ip = Ipv4Addr::from(read::<4>(stream).await?);
            Ok(Target::Address((ip, stream.read_u16().await?).into()))
        }
        IPV6 => {
            let ip = Ipv6Addr::from(read::<16>(stream).await?);
            Ok(Target::Address((IpAddr::from(ip).to_canonical(), stream.read_u16().await?).into()))
        }
        NAME => {
            let mut name = vec![0; stream.read_u8().await?.into()];
            stream.read_exact(&mut name).await?;
            let port = stream.read_u16().await?;
            let name = String::from_utf8(name).map_err(|_| SocksError::Name)?;
            // Some clients send addresses as names.
            let address = name.parse::<IpAddr>().map(|ip| Target::Address((ip.to_canonical(), port).into()));
            Ok(address.unwrap_or(Target::Name(name, port)))
        }
        found => Err(SocksError::AddressType { found }),
    }
}

async fn read<const N: usize>(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

/// A name of the mesh is its service's address; any other one is asked for.
async fn locate(worker: &PodWorker, peer: SocketAddr, target: Target) -> Result<SocketAddr, SocksError> {
    let (name, port) = match target {
        Target::Address(addr) => return Ok(addr),
        Target::Name(name, port) => (name, port),
    };
    let wants_v4 = peer.is_ipv4();
    if let Some(known) = known_addresses(worker, &name, wants_v4) {
        let Some(ip) = known.choose(&mut rand::rng()) else {
            return Err(SocksError::Resolve { name, reason: "it has no address of the client's family".to_owned() });
        };
        return Ok(SocketAddr::new(*ip, port));
    }
    let families = Families { v4: wants_v4, v6: !wants_v4, prefer_v4: wants_v4 };
    match worker.shared.resolver.lookup(&name, families).await {
        Ok(ip) => Ok(SocketAddr::new(ip, port)),
        Err(error) => Err(SocksError::Resolve { name, reason: error.to_string() }),
    }
}

/// As the DNS proxy would answer the pod.
fn known_addresses(worker: &PodWorker, name: &str, wants_v4: bool) -> Option<Vec<IpAddr>> {
    let snapshot = worker.shared.state.snapshot();
    let client = Client { namespace: &worker.pod.namespace, network: &snapshot.local.network };
    let kind = if wants_v4 { RecordType::A } else { RecordType::AAAA };
    lookup::addresses_of(&snapshot, &worker.shared.dns.zone, client, name, kind)
}

/// The bound address is of no use to anybody.
fn reply(code: u8) -> [u8; 10] {
    [VERSION, code, 0, IPV4, 0, 0, 0, 0, 0, 0]
}

const VERSION: u8 = 5;
const NO_AUTHENTICATION: u8 = 0;
const NO_METHOD: u8 = 0xff;
const CONNECT: u8 = 1;
const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;
const SUCCEEDED: u8 = 0;
const GENERAL_FAILURE: u8 = 1;
const HOST_UNREACHABLE: u8 = 4;
const COMMAND_NOT_SUPPORTED: u8 = 7;
const ADDRESS_NOT_SUPPORTED: u8 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes of a client that says `hello` and then `request`, and what it is told.
    async fn talk(hello: &[u8], request: &[u8]) -> (Result<Target, SocksError>, Vec<u8>) {
        let (mut client, mut server) = tokio::io::duplex(1024);
        client.write_all(&[hello, request].concat()).await.unwrap();
        client.shutdown().await.unwrap();
        let negotiated = negotiate(&mut server).await;
        drop(server);
        let mut told = Vec::new();
        client.read_to_end(&mut told).await.unwrap();
        (negotiated, told)
    }

    const HELLO: &[u8] = &[5, 2, 2, 0];

    #[tokio::test]
    async fn three_kinds_of_destinations() {
        for (request, wanted) in [
            (vec![5, 1, 0, 1, 10, 0, 0, 1, 0, 80], Target::Address("10.0.0.1:80".parse().unwrap())),
            (
                [&[5, 1, 0, 4][..], &Ipv6Addr::LOCALHOST.octets(), &[0x1f, 0x90]].concat(),
                Target::Address("[::1]:8080".parse().unwrap()),
            ),
            ([&[5, 1, 0, 3, 4][..], b"cart", &[0, 80]].concat(), Target::Name("cart".into(), 80)),
            ([&[5, 1, 0, 3, 7][..], b"1.2.3.4", &[0, 80]].concat(), Target::Address("1.2.3.4:80".parse().unwrap())),
        ] {
            let (target, told) = talk(HELLO, &request).await;
            assert_eq!(target.unwrap(), wanted);
            assert_eq!(told, [5, 0]);
        }
    }

    #[tokio::test]
    async fn what_is_not_supported_is_answered() {
        let v4 = [10, 0, 0, 1, 0, 80];
        let (error, told) = talk(&[5, 1, 2], &[]).await;
        assert!(matches!(error, Err(SocksError::Methods { .. })));
        assert_eq!(told, [5, 0xff]);
        let (error, _) = talk(&[4, 1], &v4).await;
        assert!(matches!(error, Err(SocksError::Version { found: 4 })));
        let (error, _) = talk(HELLO, &[&[5, 2, 0, 1][..], &v4].concat()).await;
        assert_eq!(error.unwrap_err().reply(), Some(reply(7)));
        let (error, _) = talk(HELLO, &[5, 1, 0, 2]).await;
        assert_eq!(error.unwrap_err().reply(), Some(reply(8)));
        let (error, _) = talk(HELLO, &[5, 1, 0, 3, 1, 0xff, 0, 80]).await;
        assert_eq!(error.unwrap_err().reply(), Some(reply(1)));
        let (error, _) = talk(HELLO, &[5, 1, 0, 1, 10]).await;
        assert!(matches!(error, Err(SocksError::Io(_))));
    }
}
