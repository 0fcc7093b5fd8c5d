use serde_json::{Value, json};

use crate::schema::Registry;

fn errors(group: &str, kind: &str, object: &Value) -> Vec<String> {
    let schema = Registry::builtin().schema(group, "v1", kind).unwrap();
    let mut object = object.clone();
    object["kind"] = json!(kind);
    object["metadata"]["name"] = json!("x");
    schema.validate(&object).iter().map(ToString::to_string).collect()
}

fn changes(group: &str, kind: &str, old: &Value, new: &Value) -> Vec<String> {
    let schema = Registry::builtin().schema(group, "v1", kind).unwrap();
    schema.validate_update(old, new).iter().map(ToString::to_string).collect()
}

fn pod(spec: Value) -> Value {
    json!({"apiVersion": "v1", "metadata": {"name": "x"}, "spec": spec})
}

fn container(fields: Value) -> Value {
    let mut container = json!({"name": "a", "image": "i"});
    container.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    pod(json!({"containers": [container], "volumes": [{"name": "v", "emptyDir": {}}]}))
}

#[allow(clippy::too_many_lines)] // one table
#[test]
fn pods() {
    let at = |rest: &str| format!("spec.containers[0].{rest}");
    let table = [
        (pod(json!({"containers": []})), "spec.containers: Required value".to_owned()),
        (pod(json!({"containers": [{"name": "a"}]})), at("image: Required value")),
        (
            pod(json!({"containers": [{"name": "A", "image": "i"}]})),
            at("name: Invalid value: \"A\": a lowercase RFC 1123 label"),
        ),
        (
            pod(json!({"containers": [{"name": "a", "image": "i"}, {"name": "a", "image": "i"}]})),
            "spec.containers[1].name: Duplicate value: \"a\"".to_owned(),
        ),
        (
            pod(json!({"containers": [{"name": "a", "image": "i"}], "initContainers": [{"name": "a", "image": "i"}]})),
            "spec.containers[0].name: Duplicate value: \"a\"".to_owned(),
        ),
        (
            container(json!({"image": " i"})),
            at("image: Invalid value: \" i\": must not have leading or trailing whitespace"),
        ),
        (
            container(json!({"imagePullPolicy": "Sometimes"})),
            at(
                "imagePullPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"IfNotPresent\", \"Never\"",
            ),
        ),
        (
            container(json!({"ports": [{"containerPort": 70_000}]})),
            at("ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive"),
        ),
        (
            container(json!({"ports": [{"containerPort": 1, "name": "h"}, {"containerPort": 2, "name": "h"}]})),
            at("ports[1].name: Duplicate value: \"h\""),
        ),
        (
            container(json!({"ports": [{"containerPort": 1, "protocol": "ICMP"}]})),
            at("ports[0].protocol: Unsupported value: \"ICMP\""),
        ),
        (container(json!({"env": [{"name": "A=B"}]})), at("env[0].name: Invalid value: \"A=B\"")),
        (
            container(json!({"env": [{"name": "A", "value": "x", "valueFrom": {"fieldRef": {"fieldPath": "x"}}}]})),
            at("env[0].valueFrom: Invalid value"),
        ),
        (
            container(json!({"volumeMounts": [{"name": "w", "mountPath": "/w"}]})),
            at("volumeMounts[0].name: Not found: \"w\""),
        ),
        (
            container(json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}, {"name": "v", "mountPath": "/v"}]})),
            at("volumeMounts[1].mountPath: Invalid value: \"/v\": must be unique"),
        ),
        (container(json!({"readinessProbe": {}})), at("readinessProbe: Required value: must specify a handler type")),
        (
            container(json!({"readinessProbe": {"exec": {}, "tcpSocket": {"port": 1}}})),
            at("readinessProbe.tcpSocket: Forbidden: may not specify more than 1 handler type"),
        ),
        (
            container(json!({"livenessProbe": {"httpGet": {"port": 0}}})),
            at("livenessProbe.httpGet.port: Invalid value: 0: must be between"),
        ),
        (
            pod(json!({"containers": [{"name": "a", "image": "i"}], "volumes": [{"name": "v"}]})),
            "spec.volumes[0]: Required value: must specify a volume type".to_owned(),
        ),
        (
            pod(
                json!({"containers": [{"name": "a", "image": "i"}], "volumes": [{"name": "v", "emptyDir": {}, "hostPath": {"path": "/x"}}]}),
            ),
            "spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type".to_owned(),
        ),
        (
            pod(json!({"containers": [{"name": "a", "image": "i"}], "restartPolicy": "Perhaps"})),
            "spec.restartPolicy: Unsupported value: \"Perhaps\"".to_owned(),
        ),
    ];
    for (object, expected) in table {
        let found = errors("", "Pod", &object);
        assert!(found.len() == 1 && found[0].starts_with(&expected), "{found:?} instead of {expected}");
    }
    assert_eq!(
        errors(
            "",
            "Pod",
            &container(json!({"ports": [{"containerPort": 80}], "volumeMounts": [{"name": "v", "mountPath": "/v"}]}))
        ),
        Vec::<String>::new()
    );
}

