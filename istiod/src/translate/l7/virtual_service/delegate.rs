//! A route that lets another VirtualService decide, merged with a route of that one.

use std::collections::BTreeMap;

use mesh_api::networking::{HeaderChanges, HeaderOperations, HttpMatch, HttpRoute, StringMatch};

/// The inner route as it is when reached through the outer one; none where both can never match at once, or where the inner
/// one asks for more than the outer one lets through.
///
/// # Source
/// spec of layer-7 routing, section 5.3 (`delegate`).
pub(super) fn merged(outer: &HttpRoute, inner: &HttpRoute) -> Option<HttpRoute> {
    let matches = match (&*outer.matches, &*inner.matches) {
        (outer, []) => outer.to_vec(),
        ([], inner) => inner.to_vec(),
        (outer, inner) => {
            let pairs = outer.iter().flat_map(|one| inner.iter().map(move |other| (one, other)));
            let both: Vec<_> = pairs.filter_map(|(one, other)| both(one, other)).collect();
            if both.is_empty() {
                return None;
            }
            both
        }
    };
    let mut route = inner.clone();
    route.matches = matches;
    or(&mut route.name, &outer.name);
    or(&mut route.rewrite, &outer.rewrite);
    or(&mut route.timeout, &outer.timeout);
    or(&mut route.retries, &outer.retries);
    or(&mut route.fault, &outer.fault);
    or(&mut route.cors_policy, &outer.cors_policy);
    if route.mirror.is_none() && route.mirrors.is_empty() {
        route.mirror.clone_from(&outer.mirror);
        route.mirrors.clone_from(&outer.mirrors);
        route.mirror_percent = outer.mirror_percent.or(outer.mirror_percent_old);
        route.mirror_percentage.clone_from(&outer.mirror_percentage);
    }
    route.headers = match (&outer.headers, &inner.headers) {
        (Some(outer), Some(inner)) => Some(HeaderChanges {
            request: operations(outer.request.as_ref(), inner.request.as_ref()),
            response: operations(outer.response.as_ref(), inner.response.as_ref()),
        }),
        (outer, inner) => inner.clone().or_else(|| outer.clone()),
    };
    Some(route)
}

fn or<T: Clone>(have: &mut Option<T>, other: &Option<T>) {
    if have.is_none() {
        have.clone_from(other);
    }
}

/// The outer route has the last word on a header.
fn operations(outer: Option<&HeaderOperations>, inner: Option<&HeaderOperations>) -> Option<HeaderOperations> {
    let (Some(outer), Some(inner)) = (outer, inner) else { return inner.or(outer).cloned() };
    let mut all = inner.clone();
    all.set.extend(outer.set.clone());
    all.add.extend(outer.add.clone());
    all.remove.extend(outer.remove.iter().filter(|name| !inner.remove.contains(name)).cloned());
    Some(all)
}

/// What both ask for.
fn both(outer: &HttpMatch, inner: &HttpMatch) -> Option<HttpMatch> {
    let mut one = inner.clone();
    one.uri = narrower(outer.uri.as_ref(), inner.uri.as_ref())?;
    one.method = narrower(outer.method.as_ref(), inner.method.as_ref())?;
    one.scheme = narrower(outer.scheme.as_ref(), inner.scheme.as_ref())?;
    one.authority = narrower(outer.authority.as_ref(), inner.authority.as_ref())?;
    all(&mut one.headers, &outer.headers)?;
    all(&mut one.query_params, &outer.query_params)?;
    // Several absences hold together.
    for (name, value) in &outer.without_headers {
        one.without_headers.entry(name.clone()).or_insert_with(|| value.clone());
    }
    one.port = match (outer.port, inner.port) {
        (Some(outer), Some(inner)) if outer != inner => return None,
        (outer, inner) => inner.or(outer),
    };
    if one.source_labels.is_empty() {
        one.source_labels.clone_from(&outer.source_labels);
    }
    or(&mut one.source_namespace, &outer.source_namespace);
    one.gateways = gateways(&outer.gateways, &inner.gateways)?;
    if outer.uri.is_some() && inner.uri.is_none() {
        one.ignore_uri_case = outer.ignore_uri_case;
    }
    or(&mut one.name, &outer.name);
    Some(one)
}

/// The gateways of both: the inner match is for none that the outer one is not for. An empty list says nothing.
fn gateways(outer: &[String], inner: &[String]) -> Option<Vec<String>> {
    match (outer, inner) {
        ([], either) | (either, []) => Some(either.to_vec()),
        (outer, inner) => {
            let both: Vec<_> = inner.iter().filter(|one| outer.contains(one)).cloned().collect();
            (!both.is_empty()).then_some(both)
        }
    }
}

/// Everything of both; a name that both have must be narrower inside.
fn all(have: &mut BTreeMap<String, StringMatch>, outer: &BTreeMap<String, StringMatch>) -> Option<()> {
    for (name, value) in outer {
        let value = narrower(Some(value), have.get(name))?;
        have.insert(name.clone(), value.unwrap_or_default());
    }
    Some(())
}

/// The inner match, where it lets nothing through that the outer one does not; the outer one where there is no inner one.
#[expect(clippy::option_option, reason = "no match at all, no condition, and a condition are three things")]
fn narrower(outer: Option<&StringMatch>, inner: Option<&StringMatch>) -> Option<Option<StringMatch>> {
    let (Some(outer), Some(inner)) = (outer, inner) else { return Some(inner.or(outer).cloned()) };
    let anything = *outer == StringMatch::default();
    let text = inner.exact.as_ref().or(inner.prefix.as_ref());
    let within = match (&outer.exact, &outer.prefix) {
        (Some(exact), _) => inner.exact.as_ref() == Some(exact),
        (None, Some(prefix)) => text.is_some_and(|text| text.starts_with(prefix)),
        // Whether one expression is part of another nobody can tell, but the same one is.
        (None, None) => anything || outer == inner,
    };
    within.then(|| Some(inner.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delegate_is_for_no_gateway_that_its_root_is_not_for() {
        let list = |all: &[&str]| all.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>();
        let route = |gateways: &[&str]| HttpRoute {
            matches: vec![HttpMatch { gateways: list(gateways), ..HttpMatch::default() }],
            ..HttpRoute::default()
        };
        for (outer, inner, both) in [
            (&[][..], &[][..], Some(&[][..])),
            (&["mesh"], &[], Some(&["mesh"][..])),
            (&[], &["mesh"], Some(&["mesh"])),
            (&["ns/edge"], &["mesh"], None),
            (&["ns/edge"], &["mesh", "ns/edge"], Some(&["ns/edge"])),
            (&["mesh", "a"], &["a", "mesh"], Some(&["a", "mesh"])),
        ] {
            let merged = merged(&route(outer), &route(inner)).map(|route| route.matches[0].gateways.clone());
            assert_eq!(merged, both.map(list), "{outer:?} {inner:?}");
        }
    }
}
