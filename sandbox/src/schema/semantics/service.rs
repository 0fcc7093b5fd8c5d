//! Services.

use serde_json::Value;

use super::{Unique, list, one_of, port, required, text};
use crate::schema::{
    error::{FieldError, Path},
    metadata, names,
};

/// Adds what is wrong with a service.
pub(super) fn spec(spec: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    if !spec.is_object() {
        errors.push(FieldError::required(path.field("ports"), ""));
        return;
    }
    one_of(spec, "type", &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"], path, errors);
    one_of(spec, "sessionAffinity", &["ClientIP", "None"], path, errors);
    one_of(spec, "internalTrafficPolicy", &["Cluster", "Local"], path, errors);
    one_of(spec, "externalTrafficPolicy", &["Cluster", "Local"], path, errors);
    one_of(spec, "ipFamilyPolicy", &["SingleStack", "PreferDualStack", "RequireDualStack"], path, errors);
    metadata::labels(spec.get("selector"), &path.field("selector"), errors);
    let external = text(spec, "type") == Some("ExternalName");
    let headless = text(spec, "clusterIP") == Some("None");
    if external {
        if required(spec, "externalName", path, errors)
            && let Some(name) = text(spec, "externalName")
        {
            metadata::check(names::subdomain, name.trim_end_matches('.'), &path.field("externalName"), errors);
        }
    } else if !headless {
        required(spec, "ports", path, errors);
    }
    ports(spec, &path.field("ports"), errors);
}

fn ports(spec: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let items = list(spec, "ports");
    let mut seen_names = Unique::default();
    let mut seen = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let path = path.index(index);
        let name = text(item, "name").unwrap_or_default();
        if !name.is_empty() {
            metadata::check(names::label, name, &path.field("name"), errors);
            seen_names.add(name, &path.field("name"), errors);
        } else if items.len() > 1 {
            errors.push(FieldError::required(path.field("name"), ""));
        }
        let number = item.get("port").unwrap_or(&Value::Null);
        port(number, &path.field("port"), errors);
        one_of(item, "protocol", &["SCTP", "TCP", "UDP"], &path, errors);
        let protocol = text(item, "protocol").unwrap_or("TCP");
        if seen.contains(&(number, protocol)) {
            errors.push(FieldError::duplicate(path, &serde_json::json!({"port": number, "protocol": protocol})));
        }
        seen.push((number, protocol));
        match item.get("targetPort") {
            None | Some(Value::Null) => {}
            Some(Value::String(name)) => metadata::check(names::port_name, name, &path.field("targetPort"), errors),
            Some(number) => port(number, &path.field("targetPort"), errors),
        }
        if let Some(number) = item.get("nodePort").filter(|number| number.as_i64() != Some(0)) {
            port(number, &path.field("nodePort"), errors);
        }
        if let Some(protocol) = text(item, "appProtocol") {
            metadata::check(names::qualified, protocol, &path.field("appProtocol"), errors);
        }
    }
}
