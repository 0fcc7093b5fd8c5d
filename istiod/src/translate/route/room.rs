//! How many routes one table takes. Proxies refuse a table that is too large as a whole; so that nobody can have it refused
//! for all others, it ends before, and the youngest routes are left out.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mesh_api::gateway::{PathMatchType, ValueMatchType};
use mesh_route::Limits;

use super::view::Route;

/// What a route needs of a table.
struct Need<'a> {
    rules: usize,
    entries: usize,
    patterns: Vec<Cow<'a, str>>,
}

/// How many of these routes, the oldest first, have room in one table.
pub(super) fn fitting(routes: &[(Route<'_>, Vec<Arc<str>>)]) -> usize {
    fitting_in(routes, &Limits::default())
}

fn fitting_in(routes: &[(Route<'_>, Vec<Arc<str>>)], limits: &Limits) -> usize {
    let needs: Vec<_> = routes.iter().map(|(route, _)| need(*route)).collect();
    let fits = |count: usize| {
        let (routes, needs) = (routes.get(..count).unwrap_or_default(), needs.get(..count).unwrap_or_default());
        let rules = needs.iter().map(|one| one.rules).sum::<usize>();
        rules <= limits.rules && patterns(needs, limits.patterns) && entries(routes, needs, limits.entries)
    };
    if fits(routes.len()) {
        return routes.len();
    }
    // More routes never need less.
    let (mut low, mut high) = (0, routes.len());
    while low + 1 < high {
        let middle = low.midpoint(high);
        if fits(middle) { low = middle } else { high = middle }
    }
    low
}

fn patterns(needs: &[Need<'_>], max: usize) -> bool {
    if needs.iter().map(|one| one.patterns.len()).sum::<usize>() <= max {
        return true;
    }
    needs.iter().flat_map(|one| &one.patterns).collect::<BTreeSet<_>>().len() <= max
}

/// Hosts with the same routes share their entries.
fn entries(routes: &[(Route<'_>, Vec<Arc<str>>)], needs: &[Need<'_>], max: usize) -> bool {
    let most = routes.iter().zip(needs).map(|((_, hosts), need)| hosts.len().saturating_mul(need.entries));
    if most.sum::<usize>() <= max {
        return true;
    }
    let mut hosts: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (number, (_, names)) in routes.iter().enumerate() {
        names.iter().for_each(|name| hosts.entry(name).or_default().push(number));
    }
    let groups: BTreeSet<Vec<usize>> = hosts.into_values().collect();
    let of_route = |number: &usize| needs.get(*number).map_or(0, |need| need.entries);
    groups.iter().flatten().map(of_route).sum::<usize>() <= max
}

fn need(route: Route<'_>) -> Need<'_> {
    let mut need = Need { rules: 1, entries: 1, patterns: Vec::new() };
    match route {
        Route::Http(one) => {
            for rule in &one.spec.rules {
                // Each match that cannot be honoured is a rule of its own.
                need.rules += 1 + rule.matches.len();
                need.entries += rule.matches.len().max(1);
                for written in &rule.matches {
                    let path = written.path.iter().filter(|path| path.type_() == PathMatchType::RegularExpression);
                    need.patterns.extend(path.map(|path| Cow::Borrowed(path.value())));
                    let headers = written.headers.iter().map(|one| (one.type_, &one.value));
                    let queries = written.query_params.iter().map(|one| (one.type_, &one.value));
                    need.patterns.extend(headers.chain(queries).filter_map(pattern));
                }
            }
        }
        Route::Grpc(one) => {
            for rule in &one.spec.rules {
                need.rules += 1 + rule.matches.len();
                need.entries += rule.matches.len().max(1);
                for written in &rule.matches {
                    let method = written.method.iter();
                    // Where one of the two is left out, the path is a pattern, too.
                    need.patterns.extend(method.map(|one| Cow::Owned(format!("{:?}/{:?}", one.service, one.method))));
                    need.patterns.extend(written.headers.iter().map(|one| (one.type_, &one.value)).filter_map(pattern));
                }
            }
        }
        Route::Tls(_) | Route::Tcp(_) | Route::Udp(_) => return Need { rules: 0, entries: 0, ..need },
    }
    need
}

fn pattern((type_, text): (Option<ValueMatchType>, &String)) -> Option<Cow<'_, str>> {
    (type_ == Some(ValueMatchType::RegularExpression)).then_some(Cow::Borrowed(text.as_str()))
}

/// So many routes have room whatever they say: an HTTPRoute has at most 128 matches, for 16 hosts, and 256 patterns.
pub(super) const FEW: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::translate::fixture;
    use crate::world::MeshSettings;

    fn routes(yaml: &str, check: impl FnOnce(&[(Route<'_>, Vec<Arc<str>>)])) {
        let model = fixture::model(yaml, MeshSettings::default());
        let keys: Vec<_> = ["a", "b", "c"].map(|name| mesh_core::names::NamespacedName::new("ns", name)).into();
        let found = keys.iter().filter_map(|key| Route::find(model.world(), crate::world::Kind::HttpRoute, key));
        let hosts = |route: Route<'_>| route.hostnames().iter().map(|host| host.as_str().into()).collect();
        check(&found.map(|route| (route, hosts(route))).collect::<Vec<_>>());
    }

    fn route(name: &str, hosts: &str, matches: &str) -> String {
        format!(
            "kind: HTTPRoute\nmetadata: {{name: {name}, namespace: ns}}\nspec: {{hostnames: [{hosts}], rules: [{{matches: \
             [{matches}]}}]}}\n---\n"
        )
    }

    #[test]
    fn a_table_takes_the_oldest_routes_until_it_is_full() {
        let two = "{path: {type: RegularExpression, value: /a}}, {path: {type: RegularExpression, value: /b}}";
        let yaml = route("a", "x.a, y.a", two) + &route("b", "x.a", two) + &route("c", "y.a, z.a", two);
        let none = Limits { entries: usize::MAX, rules: usize::MAX, patterns: usize::MAX, ..Limits::default() };
        routes(&yaml, |all| {
            assert_eq!(all.len(), 3);
            assert_eq!(fitting(all), 3);
            for (limits, expected) in [
                (Limits { rules: 7, ..none.clone() }, 1),
                (Limits { rules: 8, ..none.clone() }, 2),
                (Limits { patterns: 2, ..none.clone() }, 3),
                (Limits { patterns: 1, ..none.clone() }, 0),
                // Of one route both hosts share; with the second, x has entries of its own.
                (Limits { entries: 3, ..none.clone() }, 1),
                (Limits { entries: 8, ..none.clone() }, 1),
                (Limits { entries: 9, ..none.clone() }, 2),
                (Limits { entries: 14, ..none.clone() }, 2),
                (Limits { entries: 15, ..none.clone() }, 3),
            ] {
                assert_eq!(fitting_in(all, &limits), expected, "{limits:?}");
            }
        });
    }
}
