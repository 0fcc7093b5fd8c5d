//! What derived schemas still need before an API server likes them.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};

/// Turns the derived schema of a whole kind into the one that is published.
pub(super) fn finish(schema: &mut JSONSchemaProps, kind: &str) {
    tidy(schema);
    schema.title = None;
    if kind == "DestinationRule" {
        // Subsets times ports times the cost of a rule would be more than an API server grants a definition. What
        // these rules say is checked there by the admission webhook alone.
        if let Some(ports) = at(schema, "spec.subsets[].trafficPolicy.portLevelSettings") {
            without_rules(ports);
        }
    }
    if kind == "ListenerSet"
        && let Some(listener) = at(schema, "spec.listeners[]")
    {
        // Here, other than in a gateway, a port may be absent or 0: the usual one of the protocol is meant.
        listener.required.iter_mut().for_each(|required| required.retain(|name| name != "port"));
        if let Some(port) = at(listener, "port") {
            port.minimum = Some(0.0);
        }
    }
}

/// The schema at a path such as `spec.listeners[].tls`.
pub(super) fn at<'a>(schema: &'a mut JSONSchemaProps, path: &str) -> Option<&'a mut JSONSchemaProps> {
    let mut place = schema;
    for step in path.split('.') {
        let name = step.trim_end_matches("[]");
        place = place.properties.as_mut()?.get_mut(name)?;
        if step.ends_with("[]") {
            place = match place.items.as_mut()? {
                JSONSchemaPropsOrArray::Schema(items) => items,
                JSONSchemaPropsOrArray::Schemas(_) => return None,
            };
        }
    }
    Some(place)
}

fn tidy(schema: &mut JSONSchemaProps) {
    // The API server would write defaults into what users applied. Reading fills them in just as well.
    schema.default = None;
    // Without it a null is taken for an absent field, which is what it means; and rules see no nulls.
    schema.nullable = None;
    // Unsigned formats are none of OpenAPI's; minimum and maximum say the same.
    if schema.format.as_deref().is_some_and(|format| format.starts_with("uint")) {
        schema.format = None;
    }
    // Sections such as "# Source" are for readers of the code.
    if let Some(text) = &mut schema.description
        && let Some((shown, _)) = text.split_once("\n# ")
    {
        *text = shown.trim_end().to_owned();
    }
    if let Some(text) = &mut schema.description {
        // So are links to other types.
        *text = text.replace("[`", "`").replace("`]", "`");
    }
    each_child(schema, &mut tidy);
}

fn without_rules(schema: &mut JSONSchemaProps) {
    schema.x_kubernetes_validations = None;
    each_child(schema, &mut without_rules);
}

fn each_child(schema: &mut JSONSchemaProps, visit: &mut dyn FnMut(&mut JSONSchemaProps)) {
    schema.properties.iter_mut().flat_map(|all| all.values_mut()).for_each(&mut *visit);
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        visit(items);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        visit(values);
    }
}
