//! Hostnames of listeners and routes, and what they have in common.

use std::collections::HashSet;
use std::sync::Arc;

/// The hosts for which a route is asked at a listener, each once, in order. No hostname of a listener means all; no
/// hostname of a route means those of its listener. `*` stands for all.
///
/// # Source
/// spec of routing, section 1.1.
pub(super) fn effective(listener: Option<&str>, route: &[String]) -> Vec<Arc<str>> {
    let listener = normal(listener.unwrap_or_default());
    let all = [String::new()];
    let route = if route.is_empty() { all.as_slice() } else { route };
    let route = route.iter().map(|host| normal(host)).filter(|host| is_host(host));
    let mut hosts: Vec<Arc<str>> = route.filter_map(|host| common(&listener, &host)).collect();
    hosts.retain(|host| is_host(host));
    hosts.sort();
    hosts.dedup();
    hosts
}

/// Whether it is a host, or a wildcard of hosts, that a proxy can look for.
pub(super) fn is_host(host: &str) -> bool {
    mesh_route::host::pattern(host).is_ok()
}

/// Hosts that somebody has.
#[derive(Debug, Default)]
pub(super) struct Taken {
    hosts: HashSet<String>,
    /// Every wildcard above one of them.
    above: HashSet<String>,
}

impl Taken {
    pub(super) fn add(&mut self, host: &str) {
        if self.hosts.insert(host.to_owned()) {
            self.above.extend(wildcards_above(host));
        }
    }

    /// Whether some host is meant by this one and by one of them.
    pub(super) fn overlaps(&self, host: &str) -> bool {
        self.hosts.contains(host)
            || self.above.contains(host)
            || wildcards_above(host).any(|wildcard| self.hosts.contains(&wildcard))
    }
}

/// Every wildcard that covers a host, or all hosts of a wildcard, but for itself.
fn wildcards_above(host: &str) -> impl Iterator<Item = String> {
    let bare = host.strip_prefix("*.").unwrap_or(host);
    let suffixes = bare.match_indices('.').filter_map(|(at, _)| bare.get(at..));
    let all = (host != "*").then(|| "*".to_owned());
    suffixes.map(|suffix| format!("*{suffix}")).chain(all)
}

/// Whether every host that the second means is meant by the first.
pub(super) fn covers(wide: &str, narrow: &str) -> bool {
    wide == "*" || wide == narrow || is_under(narrow.strip_prefix('*').unwrap_or(narrow), wide)
}

/// The more specific of two hostnames that overlap.
fn common(one: &str, other: &str) -> Option<Arc<str>> {
    if covers(one, other) {
        Some(other.into())
    } else if covers(other, one) {
        Some(one.into())
    } else {
        None
    }
}

/// Whether a name, or the rest of a wildcard after its star, is one or more labels below a wildcard.
fn is_under(name: &str, wildcard: &str) -> bool {
    wildcard.strip_prefix('*').is_some_and(|suffix| name.len() > suffix.len() && name.ends_with(suffix))
}

/// Lower case, without a final dot; `*` for none.
pub(super) fn normal(host: &str) -> String {
    let host = host.strip_suffix('.').unwrap_or(host);
    if host.is_empty() { "*".to_owned() } else { host.to_ascii_lowercase() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Table 1.1.
    #[test]
    fn the_more_specific_hostname_of_listener_and_route_is_served() {
        for (listener, route, wanted) in [
            ("", vec!["a.b"], vec!["a.b"]),
            ("", vec!["*.b"], vec!["*.b"]),
            ("", vec![], vec!["*"]),
            ("a.b", vec![], vec!["a.b"]),
            ("*.b", vec![], vec!["*.b"]),
            ("a.b", vec!["a.b"], vec!["a.b"]),
            ("a.b", vec!["*.b"], vec!["a.b"]),
            ("*.b", vec!["x.b", "x.y.b"], vec!["x.b", "x.y.b"]),
            ("*.b", vec!["*.b"], vec!["*.b"]),
            ("*.b", vec!["*.y.b"], vec!["*.y.b"]),
            ("*.y.b", vec!["*.b"], vec!["*.y.b"]),
            ("*.b", vec!["b"], vec![]),
            ("*.b", vec!["ab", "xb"], vec![]),
            ("*.com", vec!["*.a.b.com", "x.a.com"], vec!["*.a.b.com", "x.a.com"]),
            ("A.b", vec!["a.B."], vec!["a.b"]),
            ("a.b", vec!["c.b"], vec![]),
            ("*.bar.com", vec!["a.foo.com"], vec![]),
            ("*.b", vec!["x.b", "c", "x.b"], vec!["x.b"]),
            ("*.b", vec!["a b.b", "x.b", "*.*.b", "*x.b"], vec!["x.b"]),
            ("a b", vec![], vec![]),
        ] {
            let listener_name = Some(listener).filter(|name| !name.is_empty());
            let route: Vec<_> = route.into_iter().map(str::to_owned).collect();
            let hosts = effective(listener_name, &route);
            assert_eq!(hosts.iter().map(|host| &**host).collect::<Vec<_>>(), wanted, "{listener} {route:?}");
        }
    }

    #[test]
    fn hosts_are_taken_with_all_that_overlap_them() {
        let all = ["*", "*.b", "*.a.b", "a.b", "x.a.b", "b", "*.c", "a.c"];
        for one in all {
            let mut taken = Taken::default();
            taken.add(one);
            for other in all {
                assert_eq!(taken.overlaps(other), common(one, other).is_some(), "{one} {other}");
            }
        }
    }

    #[test]
    fn a_wildcard_covers_labels_below_it_and_not_its_apex() {
        for (wide, narrow, holds) in [
            ("*", "a.b", true),
            ("*.b", "a.b", true),
            ("*.b", "x.a.b", true),
            ("*.b", "*.a.b", true),
            ("*.b", "*.b", true),
            ("*.b", "b", false),
            ("*.a.b", "*.b", false),
            ("a.b", "*.b", false),
            ("a.b", "*", false),
        ] {
            assert_eq!(covers(wide, narrow), holds, "{wide} {narrow}");
        }
    }
}
