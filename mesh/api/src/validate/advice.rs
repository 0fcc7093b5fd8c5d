//! What admission tells the authors of Gateway API objects: things that the schemas let pass and that will not do what
//! they seem to. Never a refusal: those definitions are not ours.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{MESSAGES_MAX, scalar};
use crate::gateway::{
    BackendTLSPolicySpec, GROUP, GROUP_EXPERIMENTAL, GRPCRouteSpec, GrpcRouteFilterType, HTTPRouteSpec, HeaderFilter,
    HttpRouteFilter, HttpRouteFilterType, ParentReference, PathMatchType, TLSRouteSpec, ValueMatchType,
    XBackendTrafficPolicySpec,
};

/// Every kind that [`advice`] looks at, with its group.
pub const ADVISED: [(&str, &str); 6] = [
    (GROUP, "HTTPRoute"),
    (GROUP, "GRPCRoute"),
    (GROUP, "TLSRoute"),
    (GROUP, "UDPRoute"),
    (GROUP, "BackendTLSPolicy"),
    (GROUP_EXPERIMENTAL, "XBackendTrafficPolicy"),
];

/// What the author of an object of the Gateway API should know; nothing for other kinds, and for objects whose form
/// the schema refuses. At most [`MESSAGES_MAX`].
pub fn advice(group: &str, kind: &str, spec: &Value) -> Vec<String> {
    let mut all = match (group, kind) {
        (GROUP, "HTTPRoute") => read(spec).map(http_route).unwrap_or_default(),
        (GROUP, "GRPCRoute") => read(spec).map(grpc_route).unwrap_or_default(),
        (GROUP, "TLSRoute") => read(spec).map(|spec: TLSRouteSpec| addresses(&spec.hostnames)).unwrap_or_default(),
        (GROUP, "UDPRoute") => vec!["spec: no proxy of the mesh serves UDPRoutes: this one has no effect".to_owned()],
        (GROUP, "BackendTLSPolicy") => read(spec).map(backend_tls).unwrap_or_default(),
        (GROUP_EXPERIMENTAL, "XBackendTrafficPolicy") => read(spec).map(backend_traffic).unwrap_or_default(),
        _ => Vec::new(),
    };
    all.truncate(MESSAGES_MAX);
    all
}

fn read<T: DeserializeOwned>(spec: &Value) -> Option<T> {
    T::deserialize(spec).ok()
}

fn http_route(spec: HTTPRouteSpec) -> Vec<String> {
    let mut all = addresses(&spec.hostnames);
    all.extend(ignored_hosts(&spec.parent_refs, &spec.hostnames));
    for (at, rule) in spec.rules.iter().enumerate() {
        let place = format!("spec.rules[{at}]");
        for (at, one) in rule.matches.iter().enumerate() {
            let place = format!("{place}.matches[{at}]");
            if let Some(path) = &one.path
                && path.type_() == PathMatchType::RegularExpression
            {
                all.extend(pattern(&format!("{place}.path.value"), path.value()));
            }
            for (at, header) in one.headers.iter().enumerate() {
                all.extend(value(&format!("{place}.headers[{at}].value"), header.type_, &header.value));
            }
            all.extend(repeated(&format!("{place}.headers"), one.headers.iter().map(|header| header.name.as_str())));
            for (at, query) in one.query_params.iter().enumerate() {
                all.extend(value(&format!("{place}.queryParams[{at}].value"), query.type_, &query.value));
            }
        }
        all.extend(http_filters(&place, &rule.filters));
        for (at, backend) in rule.backend_refs.iter().enumerate() {
            all.extend(http_filters(&format!("{place}.backendRefs[{at}]"), &backend.filters));
        }
        let weighted = rule.backend_refs.iter().any(|backend| backend.backend.weight() > 0);
        let redirects = rule.filters.iter().any(|filter| filter.type_ == HttpRouteFilterType::RequestRedirect);
        if !weighted && !redirects {
            all.push(format!("{place}: no backend has a weight above 0: requests are answered with 500"));
        }
    }
    all
}

