//! From a request's path to what it addresses.

/// What a path under `/api` or `/apis` addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// `/api`: the versions of the core group.
    CoreVersions,
    /// `/apis`: all groups.
    Groups,
    /// `/apis/{group}`.
    Group(String),
    /// `/api/v1` or `/apis/{group}/{version}`: the resources of a version.
    Version { group: String, version: String },
    /// A collection, an object, or a subresource of one.
    Resource(ResourcePath),
}

/// The address of a collection, an object, or a subresource of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ResourcePath {
    /// API group, empty for core.
    pub(crate) group: String,
    /// API version.
    pub(crate) version: String,
    /// The namespace in the path.
    pub(crate) namespace: Option<String>,
    /// Plural resource name.
    pub(crate) resource: String,
    /// The object, unless a collection is meant.
    pub(crate) name: Option<String>,
    /// Such as `status`.
    pub(crate) subresource: Option<String>,
    /// Whether the outdated `/watch/` prefix was used.
    pub(crate) watch: bool,
}

/// Reads a path; `None` when it is not one of an API group.
pub(crate) fn parse(path: &str) -> Option<Target> {
    let decoded: Vec<String> = path.split('/').filter(|part| !part.is_empty()).map(percent_decoded).collect();
    let parts: Vec<&str> = decoded.iter().map(String::as_str).collect();
    match parts.as_slice() {
        ["api"] => Some(Target::CoreVersions),
        ["apis"] => Some(Target::Groups),
        ["apis", group] => Some(Target::Group((*group).to_owned())),
        ["api", version] => Some(Target::Version { group: String::new(), version: (*version).to_owned() }),
        ["apis", group, version] => {
            Some(Target::Version { group: (*group).to_owned(), version: (*version).to_owned() })
        }
        ["api", version, rest @ ..] => resource("", version, rest),
        ["apis", group, version, rest @ ..] => resource(group, version, rest),
        _ => None,
    }
}

fn resource(group: &str, version: &str, rest: &[&str]) -> Option<Target> {
    let (watch, rest) = match rest {
        ["watch", rest @ ..] if !rest.is_empty() => (true, rest),
        rest => (false, rest),
    };
    let (namespace, resource, tail) = match rest {
        // The object is a namespace itself, not something inside it.
        ["namespaces", name] => (None, "namespaces", vec![*name]),
        ["namespaces", name, sub @ ("status" | "finalize")] => (None, "namespaces", vec![*name, *sub]),
        ["namespaces", namespace, resource, tail @ ..] => (Some(*namespace), *resource, tail.to_vec()),
        [resource, tail @ ..] => (None, *resource, tail.to_vec()),
        [] => return None,
    };
    let (name, subresource) = match tail.as_slice() {
        [] => (None, None),
        [name] => (Some(*name), None),
        [name, sub @ ..] => (Some(*name), Some(sub.join("/"))),
    };
    Some(Target::Resource(ResourcePath {
        group: group.to_owned(),
        version: version.to_owned(),
        namespace: namespace.map(str::to_owned),
        resource: resource.to_owned(),
        name: name.map(str::to_owned),
        subresource,
        watch,
    }))
}

/// Resolves `%XX`; bytes that do not form UTF-8 become replacement characters, which no name has.
fn percent_decoded(part: &str) -> String {
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let pair = tail.split_at_checked(2).filter(|_| *first == b'%');
        let value = pair.and_then(|(hex, _)| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        match (value, pair) {
            (Some(value), Some((_, after))) => {
                bytes.push(value);
                rest = after;
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> ResourcePath {
        match parse(text) {
            Some(Target::Resource(path)) => path,
            other => panic!("{text} gave {other:?}"),
        }
    }

    #[test]
    fn roots_and_versions() {
        assert_eq!(parse("/api"), Some(Target::CoreVersions));
        assert_eq!(parse("/apis/"), Some(Target::Groups));
        assert_eq!(parse("/apis/apps"), Some(Target::Group("apps".into())));
        let apps = Target::Version { group: "apps".into(), version: "v1".into() };
        assert_eq!(parse("/apis/apps/v1"), Some(apps));
        assert_eq!(parse("/metrics"), None);
    }

    #[test]
    fn a_namespace_is_an_object_and_a_scope() {
        let object = path("/api/v1/namespaces/demo");
        assert_eq!((object.resource.as_str(), object.name.as_deref()), ("namespaces", Some("demo")));
        let finalize = path("/api/v1/namespaces/demo/finalize");
        assert_eq!(finalize.subresource.as_deref(), Some("finalize"));
        let pods = path("/api/v1/namespaces/demo/pods");
        assert_eq!((pods.resource.as_str(), pods.namespace.as_deref()), ("pods", Some("demo")));
    }

    #[test]
    fn subresources_and_old_watch_paths() {
        let status = path("/apis/apps/v1/namespaces/a/deployments/b/status");
        assert_eq!(status.subresource.as_deref(), Some("status"));
        let proxy = path("/api/v1/namespaces/a/pods/b/proxy/x/y");
        assert_eq!(proxy.subresource.as_deref(), Some("proxy/x/y"));
        let watch = path("/api/v1/watch/namespaces/a/pods");
        assert!(watch.watch);
        assert_eq!(watch.resource, "pods");
    }

    #[test]
    fn escaped_names() {
        let role = path("/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode");
        assert_eq!(role.name.as_deref(), Some("system:node"));
        assert_eq!(path("/api/v1/nodes/100%").name.as_deref(), Some("100%"));
    }
}
