//! WasmPlugin and TrafficExtension.

use super::field::{Field, Fields};
use super::{Input, attach, name, scalar, telemetry};

pub(super) fn wasm_plugin(fields: &Fields<'_>, input: &Input<'_>) {
    placement(fields, input);
    module(fields);
}

pub(super) fn traffic_extension(fields: &Fields<'_>, input: &Input<'_>) {
    placement(fields, input);
    fields.one_of(&["wasm", "lua"], true);
    fields.object("wasm", module);
    fields.object("lua", |lua| {
        lua.required("inlineCode", |code| {
            let length = code.value().as_str().map(|text| text.chars().count());
            if !length.is_some_and(|length| (1..=LUA_CHARS_MAX).contains(&length)) {
                code.expected_unseen(&format!("1 to {LUA_CHARS_MAX} characters of code"));
            }
        });
    });
}

/// Which proxies run it, when, and on what.
fn placement(fields: &Fields<'_>, input: &Input<'_>) {
    attach::selector_or_targets(fields, input);
    fields.optional("phase", scalar::one_of(&["UNSPECIFIED_PHASE", "AUTHN", "AUTHZ", "STATS"]));
    fields.optional("priority", scalar::integer(i64::from(i32::MIN)..=i64::from(i32::MAX)));
    fields.objects("match", 0..=usize::MAX, |one| {
        telemetry::mode(one, input);
        one.objects("ports", 0..=usize::MAX, |port| port.required("number", scalar::port));
    });
}

fn module(fields: &Fields<'_>) {
    fields.required("url", url);
    fields.optional("sha256", |sum| {
        let is_sum = |text: &str| text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if sum.text().is_some_and(|text| !text.is_empty() && !is_sum(text)) {
            sum.expected("64 hexadecimal digits");
        }
    });
    fields.optional("imagePullPolicy", scalar::one_of(&["UNSPECIFIED_POLICY", "IfNotPresent", "Always"]));
    fields.optional("imagePullSecret", |secret| {
        if secret.value() != "" {
            name::object_name(secret);
        }
    });
    fields.optional("verificationKey", scalar::text);
    if fields.filled("verificationKey") {
        fields.warn("verificationKey is deprecated and not checked: use sha256");
    }
    fields.opaque(&["pluginConfig"]);
    fields.optional("pluginName", scalar::filled_up_to(NAME_CHARS_MAX));
    fields.optional("failStrategy", scalar::one_of(&["FAIL_CLOSE", "FAIL_OPEN", "FAIL_RELOAD"]));
    if fields.text("failStrategy") == Some("FAIL_OPEN") {
        fields.warn("failStrategy FAIL_OPEN: traffic passes without the plugin when it fails");
    }
    fields.optional("type", scalar::one_of(&["UNSPECIFIED_PLUGIN_TYPE", "HTTP", "NETWORK"]));
    fields.object("vmConfig", |vm| {
        vm.objects("env", 0..=ENV_MAX, variable);
        let items = vm.get("env").map(|field| field.items()).unwrap_or_default();
        let mut seen = std::collections::BTreeSet::new();
        for item in &items {
            let name = item.value().get("name").and_then(|name| name.as_str());
            if name.is_some_and(|name| !seen.insert(name)) {
                item.expected_unseen("each name once");
            }
        }
    });
}

fn variable(fields: &Fields<'_>) {
    fields.required("name", scalar::filled_up_to(NAME_CHARS_MAX));
    fields.optional("valueFrom", scalar::one_of(&["INLINE", "HOST"]));
    let inline = fields.text("valueFrom").unwrap_or("INLINE") == "INLINE";
    // The value may be secret: it is never repeated.
    let value = fields.get("value");
    if value.as_ref().is_some_and(|value| value.value().as_str().is_none_or(|text| text.len() > VALUE_BYTES_MAX)) {
        fields.error(&format!("value: expected a text of at most {VALUE_BYTES_MAX} bytes"));
    }
    match (inline, fields.filled("value")) {
        (true, false) => fields.error("value is missing: expected one with valueFrom INLINE"),
        (false, true) => {
            fields.error("value with valueFrom HOST: expected none, it is taken from the proxy's environment")
        }
        _ => {}
    }
}

fn url(field: &Field<'_>) {
    let Some(text) = field.text() else { return };
    let file = text.strip_prefix("file://").is_some_and(|path| path.starts_with('/'));
    // Without a scheme it names an image.
    let image = !text.contains("://") && !text.is_empty() && !text.contains(char::is_whitespace);
    if !file && !image && !scalar::is_url(text, &["oci", "http", "https"]) {
        field.expected("an image, or a URL with oci://, http://, https:// or file:///");
    }
}

const NAME_CHARS_MAX: usize = 256;
const VALUE_BYTES_MAX: usize = 2048;
const ENV_MAX: usize = 256;
const LUA_CHARS_MAX: usize = 65_536;