fn http_filters(place: &str, filters: &[HttpRouteFilter]) -> Vec<String> {
    let mut all = Vec::new();
    for (at, filter) in filters.iter().enumerate() {
        let place = format!("{place}.filters[{at}]");
        match filter.type_ {
            HttpRouteFilterType::ExtensionRef | HttpRouteFilterType::Unknown => all.push(refused(&place)),
            _ => {}
        }
        all.extend(edits(&place, "requestHeaderModifier", filter.request_header_modifier.as_ref()));
        all.extend(edits(&place, "responseHeaderModifier", filter.response_header_modifier.as_ref()));
    }
    all
}

fn refused(place: &str) -> String {
    format!("{place}: this filter is not known here: requests that need it are refused, the filter is never skipped")
}

fn edits(place: &str, field: &str, filter: Option<&HeaderFilter>) -> Vec<String> {
    let Some(filter) = filter else { return Vec::new() };
    let mut all = Vec::new();
    for (list, headers) in [("set", &filter.set), ("add", &filter.add)] {
        let place = format!("{place}.{field}.{list}");
        all.extend(repeated(&place, headers.iter().map(|header| header.name.as_str())));
        for (at, header) in headers.iter().enumerate() {
            if header.value.chars().any(|c| c.is_control() && c != '\t') {
                all.push(format!("{place}[{at}].value: holds control characters: the filter counts as invalid"));
            }
        }
    }
    all.extend(repeated(&format!("{place}.{field}.remove"), filter.remove.iter().map(String::as_str)));
    all
}

fn grpc_route(spec: GRPCRouteSpec) -> Vec<String> {
    let mut all = addresses(&spec.hostnames);
    all.extend(ignored_hosts(&spec.parent_refs, &spec.hostnames));
    for (at, rule) in spec.rules.iter().enumerate() {
        let place = format!("spec.rules[{at}]");
        for (at, one) in rule.matches.iter().enumerate() {
            let place = format!("{place}.matches[{at}]");
            if let Some(method) = &one.method {
                let service = method.service.as_deref().unwrap_or_default();
                all.extend(value(&format!("{place}.method.service"), method.type_, service));
                let name = method.method.as_deref().unwrap_or_default();
                all.extend(value(&format!("{place}.method.method"), method.type_, name));
            }
            for (at, header) in one.headers.iter().enumerate() {
                all.extend(value(&format!("{place}.headers[{at}].value"), header.type_, &header.value));
            }
            all.extend(repeated(&format!("{place}.headers"), one.headers.iter().map(|header| header.name.as_str())));
        }
        for (at, filter) in rule.filters.iter().enumerate() {
            let place = format!("{place}.filters[{at}]");
            if matches!(filter.type_, GrpcRouteFilterType::ExtensionRef | GrpcRouteFilterType::Unknown) {
                all.push(refused(&place));
            }
            all.extend(edits(&place, "requestHeaderModifier", filter.request_header_modifier.as_ref()));
            all.extend(edits(&place, "responseHeaderModifier", filter.response_header_modifier.as_ref()));
        }
    }
    all
}

fn backend_tls(spec: BackendTLSPolicySpec) -> Vec<String> {
    let mut all = Vec::new();
    if spec.validation.ca_certificate_refs.len() > 1 {
        all.push("spec.validation.caCertificateRefs: only the first is used".to_owned());
    }
    if let Some(name) = spec.validation.well_known_ca_certificates.filter(|name| name != "System") {
        all.push(format!("spec.validation.wellKnownCACertificates: {name:?} is not known: expected \"System\""));
    }
    all
}

fn backend_traffic(spec: XBackendTrafficPolicySpec) -> Vec<String> {
    let unserved = spec.session_persistence.is_some();
    unserved
        .then(|| "spec.sessionPersistence: has no effect here: set it on a route's rule".to_owned())
        .into_iter()
        .collect()
}

/// Hosts that are addresses: no request is routed by them.
fn addresses(hostnames: &[String]) -> Vec<String> {
    let is_address = |host: &&String| host.parse::<IpAddr>().is_ok();
    let told = |host: &String| format!("spec.hostnames: {host:?} is an IP address: expected a host name");
    hostnames.iter().filter(is_address).map(told).collect()
}

