//! What a request wants to do, in the words of access rules and fault rules.

use http::Method;

use super::{
    path::{self, ResourcePath},
    query::Params,
};

/// The verb and the object of a request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Attributes {
    /// Such as `list`; of a request outside the resources the method in lower case.
    pub(crate) verb: String,
    /// What it is about.
    pub(crate) subject: Subject,
}

/// What a request is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Subject {
    /// A path outside the resources.
    Path(String),
    /// A resource or an object.
    Resource(ResourceSubject),
}

impl Default for Subject {
    fn default() -> Self {
        Self::Path(String::new())
    }
}

/// A resource, or one object of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct ResourceSubject {
    /// API group, empty for core.
    pub(crate) group: String,
    /// API version.
    pub(crate) version: String,
    /// Plural name.
    pub(crate) resource: String,
    /// Such as `status`.
    pub(crate) subresource: Option<String>,
    /// The namespace; of a namespace its own name.
    pub(crate) namespace: Option<String>,
    /// The object, where one is named.
    pub(crate) name: Option<String>,
}

impl ResourceSubject {
    /// The resource with its subresource, as rules write it.
    pub(crate) fn qualified(&self) -> String {
        match &self.subresource {
            Some(subresource) => format!("{}/{subresource}", self.resource),
            None => self.resource.clone(),
        }
    }
}

impl Attributes {
    /// Reads a request. Paths that address no resource, discovery among them, are subjects of
    /// their own.
    pub(crate) fn of(method: &Method, path: &str, target: Option<&path::Target>, params: &Params) -> Self {
        match target {
            Some(path::Target::Resource(address)) => Self::of_resource(method, address, params),
            _ => Self { verb: method.as_str().to_ascii_lowercase(), subject: Subject::Path(path.to_owned()) },
        }
    }

    fn of_resource(method: &Method, address: &ResourcePath, params: &Params) -> Self {
        let watches = address.watch || params.flag("watch");
        let single = address.name.is_some();
        let verb = match *method {
            Method::POST => "create",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE if single => "delete",
            Method::DELETE => "deletecollection",
            _ if watches && address.subresource.is_none() => "watch",
            _ if single => "get",
            _ => "list",
        };
        // A collection that is narrowed down to one name counts as a request for that object.
        let selected = matches!(verb, "list" | "watch" | "deletecollection")
            .then(|| params.text("fieldSelector").and_then(selected_name))
            .flatten();
        let of_namespace = (address.resource == "namespaces" && address.group.is_empty()).then(|| address.name.clone());
        Self {
            verb: verb.to_owned(),
            subject: Subject::Resource(ResourceSubject {
                group: address.group.clone(),
                version: address.version.clone(),
                resource: address.resource.clone(),
                subresource: address.subresource.clone(),
                namespace: address.namespace.clone().or(of_namespace.flatten()),
                name: address.name.clone().or(selected),
            }),
        }
    }

    /// The resource, unless a path is meant.
    pub(crate) fn resource(&self) -> Option<&ResourceSubject> {
        match &self.subject {
            Subject::Resource(resource) => Some(resource),
            Subject::Path(_) => None,
        }
    }
}

fn selected_name(selector: &str) -> Option<String> {
    let name = selector.split(',').find_map(|term| term.trim().strip_prefix("metadata.name="))?;
    Some(name.trim_start_matches('=').to_owned()).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(method: &str, uri: &str) -> Attributes {
        let uri: http::Uri = uri.parse().unwrap();
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        Attributes::of(&method, uri.path(), path::parse(uri.path()).as_ref(), &Params::from_uri(&uri).unwrap())
    }

    #[test]
    fn verbs_follow_method_path_and_query() {
        let cases = [
            ("GET", "/api/v1/namespaces/a/pods", "list", "pods"),
            ("GET", "/api/v1/namespaces/a/pods?watch=true", "watch", "pods"),
            ("GET", "/api/v1/watch/namespaces/a/pods", "watch", "pods"),
            ("GET", "/api/v1/namespaces/a/pods/b", "get", "pods"),
            ("GET", "/api/v1/namespaces/a/pods/b/log", "get", "pods/log"),
            ("POST", "/api/v1/namespaces/a/pods/b/exec", "create", "pods/exec"),
            ("PUT", "/api/v1/namespaces/a/pods/b/status", "update", "pods/status"),
            ("PATCH", "/apis/apps/v1/namespaces/a/deployments/b", "patch", "deployments"),
            ("DELETE", "/api/v1/namespaces/a/pods/b", "delete", "pods"),
            ("DELETE", "/api/v1/namespaces/a/pods", "deletecollection", "pods"),
        ];
        for (method, uri, verb, resource) in cases {
            let found = read(method, uri);
            assert_eq!(
                (found.verb.as_str(), found.resource().unwrap().qualified().as_str()),
                (verb, resource),
                "{uri}"
            );
        }
        let path = read("GET", "/openapi/v3");
        assert_eq!((path.verb.as_str(), path.subject), ("get", Subject::Path("/openapi/v3".to_owned())));
    }

    #[test]
    fn a_namespace_lies_in_itself_and_a_name_selector_names_the_object() {
        let namespace = read("GET", "/api/v1/namespaces/demo");
        assert_eq!(namespace.resource().unwrap().namespace.as_deref(), Some("demo"));
        let one = read("GET", "/api/v1/namespaces/a/secrets?fieldSelector=metadata.name%3Dtls&watch=1");
        assert_eq!(one.resource().unwrap().name.as_deref(), Some("tls"));
        let all = read("GET", "/api/v1/secrets?fieldSelector=type%3DOpaque");
        assert_eq!(all.resource().unwrap().name, None);
    }
}
