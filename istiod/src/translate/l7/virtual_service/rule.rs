//! What happens to the requests of a route.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mesh_api::networking::{
    CorsPolicy, DerivePort, DirectResponse, Fault, HeaderChanges, HeaderOperations, HttpRedirect, HttpRewrite,
    HttpRoute, Percent, StringMatch, UnmatchedPreflights,
};
use mesh_wire::l7;
use mesh_wire::l7::http_rule::Action;
use mesh_wire::l7::redirect::DerivePort as WirePort;
use mesh_wire::l7::{mirror, path_rewrite};

use super::matching::text;
use super::{At, Rules, no_cluster};
use crate::translate::l7::backend::Backends;
use crate::translate::l7::retry::{retry, usual};
use crate::translate::l7::traffic::optional;

/// The rule of a route that stands there, without its origin.
pub(super) fn rule(rules: &Rules<'_>, at: &At<'_>, route: &HttpRoute, backends: &mut Backends<'_>) -> l7::HttpRule {
    let mut own = Edits::of(route.headers.as_ref());
    let action = if let Some(written) = &route.redirect {
        Action::Redirect(redirect(written))
    } else if let Some(written) = &route.direct_response {
        direct_response(written)
    } else {
        Action::Forward(forward(rules, at, route, &mut own, backends))
    };
    if let Action::Unusable(one) = &action {
        at.remark(&format!("{}: requests of it are answered with {}", one.reason, one.status), backends);
    }
    let retries = match (&action, &route.retries) {
        (Action::Forward(_), Some(written)) => retry(written),
        (Action::Forward(_), None) => usual(rules.world.settings()),
        _ => None,
    };
    l7::HttpRule {
        origin: None,
        action: Some(action),
        request_headers: own.request.wire(),
        response_headers: own.response.wire(),
        rewrite: route.rewrite.as_ref().map(rewrite),
        mirrors: mirrors(rules, at, route, backends),
        cors: route.cors_policy.as_ref().map(cors),
        fault: route.fault.as_ref().and_then(fault),
        timeout: optional(route.timeout.as_ref()),
        retry: retries,
        session: None,
        grpc: false,
        grpc_timeout_max: None,
    }
}

/// Destinations without a share take no part; a single one takes all.
fn forward(
    rules: &Rules<'_>,
    at: &At<'_>,
    route: &HttpRoute,
    own: &mut Edits,
    backends: &mut Backends<'_>,
) -> l7::Forward {
    let single = route.route.len() == 1;
    if single && route.rewrite.as_ref().is_some_and(|rewrite| rewrite.authority.is_some()) {
        own.request.without_authority();
    }
    // What belongs to a destination is done first. Where both change one header, both are told together, with each
    // destination; else it does not matter who is first, and the route keeps its own.
    let narrow: Vec<_> = route.route.iter().map(|one| Edits::of(one.headers.as_ref())).collect();
    let mut wide = Edits::default();
    if narrow.iter().any(|one| one.request.meets(&own.request)) {
        wide.request = std::mem::take(&mut own.request);
    }
    if narrow.iter().any(|one| one.response.meets(&own.response)) {
        wide.response = std::mem::take(&mut own.response);
    }
    let share = |one: &mesh_api::networking::HttpDestination| {
        let weight = one.weight.and_then(|weight| u32::try_from(weight).ok()).unwrap_or_default();
        if single { 1 } else { weight }
    };
    let taking = route.route.iter().zip(narrow).enumerate().filter(|(_, (one, _))| share(one) > 0);
    let backends = taking.map(|(number, (one, mut edits))| {
        if single && route.rewrite.as_ref().is_some_and(|rewrite| rewrite.authority.is_some()) {
            edits.request.without_authority();
        }
        edits.request.then(&wide.request);
        edits.response.then(&wide.response);
        l7::WeightedBackend {
            weight: share(one),
            target: Some(rules.share(&at.within(&format!("route[{number}].destination")), &one.destination, backends)),
            request_headers: edits.request.wire(),
            response_headers: edits.response.wire(),
            rewrite: None,
            redirect: None,
        }
    });
    l7::Forward { backends: backends.collect() }
}

