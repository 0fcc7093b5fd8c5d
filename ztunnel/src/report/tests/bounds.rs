//! What the report costs, and that it stays within its bounds.

use super::*;
use crate::report::flow::Flow;
use crate::report::labels::Labels;
use crate::report::local::{FLOW_IDLE, FLOWS_MAX};
use crate::report::series::SERIES_IDLE;

/// Connections from peers that only their baggage names.
fn from_strangers(count: usize) -> impl Iterator<Item = ConnectionInfo> {
    let info = info(Direction::Inbound);
    (0..count).map(move |n| {
        let baggage = BaggagePeer { workload_name: Some(format!("peer-{n}")), ..BaggagePeer::default() };
        ConnectionInfo { source: Peer { workload: None, baggage: Some(baggage), identity: None }, ..info.clone() }
    })
}

pub(super) fn opened_series(registry: &Registry) -> Vec<String> {
    let text = registry.encode();
    text.lines().filter(|line| line.starts_with("istio_tcp_connections_opened_total{")).map(str::to_owned).collect()
}

#[test]
fn a_connection_is_small() {
    let counters = 2 * size_of::<usize>();
    let size = size_of::<Connection>() + size_of::<Live>() + counters;
    assert!(size <= 200, "{size}");
}

#[test]
fn what_the_log_does_not_show_is_not_kept_for_it() {
    for (filter, outcome) in [
        ("access=off", Outcome::Failed { flag: ResponseFlag::Connect, error: "e".into() }),
        ("error", Outcome::Complete),
    ] {
        let report = Report::new(&Registry::new(), false);
        let lines = logged(filter, || {
            let connection = report.opened(info(Direction::Inbound));
            let live = Arc::downgrade(&connection.live);
            connection.closed(outcome);
            assert!(live.upgrade().is_none(), "queued although {filter}");
            report.refused(Direction::Inbound, "10.0.0.1:1".parse().unwrap(), "10.0.0.1:2".parse().unwrap(), "e");
        });
        assert_eq!(lines, <[&str; 0]>::default());
    }
}

#[test]
fn pods_of_one_deployment_share_a_series() {
    let registry = Registry::new();
    let report = Report::new(&registry, false);
    // Another record of the same names each time, as updates make them.
    for _ in 0..3 {
        report.opened(info(Direction::Inbound)).closed(Outcome::Complete);
    }
    let lines = opened_series(&registry);
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].ends_with("} 3"), "{lines:?}");
}

#[test]
fn what_workers_count_apart_is_summed_up() {
    let registry = Registry::new();
    let report = Report::new(&registry, false);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..100 {
                    let connection = report.opened(info(Direction::Outbound));
                    connection.received(10);
                    connection.closed(Outcome::Complete);
                }
            });
        }
    });
    let text = registry.encode();
    for (name, value) in [("connections_opened", 400), ("connections_closed", 400), ("received_bytes", 4000)] {
        assert!(text.contains(&series(name, "source", "-", value)), "{text}");
    }
}

#[test]
fn counters_do_not_go_back_when_a_flow_is_forgotten() {
    let registry = Registry::new();
    let report = Report::new(&registry, false);
    let snapshot = world().snapshot();
    let (inner, info) = (&report.inner, info_of(Direction::Inbound, &snapshot));
    // The state and this test know the record as well.
    let source = info.source.workload.clone().unwrap();
    let idle = Arc::strong_count(&source) - 1;
    let open = report.opened(info.clone());
    report.opened(info).closed(Outcome::Complete);
    let later = inner.started + FLOW_IDLE + Duration::from_secs(1);
    inner.sweep(&snapshot, later);
    assert!(Arc::strong_count(&source) > idle, "a connection is open");
    open.closed(Outcome::Complete);
    inner.sweep(&snapshot, later);
    assert_eq!(Arc::strong_count(&source), idle, "the records of an idle flow are let go");
    assert!(opened_series(&registry)[0].ends_with("} 2"));
    inner.sweep(&snapshot, later + SERIES_IDLE);
    assert_eq!(opened_series(&registry), <[&str; 0]>::default());
}

