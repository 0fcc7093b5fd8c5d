//! The roles that every cluster has from the start.

use serde_json::{Value, json};

/// A role or binding that is created with the server: plural name and object.
pub(crate) fn all() -> Vec<(&'static str, Value)> {
    let mut objects = Vec::new();
    for (name, rules) in roles() {
        objects.push(("clusterroles", json!({"metadata": {"name": name, "labels": labels()}, "rules": rules})));
    }
    for (name, role, group) in BINDINGS {
        let subject = json!({"apiGroup": super::GROUP, "kind": "Group", "name": group});
        objects.push((
            "clusterrolebindings",
            json!({
                "metadata": {"name": name, "labels": labels()},
                "roleRef": {"apiGroup": super::GROUP, "kind": "ClusterRole", "name": role},
                "subjects": [subject],
            }),
        ));
    }
    objects
}

/// Binding, role, group.
const BINDINGS: [(&str, &str, &str); 5] = [
    ("cluster-admin", "cluster-admin", "system:masters"),
    ("system:discovery", "system:discovery", "system:authenticated"),
    ("system:basic-user", "system:basic-user", "system:authenticated"),
    ("system:public-info-viewer", "system:public-info-viewer", "system:authenticated"),
    ("system:service-account-issuer-discovery", "system:service-account-issuer-discovery", "system:serviceaccounts"),
];

fn labels() -> Value {
    json!({"kubernetes.io/bootstrapping": "rbac-defaults"})
}

fn roles() -> Vec<(&'static str, Value)> {
    let paths = |paths: &[&str]| json!([{"nonResourceURLs": paths, "verbs": ["get"]}]);
    let everything = json!([
        {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]},
        {"nonResourceURLs": ["*"], "verbs": ["*"]},
    ]);
    let public = ["/healthz", "/livez", "/readyz", "/version", "/version/"];
    let discovery = ["/", "/api", "/api/*", "/apis", "/apis/*", "/openapi", "/openapi/*"];
    let discovery: Vec<&str> = discovery.into_iter().chain(public).collect();
    vec![
        ("cluster-admin", everything),
        ("system:discovery", paths(&discovery)),
        ("system:public-info-viewer", paths(&public)),
        ("system:service-account-issuer-discovery", paths(&["/.well-known/openid-configuration", "/openid/v1/jwks"])),
        (
            "system:basic-user",
            json!([
                {"apiGroups": ["authorization.k8s.io"], "verbs": ["create"],
                 "resources": ["selfsubjectaccessreviews", "selfsubjectrulesreviews"]},
                {"apiGroups": ["authentication.k8s.io"], "resources": ["selfsubjectreviews"], "verbs": ["create"]},
            ]),
        ),
        (
            "system:auth-delegator",
            json!([
                {"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]},
                {"apiGroups": ["authorization.k8s.io"], "resources": ["subjectaccessreviews"], "verbs": ["create"]},
            ]),
        ),
        ("admin", namespaced(&WRITE_VERBS, true)),
        ("edit", namespaced(&WRITE_VERBS, false)),
        ("view", namespaced(&READ_VERBS, false)),
    ]
}

const READ_VERBS: [&str; 3] = ["get", "list", "watch"];
const WRITE_VERBS: [&str; 8] = ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"];

/// What users do in their own namespaces.
fn namespaced(verbs: &[&str], with_roles: bool) -> Value {
    let writes = verbs.len() > READ_VERBS.len();
    let mut core =
        vec!["configmaps", "endpoints", "events", "pods", "pods/log", "pods/status", "serviceaccounts", "services"];
    if writes {
        core.extend(["secrets", "pods/exec", "pods/portforward", "pods/eviction", "serviceaccounts/token"]);
    }
    let mut rules = vec![
        json!({"apiGroups": [""], "resources": core, "verbs": verbs}),
        json!({"apiGroups": [""], "resources": ["namespaces"], "verbs": READ_VERBS}),
    ];
    for group in ["apps", "batch", "autoscaling", "networking.k8s.io", "policy", "discovery.k8s.io"] {
        rules.push(json!({"apiGroups": [group], "resources": ["*"], "verbs": verbs}));
    }
    if with_roles {
        rules.push(json!({"apiGroups": [super::GROUP], "resources": ["roles", "rolebindings"], "verbs": verbs}));
    }
    Value::Array(rules)
}
