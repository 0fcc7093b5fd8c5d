//! What a change of policies would change, before it is made: the change is applied to a copy of the model, and
//! connections are judged by both. The functions are those that translate and evaluate real policies.

mod side;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use kube::api::DynamicObject;
use mesh_api::status::REASON_ACCEPTED;
use mesh_api::validate::{Candidate, Context, Verdict, validate};
use mesh_core::identity::Identity;
use mesh_core::names::NamespacedName;
use mesh_policy::{Connection, Policy, evaluate};
use serde::{Deserialize, Serialize};

use crate::source::convert;
use crate::translate::{Model, conditions};
use crate::world::{Change, Kind};
use side::{Destination, Side, Source};

/// What is asked.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Policies that would be created or replaced.
    #[serde(default)]
    pub apply: Vec<DynamicObject>,
    /// Policies that would be deleted.
    #[serde(default)]
    pub delete: Vec<Target>,
    /// Connections to compare; none: pairs of workloads.
    #[serde(default)]
    pub connections: Vec<Recorded>,
}

/// A policy by its name.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// Its kind.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// A connection that was seen.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Recorded {
    /// Identity of the source; none for plaintext.
    #[serde(default)]
    pub source: Option<String>,
    /// Address of the source, with or without port.
    #[serde(default)]
    pub source_address: Option<String>,
    /// Address and port of the workload.
    pub destination: SocketAddr,
}

/// What would be different.
#[derive(Debug, Default, Serialize, PartialEq, Eq)]
pub struct Answer {
    /// Connections that were judged twice.
    pub compared: usize,
    /// Of these, how many would be refused and are allowed now.
    pub refused: usize,
    /// How many would be allowed and are refused now.
    pub allowed: usize,
    /// The first [`CHANGES_MAX`] of them.
    pub changes: Vec<Difference>,
    /// How many changes are left off.
    pub left_off: usize,
    /// What to know besides: what is not enforced and why, what was not compared.
    pub notes: Vec<String>,
}

/// A connection that would be decided otherwise.
#[derive(Debug, Serialize, PartialEq, Eq)]
pub struct Difference {
    /// `namespace/account`, or `plaintext`.
    pub source: String,
    /// `name.namespace` of the workload, and how many are like it.
    pub destination: String,
    /// Port of the workload; none where any port is meant.
    pub port: Option<u16>,
    /// As it is.
    pub before: Judgement,
    /// As it would be.
    pub after: Judgement,
}

/// What policies say about a connection.
#[derive(Debug, Serialize, PartialEq, Eq)]
pub struct Judgement {
    /// Whether it may go on.
    pub allowed: bool,
    /// What decided.
    pub reason: String,
}

/// Why there is no answer; names the object or field.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SimulateError {
    /// Only policies can be simulated.
    #[error("kind {found:?} cannot be simulated, expected AuthorizationPolicy or PeerAuthentication")]
    Kind {
        /// What was given.
        found: String,
    },
    /// An object has no name.
    #[error("{kind} without metadata.name or metadata.namespace")]
    Unnamed {
        /// Its kind.
        kind: String,
    },
    /// An object cannot be read.
    #[error("{kind} {name}: {reason}")]
    Unreadable {
        /// Its kind.
        kind: &'static str,
        /// Its name.
        name: NamespacedName,
        /// Field and value.
        reason: String,
    },
    /// A policy that does not exist cannot be deleted.
    #[error("{kind} {name} does not exist")]
    Missing {
        /// Its kind.
        kind: &'static str,
        /// Its name.
        name: NamespacedName,
    },
    /// A recorded source is no identity.
    #[error("source {found:?} of a connection is not an identity: {reason}")]
    Source {
        /// What was given.
        found: String,
        /// Why it cannot be read.
        reason: String,
    },
    /// More was sent than is looked at.
    #[error("{found} {what}, at most {max} are compared")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many were sent.
        found: usize,
        /// How many may be.
        max: usize,
    },
}