#[test]
fn labels_are_moved_once_and_their_series_counts_on() {
    let (registry, snapshot) = (Registry::new(), world().snapshot());
    let report = Report::new(&registry, false);
    let table = &report.inner.table;
    let info = info_of(Direction::Inbound, &snapshot);
    report.opened(info.clone()).closed(Outcome::Complete);
    let before = table.totals();
    assert!(table.is_unsettled());
    assert_eq!(std::thread::scope(|scope| scope.spawn(|| table.settle()).join().unwrap()), 1);
    assert!(!table.is_unsettled());
    assert_eq!(table.settle(), 0);
    let after = table.totals();
    assert!(!Arc::ptr_eq(&before[0].0, &after[0].0) && before == after, "{after:?}");
    // Of what the state holds there is no second copy, neither now nor with the old labels.
    let name = &snapshot.workload_by_uid("Kubernetes//Pod/shop/web").unwrap().workload_name;
    let holders = Arc::strong_count(name);
    drop(before);
    assert!(Arc::strong_count(name) < holders, "moved labels share the name");
    report.opened(info).closed(Outcome::Complete);
    let lines = opened_series(&registry);
    assert!(lines.len() == 1 && lines[0].ends_with("} 2"), "{lines:?}");
}

#[test]
fn moved_labels_share_nothing_with_those_of_a_stranger_and_all_with_the_state() {
    let (snapshot, revision) = (world().snapshot(), Some("v2".to_owned()));
    let info = info_of(Direction::Inbound, &snapshot);
    let baggage = BaggagePeer { workload_name: Some("far".into()), canonical_revision: revision, ..Default::default() };
    let source = Peer { workload: None, baggage: Some(baggage), identity: None };
    let labels = Labels::of(&Flow::new(ConnectionInfo { source, ..info }));
    let moved = labels.moved();
    assert_eq!(moved, labels);
    let shared: Vec<_> = labels.all().filter(|text| moved.all().any(|other| Arc::ptr_eq(text, other))).collect();
    assert!(!shared.iter().any(|text| ["far", "v2"].contains(&&***text)), "{shared:?}");
    assert!(!shared.iter().any(|text| text.starts_with("spiffe:")), "{shared:?}");
    assert!(shared.iter().any(|text| &***text == "cart-1"), "{shared:?}");
}

#[test]
fn series_are_bounded_and_what_finds_no_room_is_counted_together() {
    const MAX: usize = 3;
    let (table, now) = (Table::new(MAX), Instant::now());
    let opened = |info: ConnectionInfo, now| {
        let flow = Flow::new(info);
        flow.counts.opened.store(1, Ordering::Relaxed);
        table.join(&flow, now);
    };
    from_strangers(MAX + 2).for_each(|info| opened(info, now));
    let counted = || {
        let mut counts: Vec<_> = table.totals().iter().map(|(_, totals)| totals.opened).collect();
        counts.sort_unstable();
        counts
    };
    assert_eq!(counted(), [1, 1, 1, 2], "the last two share a series");
    let crowd = Labels::crowd(Direction::Inbound);
    assert!(table.totals().iter().any(|(labels, totals)| **labels == crowd && totals.opened == 2));
    // A minute after they ended, those of the first make room for others.
    table.sweep(&Snapshot::default(), now);
    from_strangers(MAX + 3).skip(MAX + 2).for_each(|info| opened(info, now + Duration::from_secs(61)));
    assert_eq!(counted(), [1]);
}

#[test]
fn a_worker_remembers_a_bounded_number_of_flows() {
    let registry = Registry::new();
    let report = Report::new(&registry, false);
    let open: Vec<_> = from_strangers(FLOWS_MAX + 2).map(|info| report.opened(info)).collect();
    assert_eq!(report.connections(None)["connections"].as_array().unwrap().len(), open.len());
    drop(open);
    assert_eq!(opened_series(&registry).len(), FLOWS_MAX + 2);
    let text = registry.encode();
    assert_eq!(text.lines().filter(|line| line.contains("closed_total{")).count(), FLOWS_MAX + 2);
}
