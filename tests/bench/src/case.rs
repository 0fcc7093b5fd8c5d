//! What is measured, and the bars that must be cleared.

use anyhow::{Result, ensure};

use crate::args::Shape;
use crate::l7::{Place, Requests};

/// One case.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) bars: &'static [Bar],
}

#[derive(Clone, Copy)]
pub(crate) enum Kind {
    Traffic(Traffic),
    Memory(Memory),
    /// The control plane with so many pods.
    Control(usize),
    /// A layer-7 proxy.
    Requests(Requests),
}

/// Connections and what they carry.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Traffic {
    pub(crate) shape: Shape,
    pub(crate) connections: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Memory {
    /// Fresh, with one pod; then with many idle connections.
    Connections(usize),
    /// With so many workloads in the local file, compared with two.
    Workloads(usize),
    /// Some time after bulk traffic on so many connections, and wake-ups then.
    AfterBulk(usize),
}

/// A bound on one metric, and what the peer reached on the reference machine.
#[derive(Clone, Copy)]
pub(crate) struct Bar {
    pub(crate) metric: Metric,
    /// What must be reached; `None`: for comparison only.
    pub(crate) limit: Option<f64>,
    pub(crate) peer: Option<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Metric {
    /// Ratio to direct of Gbit/s, requests/s or connections/s. Higher is better.
    Rate,
    /// Ratio to direct of the machine's CPU per unit.
    Cpu,
    /// Ratio to direct of the median latency.
    P50,
    /// Kilobytes of one process.
    IdleKb,
    ConnectionKb,
    WorkloadKb,
    RestedKb,
    /// Each second, of one process.
    Wakeups,
    /// Requests for each second of the proxy's CPU, compared with the peer. Higher is better.
    L7Rate,
    /// 99th percentile, compared with the peer.
    L7Latency,
    /// Kilobytes of the layer-7 proxy before a load.
    L7IdleKb,
    /// Seconds until the control plane serves.
    SnapshotS,
    /// Megabytes of the control plane.
    ControlMb,
    /// Milliseconds from a change to the last proxy.
    LastProxyMs,
    /// CPU of a change, compared with the smallest cluster.
    ChangeRatio,
}

impl Metric {
    /// Whether `value` is as good as `limit`.
    pub(crate) fn clears(self, value: f64, limit: f64) -> bool {
        if matches!(self, Self::Rate | Self::L7Rate) { value >= limit } else { value <= limit }
    }
}

const fn must(metric: Metric, limit: f64, peer: f64) -> Bar {
    Bar { metric, limit: Some(limit), peer: Some(peer) }
}

const fn known(metric: Metric, peer: f64) -> Bar {
    Bar { metric, limit: None, peer: Some(peer) }
}

const fn traffic(name: &'static str, shape: Shape, connections: usize, bars: &'static [Bar]) -> Case {
    Case { name, kind: Kind::Traffic(Traffic { shape, connections }), bars }
}

const fn memory(name: &'static str, memory: Memory, bars: &'static [Bar]) -> Case {
    Case { name, kind: Kind::Memory(memory), bars }
}

const fn own(metric: Metric, limit: f64) -> Bar {
    Bar { metric, limit: Some(limit), peer: None }
}

const fn control(name: &'static str, pods: usize, bars: &'static [Bar]) -> Case {
    Case { name, kind: Kind::Control(pods), bars }
}

const fn requests(name: &'static str, shape: Shape, connections: usize, routes: usize, bars: &'static [Bar]) -> Case {
    Case { name, kind: Kind::Requests(Requests { shape, connections, routes, place: Place::Gateway }), bars }
}

/// The full way through the mesh.
const fn path(name: &'static str, shape: Shape, connections: usize) -> Case {
    Case { name, kind: Kind::Requests(Requests { shape, connections, routes: 2, place: Place::Waypoint }), bars: &[] }
}

/// Ahead of the peer in CPU, not behind it in latency.
const AHEAD: &[Bar] = &[own(Metric::L7Rate, 1.5), own(Metric::L7Latency, 1.0)];

const CASES: [Case; 27] = [
    requests("l7-c1", Shape::Keepalive, 1, 2, &[]),
    requests("l7-c32", Shape::Keepalive, 32, 2, AHEAD),
    requests("l7-c256", Shape::Keepalive, 256, 2, AHEAD),
    requests("l7-http2", Shape::Http2, 4, 2, AHEAD),
    requests("l7-conn16", Shape::Connect, 16, 2, &[]),
    requests("l7-routes-1000", Shape::Keepalive, 32, 1_000, &[own(Metric::L7IdleKb, 15.0 * 1024.0)]),
    requests("l7-routes-10000", Shape::Keepalive, 32, 10_000, &[]),
    path("l7-path-c1", Shape::Keepalive, 1),
    path("l7-path-c32", Shape::Keepalive, 32),
    path("l7-path-c256", Shape::Keepalive, 256),
    path("l7-path-http2", Shape::Http2, 4),
    path("l7-path-conn16", Shape::Connect, 16),
    traffic("bulk1-up", Shape::Up, 1, &[must(Metric::Rate, 0.43, 0.33), must(Metric::Cpu, 2.7, 3.6)]),
    traffic("bulk8-up", Shape::Up, 8, &[known(Metric::Rate, 0.25), known(Metric::Cpu, 4.7)]),
    traffic("bulk1-down", Shape::Down, 1, &[known(Metric::Rate, 0.34)]),
    traffic("bulk8-down", Shape::Down, 8, &[]),
    traffic("c1", Shape::Keepalive, 1, &[must(Metric::P50, 1.5, 1.5), known(Metric::Rate, 0.61)]),
    traffic("c32", Shape::Keepalive, 32, &[must(Metric::Rate, 0.36, 0.24), must(Metric::Cpu, 2.6, 3.8)]),
    traffic("c256", Shape::Keepalive, 256, &[known(Metric::Rate, 0.31)]),
    traffic("conn1", Shape::Connect, 1, &[must(Metric::Rate, 0.24, 0.15)]),
    traffic("conn16", Shape::Connect, 16, &[must(Metric::Rate, 0.28, 0.17)]),
    memory(
        "memory-connections",
        Memory::Connections(1_000),
        &[must(Metric::IdleKb, 12.0 * 1024.0, 17.0 * 1024.0), must(Metric::ConnectionKb, 2.5, 5.3)],
    ),
    memory("memory-workloads", Memory::Workloads(10_000), &[must(Metric::WorkloadKb, 0.8, 1.7)]),
    memory(
        "memory-rested",
        Memory::AfterBulk(8),
        &[must(Metric::RestedKb, 20.0 * 1024.0, 47.0 * 1024.0), must(Metric::Wakeups, 1.0, 99.0)],
    ),
    control("control-1000", 1_000, &[]),
    control("control-10000", 10_000, &[]),
    control(
        "control-50000",
        50_000,
        &[
            own(Metric::SnapshotS, 10.0),
            own(Metric::ControlMb, 600.0),
            own(Metric::LastProxyMs, 200.0),
            own(Metric::ChangeRatio, 2.0),
        ],
    ),
];

/// The cases whose names start with one of `prefixes`; all if there are none.
pub(crate) fn selected(prefixes: &[String]) -> Result<Vec<&'static Case>> {
    let wanted = |case: &&Case| prefixes.is_empty() || prefixes.iter().any(|prefix| case.name.starts_with(prefix));
    let found: Vec<_> = CASES.iter().filter(wanted).collect();
    ensure!(!found.is_empty(), "--only {prefixes:?}: no case starts like that; there are {:?}", CASES.map(|c| c.name));
    Ok(found)
}