/// Compares `model` with what it would be.
///
/// # Errors
/// See [`SimulateError`]; the same request fails the same way while the objects stay as they are.
pub fn simulate(model: &Model, request: Request) -> Result<Answer, SimulateError> {
    bound("policies", request.apply.len() + request.delete.len(), POLICIES_MAX)?;
    bound("connections", request.connections.len(), CONNECTIONS_MAX)?;
    let mut after = model.clone();
    // What is pending in the copied model belongs to the present.
    after.flush();
    let present = after.clone();
    let mut touched = BTreeSet::new();
    let mut warnings = Vec::new();
    for object in request.apply {
        let change = read(object, &present, &mut warnings)?;
        if let Change::Upsert(object) | Change::Partial { object, .. } = &change {
            touched.insert((object.kind(), object.key()));
        }
        after.apply(change);
    }
    for target in request.delete {
        let kind = kind(&target.kind)?;
        let name = NamespacedName::new(target.namespace, target.name);
        if !present.world().knows(kind, &name) {
            return Err(SimulateError::Missing { kind: kind.name(), name });
        }
        touched.insert((kind, name.clone()));
        after.apply(Change::Delete(kind, name));
    }
    after.flush();
    warnings.extend(notes(&after, &touched));
    let mut answer = Answer { notes: warnings, ..Answer::default() };
    let before_side = Side::new(&present, None);
    let after_side = Side::new(&after, Some(&before_side));
    side::waypoint_notes(&present, &after, &mut answer.notes);
    if request.connections.is_empty() {
        compare_pairs(&before_side, &after_side, &mut answer);
    } else {
        compare_recorded(&request.connections, &before_side, &after_side, &mut answer)?;
    }
    Ok(answer)
}

fn bound(what: &'static str, found: usize, max: usize) -> Result<(), SimulateError> {
    if found > max { Err(SimulateError::TooMany { what, found, max }) } else { Ok(()) }
}

fn kind(name: &str) -> Result<Kind, SimulateError> {
    match name {
        "AuthorizationPolicy" => Ok(Kind::Authorization),
        "PeerAuthentication" => Ok(Kind::Peer),
        other => Err(SimulateError::Kind { found: other.to_owned() }),
    }
}

/// Reads a policy as admission would: what would be rejected is an error, what would be warned about a note.
fn read(object: DynamicObject, model: &Model, warnings: &mut Vec<String>) -> Result<Change, SimulateError> {
    let found = object.types.as_ref().map(|types| types.kind.clone()).unwrap_or_default();
    let kind = kind(&found)?;
    if object.metadata.name.is_none() || object.metadata.namespace.is_none() {
        return Err(SimulateError::Unnamed { kind: found });
    }
    let name = convert::key(&object);
    if let Some(verdict) = judged(kind, &object, model) {
        if !verdict.errors.is_empty() {
            return Err(SimulateError::Unreadable { kind: kind.name(), name, reason: verdict.errors.join("; ") });
        }
        warnings.extend(verdict.warnings.into_iter().map(|warning| format!("{} {name}: {warning}", kind.name())));
    }
    match convert::change(kind, object, &model.world().settings().revision) {
        Change::Broken { key, reason, .. } => Err(SimulateError::Unreadable { kind: kind.name(), name: key, reason }),
        Change::Partial { object, reason } => {
            Err(SimulateError::Unreadable { kind: kind.name(), name: object.key(), reason })
        }
        change => Ok(change),
    }
}

fn judged(kind: Kind, object: &DynamicObject, model: &Model) -> Option<Verdict> {
    let settings = model.world().settings();
    let (none, empty) = (serde_json::Value::Null, BTreeMap::new());
    let candidate = Candidate {
        group: mesh_api::security::GROUP,
        kind: kind.name(),
        namespace: object.metadata.namespace.as_deref().unwrap_or_default(),
        labels: object.metadata.labels.as_ref().unwrap_or(&empty),
        annotations: object.metadata.annotations.as_ref().unwrap_or(&empty),
        spec: object.data.get("spec").unwrap_or(&none),
    };
    let root_namespace = settings.root_namespace.to_string();
    validate(&candidate, &Context { root_namespace, warn_unserved: settings.promises.unserved_fields.is_strict() })
}