#[test]
fn services() {
    let service = |spec: Value| json!({"apiVersion": "v1", "metadata": {}, "spec": spec});
    let table = [
        (json!({}), "spec.ports: Required value"),
        (
            json!({"ports": [{"port": 0}]}),
            "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
        ),
        (json!({"ports": [{"port": 1, "name": "a"}, {"port": 2}]}), "spec.ports[1].name: Required value"),
        (
            json!({"ports": [{"port": 1, "name": "a"}, {"port": 2, "name": "a"}]}),
            "spec.ports[1].name: Duplicate value: \"a\"",
        ),
        (
            json!({"ports": [{"port": 1, "name": "a"}, {"port": 1, "name": "b"}]}),
            "spec.ports[1]: Duplicate value: {\"port\":1,\"protocol\":\"TCP\"}",
        ),
        (json!({"ports": [{"port": 1, "targetPort": "UPPER"}]}), "spec.ports[0].targetPort: Invalid value: \"UPPER\""),
        (json!({"ports": [{"port": 1, "targetPort": 65_536}]}), "spec.ports[0].targetPort: Invalid value: 65536"),
        (json!({"ports": [{"port": 1}], "type": "Magic"}), "spec.type: Unsupported value: \"Magic\""),
        (json!({"type": "ExternalName"}), "spec.externalName: Required value"),
        (
            json!({"ports": [{"port": 1}], "selector": {"a": "b c"}}),
            "spec.selector: Invalid value: \"b c\": a valid label",
        ),
    ];
    for (spec, expected) in table {
        let found = errors("", "Service", &service(spec));
        assert!(found.len() == 1 && found[0].starts_with(expected), "{found:?} instead of {expected}");
    }
    for good in [
        json!({"clusterIP": "None"}),
        json!({"type": "ExternalName", "externalName": "example.com."}),
        json!({"ports": [{"port": 53, "name": "dns", "protocol": "UDP"}, {"port": 53, "name": "dns-tcp"}]}),
    ] {
        assert_eq!(errors("", "Service", &service(good)), Vec::<String>::new());
    }
}

