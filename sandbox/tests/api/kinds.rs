//! The mesh's own definitions and those of the Gateway API: taken, and accepting and refusing the manifests beside the
//! types as each manifest says.

use std::{fs, path::Path};

use sandbox::schema::{Schema, from_crd_version};
use serde_json::Value;

const REPOSITORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

#[test]
fn every_version_of_every_definition_is_taken() {
    for definition in definitions() {
        for version in definition["spec"]["versions"].as_array().unwrap() {
            let taken = from_crd_version(version);
            assert!(taken.is_ok(), "{} {}: {:?}", definition["metadata"]["name"], version["name"], taken.err());
        }
    }
}

#[test]
fn manifests_are_accepted_and_refused_as_they_say() {
    let mut seen = 0;
    for definition in definitions() {
        let name = definition["metadata"]["name"].as_str().unwrap();
        let schema = from_crd_version(&definition["spec"]["versions"][0]).unwrap();
        let folder = Path::new(REPOSITORY).join("mesh/api/tests/manifests").join(name);
        for file in fs::read_dir(&folder).unwrap() {
            let path = file.unwrap().path();
            for text in fs::read_to_string(&path).unwrap().split("---\n") {
                let comment = |name| text.lines().find_map(|line| line.strip_prefix("# ")?.strip_prefix(name));
                let old = comment("old: ").map(|file| object(&schema, &fs::read_to_string(folder.join(file)).unwrap()));
                let errors = errors(&schema, &object(&schema, text), old.as_ref());
                let shown = format!("{}: {errors:?}\n{text}", path.display());
                match comment("expect: ") {
                    None => assert!(errors.is_empty(), "{shown}"),
                    Some(expected) => {
                        assert_eq!(errors.len(), 1, "{shown}");
                        assert!(errors[0].contains(expected), "{shown}");
                    }
                }
                seen += 1;
            }
        }
    }
    assert!(seen > 200, "only {seen} manifests were found");
}

fn definitions() -> Vec<Value> {
    let mut found = Vec::new();
    for folder in ["deploy/charts/base/crds", "deploy/crds/gateway-api"] {
        for file in fs::read_dir(Path::new(REPOSITORY).join(folder)).unwrap() {
            found.push(serde_saphyr::from_str(&fs::read_to_string(file.unwrap().path()).unwrap()).unwrap());
        }
    }
    found
}

fn object(schema: &Schema, text: &str) -> Value {
    let mut object: Value = serde_saphyr::from_str(text).unwrap();
    object["metadata"]["uid"] = "0".into();
    schema.default(&mut object);
    let unknown = schema.prune(&mut object);
    assert!(unknown.is_empty(), "{unknown:?} in {text}");
    object
}

fn errors(schema: &Schema, object: &Value, old: Option<&Value>) -> Vec<String> {
    let mut found = schema.validate(object);
    if found.is_empty() {
        found = schema.validate_rules(object, old);
    }
    found.into_iter().map(|error| format!("{error:?}")).collect()
}