/// What the statuses of the touched policies would say, where not all is enforced.
fn notes(after: &Model, touched: &BTreeSet<(Kind, NamespacedName)>) -> Vec<String> {
    let mut notes = Vec::new();
    for (kind, key) in touched {
        let statuses = conditions::of(after.world(), after.layer7().remarks(), (*kind, key), None)
            .into_iter()
            .filter_map(|(_, status)| status);
        let remarkable = statuses.flat_map(|one| one.conditions).filter(|one| one.reason != REASON_ACCEPTED);
        notes.extend(remarkable.map(|one| format!("{} {key}: {}", kind.name(), one.message)));
    }
    notes
}

fn judge(policies: &[Arc<Policy>], connection: &Connection) -> Judgement {
    let verdict = evaluate(policies, connection);
    Judgement { allowed: verdict.allowed, reason: verdict.reason.to_string() }
}

/// Every kind of source against every kind of destination whose policies differ.
fn compare_pairs(before: &Side, after: &Side, answer: &mut Answer) {
    let destinations = after.affected(before);
    let by_address =
        destinations.iter().any(|(old, new)| before.looks_at_addresses(old) || after.looks_at_addresses(new));
    let sources = after.sources(by_address, SOURCES_MAX);
    if sources.left_off > 0 {
        answer.notes.push(format!("{} more sources were not compared", sources.left_off));
    }
    for (old, new) in &destinations {
        if !new.captured {
            answer.notes.push(format!("{new} is not enrolled: no policy is enforced for it"));
            continue;
        }
        let (was, is) = (before.policies(old), after.policies(new));
        for port in side::ports(&was, &is, new) {
            for source in &sources.all {
                if answer.compared == PAIRS_MAX {
                    answer.notes.push(format!("only the first {PAIRS_MAX} pairs were compared"));
                    return;
                }
                let connection = Connection {
                    source_ip: source.address,
                    identity: source.identity.clone(),
                    destination: SocketAddr::new(new.address, port.unwrap_or_default()),
                };
                let judgements = (judge(&was, &connection), judge(&is, &connection));
                note(answer, source, new, port, judgements);
            }
        }
    }
}

fn compare_recorded(
    recorded: &[Recorded],
    before: &Side,
    after: &Side,
    answer: &mut Answer,
) -> Result<(), SimulateError> {
    let mut unknown = 0;
    for one in recorded {
        let (Some(old), Some(new)) = (before.at(one.destination.ip()), after.at(one.destination.ip())) else {
            unknown += 1;
            continue;
        };
        let source = recorded_source(one)?;
        let connection =
            Connection { source_ip: source.address, identity: source.identity.clone(), destination: one.destination };
        let judgements = (judge(&before.policies(old), &connection), judge(&after.policies(new), &connection));
        note(answer, &source, new, Some(one.destination.port()), judgements);
    }
    if unknown > 0 {
        answer.notes.push(format!("{unknown} connections lead to addresses of no workload and were not compared"));
    }
    Ok(())
}

fn recorded_source(one: &Recorded) -> Result<Source, SimulateError> {
    let parse = |text: &String| {
        text.parse::<Identity>()
            .map_err(|error| SimulateError::Source { found: text.clone(), reason: error.to_string() })
    };
    let identity = one.source.as_ref().filter(|text| !text.is_empty()).map(parse).transpose()?;
    let text = one.source_address.as_deref().unwrap_or_default();
    let address = text.parse::<SocketAddr>().map(|addr| addr.ip()).or_else(|_| text.parse());
    Ok(Source { identity, address: address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)) })
}

fn note(
    answer: &mut Answer,
    source: &Source,
    destination: &Arc<Destination>,
    port: Option<u16>,
    (before, after): (Judgement, Judgement),
) {
    answer.compared += 1;
    if before.allowed == after.allowed {
        return;
    }
    *(if after.allowed { &mut answer.allowed } else { &mut answer.refused }) += 1;
    if answer.changes.len() < CHANGES_MAX {
        let (source, destination) = (source.to_string(), destination.to_string());
        answer.changes.push(Difference { source, destination, port, before, after });
    } else {
        answer.left_off += 1;
    }
}

/// Changes that are told one by one.
pub const CHANGES_MAX: usize = 1000;
/// Pairs that are judged.
const PAIRS_MAX: usize = 500_000;
/// Sources that are tried.
const SOURCES_MAX: usize = 2000;
/// Policies in one request.
const POLICIES_MAX: usize = 100;
/// Connections in one request.
const CONNECTIONS_MAX: usize = 50_000;
