//! Decision tables: rows of the HBONE and workload discovery specifications.

#![allow(clippy::indexing_slicing)] // reason: tests

mod across;
mod addressing;
mod balancing;
mod inbound_rows;
mod outbound_rows;

use std::net::SocketAddr;
use std::sync::Arc;

use mesh_wire::workload as wire;

use super::{Outbound, Path, Refusal, Source, outbound::outbound};
use crate::state::Workload;
use crate::state::fixture::*;

pub(super) const CART: &str = "shop/cart.shop.svc.cluster.local";

/// The source pod of the specification's table.
pub(super) fn web() -> wire::Workload {
    pod("shop/web", "10.1.0.5")
}

pub(super) fn cart() -> wire::Service {
    service(CART, &["172.20.0.9"], &[(80, 8080)])
}

pub(super) fn cart_endpoint() -> wire::Workload {
    backs(pod("shop/cart-1", "10.1.0.77"), CART, &[(80, 8080)])
}

/// The table's cluster with further resources; later ones replace earlier ones of the same name.
pub(super) fn world(more: impl IntoIterator<Item = wire::Address>) -> World {
    World::new().with([address(web()), service_address(cart()), address(cart_endpoint())]).with(more)
}

pub(super) fn source_of(world: &World, key: &str) -> Arc<Workload> {
    world.snapshot().workload_by_uid(&format!("Kubernetes//Pod/{key}")).unwrap().clone()
}

/// The decision for a connection from `web`, with the first choice of every random pick.
pub(super) fn decide(world: &World, dst: &str) -> Result<Outbound, Refusal> {
    decide_from(world, "shop/web", dst)
}

pub(super) fn decide_from(world: &World, source: &str, dst: &str) -> Result<Outbound, Refusal> {
    let workload = source_of(world, source);
    let source = Source { addr: SocketAddr::new(workload.ips[0], 40_000), workload: &workload };
    outbound(&world.snapshot(), &source, dst.parse().unwrap(), &mut |_| 0)
}

/// `kind dial authority` of a decision.
pub(super) fn brief(decision: &Result<Outbound, Refusal>) -> String {
    match decision {
        Ok(Outbound { path: Path::Hbone { dial, authority, .. }, .. }) => format!("hbone {dial} {authority}"),
        Ok(Outbound { path: Path::DoubleHbone { gateway, authority, .. }, .. }) => {
            format!("double {gateway} {authority}")
        }
        Ok(Outbound { path: Path::Plain { dial }, .. }) => format!("plain {dial}"),
        Ok(Outbound { path: Path::Passthrough { dial }, .. }) => format!("passthrough {dial}"),
        Err(refusal) => format!("refused: {refusal}"),
    }
}

pub(super) fn expected(decision: &Result<Outbound, Refusal>) -> Vec<String> {
    match decision {
        Ok(Outbound { path: Path::Hbone { expected, .. }, .. }) => expected.iter().map(ToString::to_string).collect(),
        other => panic!("{other:?}"),
    }
}
