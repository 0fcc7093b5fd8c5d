//! The labels that bind an object to a waypoint.

use std::collections::BTreeMap;
use std::sync::Arc;

use mesh_api::labels as names;
use mesh_core::env::parse_bool;
use mesh_core::names::NamespacedName;

/// What a Service, ServiceEntry, WorkloadEntry, Pod or Namespace says about its waypoint. Most say nothing and have none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Binding {
    /// `istio.io/use-waypoint`: it hides what the namespace says.
    pub waypoint: Option<WaypointChoice>,
    /// `istio.io/use-waypoint-canary`.
    pub canary: Option<Canary>,
    /// `istio.io/ingress-use-waypoint`; what is no boolean counts as false.
    pub ingress: Option<bool>,
    /// Made for a waypoint or an east-west gateway: such a Service never has a waypoint itself.
    pub gateway: bool,
}

/// Value of the label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WaypointChoice {
    /// Explicitly none.
    OptOut,
    /// This Gateway.
    Named(GatewayRef),
}

/// A Gateway as a label names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayRef {
    /// Its namespace, when said.
    pub namespace: Option<Arc<str>>,
    /// Its name.
    pub name: Arc<str>,
}

impl GatewayRef {
    /// The Gateway that is meant when said by something in `namespace`.
    pub fn key(&self, namespace: &Arc<str>) -> NamespacedName {
        NamespacedName::new(self.namespace.as_ref().unwrap_or(namespace).clone(), self.name.clone())
    }
}

/// A second waypoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Canary {
    /// Which.
    pub gateway: GatewayRef,
    /// Its share in percent, or what was written when that is none.
    pub weight: Result<u8, Arc<str>>,
}

type Map = BTreeMap<String, String>;

impl Binding {
    /// Reads labels and annotations as they stand in the metadata. None when they say nothing.
    pub fn read(labels: Option<&Map>, annotations: Option<&Map>) -> Option<Box<Self>> {
        let labels = labels?;
        let label = |name: &str| labels.get(name).map(String::as_str);
        let gateway = |name: &str, namespace: &str| {
            let namespace = label(namespace).filter(|one| !one.is_empty()).map(Arc::from);
            label(name).map(|name| GatewayRef { namespace, name: name.into() })
        };
        let waypoint = gateway(names::USE_WAYPOINT, names::USE_WAYPOINT_NAMESPACE).map(|one| {
            if *one.name == *names::USE_WAYPOINT_NONE { WaypointChoice::OptOut } else { WaypointChoice::Named(one) }
        });
        let canary = gateway(names::USE_WAYPOINT_CANARY, names::USE_WAYPOINT_CANARY_NAMESPACE);
        let weight = annotations.and_then(|all| all.get(names::USE_WAYPOINT_CANARY_WEIGHT));
        let binding = Self {
            waypoint,
            canary: canary.map(|gateway| Canary { gateway, weight: read_weight(weight) }),
            ingress: label(names::INGRESS_USE_WAYPOINT).map(|text| parse_bool(text).unwrap_or_default()),
            gateway: label(names::GATEWAY_MANAGED).is_some_and(|one| names::MESH_GATEWAY_MANAGERS.contains(&one)),
        };
        (binding != Self::default()).then(|| Box::new(binding))
    }

    /// The Gateways that are named, when said by something in `namespace`.
    pub fn gateways<'a>(&'a self, namespace: &'a Arc<str>) -> impl Iterator<Item = NamespacedName> + 'a {
        let primary = match &self.waypoint {
            Some(WaypointChoice::Named(gateway)) => Some(gateway),
            Some(WaypointChoice::OptOut) | None => None,
        };
        let canary = self.canary.as_ref().map(|canary| &canary.gateway);
        primary.into_iter().chain(canary).map(|gateway| gateway.key(namespace))
    }
}

fn read_weight(written: Option<&String>) -> Result<u8, Arc<str>> {
    let Some(text) = written else { return Ok(0) };
    text.parse().ok().filter(|weight| *weight <= 100).ok_or_else(|| text.as_str().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(entries: &[(&str, &str)]) -> Map {
        entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn read(labels: &[(&str, &str)]) -> Option<Box<Binding>> {
        Binding::read(Some(&map(labels)), None)
    }

    #[test]
    fn labels_that_say_nothing_are_no_binding() {
        assert_eq!(Binding::read(None, None), None);
        assert_eq!(read(&[("app", "web"), ("istio.io/use-waypoint-namespace", "infra")]), None);
        assert_eq!(read(&[("gateway.istio.io/managed", "istio.io-gateway-controller")]), None);
    }

    #[test]
    fn the_gateway_is_in_the_objects_namespace_unless_said() {
        let web = Arc::from("web");
        let near = read(&[("istio.io/use-waypoint", "wp")]).unwrap();
        assert_eq!(near.gateways(&web).collect::<Vec<_>>(), [NamespacedName::new("web", "wp")]);
        let far = [
            ("istio.io/use-waypoint", "wp"),
            ("istio.io/use-waypoint-namespace", "infra"),
            ("istio.io/use-waypoint-canary", "next"),
        ];
        let both = [NamespacedName::new("infra", "wp"), NamespacedName::new("web", "next")];
        assert_eq!(read(&far).unwrap().gateways(&web).collect::<Vec<_>>(), both);
        let out = read(&[("istio.io/use-waypoint", "none"), ("istio.io/use-waypoint-namespace", "infra")]).unwrap();
        assert_eq!((out.gateways(&web).count(), out.waypoint), (0, Some(WaypointChoice::OptOut)));
    }

    #[test]
    fn weights_are_percentages_and_booleans_are_read_leniently() {
        let canary = [("istio.io/use-waypoint-canary", "next")];
        let weight = |text: &str| {
            let annotations = map(&[("istio.io/use-waypoint-canary-weight", text)]);
            Binding::read(Some(&map(&canary)), Some(&annotations)).unwrap().canary.unwrap().weight
        };
        assert_eq!(read(&canary).unwrap().canary.unwrap().weight, Ok(0));
        assert_eq!((weight("0"), weight("100")), (Ok(0), Ok(100)));
        for bad in ["101", "-1", "ten", "", "10%"] {
            assert_eq!(weight(bad), Err(bad.into()));
        }
        let ingress = |text| read(&[("istio.io/ingress-use-waypoint", text)]).unwrap().ingress;
        assert_eq!((ingress("true"), ingress("TRUE"), ingress("yes please")), (Some(true), Some(true), Some(false)));
        assert!(read(&[("gateway.istio.io/managed", "istio.io-mesh-controller")]).unwrap().gateway);
    }
}
