//! What stands in for a policy that cannot be read: each part is read by itself, and a part that cannot be read is taken
//! for the strictest that it may have meant. What is lost here is access, never protection.

use mesh_api::security::{Action, AuthorizationPolicySpec, Mode, Rule};
use mesh_core::names::NamespacedName;
use serde_json::Value;

use super::request::readable_targets;
use super::security::{add_port, ports_without_selector};
use crate::world::{Labels, PeerAuthentication};

/// Scope and content in place of an AuthorizationPolicy: allows nothing, or denies everything.
///
/// None where the scope cannot be read, and where node proxies would not enforce the policy either if it could be read. Of
/// a policy with targets those that can be read remain: they still need a waypoint.
pub(super) fn authorization(written: &Value) -> Option<(Option<Labels>, AuthorizationPolicySpec)> {
    let attached = |path| match written.pointer(path) {
        None | Some(Value::Null) => false,
        Some(Value::Array(all)) => !all.is_empty(),
        Some(_) => true,
    };
    let action = written.pointer("/spec/action").and_then(Value::as_str).unwrap_or_default().to_ascii_uppercase();
    if attached("/spec/targetRef") || attached("/spec/targetRefs") {
        let target_refs = readable_targets(written);
        let (action, rules) = match action.as_str() {
            "AUDIT" => (Action::Audit, Vec::new()),
            "DENY" => (Action::Deny, vec![Rule::default()]),
            _ => (Action::Allow, Vec::new()),
        };
        let spec = AuthorizationPolicySpec { action: Some(action), rules, target_refs, ..Default::default() };
        return (!spec.target_refs.is_empty()).then_some((None, spec));
    }
    let (action, rules) = match action.as_str() {
        "AUDIT" | "CUSTOM" => return None,
        "DENY" => (Action::Deny, vec![Rule::default()]),
        _ => (Action::Allow, Vec::new()),
    };
    Some((selector(written)?, AuthorizationPolicySpec { action: Some(action), rules, ..Default::default() }))
}

/// In place of a PeerAuthentication; none where the scope cannot be read.
pub(super) fn peer(written: &Value, key: NamespacedName, created_s: i64) -> Option<PeerAuthentication> {
    let selector = selector(written)?;
    let mode = mode(written.pointer("/spec/mtls"));
    let mut peer = PeerAuthentication { key, created_s, generation: 0, selector, mode, ports: Default::default() };
    match written.pointer("/spec/portLevelMtls") {
        None | Some(Value::Null) => {}
        Some(Value::Object(ports)) => {
            for (text, tls) in ports {
                // What is wrong is told by the reading that failed.
                let _ = add_port(&mut peer, text, self::mode(Some(tls)));
            }
        }
        Some(_) => peer.mode = Mode::Strict,
    }
    // The same: it is told already.
    let _ = ports_without_selector(&mut peer);
    Some(peer)
}

/// The mode in `{mode: …}`.
fn mode(tls: Option<&Value>) -> Mode {
    let mode = match tls {
        None | Some(Value::Null) => return Mode::Unset,
        Some(Value::Object(fields)) => fields.get("mode"),
        Some(_) => return Mode::Strict,
    };
    match mode {
        None | Some(Value::Null) => Mode::Unset,
        Some(mode) => serde_json::from_value(mode.clone()).unwrap_or(Mode::Strict),
    }
}

/// The scope: none when it cannot be read; no labels means everything, as in the API. A label whose value is no text is
/// ignored as long as others remain, which makes the scope wider.
#[expect(clippy::option_option, reason = "unreadable, everything, and some labels are three things")]
fn selector(written: &Value) -> Option<Option<Labels>> {
    let selector = match written.pointer("/spec/selector") {
        None | Some(Value::Null) => return Some(None),
        Some(Value::Object(selector)) => selector,
        Some(_) => return None,
    };
    let wanted = match selector.get("matchLabels") {
        None | Some(Value::Null) => return Some(None),
        Some(Value::Object(wanted)) => wanted,
        Some(_) => return None,
    };
    let labels: Labels = wanted.iter().filter_map(|(key, value)| Some((key.as_str(), value.as_str()?))).collect();
    match (wanted.is_empty(), labels.is_empty()) {
        (true, _) => Some(None),
        (false, true) => None,
        (false, false) => Some(Some(labels)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_unreadable_policy_denies_in_its_scope() {
        let stand_in = |spec: Value| authorization(&json!({"spec": spec}));
        let web: Labels = [("app", "web")].into_iter().collect();
        let selected = json!({"matchLabels": {"app": "web"}});
        let (scope, spec) = stand_in(json!({"selector": selected, "rules": 7})).unwrap();
        assert_eq!((scope, spec.action, spec.rules), (Some(web.clone()), Some(Action::Allow), vec![]));
        let (scope, spec) = stand_in(json!({"action": "DENY", "rules": [{"from": "x"}]})).unwrap();
        assert_eq!((scope, spec.action, spec.rules), (None, Some(Action::Deny), vec![Rule::default()]));
        assert_eq!(stand_in(json!({"action": "REFUSE"})).unwrap().1.action, Some(Action::Allow));
        assert_eq!(stand_in(json!({"action": "Deny"})).unwrap().1.action, Some(Action::Deny));
        assert_eq!(authorization(&json!({"spec": 7})).unwrap().1.action, Some(Action::Allow));
        let wider = json!({"matchLabels": {"app": "web", "version": 1}});
        assert_eq!(stand_in(json!({"selector": wider})).unwrap().0, Some(web));
        let attached = json!({"targetRefs": [{"kind": 7}, {"kind": "Service", "name": "web"}], "rules": 7});
        let (_, spec) = stand_in(attached).unwrap();
        assert_eq!((spec.target_refs.len(), spec.action, spec.rules), (1, Some(Action::Allow), vec![]));
        // Not even its scope can be read, or it is not for node proxies.
        for spec in [
            json!({"selector": "web", "rules": 7}),
            json!({"selector": {"matchLabels": {"version": 1}}}),
            json!({"action": "AUDIT", "rules": 7}),
            json!({"targetRefs": [{"kind": 7}]}),
        ] {
            assert_eq!(stand_in(spec), None);
        }
    }

    #[test]
    fn an_unreadable_peer_authentication_is_strict_where_it_may_have_been() {
        let stand_in = |spec: Value| peer(&json!({"spec": spec}), NamespacedName::new("ns", "p"), 0).unwrap();
        assert_eq!(stand_in(json!({"mtls": {"mode": "STRICTT"}})).mode, Mode::Strict);
        assert_eq!(stand_in(json!({"mtls": "STRICT"})).mode, Mode::Strict);
        assert_eq!(stand_in(json!({"portLevelMtls": [80]})).mode, Mode::Strict);
        let mixed = stand_in(json!({
            "selector": {"matchLabels": {"app": "web"}}, "mtls": {"mode": "PERMISSIVE"}, "portLevelMtls": {"80": {"mode": "open"}, "81": {"mode": "PERMISSIVE"}},
        }));
        assert_eq!(mixed.mode, Mode::Permissive);
        assert_eq!(mixed.ports, [(80, Mode::Strict), (81, Mode::Permissive)].into());
    }
}
