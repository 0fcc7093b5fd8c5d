//! The charts under `deploy/charts`, built into the binary, and the small part of the template language
//! that they keep to, so that Helm renders them to the same objects.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use include_dir::{Dir, include_dir};
use serde_json::Value;

/// A component, in the order of installation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Component {
    /// Folder of its chart.
    pub chart: &'static str,
    /// What progress lines call it.
    pub title: &'static str,
}

/// Every component of the ambient profile, in the order of installation.
pub const COMPONENTS: [Component; 4] = [
    Component { chart: "base", title: "Istio core" },
    Component { chart: "istiod", title: "Istiod" },
    Component { chart: "cni", title: "CNI" },
    Component { chart: "ztunnel", title: "Ztunnel" },
];

/// What `--set` may change: chart name to dotted path to value.
#[derive(Debug, Clone, Default)]
pub struct Overrides(BTreeMap<(String, String), String>);

impl Overrides {
    /// Reads `<chart>.<path>=<value>` items.
    ///
    /// # Errors
    /// Names the item that is not of this form, or the chart that does not exist.
    pub fn parse(items: &[String]) -> Result<Self> {
        let mut all = BTreeMap::new();
        for item in items {
            let (path, value) = item.split_once('=').with_context(|| format!("--set {item:?}: expected path=value"))?;
            let Some((chart, path)) = path.split_once('.') else {
                bail!("--set {item:?}: expected <chart>.<path>=<value>, charts are {}", chart_names());
            };
            if !COMPONENTS.iter().any(|component| component.chart == chart) {
                bail!("--set {item:?}: no chart {chart:?}, charts are {}", chart_names());
            }
            all.insert((chart.to_owned(), path.to_owned()), value.to_owned());
        }
        Ok(Self(all))
    }
}

/// The definitions of the Kubernetes Gateway API, for clusters that have none.
///
/// # Errors
/// Names the file that is not YAML.
pub fn gateway_api() -> Result<Vec<Value>> {
    let mut files: Vec<_> =
        GATEWAY_API.files().filter(|file| file.path().extension().is_some_and(|it| it == "yaml")).collect();
    files.sort_by_key(|file| file.path());
    let read = |file: &include_dir::File<'_>| {
        let name = file.path().display().to_string();
        let text = file.contents_utf8().with_context(|| format!("{name}: not UTF-8"))?;
        serde_saphyr::from_str(text).with_context(|| format!("{name}: not YAML"))
    };
    files.into_iter().map(read).collect()
}

/// The objects of a component for installation into `namespace`: its CRDs first, then its templates by file name.
///
/// # Errors
/// Names the file and the template expression that cannot be rendered, or the override that names no value.
pub fn render(component: Component, namespace: &str, overrides: &Overrides) -> Result<Vec<Value>> {
    let chart = CHARTS.get_dir(component.chart).with_context(|| format!("no chart {:?}", component.chart))?;
    let values = values(chart, component.chart, overrides)?;
    let mut objects = Vec::new();
    for folder in ["crds", "templates"] {
        let Some(folder) = chart.get_dir(chart.path().join(folder)) else { continue };
        let mut files: Vec<_> = folder.files().collect();
        files.sort_by_key(|file| file.path());
        for file in files {
            let name = file.path().display().to_string();
            let text = file.contents_utf8().with_context(|| format!("{name}: not UTF-8"))?;
            let text = branches(text, &name, &values)?;
            let text = substitute(&text, &name, namespace, &values)?;
            let documents: Vec<Value> =
                serde_saphyr::from_multiple(&text).with_context(|| format!("{name}: not YAML"))?;
            objects.extend(documents.into_iter().filter(|document| !document.is_null()));
        }
    }
    Ok(objects)
}

fn values(chart: &Dir<'_>, name: &str, overrides: &Overrides) -> Result<BTreeMap<String, String>> {
    let file = chart.get_file(chart.path().join("values.yaml")).context("a chart lacks values.yaml")?;
    let text = file.contents_utf8().context("values.yaml is not UTF-8")?;
    let parsed: Option<Value> = serde_saphyr::from_str(text).with_context(|| format!("{name}/values.yaml"))?;
    let mut flat = BTreeMap::new();
    flatten("", &parsed.unwrap_or_default(), &mut flat);
    for ((_, path), value) in overrides.0.iter().filter(|((chart, _), _)| chart == name) {
        match flat.get_mut(path) {
            Some(slot) => slot.clone_from(value),
            None => bail!("--set {name}.{path}: no such value, there are {}", join(flat.keys())),
        }
    }
    Ok(flat)
}

fn flatten(prefix: &str, value: &Value, flat: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                flatten(&path, value, flat);
            }
        }
        Value::String(text) => drop(flat.insert(prefix.to_owned(), text.clone())),
        Value::Null => {}
        other => drop(flat.insert(prefix.to_owned(), other.to_string())),
    }
}

