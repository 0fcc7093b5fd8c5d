//! Discovery: which groups, versions, resources and verbs are served.

use serde_json::{Value, json};

use super::{
    builtin::{ALL_VERBS, REVIEWS},
    negotiate::DiscoveryForm,
    resources::{Resource, Resources, Version, version_rank},
};

/// `/api`.
pub(crate) fn core_versions() -> Value {
    json!({
        "kind": "APIVersions", "versions": ["v1"],
        "serverAddressByClientCIDRs": [],
    })
}

/// `/apis`.
pub(crate) fn groups(resources: &Resources) -> Value {
    let names = group_names(resources);
    let groups: Vec<Value> =
        names.iter().filter(|name| !name.is_empty()).map(|name| group_body(resources, name)).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/apis/{group}`.
pub(crate) fn group(resources: &Resources, name: &str) -> Option<Value> {
    if name.is_empty() || versions(resources, name).is_empty() {
        return None;
    }
    let mut body = group_body(resources, name);
    if let Some(fields) = body.as_object_mut() {
        fields.insert("kind".to_owned(), json!("APIGroup"));
        fields.insert("apiVersion".to_owned(), json!("v1"));
    }
    Some(body)
}

/// `/api/v1` or `/apis/{group}/{version}`.
pub(crate) fn version(resources: &Resources, group: &str, version: &str) -> Option<Value> {
    if !versions(resources, group).iter().any(|known| known == version) {
        return None;
    }
    let mut list: Vec<Value> = Vec::new();
    for resource in resources.iter().filter(|resource| resource.group == group) {
        if let Some(served) = resource.version(version) {
            list.extend(legacy_entries(resource, served));
        }
    }
    for review in REVIEWS.iter().filter(|review| review.group == group && version == "v1") {
        list.push(json!({
            "name": review.plural, "singularName": review.kind.to_lowercase(), "namespaced": review.namespaced,
            "kind": review.kind, "verbs": ["create"],
        }));
    }
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    Some(json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": list,
    }))
}

/// Everything in one document: `/api` (core) or `/apis` (the rest) in the aggregated form.
pub(crate) fn aggregated(resources: &Resources, core: bool, api_version: &str) -> Value {
    let names = group_names(resources);
    let items: Vec<Value> = names
        .iter()
        .filter(|name| name.is_empty() == core)
        .map(|name| {
            let versions: Vec<Value> =
                versions(resources, name).iter().map(|version| aggregated_version(resources, name, version)).collect();
            let metadata = if name.is_empty() {
                json!({"creationTimestamp": null})
            } else {
                json!({"name": name, "creationTimestamp": null})
            };
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{api_version}"),
        "metadata": {}, "items": items,
    })
}

/// The `Content-Type` of a discovery answer.
pub(crate) fn content_type(form: DiscoveryForm) -> &'static str {
    match form {
        DiscoveryForm::Plain => "application/json",
        DiscoveryForm::Aggregated("v2") => "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
        DiscoveryForm::Aggregated(_) => "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList",
    }
}

fn group_names(resources: &Resources) -> Vec<String> {
    let mut names = resources.groups();
    names.extend(REVIEWS.iter().map(|review| review.group.to_owned()));
    names.sort();
    names.dedup();
    names
}

/// The versions of a group, reviews included.
fn versions(resources: &Resources, group: &str) -> Vec<String> {
    let mut versions = resources.versions(group);
    if versions.is_empty() && REVIEWS.iter().any(|review| review.group == group) {
        versions.push("v1".to_owned());
    }
    versions.sort_by_key(|version| version_rank(version));
    versions
}

fn group_body(resources: &Resources, name: &str) -> Value {
    let versions: Vec<Value> = versions(resources, name)
        .iter()
        .map(|version| json!({"groupVersion": format!("{name}/{version}"), "version": version}))
        .collect();
    let preferred = versions.first().cloned().unwrap_or(Value::Null);
    json!({"name": name, "versions": versions, "preferredVersion": preferred})
}

fn legacy_entries(resource: &Resource, version: &Version) -> Vec<Value> {
    let mut main = json!({
        "name": resource.plural, "singularName": resource.singular, "namespaced": resource.namespaced,
        "kind": resource.kind, "verbs": ALL_VERBS, "storageVersionHash": "",
    });
    if let Some(fields) = main.as_object_mut() {
        if !resource.short_names.is_empty() {
            fields.insert("shortNames".to_owned(), json!(resource.short_names));
        }
        if !resource.categories.is_empty() {
            fields.insert("categories".to_owned(), json!(resource.categories));
        }
    }
    let mut entries = vec![main];
    for sub in subresources(resource, version) {
        let mut entry = json!({
            "name": format!("{}/{}", resource.plural, sub.name), "singularName": "",
            "namespaced": resource.namespaced, "kind": sub.kind, "verbs": sub.verbs,
        });
        if (sub.group, sub.version) != (resource.group.as_str(), version.name.as_str())
            && let Some(fields) = entry.as_object_mut()
        {
            fields.insert("group".to_owned(), json!(sub.group));
            fields.insert("version".to_owned(), json!(sub.version));
        }
        entries.push(entry);
    }
    entries
}

fn aggregated_version(resources: &Resources, group: &str, version: &str) -> Value {
    let mut list: Vec<Value> = Vec::new();
    for resource in resources.iter().filter(|resource| resource.group == group) {
        if let Some(served) = resource.version(version) {
            list.push(aggregated_entry(resource, served));
        }
    }
    for review in REVIEWS.iter().filter(|review| review.group == group && version == "v1") {
        list.push(json!({
            "resource": review.plural,
            "responseKind": {"group": review.group, "version": "v1", "kind": review.kind},
            "scope": scope(review.namespaced), "singularResource": review.kind.to_lowercase(), "verbs": ["create"],
        }));
    }
    json!({"version": version, "resources": list, "freshness": "Current"})
}

fn aggregated_entry(resource: &Resource, version: &Version) -> Value {
    let subs: Vec<Value> = subresources(resource, version)
        .iter()
        .map(|sub| {
            json!({
                "subresource": sub.name, "verbs": sub.verbs,
                "responseKind": {"group": sub.group, "version": sub.version, "kind": sub.kind},
            })
        })
        .collect();
    let mut entry = json!({
        "resource": resource.plural,
        "responseKind": {"group": resource.group, "version": version.name, "kind": resource.kind},
        "scope": scope(resource.namespaced), "singularResource": resource.singular, "verbs": ALL_VERBS,
    });
    if let Some(fields) = entry.as_object_mut() {
        let lists = [
            ("shortNames", json!(resource.short_names)),
            ("categories", json!(resource.categories)),
            ("subresources", Value::Array(subs)),
        ];
        for (field, list) in lists.into_iter().filter(|(_, list)| list.as_array().is_some_and(|list| !list.is_empty()))
        {
            fields.insert(field.to_owned(), list);
        }
    }
    entry
}

struct Listed<'a> {
    name: &'a str,
    group: &'a str,
    version: &'a str,
    kind: &'a str,
    verbs: &'a [&'static str],
}

fn subresources<'a>(resource: &'a Resource, version: &'a Version) -> Vec<Listed<'a>> {
    const OBJECT_VERBS: &[&str] = &["get", "patch", "update"];
    let mut list: Vec<Listed<'_>> = resource
        .subresources
        .iter()
        .map(|sub| Listed { name: sub.name, group: sub.group, version: sub.version, kind: sub.kind, verbs: sub.verbs })
        .collect();
    if version.scale.is_some() {
        list.push(Listed { name: "scale", group: "autoscaling", version: "v1", kind: "Scale", verbs: OBJECT_VERBS });
    }
    if version.status {
        list.push(Listed {
            name: "status",
            group: &resource.group,
            version: &version.name,
            kind: &resource.kind,
            verbs: OBJECT_VERBS,
        });
    }
    list
}

fn scope(namespaced: bool) -> &'static str {
    if namespaced { "Namespaced" } else { "Cluster" }
}