/// Hosts of a route that only services are parents of.
fn ignored_hosts(parents: &[ParentReference], hostnames: &[String]) -> Option<String> {
    let mesh_only =
        !parents.is_empty() && parents.iter().all(|parent| matches!(parent.kind(), "Service" | "ServiceEntry"));
    (mesh_only && !hostnames.is_empty())
        .then(|| "spec.hostnames: not looked at where the parent is a service: every host is meant".to_owned())
}

fn value(place: &str, type_: Option<ValueMatchType>, text: &str) -> Option<String> {
    if type_ == Some(ValueMatchType::RegularExpression) { pattern(place, text) } else { None }
}

fn pattern(place: &str, text: &str) -> Option<String> {
    (!scalar::is_regex(text)).then(|| {
        format!("{place}: {text:?} is no regular expression of the RE2 syntax: the rule matches, and answers with 500")
    })
}

/// Names that differ in case only: the schema takes them for different.
fn repeated<'a>(place: &str, names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let again = names.filter(|name| !seen.insert(name.to_ascii_lowercase()));
    again.map(|name| format!("{place}: {name:?} comes again: only the first entry counts")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(kind: &str, spec: &str) -> Vec<String> {
        let spec: Value = serde_json::from_str(spec).unwrap();
        let group = if kind.starts_with('X') { GROUP_EXPERIMENTAL } else { GROUP };
        advice(group, kind, &spec)
    }

    #[test]
    fn what_will_not_do_what_it_seems_to_is_told() {
        for (kind, spec, wanted) in [
            ("HTTPRoute", r#"{"hostnames": ["10.0.0.1"], "rules": []}"#, "is an IP address"),
            (
                "HTTPRoute",
                r#"{"hostnames": ["a.io"], "parentRefs": [{"group": "", "kind": "Service", "name": "a"}]}"#,
                "not looked at",
            ),
            (
                "HTTPRoute",
                r#"{"rules": [{"matches": [{"path": {"type": "RegularExpression", "value": "/("}}], "backendRefs": [{"name": "a", "port": 80}]}]}"#,
                "spec.rules[0].matches[0].path.value",
            ),
            (
                "HTTPRoute",
                r#"{"rules": [{"backendRefs": [{"name": "a", "port": 80, "weight": 0}]}]}"#,
                "weight above 0",
            ),
            (
                "HTTPRoute",
                r#"{"rules": [{"filters": [{"type": "Newer"}], "backendRefs": [{"name": "a", "port": 80}]}]}"#,
                "never skipped",
            ),
            (
                "HTTPRoute",
                r#"{"rules": [{"backendRefs": [{"name": "a", "port": 80, "filters": [{"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [{"name": "A", "value": "1"}, {"name": "a", "value": "2"}]}}]}]}]}"#,
                "comes again",
            ),
            (
                "GRPCRoute",
                r#"{"rules": [{"matches": [{"method": {"type": "RegularExpression", "method": "["}}]}]}"#,
                "method.method",
            ),
            ("TLSRoute", r#"{"hostnames": ["10.0.0.1"]}"#, "is an IP address"),
            ("UDPRoute", "{}", "no proxy"),
            (
                "BackendTLSPolicy",
                r#"{"validation": {"wellKnownCACertificates": "Mine", "hostname": "a.io"}}"#,
                "expected \"System\"",
            ),
            ("XBackendTrafficPolicy", r#"{"sessionPersistence": {}}"#, "no effect"),
        ] {
            let found = told(kind, spec);
            assert!(found.len() == 1 && found[0].contains(wanted), "{kind} {spec}: {found:?}");
        }
    }

    #[test]
    fn ordinary_objects_and_those_that_cannot_be_read_are_passed_over() {
        for (kind, spec) in [
            (
                "HTTPRoute",
                r#"{"hostnames": ["a.io"], "parentRefs": [{"name": "edge"}], "rules": [{"backendRefs": [{"name": "a", "port": 80}]}]}"#,
            ),
            ("HTTPRoute", r#"{"rules": 1}"#),
            ("Gateway", "{}"),
            ("TCPRoute", "{}"),
        ] {
            assert_eq!(told(kind, spec), Vec::<String>::new(), "{kind} {spec}");
        }
    }
}
