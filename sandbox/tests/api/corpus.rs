//! The manifests of the mesh's kinds, sent to a server that serves their definitions: what is meant to
//! be accepted is, and what is not is refused with the sentence that the manifest names.

use std::{
    fs,
    path::{Path, PathBuf},
};

use mesh_api::crds;
use serde_json::{Value, json};

use crate::server::Server;

/// A document of a file.
struct Document {
    object: Value,
    expected: Option<String>,
    old: Option<String>,
}

fn documents(path: &Path) -> Vec<Document> {
    let read = |text: &str| {
        let comment =
            |name| text.lines().find_map(|line| line.strip_prefix("# ")?.strip_prefix(name)).map(str::to_owned);
        Document { object: serde_saphyr::from_str(text).unwrap(), expected: comment("expect: "), old: comment("old: ") }
    };
    fs::read_to_string(path).unwrap().split("---\n").map(read).collect()
}

/// The path of a collection.
fn collection(definition: &Value, object: &Value) -> String {
    let base = format!("/apis/{}", object["apiVersion"].as_str().unwrap());
    let plural = definition["spec"]["names"]["plural"].as_str().unwrap();
    match definition["spec"]["scope"].as_str() {
        Some("Namespaced") => format!("{base}/namespaces/default/{plural}"),
        _ => format!("{base}/{plural}"),
    }
}

/// Sends a document as it is meant: created, or put in the place of another.
async fn sent(server: &Server, definition: &Value, folder: &Path, document: &Document) -> (u16, Value) {
    let mut object = document.object.clone();
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.remove("namespace");
    }
    let path = collection(definition, &object);
    let one = format!("{path}/{}", object["metadata"]["name"].as_str().unwrap());
    let answer = match &document.old {
        None => server.call("POST", &path, object).await,
        Some(file) => {
            let mut old = documents(&folder.join(file)).remove(0).object;
            old["metadata"] = json!({"name": object["metadata"]["name"]});
            let stored = server.create(&path, old).await;
            object["metadata"]["resourceVersion"] = stored["metadata"]["resourceVersion"].clone();
            server.call("PUT", &one, object).await
        }
    };
    server.call("DELETE", &one, Value::Null).await;
    answer
}

#[tokio::test]
async fn manifests_are_accepted_and_refused_as_they_say() {
    let server = Server::start();
    let manifests = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../mesh/api/tests/manifests");
    let (mut accepted, mut refused, mut wrong) = (0, 0, Vec::new());
    for definition in [crds::all(), crds::gateway_api()].concat() {
        let definition = serde_json::to_value(definition).unwrap();
        server.create("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition.clone()).await;
        let folder = manifests.join(definition["metadata"]["name"].as_str().unwrap());
        let mut files: Vec<PathBuf> = fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path()).collect();
        files.sort();
        for path in files {
            for document in documents(&path) {
                let (code, answer) = sent(&server, &definition, &folder, &document).await;
                let said = answer["message"].as_str().unwrap_or_default();
                match &document.expected {
                    None if code < 300 => accepted += 1,
                    Some(expected) if code == 422 && said.contains(expected) => refused += 1,
                    expected => {
                        let name = &document.object["metadata"]["name"];
                        wrong.push(format!("{} {name}: expected {expected:?}, got {code} {said}", path.display()));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong, {accepted} accepted, {refused} refused:\n{}", wrong.len(), wrong.join("\n"));
    assert!(accepted > 20 && refused > 100, "{accepted} accepted, {refused} refused");
}
