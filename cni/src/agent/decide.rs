//! What a change of a pod means. Pure.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::Pod;
use mesh_api::labels as names;

use crate::eligibility::{Eligibility, Labels, is_terminal};

/// What is to be done about a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Nothing.
    None,
    /// Capture it.
    Add,
    /// Its addresses have changed.
    UpdateAddresses,
    /// Stop capturing it while it runs on.
    Release,
    /// Forget it: it has ended or is gone.
    Forget,
}

/// Whether the annotation says that the pod is captured.
#[must_use]
pub fn is_enrolled(pod: &Pod) -> bool {
    redirection(pod) == Some(names::REDIRECTION_ENABLED)
}

/// Whether the annotation says that the proxy has yet to take the pod.
#[must_use]
pub fn is_pending(pod: &Pod) -> bool {
    redirection(pod) == Some(names::REDIRECTION_PENDING)
}

fn redirection(pod: &Pod) -> Option<&str> {
    pod.metadata.annotations.as_ref()?.get(names::REDIRECTION).map(String::as_str)
}

/// The addresses in a pod's status, canonical; what is no address is left out.
#[must_use]
pub fn addresses(pod: &Pod) -> Vec<IpAddr> {
    let Some(status) = &pod.status else { return Vec::new() };
    let many = status.pod_ips.iter().flatten().map(|one| one.ip.as_str());
    let texts: Vec<&str> = many.chain(status.pod_ip.as_deref()).collect();
    let mut ips: Vec<IpAddr> =
        texts.iter().filter_map(|text| Some(text.parse::<IpAddr>().ok()?.to_canonical())).collect();
    ips.sort_unstable();
    ips.dedup();
    ips
}

/// For a pod that exists: `old` is how it was when it was last looked at, if it was.
#[must_use]
pub fn on_update(old: Option<&Pod>, pod: &Pod, namespace: &Labels, eligibility: &Eligibility) -> Action {
    let (was, partial) = (is_enrolled(pod), is_pending(pod));
    let should = eligibility.captures(pod, namespace);
    let ended = is_terminal(pod);
    match (was || partial, should && !ended) {
        (true, _) if ended => Action::Forget,
        (true, false) => Action::Release,
        (true, true) if was => match old {
            Some(old) if addresses(old) != addresses(pod) => Action::UpdateAddresses,
            _ => Action::None,
        },
        // A pod without an address is still being made; a later change brings it back.
        (_, true) if !addresses(pod).is_empty() => Action::Add,
        _ => Action::None,
    }
}

/// For a pod that is gone; `last` is how it was.
#[must_use]
pub fn on_delete(last: &Pod, namespace: &Labels, eligibility: &Eligibility) -> Action {
    if is_enrolled(last) || is_pending(last) || eligibility.captures(last, namespace) {
        Action::Forget
    } else {
        Action::None
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::eligibility::default_selectors;

    fn pod(annotation: Option<&str>, phase: &str, ip: Option<&str>) -> Pod {
        let mut value = json!({"metadata": {"name": "p", "namespace": "demo", "annotations": {}},
                               "status": {"phase": phase, "podIPs": []}});
        if let Some(annotation) = annotation {
            value["metadata"]["annotations"][names::REDIRECTION] = json!(annotation);
        }
        if let Some(ip) = ip {
            value["status"]["podIPs"] = json!([{"ip": ip}]);
        }
        serde_json::from_value(value).unwrap()
    }

    fn decided(old: Option<&Pod>, pod: &Pod, ambient: bool) -> Action {
        let mode = if ambient { "ambient" } else { "none" };
        let namespace = [(names::DATAPLANE_MODE.to_owned(), mode.to_owned())].into();
        on_update(old, pod, &namespace, &Eligibility::new(default_selectors(), Vec::new()))
    }

    #[test]
    fn every_row_of_the_update_table() {
        let (e, p, ip) = (Some("enabled"), Some("pending"), Some("10.0.0.1"));
        for (annotation, phase, ip, ambient, want) in [
            (e, "Succeeded", ip, true, Action::Forget),
            (p, "Failed", ip, true, Action::Forget),
            (None, "Succeeded", ip, true, Action::None),
            (e, "Running", ip, true, Action::None),
            (e, "Running", ip, false, Action::Release),
            (p, "Running", ip, false, Action::Release),
            (None, "Running", ip, true, Action::Add),
            (p, "Running", ip, true, Action::Add),
            (None, "Pending", None, true, Action::None),
            (p, "Pending", None, true, Action::None),
            (None, "Running", ip, false, Action::None),
        ] {
            let pod = pod(annotation, phase, ip);
            assert_eq!(decided(None, &pod, ambient), want, "{annotation:?} {phase} {ip:?} ambient={ambient}");
        }
    }

    #[test]
    fn a_changed_address_of_an_enrolled_pod_is_followed() {
        let (old, new) =
            (pod(Some("enabled"), "Running", Some("10.0.0.1")), pod(Some("enabled"), "Running", Some("10.0.0.2")));
        assert_eq!(decided(Some(&old), &new, true), Action::UpdateAddresses);
        assert_eq!(decided(Some(&new), &new, true), Action::None);
    }

    #[test]
    fn a_deleted_pod_is_forgotten_if_it_ever_mattered() {
        let eligibility = Eligibility::new(default_selectors(), Vec::new());
        let gone = |annotation| on_delete(&pod(annotation, "Running", None), &Labels::new(), &eligibility);
        assert_eq!(gone(Some("enabled")), Action::Forget);
        assert_eq!(gone(Some("pending")), Action::Forget);
        assert_eq!(gone(None), Action::None);
    }
}