/// Keeps the lines of the branches that are taken. `{{- if … }}`, `{{- else }}` and `{{- end }}` stand on lines of their own; left-out
/// lines stay as empty ones, so that messages name the right line.
fn branches(text: &str, file: &str, values: &BTreeMap<String, String>) -> Result<String> {
    let mut out = String::with_capacity(text.len());
    // Whether each open condition holds for the line at hand.
    let mut open: Vec<bool> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let place = || format!("{file}:{}", index + 1);
        let control = line.trim().strip_prefix("{{-").and_then(|rest| rest.strip_suffix("}}")).map(str::trim);
        match control {
            Some("else") => {
                let last = open.last_mut().with_context(|| format!("{}: else without if", place()))?;
                *last = !*last;
            }
            Some("end") => drop(open.pop().with_context(|| format!("{}: end without if", place()))?),
            Some(control) => {
                let condition = control.strip_prefix("if ").map(str::trim);
                let holds = match condition {
                    // Whether an object is new is for `install` to find out: it keeps what the control plane wrote.
                    Some(".Release.IsInstall") => Some(true),
                    Some(condition) => {
                        let value = condition.strip_prefix(".Values.").and_then(|path| values.get(path));
                        value.map(|value| !matches!(value.as_str(), "" | "false" | "0"))
                    }
                    None => None,
                };
                open.push(holds.with_context(|| format!("{}: cannot render {{{{- {control} }}}}", place()))?);
            }
            None if open.iter().all(|holds| *holds) => out.push_str(line),
            None => {}
        }
        out.push('\n');
    }
    anyhow::ensure!(open.is_empty(), "{file}: if without end");
    Ok(out)
}

