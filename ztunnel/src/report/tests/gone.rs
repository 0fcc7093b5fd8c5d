//! What is kept of workloads that have left the state.

use super::bounds::opened_series;
use super::*;
use crate::report::series::SERIES_GONE;

const WEB: &str = "Kubernetes//Pod/shop/web";
const CART: &str = "Kubernetes//Pod/shop/cart-1";

/// As pods of one Deployment are called.
fn replica(name: &str, ip: &str) -> mesh_wire::workload::Address {
    let mut replica = pod(&format!("shop/{name}"), ip);
    replica.workload_name = "cart-1".into();
    address(replica)
}

#[test]
fn a_series_goes_a_minute_after_one_of_its_ends() {
    type Change = fn(&mut World);
    let table: [(&str, Change, bool); 7] = [
        ("nothing changed", |_| {}, true),
        ("the source went", |world| world.remove(&[WEB]), false),
        ("the destination went", |world| world.remove(&[CART]), false),
        ("both went", |world| world.remove(&[WEB, CART]), false),
        ("a record was replaced", |world| world.add([address(pod("shop/web", "10.1.0.6"))]), true),
        (
            "another pod of the same Deployment is there",
            |world| {
                world.add([replica("cart-2", "10.1.0.78")]);
                world.remove(&[CART]);
            },
            true,
        ),
        (
            "another namespace has the name",
            |world| {
                world.add([address(pod("other/web", "10.1.0.9"))]);
                world.remove(&[WEB]);
            },
            false,
        ),
    ];
    for (what, change, kept) in table {
        let (registry, mut world) = (Registry::new(), world());
        let report = Report::new(&registry, false);
        report.opened(info_of(Direction::Outbound, &world.snapshot())).closed(Outcome::Complete);
        change(&mut world);
        let (snapshot, left) = (world.snapshot(), Instant::now());
        report.inner.sweep(&snapshot, left);
        let almost = left + SERIES_GONE - Duration::from_millis(1);
        report.inner.sweep(&snapshot, almost);
        assert_eq!(opened_series(&registry).len(), 1, "{what}: too early for the last scrape");
        report.inner.sweep(&snapshot, left + SERIES_GONE);
        assert_eq!(opened_series(&registry).len(), usize::from(kept), "{what}");
    }
}

#[test]
fn who_is_known_from_baggage_only_cannot_leave_the_state() {
    let (registry, world) = (Registry::new(), world());
    let report = Report::new(&registry, false);
    let baggage =
        BaggagePeer { workload_name: Some("far".into()), namespace: Some("shop".into()), ..BaggagePeer::default() };
    let source = Peer { workload: None, baggage: Some(baggage), identity: None };
    let info = info_of(Direction::Inbound, &world.snapshot());
    report.opened(ConnectionInfo { source, ..info }).closed(Outcome::Complete);
    // The flow is idle for long at first, the series then.
    let later = Instant::now() + local::FLOW_IDLE;
    report.inner.sweep(&world.snapshot(), later);
    report.inner.sweep(&world.snapshot(), later + 2 * SERIES_GONE);
    assert_eq!(opened_series(&registry).len(), 1);
}

#[test]
fn an_open_connection_keeps_its_series_and_who_comes_back_is_in_time() {
    let (registry, mut world) = (Registry::new(), world());
    let report = Report::new(&registry, false);
    let open = report.opened(info_of(Direction::Inbound, &world.snapshot()));
    world.remove(&[WEB]);
    let now = Instant::now();
    report.inner.sweep(&world.snapshot(), now);
    report.inner.sweep(&world.snapshot(), now + 2 * SERIES_GONE);
    assert_eq!(opened_series(&registry).len(), 1, "a connection is open");
    open.closed(Outcome::Complete);
    report.inner.sweep(&world.snapshot(), now + 2 * SERIES_GONE);
    world.add([address(pod("shop/web", "10.1.0.5"))]);
    report.inner.sweep(&world.snapshot(), now + 3 * SERIES_GONE);
    report.opened(info_of(Direction::Inbound, &world.snapshot())).closed(Outcome::Complete);
    let [line] = &opened_series(&registry)[..] else { panic!("not one series") };
    assert!(line.ends_with("} 2"), "started anew: {line}");
}

#[test]
fn a_flow_whose_records_were_replaced_is_let_go_at_the_next_sweep() {
    let (registry, mut world) = (Registry::new(), world());
    let report = Report::new(&registry, false);
    let info = info_of(Direction::Outbound, &world.snapshot());
    let (old, kept) = (info.source.workload.clone().unwrap(), info.destination.workload.clone().unwrap());
    report.opened(info).closed(Outcome::Complete);
    let current = Arc::strong_count(&kept);
    report.inner.sweep(&world.snapshot(), Instant::now());
    assert_eq!(Arc::strong_count(&kept), current, "the next connection is of the same flow");
    world.add([address(pod("shop/web", "10.1.0.5"))]);
    report.inner.sweep(&world.snapshot(), Instant::now());
    assert_eq!(Arc::strong_count(&old), 1, "nobody needs the old record");
    assert!(opened_series(&registry)[0].ends_with("} 1"), "what it counted stays");
}
