//! The connections that are open now, each with its owner, its ends and what it has moved.

use serde_json::{Map, Value, json};

use super::access::Live;
use super::flow::{End, Flow};
use super::{Direction, Report};

/// Connections shown at once; the answer says when there were more.
pub const CONNECTIONS_SHOWN_MAX: usize = 10_000;

impl Report {
    /// Open connections, oldest first, as `{"connections": [...], "leftOut": n}`. `pod` limits them to those of one pod,
    /// as namespace and name.
    #[must_use]
    pub fn connections(&self, pod: Option<(&str, &str)>) -> Value {
        let wanted = |live: &Live| {
            pod.is_none_or(|(namespace, name)| {
                let owner = owner(&live.flow);
                owner.namespace() == Some(namespace) && owner.name() == Some(name)
            })
        };
        let mut all: Vec<_> = self.inner.locals().iter().flat_map(|local| local.live(wanted)).collect();
        all.sort_by_key(|live| live.opened);
        let left_out = all.len().saturating_sub(CONNECTIONS_SHOWN_MAX);
        let shown: Vec<_> = all.iter().take(CONNECTIONS_SHOWN_MAX).map(|live| show(live)).collect();
        json!({"connections": shown, "leftOut": left_out})
    }
}

/// The pod of this node.
fn owner(flow: &Flow) -> &End {
    match flow.direction {
        Direction::Inbound => &flow.destination,
        Direction::Outbound => &flow.source,
    }
}

fn show(live: &Live) -> Value {
    let Flow { source, destination, service, direction, mutual_tls, .. } = &*live.flow;
    let (sent, received) = live.sent_and_received();
    let owner = owner(&live.flow);
    let mut shown = json!({
        "pod": {"namespace": owner.namespace(), "name": owner.name()},
        "direction": direction.as_str(),
        "src": live.src_addr.to_string(),
        "dst": live.dst_addr.to_string(),
        "source": end(source),
        "destination": end(destination),
        "mutualTls": mutual_tls,
        "bytesSent": sent,
        "bytesReceived": received,
        "ageMs": u64::try_from(live.opened.elapsed().as_millis()).unwrap_or(u64::MAX),
    });
    if let Some(shown) = shown.as_object_mut() {
        set(shown, "hboneAddr", live.hbone_addr.as_deref());
        set(shown, "service", service.as_ref().map(|service| service.key.to_string()).as_deref());
    }
    shown
}

fn end(end: &End) -> Value {
    let mut shown = Map::new();
    set(&mut shown, "workload", end.name());
    set(&mut shown, "namespace", end.namespace());
    set(&mut shown, "identity", end.identity.as_ref().map(ToString::to_string).as_deref());
    set(&mut shown, "cluster", end.cluster());
    shown.into()
}

fn set(object: &mut Map<String, Value>, name: &str, value: Option<&str>) {
    if let Some(value) = value {
        object.insert(name.to_owned(), value.into());
    }
}