fn substitute(text: &str, file: &str, namespace: &str, values: &BTreeMap<String, String>) -> Result<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, tail)) = rest.split_once("{{") {
        out.push_str(before);
        let (expression, after) = tail.split_once("}}").with_context(|| format!("{file}: '{{{{' without '}}}}'"))?;
        let expression = expression.trim();
        let value = match expression {
            ".Release.Namespace" => Some(namespace),
            ".Chart.AppVersion" => Some(env!("CARGO_PKG_VERSION")),
            _ => expression.strip_prefix(".Values.").and_then(|path| values.get(path)).map(String::as_str),
        };
        let line = out.lines().count().max(1);
        out.push_str(value.with_context(|| format!("{file}:{line}: cannot render {{{{ {expression} }}}}"))?);
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

fn chart_names() -> String {
    join(COMPONENTS.iter().map(|component| component.chart))
}

fn join(names: impl Iterator<Item = impl ToString>) -> String {
    names.map(|name| name.to_string()).collect::<Vec<_>>().join(", ")
}

static CHARTS: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../deploy/charts");
static GATEWAY_API: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../deploy/crds/gateway-api");

#[cfg(test)]
mod tests {
    use super::*;

    fn all(overrides: &[&str]) -> Vec<Value> {
        let overrides = Overrides::parse(&overrides.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
        COMPONENTS.iter().flat_map(|component| render(*component, "istio-system", &overrides).unwrap()).collect()
    }

    fn find<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
        objects
            .iter()
            .find(|object| object["kind"] == kind && object["metadata"]["name"] == name)
            .unwrap_or_else(|| panic!("no {kind} {name}"))
    }

    #[test]
    fn the_gateway_api_is_on_board() {
        let names: Vec<String> =
            gateway_api().unwrap().iter().map(|one| one["metadata"]["name"].as_str().unwrap().to_owned()).collect();
        for wanted in
            ["gateways", "gatewayclasses", "httproutes", "grpcroutes", "tlsroutes", "tcproutes", "referencegrants"]
        {
            assert!(names.contains(&format!("{wanted}.gateway.networking.k8s.io")), "{wanted} is missing in {names:?}");
        }
    }

    #[test]
    fn every_chart_renders_to_objects_with_kind_and_name() {
        let objects = all(&[]);
        for object in &objects {
            assert!(object["apiVersion"].is_string() && object["kind"].is_string(), "{object}");
            assert!(object["metadata"]["name"].is_string(), "{object}");
        }
        assert_eq!(find(&objects, "DaemonSet", "ztunnel")["metadata"]["namespace"], "istio-system");
        find(&objects, "DaemonSet", "istio-cni-node");
        find(&objects, "Deployment", "istiod");
    }

    #[test]
    fn component_pods_are_never_captured() {
        for object in all(&[]).iter().filter(|object| object["spec"]["template"].is_object()) {
            let labels = &object["spec"]["template"]["metadata"]["labels"];
            assert_eq!(labels["istio.io/dataplane-mode"], "none", "{object}");
        }
    }

    #[test]
    fn an_override_changes_the_value_it_names() {
        let objects = all(&["istiod.replicas=3", "ztunnel.hub=registry.example/mesh"]);
        assert_eq!(find(&objects, "Deployment", "istiod")["spec"]["replicas"], 3);
        let ztunnel = find(&objects, "DaemonSet", "ztunnel").to_string();
        assert!(ztunnel.contains("registry.example/mesh/ztunnel:"));
    }

    #[test]
    fn a_wrong_override_is_named() {
        let refused = |item: &str| match Overrides::parse(&[item.to_owned()]) {
            Err(error) => format!("{error:#}"),
            Ok(overrides) => COMPONENTS
                .iter()
                .find_map(|component| render(*component, "n", &overrides).err())
                .map(|error| format!("{error:#}"))
                .expect("must be refused"),
        };
        assert!(refused("replicas").contains("path=value"));
        assert!(refused("nope.replicas=1").contains("no chart \"nope\""));
        assert!(refused("istiod.replica=1").contains("istiod.replica: no such value"));
    }

    #[test]
    fn branches_are_taken_by_value() {
        let render = |text: &str| {
            branches(text, "t.yaml", &[("on".to_owned(), "x".to_owned()), ("off".to_owned(), String::new())].into())
        };
        let text = |value: &str| {
            format!(
                "a\n  {{{{- if .Values.{value} }}}}\nb\n  {{{{- else }}}}\n{{{{- if .Release.IsInstall }}}}\nc\n{{{{- end }}}}\n{{{{- end }}}}\nd"
            )
        };
        let lines = |text: String| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(lines(render(&text("on")).unwrap()), ["a", "b", "d"]);
        assert_eq!(lines(render(&text("off")).unwrap()), ["a", "c", "d"]);
        for (text, part) in [
            ("\n{{- if .Values.none }}\n{{- end }}", "t.yaml:2: cannot render"),
            ("{{- range .Values.on }}", "t.yaml:1: cannot render"),
            ("{{- end }}", "end without if"),
            ("{{- if .Values.on }}", "if without end"),
        ] {
            let error = render(text).unwrap_err().to_string();
            assert!(error.contains(part), "{part} is missing from {error}");
        }
    }

    /// install.md section 4, and the rows of section 2.3 that the webhook needs.
    #[test]
    fn webhooks_are_open_at_install_and_the_control_plane_may_close_them() {
        let objects = all(&[]);
        for (name, hook, operator) in [
            ("istio-validator-istio-system", "rev.validation.istio.io", "In"),
            ("istiod-default-validator", "validation.istio.io", "DoesNotExist"),
        ] {
            let configuration = find(&objects, "ValidatingWebhookConfiguration", name);
            assert_eq!(
                configuration["metadata"]["labels"]["istio.io/rev"], "default",
                "the control plane looks for it by this"
            );
            let webhook = &configuration["webhooks"][0];
            assert_eq!((&webhook["name"], &webhook["failurePolicy"]), (&hook.into(), &"Ignore".into()));
            assert_eq!(webhook["clientConfig"]["service"]["path"], "/validate");
            assert_eq!(webhook["objectSelector"]["matchExpressions"][0]["operator"], operator);
        }
        let port = &find(&objects, "Service", "istiod")["spec"]["ports"].as_array().unwrap().clone();
        assert!(port.iter().any(|port| port["port"] == 443 && port["targetPort"] == 15017));
        let role = |kind: &str, name: &str| find(&objects, kind, name)["rules"].as_array().unwrap().clone();
        let may = |rules: &[Value], resource: &str| -> Vec<String> {
            let rule = rules.iter().find(|rule| rule["resources"].as_array().unwrap().contains(&resource.into()));
            let verbs = rule.unwrap_or_else(|| panic!("no rule for {resource}"))["verbs"].as_array().unwrap();
            verbs.iter().map(|verb| verb.as_str().unwrap().to_owned()).collect()
        };
        let cluster = role("ClusterRole", "istiod-clusterrole-istio-system");
        assert_eq!(may(&cluster, "validatingwebhookconfigurations"), ["get", "list", "watch", "update"]);
        assert_eq!(may(&cluster, "mutatingwebhookconfigurations"), ["get", "list", "watch", "update", "patch"]);
        assert_eq!(may(&role("Role", "istiod"), "gateways"), ["create"]);
        let strict = all(&["istiod.base.validationFailurePolicy=Fail", "base.base.validationFailurePolicy=Fail"]);
        for name in ["istio-validator-istio-system", "istiod-default-validator"] {
            assert_eq!(find(&strict, "ValidatingWebhookConfiguration", name)["webhooks"][0]["failurePolicy"], "Fail");
        }
    }

    #[test]
    fn a_template_beyond_the_common_part_is_refused_with_its_place() {
        let error = substitute("a\nb: {{ include \"x\" . }}", "t.yaml", "n", &BTreeMap::new()).unwrap_err();
        assert!(error.to_string().starts_with("t.yaml:2: cannot render"), "{error}");
    }
}
