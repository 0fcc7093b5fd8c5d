//! Custom resource definitions: from the object to a served resource.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{
    ApiServer,
    clock::stamp,
    defaults::{map, set},
    resources::{Column, Resource, Scale, Shape, Version, version_rank},
};
use crate::{
    schema::{self, FieldError, SchemaError},
    store::ResourceKey,
};

/// The finalizer that keeps a definition until its objects are gone.
pub(crate) const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

impl ApiServer {
    /// Completes a definition: names, conversion, and a status that says it is established.
    pub(crate) fn admit_definition(&self, definition: &mut Value) -> Result<(), Vec<FieldError>> {
        complete_names(definition);
        let mut errors = check(definition);
        if errors.is_empty()
            && let Err(more) = resource(definition)
        {
            errors.extend(more);
        }
        let text = |path: &str| definition.pointer(path).and_then(Value::as_str).unwrap_or_default();
        let (group, plural, kind) = (text("/spec/group"), text("/spec/names/plural"), text("/spec/names/kind"));
        let catalog = self.catalog.current();
        let taken = |other: &&Arc<Resource>| {
            other.group == group
                && ((other.plural == plural && !other.custom) || (other.plural != plural && other.kind == kind))
        };
        if let Some(other) = catalog.iter().find(taken) {
            let reason = format!("Invalid value: {kind:?}: {} already has this kind or name", other.qualified());
            errors.push(FieldError { path: "spec.names.kind".to_owned(), reason });
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        establish(definition);
        Ok(())
    }

    /// Serves what a stored definition defines.
    pub(crate) fn serve_definition(&self, definition: &Value) {
        match resource(definition) {
            Ok(resource) => self.catalog.serve(resource),
            Err(errors) => tracing::error!(?errors, "a stored definition cannot be served"),
        }
    }

    /// Stops serving what a removed definition defined.
    pub(crate) fn retire_definition(&self, definition: &Value) {
        let text = |path: &str| definition.pointer(path).and_then(Value::as_str).unwrap_or_default();
        let (group, plural) = (text("/spec/group"), text("/spec/names/plural"));
        self.catalog.retire(group, plural);
        self.store.drop_resource(&ResourceKey::new(group, plural));
    }
}

fn complete_names(definition: &mut Value) {
    let kind = definition.pointer("/spec/names/kind").and_then(Value::as_str).unwrap_or_default().to_owned();
    let Some(fields) = definition.as_object_mut() else { return };
    let spec = map(fields, "spec");
    set(spec, "conversion", json!({"strategy": "None"}));
    let names = map(spec, "names");
    set(names, "singular", json!(kind.to_lowercase()));
    set(names, "listKind", json!(format!("{kind}List")));
}

fn check(definition: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut add = |path: &str, reason: String| errors.push(FieldError { path: path.to_owned(), reason });
    let text = |path: &str| definition.pointer(path).and_then(Value::as_str).unwrap_or_default();
    let (name, group, plural) = (text("/metadata/name"), text("/spec/group"), text("/spec/names/plural"));
    for (path, pointer) in [
        ("spec.group", "/spec/group"),
        ("spec.names.plural", "/spec/names/plural"),
        ("spec.names.kind", "/spec/names/kind"),
    ] {
        if text(pointer).is_empty() {
            add(path, "Required value".to_owned());
        }
    }
    if name != format!("{plural}.{group}") {
        add("metadata.name", format!("Invalid value: {name:?}: must be spec.names.plural+\".\"+spec.group"));
    }
    if !matches!(text("/spec/scope"), "Namespaced" | "Cluster") {
        add(
            "spec.scope",
            format!("Unsupported value: {:?}: supported values: \"Cluster\", \"Namespaced\"", text("/spec/scope")),
        );
    }
    if text("/spec/conversion/strategy") == "Webhook" {
        add(
            "spec.conversion.strategy",
            "Unsupported value: \"Webhook\": the sandbox converts by \"None\" only".to_owned(),
        );
    }
    let versions =
        definition.pointer("/spec/versions").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let stored = versions.iter().filter(|version| version.get("storage") == Some(&json!(true))).count();
    if stored != 1 {
        add(
            "spec.versions",
            format!("Invalid value: must have exactly one version marked as storage version, found {stored}"),
        );
    }
    for (at, version) in versions.iter().enumerate() {
        if version.pointer("/schema/openAPIV3Schema").is_none() {
            add(
                &format!("spec.versions[{at}].schema.openAPIV3Schema"),
                "Required value: schemas are required".to_owned(),
            );
        }
    }
    errors
}

fn establish(definition: &mut Value) {
    let names = definition.pointer("/spec/names").cloned().unwrap_or_default();
    let storage = definition
        .pointer("/spec/versions")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .find(|version| version.get("storage") == Some(&json!(true)))
        .and_then(|version| version.get("name"))
        .cloned()
        .unwrap_or_default();
    let Some(fields) = definition.as_object_mut() else { return };
    let status = map(fields, "status");
    status.insert("acceptedNames".to_owned(), names);
    set(status, "storedVersions", json!([]));
    if let Some(stored) = status.get_mut("storedVersions").and_then(Value::as_array_mut)
        && !stored.contains(&storage)
    {
        stored.push(storage);
    }
    let has_conditions = status.get("conditions").and_then(Value::as_array).is_some_and(|list| !list.is_empty());
    if !has_conditions {
        let now = stamp();
        let condition = |kind: &str, reason: &str, message: &str| json!({"type": kind, "status": "True", "reason": reason, "message": message, "lastTransitionTime": now});
        let conditions = json!([
            condition("NamesAccepted", "NoConflicts", "no conflicts found"),
            condition("Established", "InitialNamesAccepted", "the initial names have been accepted"),
        ]);
        status.insert("conditions".to_owned(), conditions);
    }
}

/// The resource that a definition defines.
fn resource(definition: &Value) -> Result<Resource, Vec<FieldError>> {
    let text = |path: &str| definition.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (group, plural) = (text("/spec/group"), text("/spec/names/plural"));
    let (mut versions, mut errors, mut selectable) = (Vec::new(), Vec::new(), Vec::new());
    let listed = definition.pointer("/spec/versions").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    for (at, version) in listed.iter().enumerate() {
        match served_version(&group, version) {
            Ok(served) if served.storage || version.get("served") == Some(&json!(true)) => {
                versions.push((served, version))
            }
            Ok(_) => {}
            Err(SchemaError { path, reason }) => {
                errors.push(FieldError { path: format!("spec.versions[{at}].{path}"), reason });
            }
        }
        let fields = version.get("selectableFields").and_then(Value::as_array).into_iter().flatten();
        let paths = fields.filter_map(|field| field.get("jsonPath")?.as_str());
        selectable.extend(paths.map(|path| path.trim_start_matches('.').to_owned()));
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    versions.sort_by_key(|(version, _)| version_rank(&version.name));
    // The storage version is needed for writing even when it is not served.
    let storage = versions.iter().find(|(version, _)| version.storage).map(|(version, _)| version.name.clone());
    let served: Vec<Version> = versions
        .into_iter()
        .filter(|(_, source)| source.get("served") == Some(&json!(true)))
        .map(|(version, _)| version)
        .collect();
    let names = |field: &str| strings(definition.pointer(&format!("/spec/names/{field}")));
    Ok(Resource {
        key: ResourceKey::new(&group, &plural),
        shape: storage.map_or(Shape::Same, |name| match served.iter().any(|version| version.name == name) {
            true => Shape::Same,
            false => Shape::Stored(format!("{group}/{name}").into()),
        }),
        singular: text("/spec/names/singular"),
        kind: text("/spec/names/kind"),
        list_kind: text("/spec/names/listKind"),
        namespaced: text("/spec/scope") == "Namespaced",
        short_names: names("shortNames"),
        categories: names("categories"),
        versions: served,
        generation: true,
        selectable,
        subresources: Vec::new(),
        custom: true,
        group,
        plural,
    })
}

fn served_version(group: &str, version: &Value) -> Result<Version, SchemaError> {
    let text = |path: &str| version.pointer(path).and_then(Value::as_str);
    let name = text("/name").unwrap_or_default().to_owned();
    let schema = schema::from_crd_version(version)?;
    let pointer = |path: &str| text(path).map(|path| path.replace('.', "/"));
    let scale = version.pointer("/subresources/scale").map(|_| Scale {
        spec: pointer("/subresources/scale/specReplicasPath").unwrap_or_default(),
        status: pointer("/subresources/scale/statusReplicasPath").unwrap_or_default(),
        selector: pointer("/subresources/scale/labelSelectorPath"),
    });
    let deprecated = version.get("deprecated") == Some(&json!(true));
    let warning = text("/deprecationWarning").map(str::to_owned);
    let columns = version.get("additionalPrinterColumns").and_then(Value::as_array).into_iter().flatten();
    Ok(Version {
        storage: version.get("storage") == Some(&json!(true)),
        schema: Some(Arc::new(schema)),
        status: version.pointer("/subresources/status").is_some(),
        scale,
        columns: columns.map(column).collect(),
        deprecation: deprecated.then(|| warning.unwrap_or_else(|| format!("{group}/{name} is deprecated"))),
        name,
    })
}

fn column(column: &Value) -> Column {
    let text = |field: &str| column.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    Column {
        name: text("name"),
        kind: text("type"),
        format: text("format"),
        description: text("description"),
        priority: column.get("priority").and_then(Value::as_i64).unwrap_or_default(),
        path: text("jsonPath"),
    }
}

fn strings(value: Option<&Value>) -> Vec<String> {
    let list = value.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}
