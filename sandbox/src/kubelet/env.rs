//! A container's environment, command and arguments. Pure: what ConfigMaps and Secrets hold
//! comes in through [`Sources`].

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, EnvVarSource, Pod};

use super::fields::{self, Placement};

/// Where values come from that are not in the pod.
pub(super) trait Sources {
    /// A ConfigMap of the pod's namespace as name → value.
    fn config_map(&self, name: &str) -> Option<BTreeMap<String, String>>;
    /// A Secret of the pod's namespace as name → value.
    fn secret(&self, name: &str) -> Option<BTreeMap<String, String>>;
}

/// The environment of a container, in order; later entries replace earlier ones of their name.
///
/// # Errors
/// A message naming what is missing; reason `CreateContainerConfigError`, worth a retry.
pub(super) fn environment(
    pod: &Pod,
    container: &Container,
    placement: &Placement,
    cluster: &[(String, String)],
    sources: &dyn Sources,
) -> Result<Vec<(String, String)>, String> {
    let mut env = Environment::default();
    for (name, value) in cluster {
        env.set(name, value.clone());
    }
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or("");
        let (values, kind, name, optional) = if let Some(map) = &from.config_map_ref {
            (sources.config_map(&map.name), "configmap", &map.name, map.optional)
        } else if let Some(secret) = &from.secret_ref {
            (sources.secret(&secret.name), "secret", &secret.name, secret.optional)
        } else {
            continue;
        };
        match values {
            Some(values) => {
                for (name, value) in values {
                    env.set(&format!("{prefix}{name}"), value);
                }
            }
            None if optional == Some(true) => {}
            None => return Err(format!("{kind} {name:?} not found")),
        }
    }
    for variable in container.env.iter().flatten() {
        if let Some(source) = &variable.value_from {
            if let Some(value) = from_source(pod, container, placement, source, sources)? {
                env.set(&variable.name, value);
            }
        } else {
            let value = expand(variable.value.as_deref().unwrap_or(""), &env.values);
            env.set(&variable.name, value);
        }
    }
    Ok(env.into_pairs())
}

/// `None` when the source is optional and absent.
fn from_source(
    pod: &Pod,
    container: &Container,
    placement: &Placement,
    source: &EnvVarSource,
    sources: &dyn Sources,
) -> Result<Option<String>, String> {
    if let Some(reference) = &source.field_ref {
        return fields::field(pod, placement, &reference.field_path).map(Some);
    }
    if let Some(reference) = &source.resource_field_ref {
        return fields::resource(pod, placement, reference, Some(&container.name)).map(Some);
    }
    let (values, kind, name, key, optional) = if let Some(map) = &source.config_map_key_ref {
        (sources.config_map(&map.name), "configmap", &map.name, &map.key, map.optional)
    } else if let Some(secret) = &source.secret_key_ref {
        (sources.secret(&secret.name), "secret", &secret.name, &secret.key, secret.optional)
    } else {
        return Err("valueFrom names no source that the sandbox knows".into());
    };
    let optional = optional == Some(true);
    match values {
        None if optional => Ok(None),
        None => Err(format!("{kind} {name:?} not found")),
        Some(values) => match values.get(key) {
            Some(value) => Ok(Some(value.clone())),
            None if optional => Ok(None),
            None => Err(format!("couldn't find key {key} in {kind} {name:?}")),
        },
    }
}

#[derive(Default)]
struct Environment {
    order: Vec<String>,
    values: BTreeMap<String, String>,
}

impl Environment {
    fn set(&mut self, name: &str, value: String) {
        if self.values.insert(name.to_owned(), value).is_none() {
            self.order.push(name.to_owned());
        }
    }

    fn into_pairs(mut self) -> Vec<(String, String)> {
        let take = |name: String| self.values.remove(&name).map(|value| (name, value));
        self.order.into_iter().filter_map(take).collect()
    }
}

/// Replaces `$(NAME)` by the variable's value; `$$` is a dollar sign, and a reference to a
/// variable that does not exist stays as it is.
pub(super) fn expand(text: &str, values: &BTreeMap<String, String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        rest = after;
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
            continue;
        }
        let reference = rest.strip_prefix('(').and_then(|inner| inner.split_once(')'));
        match reference {
            Some((name, after)) => {
                match values.get(name) {
                    Some(value) => out.push_str(value),
                    None => {
                        out.push_str("$(");
                        out.push_str(name);
                        out.push(')');
                    }
                }
                rest = after;
            }
            None => out.push('$'),
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    struct Fixed;

    impl Sources for Fixed {
        fn config_map(&self, name: &str) -> Option<BTreeMap<String, String>> {
            (name == "settings").then(|| BTreeMap::from([("MODE".into(), "fast".into())]))
        }
        fn secret(&self, name: &str) -> Option<BTreeMap<String, String>> {
            (name == "keys").then(|| BTreeMap::from([("token".into(), "s3".into())]))
        }
    }

    fn env(container: serde_json::Value) -> Result<Vec<(String, String)>, String> {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n"}, "spec": {"containers": []}
        }))
        .unwrap();
        let mut container = container;
        container["name"] = json!("c");
        let container = serde_json::from_value(container).unwrap();
        let cluster = [("KUBERNETES_PORT".to_owned(), "tcp://x".to_owned())];
        environment(&pod, &container, &Placement::default(), &cluster, &Fixed)
    }

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
    }

    #[test]
    fn references_resolve_in_order_and_escapes_hold() {
        let table = [
            ("plain", "plain"),
            ("$(A)-$(B)", "1-2"),
            ("$$(A)", "$(A)"),
            ("$(NONE)", "$(NONE)"),
            ("$(A", "$(A"),
            ("cost $5", "cost $5"),
            ("end$", "end$"),
            ("$$$(A)", "$1"),
        ];
        let values = BTreeMap::from([("A".into(), "1".into()), ("B".into(), "2".into())]);
        for (text, expected) in table {
            assert_eq!(expand(text, &values), expected, "{text}");
        }
        let later = env(json!({"env": [
            {"name": "URL", "value": "$(HOST)"}, {"name": "HOST", "value": "h"},
            {"name": "URL2", "value": "$(HOST):$(KUBERNETES_PORT)"}]}));
        assert_eq!(
            later.unwrap(),
            pairs(&[("KUBERNETES_PORT", "tcp://x"), ("URL", "$(HOST)"), ("HOST", "h"), ("URL2", "h:tcp://x")])
        );
    }

    #[test]
    fn sources_give_values_and_name_what_is_missing() {
        let found = env(json!({
            "envFrom": [{"prefix": "CFG_", "configMapRef": {"name": "settings"}},
                {"configMapRef": {"name": "absent", "optional": true}}],
            "env": [{"name": "T", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "token"}}},
                {"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                {"name": "O", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "x", "optional": true}}}]
        }));
        assert_eq!(
            found.unwrap(),
            pairs(&[("KUBERNETES_PORT", "tcp://x"), ("CFG_MODE", "fast"), ("T", "s3"), ("N", "p")])
        );
        let table = [
            (json!({"envFrom": [{"secretRef": {"name": "absent"}}]}), "secret \"absent\" not found"),
            (
                json!({"env": [{"name": "X", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "x"}}}]}),
                "couldn't find key x in configmap \"settings\"",
            ),
        ];
        for (container, message) in table {
            assert_eq!(env(container).unwrap_err(), message);
        }
    }
}
