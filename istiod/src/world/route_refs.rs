//! The backends that routes refer to, mirrors included.

use mesh_api::gateway::{BackendObjectReference, BackendReference, GRPCRouteSpec, HTTPRouteSpec};

/// Group, kind, name and namespace.
pub(super) type BackendParts<'a> = (&'a str, &'a str, &'a str, Option<&'a str>);

pub(super) fn http(spec: &HTTPRouteSpec) -> Vec<BackendParts<'_>> {
    let backends = spec.rules.iter().flat_map(|rule| &rule.backend_refs);
    let own = spec.rules.iter().flat_map(|rule| &rule.filters);
    let filters = own.chain(backends.clone().flat_map(|one| &one.filters));
    let mirrors = filters.filter_map(|filter| filter.request_mirror.as_ref());
    backends.map(|one| weighted(&one.backend)).chain(mirrors.map(|mirror| plain(&mirror.backend_ref))).collect()
}

pub(super) fn grpc(spec: &GRPCRouteSpec) -> Vec<BackendParts<'_>> {
    let backends = spec.rules.iter().flat_map(|rule| &rule.backend_refs);
    let own = spec.rules.iter().flat_map(|rule| &rule.filters);
    let filters = own.chain(backends.clone().flat_map(|one| &one.filters));
    let mirrors = filters.filter_map(|filter| filter.request_mirror.as_ref());
    backends.map(|one| weighted(&one.backend)).chain(mirrors.map(|mirror| plain(&mirror.backend_ref))).collect()
}

pub(super) fn weighted(one: &BackendReference) -> BackendParts<'_> {
    (one.group(), one.kind(), &one.name, one.namespace.as_deref())
}

fn plain(one: &BackendObjectReference) -> BackendParts<'_> {
    let (group, kind) = (one.group.as_deref().unwrap_or_default(), one.kind.as_deref().unwrap_or("Service"));
    (group, kind, &one.name, one.namespace.as_deref())
}