fn redirect(written: &HttpRedirect) -> l7::Redirect {
    let authority = written.authority.clone().unwrap_or_default();
    let (hostname, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !host.ends_with(':') => match port.parse::<u32>() {
            Ok(port) => (host.to_owned(), Some(port)),
            Err(_) => (authority, None),
        },
        _ => (authority, None),
    };
    let derive_port = match written.derive_port {
        Some(DerivePort::FromProtocolDefault) => WirePort::FromScheme,
        Some(DerivePort::FromRequestPort) => WirePort::FromRequest,
        None => WirePort::NoPort,
    };
    let path = written.uri.as_ref().map(|uri| l7::PathRewrite { kind: Some(path_rewrite::Kind::Full(uri.clone())) });
    l7::Redirect {
        scheme: written.scheme.clone().unwrap_or_default(),
        hostname,
        port: written.port.or(port),
        derive_port: derive_port.into(),
        path,
        status: written.redirect_code.unwrap_or(301),
    }
}

fn direct_response(written: &DirectResponse) -> Action {
    let body = written.body.clone().unwrap_or_default();
    let bytes = match (body.string, body.bytes) {
        (Some(text), _) => Some(text.into_bytes()),
        (None, Some(encoded)) => STANDARD.decode(encoded).ok(),
        (None, None) => Some(Vec::new()),
    };
    match bytes {
        Some(body) => Action::DirectResponse(l7::DirectResponse { status: written.status, body }),
        None => {
            let reason = "directResponse.body.bytes: expected base64".to_owned();
            Action::Unusable(l7::Unusable { status: 500, flag: String::new(), reason })
        }
    }
}

fn rewrite(written: &HttpRewrite) -> l7::Rewrite {
    let regex = written.uri_regex_rewrite.as_ref();
    let kind = match (&written.uri, regex) {
        (Some(uri), _) => Some(path_rewrite::Kind::Prefix(uri.clone())),
        (None, Some(regex)) => Some(path_rewrite::Kind::Regex(l7::RegexRewrite {
            pattern: regex.matches.clone().unwrap_or_default(),
            substitution: regex.rewrite.clone().unwrap_or_default(),
        })),
        (None, None) => None,
    };
    l7::Rewrite {
        authority: written.authority.clone().unwrap_or_default(),
        path: kind.map(|kind| l7::PathRewrite { kind: Some(kind) }),
    }
}

fn mirrors(rules: &Rules<'_>, at: &At<'_>, route: &HttpRoute, backends: &mut Backends<'_>) -> Vec<l7::Mirror> {
    let old = route.mirror_percent.or(route.mirror_percent_old);
    let single = route.mirror.iter().filter(|_| route.mirrors.is_empty()).map(|destination| {
        let share = route.mirror_percentage.as_ref().map(per_million);
        ("mirror".to_owned(), destination, share.or_else(|| old.map(|percent| percent.min(100) * 10_000)))
    });
    let several = route.mirrors.iter().enumerate().map(|(number, one)| {
        (format!("mirrors[{number}].destination"), &one.destination, one.percentage.as_ref().map(per_million))
    });
    let all = single.chain(several).filter(|(_, _, share)| *share != Some(0));
    all.map(|(field, destination, share)| {
        let target = match rules.target(&at.within(&field), destination, "so nothing is mirrored there", backends) {
            Ok(index) => mirror::Target::Backend(index),
            Err(error) => mirror::Target::Unusable(no_cluster(&error.to_string())),
        };
        l7::Mirror { target: Some(target), per_million: share.unwrap_or(MILLION) }
    })
    .collect()
}

fn cors(written: &CorsPolicy) -> l7::Cors {
    let old = written.allow_origin.iter().map(|one| StringMatch { exact: Some(one.clone()), ..StringMatch::default() });
    let all: Vec<_> = written.allow_origins.iter().cloned().chain(old).collect();
    let is_any = |one: &StringMatch| one.exact.as_deref() == Some("*");
    let origins = all.iter().filter(|one| !is_any(one)).filter_map(text);
    l7::Cors {
        origins: origins.collect(),
        any_origin: all.iter().any(is_any),
        methods: written.allow_methods.clone(),
        headers: written.allow_headers.clone(),
        expose_headers: written.expose_headers.clone(),
        credentials: written.allow_credentials.unwrap_or_default(),
        max_age: optional(written.max_age.as_ref()),
        forward_unmatched_preflights: written.unmatched_preflights != Some(UnmatchedPreflights::Ignore),
    }
}

