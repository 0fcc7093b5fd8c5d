//! What the proxy knows, in the shape that `meltemi proxy-config` reads. No keys are in it, and no list is without a
//! bound: `leftOut` says how much is missing.

mod certificate;
mod cluster;
mod listener;
mod route;

use std::sync::Arc;

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use serde_json::{Value, json};

use crate::endpoints::ServiceView;
use crate::shared::Shared;
use crate::snapshot::{BadResource, Chain, Snapshot};
use crate::start::VERSION;

/// Everything, as JSON text. Rows are made one after the other: there may be tens of thousands.
pub(super) fn dump(shared: &Shared) -> serde_json::Result<Vec<u8>> {
    let snapshot = shared.snapshots.current();
    let mut text = Vec::new();
    let mut serializer = serde_json::Serializer::pretty(&mut text);
    let mut map = serializer.serialize_map(None)?;
    map.serialize_entry("version", &json!({"version": VERSION, "component": "waypoint"}))?;
    map.serialize_entry("config", &shared.config.to_json())?;
    map.serialize_entry("snapshot", &snapshot.version)?;
    map.serialize_entry("proxy", &proxy(&snapshot))?;
    map.serialize_entry("refused", &Rows(|| refused(&snapshot)))?;
    map.serialize_entry("impaired", &Rows(|| impaired(&snapshot)))?;
    map.serialize_entry("listeners", &Rows(|| listener::rows(shared, &snapshot).take(LISTENERS_MAX)))?;
    map.serialize_entry("routes", &Rows(|| route::rows(&snapshot).take(ROUTES_MAX)))?;
    let pools = cluster::all(shared, &snapshot);
    let budget = cluster::budget();
    let shown = || {
        let some = pools.iter().take(CLUSTERS_MAX);
        some.map(|(cluster, backend)| cluster::row(cluster, backend.as_ref(), &budget, false))
    };
    map.serialize_entry("clusters", &Rows(shown))?;
    let views = shared.endpoints.views();
    map.serialize_entry("services", &Rows(|| views.iter().take(CLUSTERS_MAX).map(|view| service(view))))?;
    let certificates = shared.own.certificates().list();
    let own = || certificates.iter().map(|(identity, state)| certificate::own(&identity.to_string(), state));
    map.serialize_entry("certificates", &Rows(own))?;
    let left_out = json!({
        "listeners": (snapshot.chains().len() + 1).saturating_sub(LISTENERS_MAX),
        "routes": route::count(&snapshot).saturating_sub(ROUTES_MAX),
        "clusters": pools.len().saturating_sub(CLUSTERS_MAX),
        "services": views.len().saturating_sub(CLUSTERS_MAX),
    });
    map.serialize_entry("leftOut", &left_out)?;
    map.end()?;
    Ok(text)
}

/// Pools with their endpoints and all their counters, as JSON text.
pub(super) fn clusters(shared: &Shared) -> serde_json::Result<Vec<u8>> {
    let snapshot = shared.snapshots.current();
    let pools = cluster::all(shared, &snapshot);
    let budget = cluster::budget();
    let shown = || {
        let some = pools.iter().take(CLUSTERS_MAX);
        some.map(|(cluster, backend)| cluster::row(cluster, backend.as_ref(), &budget, true))
    };
    serde_json::to_vec_pretty(&Rows(shown))
}

/// A list whose rows are made while they are written.
struct Rows<F>(F);

impl<F: Fn() -> I, I: Iterator<Item = Value>> Serialize for Rows<F> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq((self.0)())
    }
}

fn proxy(snapshot: &Snapshot) -> Value {
    let Some(proxy) = &snapshot.proxy else { return Value::Null };
    json!({
        "namespace": &*proxy.namespace,
        "name": &*proxy.name,
        "role": format!("{:?}", proxy.role),
        "servesWorkloads": proxy.serves_workloads,
        "policies": proxy.authorizations.iter().map(|one| format!("{}/{}", one.namespace, one.name)).collect::<Vec<_>>(),
        "refuseAll": proxy.refuse_all.as_deref(),
        "trustDomains": proxy.settings.trust_domains.iter().map(ToString::to_string).collect::<Vec<_>>(),
    })
}

/// What the control plane sent and could not be used; what was there before is still in force.
fn refused(snapshot: &Snapshot) -> impl Iterator<Item = Value> + '_ {
    let some = snapshot.refused().iter().take(REFUSED_MAX);
    some.map(|(name, reason)| json!({"resource": &**name, "reason": cut(reason)}))
}

/// Parts of what the control plane sent that could not be used; the rest of their resources is in force.
fn impaired(snapshot: &Snapshot) -> impl Iterator<Item = Value> + '_ {
    let all = snapshot.impaired().iter().flat_map(|(name, parts)| parts.iter().map(move |part| (name, part)));
    let row = |(name, part): (&Arc<str>, &BadResource)| json!({"resource": &**name, "reason": cut(&part.to_string())});
    all.take(REFUSED_MAX).map(row)
}

fn service(view: &ServiceView) -> Value {
    let set = view.endpoints();
    json!({
        "service": view.key().to_string(),
        "version": set.version,
        "exists": set.exists,
        "endpoints": set.list.len(),
        "healthy": set.list.iter().filter(|endpoint| endpoint.healthy).count(),
    })
}

/// Names of the policies that apply.
fn policies(chain: &Chain) -> Vec<String> {
    chain.policies.names().take(POLICIES_MAX).map(ToString::to_string).collect()
}

/// Texts that come from objects may be long.
fn cut(text: &str) -> String {
    match text.char_indices().nth(TEXT_CHARS_MAX) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// Entry points that are shown.
const LISTENERS_MAX: usize = 10_000;
/// Matches of routes that are shown.
const ROUTES_MAX: usize = 20_000;
/// Pools that are shown, and services.
const CLUSTERS_MAX: usize = 10_000;
/// Endpoints that all pools together show.
const ENDPOINTS_MAX: usize = 50_000;
/// Refused resources that are shown.
const REFUSED_MAX: usize = 1_000;
/// Policies that are named for one entry point.
const POLICIES_MAX: usize = 50;
/// Characters of one text.
const TEXT_CHARS_MAX: usize = 1_000;
