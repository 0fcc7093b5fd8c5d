//! What is said of one listener. Pure.

use mesh_api::gateway::TlsMode;

use super::condition;
use crate::translate::conditions::{ListenerPart, words};
use crate::translate::gateway::{Family, is_own_port, target_port};
use crate::translate::listener::protocol::named;
use crate::translate::listener::tls::{self, TlsPart};
use crate::translate::listener::{Effective, ListenerProtocol};
use crate::translate::route::attached_routes;
use crate::world::{Gateway, World};

/// What is said of a listener, and whether it counts as valid.
#[derive(Clone, Debug)]
pub(super) struct Verdict {
    pub(super) part: ListenerPart,
    pub(super) valid: bool,
}

/// The four judgements: a reason and a text each where they do not hold.
#[derive(Default)]
struct Judged {
    accepted: Option<(&'static str, String)>,
    conflicted: Option<&'static str>,
    programmed: Option<(&'static str, String)>,
    resolved: Option<(&'static str, String)>,
}

/// Judges a listener.
///
/// # Source
/// spec of the gateway controller, sections 6 and 8.
pub(super) fn judge(world: &World, gateway: &Gateway, family: Family, listener: &Effective<'_>) -> Verdict {
    let judged = match family {
        Family::Waypoint | Family::EastWest => inside(family, listener),
        Family::Edge | Family::Remote => edge(world, gateway, family, listener),
    };
    let place = listener.place();
    // What cannot be served inside the mesh is told on the listener and has no other effect.
    let valid = family.inside() || (judged.accepted.is_none() && judged.programmed.is_none());
    let said = |type_, problem: Option<(&'static str, String)>, fine: &'static str, text: &str| match problem {
        None => condition(type_, Ok(fine), text.to_owned()),
        Some((reason, message)) => condition(type_, Err(reason), message),
    };
    let conflicted = match judged.conflicted {
        None => condition(words::CONFLICTED, Err(NO_CONFLICTS), "no other listener wants its place".to_owned()),
        Some(reason) => condition(words::CONFLICTED, Ok(reason), "an earlier listener has its place".to_owned()),
    };
    let ignored = tls::ignored_options(listener).map(|what| format!("; {what}")).unwrap_or_default();
    let programmed = format!("programmed{ignored}");
    let conditions = vec![
        said(words::ACCEPTED, judged.accepted, words::ACCEPTED, "accepted"),
        conflicted,
        said(words::PROGRAMMED, judged.programmed, words::PROGRAMMED, &programmed),
        said(words::RESOLVED_REFS, judged.resolved, words::RESOLVED_REFS, "all references are resolved"),
    ];
    Verdict {
        part: ListenerPart {
            name: listener.name().into(),
            supported_kinds: place.kinds().into_iter().map(named).collect(),
            attached_routes: attached_routes(world, place),
            conditions,
        },
        valid,
    }
}

/// Of waypoints and of gateways between networks.
fn inside(family: Family, listener: &Effective<'_>) -> Judged {
    let tunnels = listener.port == HBONE_PORT && listener.protocol == ListenerProtocol::Hbone;
    let mode = listener.tls().map(|tls| tls.mode.unwrap_or_default());
    let (fits, expected) = match family {
        Family::EastWest => {
            let ends = tunnels && mode == Some(TlsMode::Terminate);
            let passes = listener.protocol == ListenerProtocol::Tls && mode == Some(TlsMode::Passthrough);
            (ends || passes, "port 15008 and protocol HBONE with tls.mode Terminate, or TLS with Passthrough")
        }
        _ => (tunnels, "port 15008 and protocol HBONE"),
    };
    let passes = fits && !tunnels;
    let programmed = passes.then(|| {
        let message =
            "TLS is not passed between networks: node proxies call by tunnels, to a listener of protocol HBONE";
        (words::INVALID, message.to_owned())
    });
    let accepted = (!fits).then(|| {
        let (port, protocol) = (listener.port, &listener.written.protocol);
        (words::UNSUPPORTED_PROTOCOL, format!("expected {expected}, not port {port} and protocol {protocol}"))
    });
    Judged { accepted, programmed, resolved: kinds(listener), ..Judged::default() }
}

fn edge(world: &World, gateway: &Gateway, family: Family, listener: &Effective<'_>) -> Judged {
    if let Some(conflict) = listener.conflict {
        let (reason, port) = (conflict.reason(), listener.port);
        let message = format!("an earlier listener on port {port} has another protocol, or the same hostname");
        return Judged {
            accepted: Some((reason, message.clone())),
            conflicted: Some(reason),
            programmed: Some((reason, message)),
            resolved: None,
        };
    }
    if let Some(message) = unserved(listener) {
        let programmed = Some((words::INVALID, message.clone()));
        let accepted = Some((words::UNSUPPORTED_PROTOCOL, message));
        return Judged { accepted, programmed, ..Judged::default() };
    }
    if !listener.has_host() {
        let message = format!("hostname {:?} is neither a host nor a wildcard", listener.hostname());
        let programmed = Some((words::INVALID, message.clone()));
        let accepted = Some((words::UNSUPPORTED_VALUE, message));
        return Judged { accepted, programmed, ..Judged::default() };
    }
    let target = target_port(world, gateway, family, listener.port);
    if is_own_port(target) {
        let message = format!("port {target} is one that the proxy has for itself");
        let accepted = Some((PORT_UNAVAILABLE, message.clone()));
        return Judged { accepted, programmed: Some((words::INVALID, message)), ..Judged::default() };
    }
    let mut judged = Judged { resolved: kinds(listener), ..Judged::default() };
    let Err(problem) = tls::judge(world, gateway, listener) else { return judged };
    judged.programmed = Some((words::INVALID, problem.message.clone()));
    match problem.part {
        TlsPart::Listener => judged.accepted = Some((problem.reason, problem.message)),
        TlsPart::Certificates | TlsPart::Unread => judged.resolved = Some((problem.reason, problem.message)),
        TlsPart::Authorities => {
            judged.accepted = Some((words::NO_VALID_CA_CERTIFICATE, problem.message.clone()));
            judged.resolved = Some((problem.reason, problem.message));
        }
    }
    judged
}

/// Why the protocol of a listener at the edge is not served.
fn unserved(listener: &Effective<'_>) -> Option<String> {
    let written = &listener.written.protocol;
    match listener.protocol {
        ListenerProtocol::Http | ListenerProtocol::Https | ListenerProtocol::Tls | ListenerProtocol::Tcp => {
            (listener.port == 0).then(|| format!("protocol {written} has no usual port, and none is given"))
        }
        _ => {
            let upper = written.to_ascii_uppercase();
            let meant = ListenerProtocol::read(&upper) != ListenerProtocol::Unknown && upper != *written;
            let hint = if meant { format!("; {upper} is written in capitals") } else { String::new() };
            Some(format!("protocol {written:?} is not served, expected HTTP, HTTPS, TLS or TCP{hint}"))
        }
    }
}

/// Kinds of routes that are asked for and do not fit.
fn kinds(listener: &Effective<'_>) -> Option<(&'static str, String)> {
    let unfitting: Vec<_> = listener.unfitting_kinds().map(|one| one.kind.as_str()).collect();
    (!unfitting.is_empty()).then(|| {
        let protocol = &listener.written.protocol;
        (INVALID_ROUTE_KINDS, format!("protocol {protocol} takes no routes of kind {}", unfitting.join(", ")))
    })
}

/// Where waypoints take tunnels.
const HBONE_PORT: u16 = 15008;
const PORT_UNAVAILABLE: &str = "PortUnavailable";
const NO_CONFLICTS: &str = "NoConflicts";
const INVALID_ROUTE_KINDS: &str = "InvalidRouteKinds";