/// Without a percentage nobody is harmed.
fn fault(written: &Fault) -> Option<l7::Fault> {
    let mut fault = l7::Fault::default();
    if let Some(delay) = &written.delay {
        let old = delay.percent.and_then(|percent| u32::try_from(percent).ok()).unwrap_or_default();
        fault.delay = optional(delay.fixed_delay.as_ref());
        fault.delay_per_million = delay.percentage.as_ref().map_or(old.min(100) * 10_000, per_million);
        if fault.delay.is_none() {
            fault.delay_per_million = 0;
        }
    }
    if let Some(abort) = &written.abort {
        fault.abort_http_status = abort.http_status.and_then(|one| u32::try_from(one).ok()).unwrap_or_default();
        fault.abort_grpc_status = abort.grpc_status.as_deref().and_then(grpc_status);
        fault.abort_per_million = abort.percentage.as_ref().map_or(0, per_million);
        if fault.abort_http_status == 0 && fault.abort_grpc_status.is_none() {
            fault.abort_per_million = 0;
        }
    }
    (fault != l7::Fault::default()).then_some(fault)
}

/// The number of a canonical name.
fn grpc_status(name: &str) -> Option<u32> {
    let found = GRPC_STATUSES.iter().position(|one| *one == name);
    found.and_then(|number| u32::try_from(number).ok()).or_else(|| name.parse().ok().filter(|number| *number <= 16))
}

fn per_million(percent: &Percent) -> u32 {
    let share = (percent.value.unwrap_or_default().clamp(0.0, 100.0) * 10_000.0).round();
    // Between 0 and a million.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let share = share as u32;
    share
}

/// Changes of headers in both directions.
#[derive(Clone, Debug, Default)]
struct Edits {
    request: Ops,
    response: Ops,
}

impl Edits {
    fn of(written: Option<&HeaderChanges>) -> Self {
        let ops = |one: Option<&HeaderOperations>| one.map(Ops::of).unwrap_or_default();
        let written = written.cloned().unwrap_or_default();
        Self { request: ops(written.request.as_ref()), response: ops(written.response.as_ref()) }
    }
}

/// Changes of headers: first what goes, then what is set, then what is added.
#[derive(Clone, Debug, Default)]
struct Ops {
    remove: BTreeSet<String>,
    set: BTreeMap<String, String>,
    add: Vec<(String, String)>,
}

impl Ops {
    /// Pseudo headers are left alone, but for the authority.
    fn of(written: &HeaderOperations) -> Self {
        let name = |name: &str| match name.to_ascii_lowercase().as_str() {
            ":authority" | "host" => Some("host".to_owned()),
            name if name.starts_with(':') => None,
            name => Some(name.to_owned()),
        };
        let pair = |(key, value): (&String, &String)| Some((name(key)?, value.clone()));
        Self {
            remove: written.remove.iter().filter_map(|one| name(one)).filter(|one| one != "host").collect(),
            set: written.set.iter().filter_map(pair).collect(),
            add: written.add.iter().filter_map(pair).collect(),
        }
    }

    /// Whether some header is changed by both.
    fn meets(&self, other: &Self) -> bool {
        let changes = |ops: &Self, name: &String| {
            ops.remove.contains(name) || ops.set.contains_key(name) || ops.add.iter().any(|(one, _)| one == name)
        };
        let names = self.remove.iter().chain(self.set.keys()).chain(self.add.iter().map(|(name, _)| name));
        names.into_iter().any(|name| changes(other, name))
    }

    /// These, and others after them.
    fn then(&mut self, later: &Self) {
        let replaced = |name: &String| later.remove.contains(name) || later.set.contains_key(name);
        self.set.retain(|name, _| !replaced(name));
        self.add.retain(|(name, _)| !replaced(name));
        self.remove.extend(later.remove.iter().cloned());
        self.set.extend(later.set.clone());
        self.add.extend(later.add.iter().cloned());
    }

    fn without_authority(&mut self) {
        self.set.remove("host");
        self.add.retain(|(name, _)| name != "host");
    }

    fn wire(&self) -> Option<l7::HeaderEdits> {
        let header = |(name, value): (&String, &String)| l7::Header {
            name: name.clone(),
            value: value.clone(),
            template: value.contains('%'),
        };
        let edits = l7::HeaderEdits {
            remove: self.remove.iter().cloned().collect(),
            set: self.set.iter().map(header).collect(),
            add: self.add.iter().map(|(name, value)| header((name, value))).collect(),
        };
        (edits != l7::HeaderEdits::default()).then_some(edits)
    }
}

const MILLION: u32 = 1_000_000;
/// Canonical names by their numbers.
const GRPC_STATUSES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];
