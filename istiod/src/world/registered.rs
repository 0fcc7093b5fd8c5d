//! What the annotations of a WorkloadEntry say about its registration.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use mesh_api::labels::AUTO_REGISTRATION_GROUP;

/// How a WorkloadEntry came to be that its workload registered itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// WorkloadGroup that it is made from, of the entry's namespace.
    pub group: Arc<str>,
    /// Replica of the control plane that the workload is, or was last, connected to.
    pub controller: Arc<str>,
    /// Since when it is connected.
    pub connected: Option<Timestamp>,
    /// Since when it is not.
    pub disconnected: Option<Timestamp>,
}

impl Registered {
    /// Reads annotations; none where the entry was not made by a registration. A time that cannot be read counts as none.
    pub fn read(annotations: Option<&BTreeMap<String, String>>) -> Option<Self> {
        let text = |name: &str| annotations?.get(name).map(String::as_str).filter(|text| !text.is_empty());
        let time = |name: &str| text(name)?.parse().ok();
        Some(Self {
            group: text(AUTO_REGISTRATION_GROUP)?.into(),
            controller: text(CONTROLLER).unwrap_or_default().into(),
            connected: time(CONNECTED),
            disconnected: time(DISCONNECTED),
        })
    }
}

/// Annotation: the replica that the workload is connected to.
pub const CONTROLLER: &str = "istio.io/workloadController";
/// Annotation: since when the workload is connected, RFC 3339.
pub const CONNECTED: &str = "istio.io/connectedAt";
/// Annotation: since when the workload is not connected, RFC 3339.
pub const DISCONNECTED: &str = "istio.io/disconnectedAt";
/// Annotation (boolean): the workload's own agent watches its health and tells of it.
pub const HEALTH_CHECKED: &str = "proxy.istio.io/health-checks-enabled";
/// Condition: what the agent tells.
pub const HEALTHY: &str = "Healthy";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_names_a_group_was_registered() {
        let read = |pairs: &[(&str, &str)]| {
            let all = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            Registered::read(Some(&all))
        };
        assert_eq!(Registered::read(None), None);
        assert_eq!(read(&[(CONTROLLER, "istiod-1"), (CONNECTED, "2026-01-01T00:00:00Z")]), None);
        let one =
            read(&[(AUTO_REGISTRATION_GROUP, "vms"), (CONTROLLER, "istiod-1"), (CONNECTED, "yesterday")]).unwrap();
        assert_eq!((&*one.group, &*one.controller, one.connected), ("vms", "istiod-1", None));
        let one = read(&[(AUTO_REGISTRATION_GROUP, "vms"), (DISCONNECTED, "1970-01-01T00:00:09.5Z")]).unwrap();
        assert_eq!(one.disconnected, Timestamp::from_millisecond(9500).ok());
    }
}
