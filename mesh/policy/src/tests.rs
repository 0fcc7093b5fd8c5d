//! Must-pass rows of the layer-4 policy specification, decoding leniency, and properties.

#![allow(clippy::indexing_slicing)] // reason: tests

mod properties;
mod rows;
mod suggestions;

use std::sync::Arc;

use mesh_wire::security::{self as wire, string_match::MatchType};

use crate::{Connection, Policy};

pub(crate) fn exact(text: &str) -> wire::StringMatch {
    wire::StringMatch { match_type: Some(MatchType::Exact(text.to_owned())) }
}

pub(crate) fn presence() -> wire::StringMatch {
    wire::StringMatch { match_type: Some(MatchType::Presence(())) }
}

pub(crate) fn net(text: &str) -> wire::Address {
    let net: ipnet::IpNet = text.parse().unwrap();
    wire::Address { address: mesh_core::addr::ip_to_bytes(net.addr()), length: u32::from(net.prefix_len()) }
}

pub(crate) fn rule(clauses: Vec<Vec<wire::Match>>) -> wire::Rule {
    wire::Rule { clauses: clauses.into_iter().map(|matches| wire::Clause { matches }).collect() }
}

/// A rule of one clause of one match.
pub(crate) fn one(m: wire::Match) -> wire::Rule {
    rule(vec![vec![m]])
}

pub(crate) fn message(key: &str, action: wire::Action, rules: Vec<wire::Rule>) -> wire::Authorization {
    let (namespace, name) = key.split_once('/').unwrap();
    wire::Authorization {
        name: name.to_owned(),
        namespace: namespace.to_owned(),
        scope: wire::Scope::Namespace.into(),
        action: action.into(),
        rules,
        ..Default::default()
    }
}

pub(crate) fn decode(message: wire::Authorization) -> Arc<Policy> {
    let key = format!("{}/{}", message.namespace, message.name);
    Arc::new(Policy::decode(&key, message).unwrap())
}

pub(crate) fn allow(key: &str, rules: Vec<wire::Rule>) -> Arc<Policy> {
    decode(message(key, wire::Action::Allow, rules))
}

pub(crate) fn deny(key: &str, rules: Vec<wire::Rule>) -> Arc<Policy> {
    decode(message(key, wire::Action::Deny, rules))
}

pub(crate) fn dry_run(policy: &Arc<Policy>) -> Arc<Policy> {
    Arc::new(Policy { dry_run: true, ..Policy::clone(policy) })
}

pub(crate) fn principals(text: &str) -> wire::Match {
    wire::Match { principals: vec![exact(text)], ..Default::default() }
}

/// The client of the specification's table: `web/api` at 10.2.0.8, to port 5432.
pub(crate) fn client() -> Connection {
    Connection {
        source_ip: "10.2.0.8".parse().unwrap(),
        identity: Some("spiffe://cluster.local/ns/web/sa/api".parse().unwrap()),
        destination: "10.2.0.9:5432".parse().unwrap(),
    }
}

pub(crate) fn plaintext() -> Connection {
    Connection { identity: None, ..client() }
}

pub(crate) fn to_port(connection: Connection, port: u16) -> Connection {
    Connection { destination: (connection.destination.ip(), port).into(), ..connection }
}
