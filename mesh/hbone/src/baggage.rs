//! The `baggage` header: which workload is at the other end, for metrics and logs only.

use std::fmt::Write as _;

use http::header::HeaderName;
use http::{HeaderMap, HeaderValue};

/// Header name.
pub const BAGGAGE: HeaderName = HeaderName::from_static("baggage");

/// What a peer tells about its workload. Never used for decisions: only TLS proves anything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Baggage {
    /// Cluster id.
    pub cluster: Option<String>,
    /// Namespace.
    pub namespace: Option<String>,
    /// `deployment`, `cronjob`, `pod` or `job`; `None` means `deployment` when a name is there.
    pub workload_type: Option<String>,
    /// Name of the workload (owner of the pod).
    pub workload: Option<String>,
    /// Canonical service name.
    pub service: Option<String>,
    /// Canonical revision.
    pub revision: Option<String>,
    /// Locality: region.
    pub region: Option<String>,
    /// Locality: zone.
    pub zone: Option<String>,
}

impl Baggage {
    /// The header value; `None` when nothing is known, or something known cannot be sent in a header.
    #[must_use]
    pub fn encode(&self) -> Option<HeaderValue> {
        let workload_key = format!("k8s.{}.name", self.workload_type.as_deref().unwrap_or("deployment"));
        let members = [
            (CLUSTER, &self.cluster),
            (NAMESPACE, &self.namespace),
            (workload_key.as_str(), &self.workload),
            (SERVICE, &self.service),
            (REVISION, &self.revision),
            (REGION, &self.region),
            (ZONE, &self.zone),
        ];
        let mut text = String::with_capacity(192);
        for (key, value) in members {
            if let Some(value) = value.as_deref().filter(|value| !value.is_empty()) {
                let comma = if text.is_empty() { "" } else { "," };
                let _ = write!(text, "{comma}{key}={value}");
            }
        }
        if text.is_empty() {
            return None;
        }
        HeaderValue::from_str(&text).ok()
    }

    /// Reads all baggage headers of a message. One value that is not visible ASCII makes the whole unusable.
    #[must_use]
    pub fn decode(headers: &HeaderMap) -> Option<Self> {
        let mut baggage = Self::default();
        let mut seen = false;
        for value in headers.get_all(BAGGAGE) {
            seen = true;
            for member in value.to_str().ok()?.split(',') {
                baggage.take(member);
            }
        }
        seen.then_some(baggage)
    }

    fn take(&mut self, member: &str) {
        let mut parts = member.split('=');
        let (Some(key), Some(value)) = (parts.next(), parts.next()) else {
            return;
        };
        let value = (!value.is_empty()).then(|| value.to_owned());
        match key.trim() {
            CLUSTER => self.cluster = value,
            NAMESPACE => self.namespace = value,
            SERVICE => self.service = value,
            REVISION => self.revision = value,
            REGION => self.region = value,
            ZONE => self.zone = value,
            other => {
                let kind = other.strip_prefix("k8s.").and_then(|rest| rest.strip_suffix(".name"));
                if let Some(kind @ ("deployment" | "cronjob" | "pod" | "job")) = kind {
                    self.workload_type = Some(kind.to_owned());
                    self.workload = value;
                }
            }
        }
    }
}

const CLUSTER: &str = "k8s.cluster.name";
const NAMESPACE: &str = "k8s.namespace.name";
const SERVICE: &str = "service.name";
const REVISION: &str = "service.version";
const REGION: &str = "cloud.region";
const ZONE: &str = "cloud.availability_zone";

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(lines: &[&[u8]]) -> Option<Baggage> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(BAGGAGE, HeaderValue::from_bytes(line).unwrap());
        }
        Baggage::decode(&headers)
    }

    #[test]
    fn members_come_in_order_and_empty_ones_are_left_out() {
        let baggage = Baggage {
            cluster: Some("c1".into()),
            namespace: Some("shop".into()),
            workload_type: Some("job".into()),
            workload: Some("web".into()),
            service: Some(String::new()),
            revision: Some("v1".into()),
            region: None,
            zone: Some("z1".into()),
        };
        let text = "k8s.cluster.name=c1,k8s.namespace.name=shop,k8s.job.name=web,service.version=v1,\
                    cloud.availability_zone=z1";
        assert_eq!(baggage.encode().unwrap(), text);
        assert_eq!(Baggage::default().encode(), None);
        let decoded = decode(&[text.as_bytes()]).unwrap();
        assert_eq!(decoded, Baggage { service: None, ..baggage });
    }

    #[test]
    fn odd_members_are_read_as_peers_read_them() {
        let decoded = decode(&[
            b"service.name=a=dropped,unknown=x,k8s.namespace.name=,novalue",
            b"service.name=b,k8s.cronjob.name=%41",
        ])
        .unwrap();
        assert_eq!(decoded.service.as_deref(), Some("b"), "the last occurrence wins");
        assert_eq!(decoded.namespace, None);
        assert_eq!(decoded.workload.as_deref(), Some("%41"), "nothing is percent-decoded");
        assert_eq!(decoded.workload_type.as_deref(), Some("cronjob"));
        assert_eq!(decode(&[b"service.name=a,b\xffc"]), None);
        assert_eq!(decode(&[]), None);
    }
}
