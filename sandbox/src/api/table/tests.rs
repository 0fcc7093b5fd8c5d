use serde_json::json;

use super::*;
use crate::{api::resources::Catalog, schema::Registry};

fn rows(group: &str, plural: &str, object: Value) -> Vec<(String, String)> {
    let catalog = Catalog::builtin(&Registry::builtin()).current();
    let resource = catalog.find(group, plural).unwrap();
    let at = Target { resource, version: &resource.versions[0], namespace: None };
    let object = Arc::new(Object::new(object, 1));
    let table = render(&at, &[object], json!({}), Include::None);
    let columns = table["columnDefinitions"].as_array().unwrap();
    let cells = table["rows"][0]["cells"].as_array().unwrap();
    assert_eq!(columns.len(), cells.len());
    let name = |column: &Value| column["name"].as_str().unwrap().to_owned();
    columns.iter().zip(cells).map(|(column, cell)| (name(column), text(cell))).collect()
}

fn cell<'a>(rows: &'a [(String, String)], name: &str) -> &'a str {
    &rows.iter().find(|(column, _)| column == name).unwrap().1
}

#[test]
fn pods_show_the_most_telling_word() {
    let pod = |status: Value, metadata: Value| json!({"metadata": metadata, "spec": {"containers": [{"name": "a"}], "initContainers": [{"name": "i"}]}, "status": status});
    let cases = [
        (json!({"phase": "Pending"}), json!({}), "Pending"),
        (
            json!({"phase": "Running", "containerStatuses": [{"ready": true, "state": {"running": {}}}]}),
            json!({}),
            "Running",
        ),
        (
            json!({"phase": "Running", "containerStatuses": [{"state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}),
            json!({}),
            "CrashLoopBackOff",
        ),
        (
            json!({"phase": "Succeeded", "containerStatuses": [{"state": {"terminated": {"reason": "Completed"}}}]}),
            json!({}),
            "Completed",
        ),
        (json!({"phase": "Pending", "initContainerStatuses": [{"state": {"running": {}}}]}), json!({}), "Init:0/1"),
        (json!({"phase": "Running"}), json!({"deletionTimestamp": "2020-01-01T00:00:00Z"}), "Terminating"),
    ];
    for (status, metadata, wanted) in cases {
        assert_eq!(cell(&rows("", "pods", pod(status.clone(), metadata)), "Status"), wanted, "{status}");
    }
    let ready = json!({"phase": "Running", "containerStatuses": [{"ready": true, "restartCount": 2, "state": {"running": {}}}]});
    let shown = rows("", "pods", pod(ready, json!({"name": "web"})));
    assert_eq!((cell(&shown, "Name"), cell(&shown, "Ready"), cell(&shown, "Restarts")), ("web", "1/1", "2"));
}

#[test]
fn services_show_their_ports() {
    let object = json!({"spec": {"type": "NodePort", "clusterIP": "10.96.0.1", "ports": [
        {"port": 80, "protocol": "TCP", "nodePort": 30_001}, {"port": 53, "protocol": "UDP"}]}});
    let shown = rows("", "services", object);
    assert_eq!(cell(&shown, "Port(s)"), "80:30001/TCP,53/UDP");
    assert_eq!(cell(&shown, "External-IP"), "<none>");
}

#[test]
fn every_layout_survives_an_empty_object() {
    let catalog = Catalog::builtin(&Registry::builtin()).current();
    for resource in catalog.iter() {
        rows(&resource.group, &resource.plural, json!({}));
    }
}

#[test]
fn custom_columns_keep_their_type() {
    let column = |kind: &str, path: &str| Column {
        name: "x".to_owned(),
        kind: kind.to_owned(),
        format: String::new(),
        description: String::new(),
        priority: 0,
        path: path.to_owned(),
    };
    let object = json!({"metadata": {"name": "a"}, "spec": {"n": 3, "on": true, "list": ["a", "b"]}});
    let columns = [
        column("integer", ".spec.n"),
        column("boolean", ".spec.on"),
        column("string", ".spec.list[*]"),
        column("integer", ".spec.on"),
    ];
    assert_eq!(custom_cells(&columns, &object), [json!("a"), json!(3), json!(true), json!("a,b"), Value::Null]);
}
