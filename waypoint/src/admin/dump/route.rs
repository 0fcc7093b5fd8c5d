//! What happens to requests and connections, one row per match, in the order in which they count.

use mesh_route::{Entry, Rule, Table};
use serde_json::{Map, Value, json};

use super::{cut, policies};
use crate::describe;
use crate::snapshot::{Chain, L4Rule, Protocol, Snapshot};

/// All of them, entry point by entry point.
pub(super) fn rows(snapshot: &Snapshot) -> impl Iterator<Item = Value> + '_ {
    snapshot.chains().values().flat_map(|chain| of_chain(chain))
}

/// How many there are.
pub(super) fn count(snapshot: &Snapshot) -> usize {
    let of_chain = |chain: &Chain| {
        let http = chain.http.as_ref().map_or(0, |table| table.entries());
        http + chain.tls_rules.len() + chain.tcp_rules.len() + usize::from(rest(chain).is_some())
    };
    snapshot.chains().values().map(|chain| of_chain(chain)).sum()
}

fn of_chain(chain: &Chain) -> impl Iterator<Item = Value> + '_ {
    let http = chain.http.iter().flat_map(|table| {
        let hosts = table.hosts().flat_map(|(names, entries)| (1_usize..).zip(entries).map(move |one| (names, one)));
        hosts.map(|(names, (order, entry))| http(chain, table, names, order, entry))
    });
    let tls = (1_usize..).zip(&*chain.tls_rules).map(|(order, one)| {
        let names: Vec<&str> = one.hostnames.iter().map(|name| &**name).collect();
        let names = if names.is_empty() { vec!["*"] } else { names };
        bytes(chain, "tls", &names, order, "server name", &one.rule)
    });
    let tcp = (1_usize..)
        .zip(&*chain.tcp_rules)
        .map(|(order, rule)| bytes(chain, "tcp", &["*"], order, &connection(rule), rule));
    http.chain(tls).chain(tcp).chain(rest(chain))
}

fn http(chain: &Chain, table: &Table, names: &[String], order: usize, entry: &Entry) -> Value {
    let Some(rule) = table.rules().get(entry.rule()) else { return Value::Null };
    let mut row = head(chain, "http", names, order, &entry.to_string());
    row.insert("matchName".to_owned(), entry.name().into());
    described(chain, rule, &mut row);
    row.into()
}

fn described(chain: &Chain, rule: &Rule, row: &mut Map<String, Value>) {
    let (action, text) = describe::action(rule);
    row.extend([
        ("route".to_owned(), describe::route(rule).into()),
        ("origin".to_owned(), json!(rule.origin)),
        ("action".to_owned(), action.into()),
        ("answer".to_owned(), text.as_deref().map(cut).into()),
        ("backends".to_owned(), describe::backends(chain, rule).into()),
        ("effects".to_owned(), describe::effects(chain, rule).into()),
        ("timeoutMs".to_owned(), json!(rule.timeout.map(|timeout| timeout.as_millis()))),
        ("retries".to_owned(), json!(rule.retry.as_ref().map(|retry| retry.attempts))),
    ]);
}

fn bytes(chain: &Chain, kind: &str, names: &[impl AsRef<str>], order: usize, wants: &str, rule: &L4Rule) -> Value {
    let mut row = head(chain, kind, names, order, wants);
    let total: u64 = rule.backends.iter().map(|one| u64::from(one.weight)).sum();
    let backends = rule.backends.iter().map(|one| match &one.target {
        Ok(index) => match chain.backend(*index) {
            Some(backend) => describe::target(backend, one.weight, total),
            None => describe::unusable(one.weight, total, 503, "no such backend"),
        },
        Err(reason) => json!({"weight": one.weight, "reason": &**reason}),
    });
    let backends: Vec<Value> = backends.collect();
    row.extend([
        ("route".to_owned(), route(&rule.origin).into()),
        ("action".to_owned(), if backends.is_empty() { "close" } else { "forward" }.into()),
        ("backends".to_owned(), backends.into()),
    ]);
    row.into()
}

/// `kind/namespace/name/rule` as rules of HTTP are named.
fn route(origin: &str) -> String {
    match origin.split('/').collect::<Vec<_>>().as_slice() {
        [kind, namespace, name, rule] => format!("{kind} {namespace}/{name} rule {rule}"),
        _ => origin.to_owned(),
    }
}

/// What is left for the default backend, where there is one.
fn rest(chain: &Chain) -> Option<Value> {
    let backend = chain.default_backend.and_then(|index| chain.backend(index))?;
    let wants = match (chain.protocol, chain.http.is_some()) {
        // The table keeps every request.
        (protocol, true) if protocol.is_http() => return None,
        (Protocol::Detect, true) => "connections that are not HTTP",
        (protocol, false) if protocol.is_http() => "every request: no route is attached",
        _ => "every other connection",
    };
    if !chain.protocol.is_http() && !chain.tcp_rules.is_empty() {
        return None;
    }
    let mut row = head(chain, if chain.protocol.is_http() { "http" } else { "tcp" }, &["*"], 1, wants);
    row.extend([
        ("route".to_owned(), "".into()),
        ("action".to_owned(), "forward".into()),
        ("backends".to_owned(), json!([describe::only(backend)])),
    ]);
    Some(row.into())
}

/// What all rows have.
fn head(chain: &Chain, kind: &str, names: &[impl AsRef<str>], order: usize, wants: &str) -> Map<String, Value> {
    let hosts: Vec<&str> = names.iter().take(HOSTS_MAX).map(AsRef::as_ref).collect();
    let port = match &chain.entry {
        crate::snapshot::Entry::Port(entry) => entry.port,
        crate::snapshot::Entry::Listener(entry) => entry.port,
        crate::snapshot::Entry::Workload(address) => address.port(),
    };
    Map::from_iter([
        ("listener".to_owned(), describe::name(chain).into()),
        ("resource".to_owned(), (*chain.name).into()),
        ("port".to_owned(), port.into()),
        ("kind".to_owned(), kind.into()),
        ("order".to_owned(), order.into()),
        ("hosts".to_owned(), json!(hosts)),
        ("hostsLeftOut".to_owned(), names.len().saturating_sub(HOSTS_MAX).into()),
        ("match".to_owned(), cut(wants).into()),
        ("policies".to_owned(), policies(chain).into()),
        ("refuseAll".to_owned(), chain.refuse_all.as_deref().into()),
    ])
}

fn connection(rule: &L4Rule) -> String {
    let mut wants = Vec::new();
    if !rule.subnets.is_empty() {
        let subnets: Vec<String> = rule.subnets.iter().take(HOSTS_MAX).map(ToString::to_string).collect();
        wants.push(format!("to {}", subnets.join(" or ")));
    }
    wants.extend(rule.port.map(|port| format!("port is {port}")));
    if wants.is_empty() { "every connection".to_owned() } else { wants.join(", ") }
}

/// Host names of one row.
const HOSTS_MAX: usize = 20;