fn deployment(selector: Value, labels: Value) -> Value {
    json!({"apiVersion": "apps/v1", "metadata": {"name": "x"}, "spec": {"selector": selector,
        "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "a", "image": "i"}]}}}})
}

#[test]
fn workloads() {
    let good = deployment(json!({"matchLabels": {"a": "b"}}), json!({"a": "b"}));
    assert_eq!(errors("apps", "Deployment", &good), Vec::<String>::new());
    let by_expression =
        deployment(json!({"matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]}), json!({"a": "b"}));
    assert_eq!(errors("apps", "Deployment", &by_expression), Vec::<String>::new());
    let mut negative = good.clone();
    negative["spec"]["replicas"] = json!(-1);
    let mut once = good.clone();
    once["spec"]["template"]["spec"]["restartPolicy"] = json!("Never");
    let mut empty_template = good.clone();
    empty_template["spec"]["template"]["spec"]["containers"] = json!([]);
    let table = [
        (negative, "spec.replicas: Invalid value: -1: must be greater than or equal to 0"),
        (once, "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\""),
        (empty_template, "spec.template.spec.containers: Required value"),
        (
            deployment(json!({}), json!({"a": "b"})),
            "spec.selector: Invalid value: {}: empty selector is invalid for deployment",
        ),
        (
            deployment(json!({"matchLabels": {"a": "c"}}), json!({"a": "b"})),
            "spec.template.metadata.labels: Invalid value: {\"a\":\"b\"}: `selector` does not match template `labels`",
        ),
        (
            deployment(
                json!({"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "a", "operator": "In"}]}),
                json!({"a": "b"}),
            ),
            "spec.selector.matchExpressions[0].values: Required value",
        ),
    ];
    for (object, expected) in table {
        let found = errors("apps", "Deployment", &object);
        assert!(found.first().is_some_and(|first| first.starts_with(expected)), "{found:?} instead of {expected}");
    }
    let other = deployment(json!({"matchLabels": {"a": "c"}}), json!({"a": "c"}));
    assert_eq!(
        changes("apps", "Deployment", &good, &other),
        ["spec.selector: Invalid value: {\"matchLabels\":{\"a\":\"c\"}}: field is immutable"]
    );
    let job = json!({"apiVersion": "batch/v1", "metadata": {}, "spec": {"template": {"spec": {"restartPolicy": "Always", "containers": [{"name": "a", "image": "i"}]}}}});
    assert_eq!(
        errors("batch", "Job", &job),
        ["spec.template.spec.restartPolicy: Unsupported value: \"Always\": supported values: \"OnFailure\", \"Never\""]
    );
}

#[test]
fn config() {
    let map = |fields: Value| {
        let mut object = json!({"apiVersion": "v1", "metadata": {}});
        object.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        object
    };
    assert_eq!(
        errors("", "ConfigMap", &map(json!({"data": {"a.b": "x"}, "binaryData": {"c": "aGk="}}))),
        Vec::<String>::new()
    );
    let found = errors("", "ConfigMap", &map(json!({"data": {"a b": "x"}})));
    assert!(found[0].starts_with("data[a b]: Invalid value: \"a b\": a valid config key"), "{found:?}");
    let found = errors("", "ConfigMap", &map(json!({"data": {"a": "x"}, "binaryData": {"a": "aGk="}})));
    assert!(found[0].contains("duplicate of key present in binaryData"), "{found:?}");
    let found = errors("", "ConfigMap", &map(json!({"data": {"a": "x".repeat(1024 * 1024 + 1)}})));
    assert!(found[0].contains("Too long"), "{found:?}");
    let found = errors("", "Secret", &map(json!({"data": {"a": "not base64"}})));
    assert!(found[0].starts_with("data[a]: Invalid value"), "{found:?}");
    let found = errors("", "Secret", &map(json!({"type": "kubernetes.io/tls", "data": {"tls.crt": ""}})));
    assert_eq!(found, ["data[tls.key]: Required value"]);
    let text = map(json!({"type": "kubernetes.io/tls", "stringData": {"tls.crt": "", "tls.key": ""}}));
    assert_eq!(errors("", "Secret", &text), [""; 0]);
    let locked = map(json!({"immutable": true, "data": {"a": "x"}}));
    assert_eq!(
        changes("", "ConfigMap", &locked, &map(json!({"immutable": true, "data": {"a": "y"}}))),
        ["data: Forbidden: field is immutable when `immutable` is set"]
    );
}

#[test]
fn endpoint_slices() {
    let slice = |kind: &str, addresses: Value| json!({"apiVersion": "discovery.k8s.io/v1", "metadata": {}, "addressType": kind, "endpoints": [{"addresses": addresses}]});
    assert_eq!(errors("discovery.k8s.io", "EndpointSlice", &slice("IPv4", json!(["10.0.0.1"]))), Vec::<String>::new());
    for (object, expected) in [
        (
            slice("IPv4", json!(["fd00::1"])),
            "endpoints[0].addresses[0]: Invalid value: \"fd00::1\": must be a valid IPv4 address",
        ),
        (slice("IPv6", json!([])), "endpoints[0].addresses: Required value: must contain at least 1 address"),
        (slice("Post", json!(["x"])), "addressType: Unsupported value: \"Post\""),
    ] {
        let found = errors("discovery.k8s.io", "EndpointSlice", &object);
        assert!(found.len() == 1 && found[0].starts_with(expected), "{found:?} instead of {expected}");
    }
}

#[test]
fn pod_updates() {
    let old = container(json!({}));
    let mut image = old.clone();
    image["spec"]["containers"][0]["image"] = json!("j");
    assert_eq!(changes("", "Pod", &old, &image), Vec::<String>::new());
    let mut bound = old.clone();
    bound["spec"]["nodeName"] = json!("node-1");
    assert_eq!(changes("", "Pod", &old, &bound), Vec::<String>::new());
    let mut moved = bound.clone();
    moved["spec"]["nodeName"] = json!("node-2");
    assert_eq!(changes("", "Pod", &bound, &moved).len(), 1);
    let mut tolerant = old.clone();
    tolerant["spec"]["tolerations"] = json!([{"operator": "Exists"}]);
    assert_eq!(changes("", "Pod", &old, &tolerant), Vec::<String>::new());
    assert_eq!(changes("", "Pod", &tolerant, &old).len(), 1);
    let mut other = old.clone();
    other["spec"]["containers"][0]["command"] = json!(["x"]);
    assert!(
        changes("", "Pod", &old, &other)[0]
            .starts_with("spec: Forbidden: pod updates may not change fields other than")
    );
}

#[test]
fn other_updates() {
    let service = |address: &str| json!({"spec": {"clusterIP": address, "clusterIPs": [address]}});
    assert_eq!(
        changes("", "Service", &service("10.96.0.1"), &service("10.96.0.2")),
        ["spec.clusterIPs[0]: Invalid value: [\"10.96.0.2\"]: may not change once set"]
    );
    assert_eq!(
        changes("", "Service", &service("10.96.0.1"), &json!({"spec": {"type": "ExternalName"}})),
        Vec::<String>::new()
    );
    let binding = |name: &str| json!({"roleRef": {"name": name}});
    let found = changes("rbac.authorization.k8s.io", "RoleBinding", &binding("a"), &binding("b"));
    assert!(found[0].ends_with("cannot change roleRef"), "{found:?}");
    let set = |fields: Value| json!({"spec": fields});
    assert_eq!(
        changes(
            "apps",
            "StatefulSet",
            &set(json!({"serviceName": "a", "replicas": 1})),
            &set(json!({"serviceName": "a", "replicas": 2}))
        ),
        Vec::<String>::new()
    );
    assert_eq!(
        changes("apps", "StatefulSet", &set(json!({"serviceName": "a"})), &set(json!({"serviceName": "b"}))).len(),
        1
    );
}
