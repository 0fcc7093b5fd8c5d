//! The manifests on disk, and the definitions that they are examples of.

use std::{fmt, fs, path::PathBuf};

use mesh_api::crds;
use serde_json::Value;

/// One document of a manifest file.
pub(crate) struct Manifest {
    file: String,
    /// Name of the definition whose kind it has: the folder.
    pub(crate) definition: String,
    /// The object.
    pub(crate) object: Value,
    /// Why it is rejected.
    pub(crate) expected: Option<String>,
    /// The object that it replaces.
    pub(crate) old: Option<Value>,
}

impl fmt::Display for Manifest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} {}", self.definition, self.file, self.object["metadata"]["name"])
    }
}

/// A definition's name, and the schema of its first version.
pub(crate) struct Definition {
    pub(crate) name: String,
    pub(crate) schema: Value,
}

/// A rule of a schema.
pub(crate) struct Rule {
    pub(crate) path: String,
    pub(crate) text: String,
    pub(crate) message: String,
    /// The schema that it stands on.
    pub(crate) schema: Value,
    /// How often it can be asked about one object: the bounds of the lists and maps around it, multiplied.
    pub(crate) times: Option<u64>,
}

pub(crate) fn definitions() -> Vec<Definition> {
    let definition = |crd| {
        let crd = serde_json::to_value::<&_>(crd).unwrap();
        let name = crd["metadata"]["name"].as_str().unwrap().to_owned();
        Definition { name, schema: crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone() }
    };
    [crds::all(), crds::gateway_api()].concat().iter().map(definition).collect()
}

pub(crate) fn manifests() -> Vec<Manifest> {
    let mut found = Vec::new();
    for definition in definitions() {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/manifests").join(&definition.name);
        let mut files: Vec<_> = fs::read_dir(&folder)
            .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
            .map(|file| file.unwrap().path())
            .collect();
        files.sort();
        for path in files {
            let file = path.file_name().unwrap().to_str().unwrap().to_owned();
            for text in fs::read_to_string(&path).unwrap().split("---\n") {
                let comment = |name| text.lines().find_map(|line| line.strip_prefix("# ")?.strip_prefix(name));
                let expected = comment("expect: ").map(str::to_owned);
                assert_eq!(
                    expected.is_some(),
                    file.starts_with("rejected-"),
                    "{file}: `# expect: ` is for rejected ones"
                );
                let old = comment("old: ").map(|file| yaml(&fs::read_to_string(folder.join(file)).unwrap()));
                found.push(Manifest {
                    file: file.clone(),
                    definition: definition.name.clone(),
                    object: yaml(text),
                    expected,
                    old,
                });
            }
        }
    }
    found
}

/// Every rule of a schema.
pub(crate) fn rules(schema: &Value) -> Vec<Rule> {
    let mut found = Vec::new();
    collect(schema, "", Some(1), &mut found);
    found
}

fn collect(schema: &Value, path: &str, times: Option<u64>, found: &mut Vec<Rule>) {
    for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
        let text = |name: &str| rule[name].as_str().unwrap().to_owned();
        let (text, message) = (text("rule"), text("message"));
        found.push(Rule { path: path.to_owned(), text, message, schema: schema.clone(), times });
    }
    for (name, child) in schema["properties"].as_object().into_iter().flatten() {
        collect(child, &format!("{path}.{name}"), times, found);
    }
    let within = |bound: &str| Some(times? * schema[bound].as_u64()?);
    if schema["items"].is_object() {
        collect(&schema["items"], &format!("{path}[]"), within("maxItems"), found);
    }
    if schema["additionalProperties"].is_object() {
        collect(&schema["additionalProperties"], &format!("{path}{{}}"), within("maxProperties"), found);
    }
}

fn yaml(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{error} in {text}"))
}
