//! Random objects of layer 7, which meet those of the rest of the cluster.

use std::sync::Arc;

use mesh_api::labels as names;
use mesh_core::names::NamespacedName;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::random::Random;
use crate::world::*;

impl Random {
    /// A route, a rule, a policy, or something that they name.
    pub(super) fn l7_object(&mut self) -> Object {
        match self.below(23) {
            0..3 => {
                let spec = self.http_route();
                Object::HttpRoute(self.written(spec))
            }
            3 => {
                let spec = self.route();
                Object::GrpcRoute(self.written(spec))
            }
            4 => {
                let spec = self.route();
                Object::TcpRoute(self.written(spec))
            }
            5 => {
                let mut spec = self.route();
                spec["hostnames"] = json!(["x.a.svc.cluster.local"]);
                Object::TlsRoute(self.written(spec))
            }
            6..8 => {
                let spec = self.grant();
                Object::ReferenceGrant(self.written(spec))
            }
            8..10 => {
                let spec = self.listener_set();
                Object::ListenerSet(self.written(spec))
            }
            10 => {
                let validation = json!({"hostname": "x.example", "caCertificateRefs": [{"group": "", "kind": "ConfigMap", "name": self.pick(&["x", "y"])}]});
                let mut target = self.policy_target();
                if self.coin() {
                    target["sectionName"] = json!("http");
                }
                Object::BackendTlsPolicy(self.written(json!({"targetRefs": [target], "validation": validation})))
            }
            11 => {
                let budget = json!({"budget": {"percent": 10 + self.below(3)}});
                let spec = json!({"targetRefs": [self.policy_target()], "retryConstraint": budget});
                Object::TrafficPolicy(self.written(spec))
            }
            12..14 => {
                let spec = self.virtual_service();
                Object::VirtualService(self.written(spec))
            }
            14..16 => {
                let spec = self.destination_rule();
                Object::DestinationRule(self.written(spec))
            }
            16 => Object::ConfigMap(self.material("ca.crt")),
            17 => {
                let spec = self.route();
                Object::UdpRoute(self.written(spec))
            }
            18 => Object::Extension(self.extension()),
            19 => Object::Secret(self.material("ca.crt")),
            20..22 => Object::Secret(self.key_pair()),
            _ => Object::ConfigMap(self.parameters()),
        }
    }

    fn extension(&mut self) -> Extension {
        let request = self.request();
        let ports = if self.coin() { Box::default() } else { [80].into() };
        let needed = Demand::Needed { ports };
        Extension {
            key: request.key,
            kind: self.pick(&[Kind::WasmPlugin, Kind::TrafficExtension, Kind::EnvoyFilter]),
            generation: 1,
            targets: request.targets,
            selector: request.selector,
            demand: if self.once_in(4) { Demand::Dispensable("for a test") } else { needed },
        }
    }

    fn written<S: DeserializeOwned>(&mut self, spec: Value) -> Written<S> {
        let ignored = self.once_in(6).then_some(("istio.io/ignore-policy-attachment", "true"));
        Written {
            key: self.key(),
            uid: "u".into(),
            created_s: i64::try_from(self.below(3)).unwrap(),
            generation: 1,
            labels: Labels::default(),
            annotations: ignored.into_iter().collect(),
            spec: Arc::new(serde_json::from_value(spec).unwrap()),
        }
    }

    fn parent(&mut self) -> Value {
        let (group, kind) = self.pick(&[
            ("", "Service"),
            ("", "Service"),
            ("networking.istio.io", "ServiceEntry"),
            ("gateway.networking.k8s.io", "Gateway"),
            ("gateway.networking.k8s.io", "ListenerSet"),
        ]);
        let mut parent = json!({"group": group, "kind": kind, "name": self.pick(&["x", "y", "z"])});
        if self.coin() {
            parent["namespace"] = json!(&*self.namespace());
        }
        if self.once_in(4) {
            parent["port"] = json!(80);
        }
        if group == names::GATEWAY_GROUP && self.once_in(4) {
            parent["sectionName"] = json!("l0");
        }
        parent
    }

    fn backend(&mut self) -> Value {
        let mut backend = json!({"name": self.pick(&["x", "y", "w"]), "port": 80});
        if self.once_in(3) {
            backend["namespace"] = json!(&*self.namespace());
        }
        if self.once_in(5) {
            backend = json!({"group": "networking.istio.io", "kind": "Hostname", "name": self.pick(&["x.example", "y.example"]), "port": 80});
        }
        backend
    }

    fn route(&mut self) -> Value {
        json!({"parentRefs": [self.parent(), self.parent()], "rules": [{"backendRefs": [self.backend(), self.backend()]}]})
    }

    fn http_route(&mut self) -> Value {
        let mut route = self.route();
        let path = json!({"type": "PathPrefix", "value": self.pick(&["/a", "/b"])});
        route["rules"][0]["matches"] = json!([{"path": path}]);
        if self.once_in(3) {
            route["hostnames"] = json!(["x.example"]);
        }
        if self.once_in(3) {
            let mirror = json!({"type": "RequestMirror", "requestMirror": {"backendRef": self.backend()}});
            route["rules"][0]["filters"] = json!([mirror]);
        }
        route
    }

    fn policy_target(&mut self) -> Value {
        let (group, kind) = self.pick(&[("", "Service"), ("networking.istio.io", "ServiceEntry")]);
        json!({"group": group, "kind": kind, "name": self.pick(&["x", "y"])})
    }

    fn virtual_host(&mut self) -> &'static str {
        self.pick(&["x", "y", "x.a.svc.cluster.local", "x.example", "*.example", "*.a.svc.cluster.local"])
    }

    fn virtual_service(&mut self) -> Value {
        let mut destination = json!({"host": self.virtual_host(), "subset": self.pick(&["", "v1", "v2"])});
        if self.once_in(4) {
            destination["port"] = json!({"number": self.pick(&[80, 81])});
        }
        let route = json!([{"destination": destination}]);
        let hosts = if self.once_in(4) { json!([]) } else { json!([self.virtual_host()]) };
        let mut spec = json!({"hosts": hosts, "http": [{"match": [{"uri": {"prefix": "/a"}}], "route": route}]});
        if self.once_in(4) {
            spec["http"] =
                json!([{"delegate": {"name": self.pick(&["x", "y", "z"]), "namespace": &*self.namespace()}}]);
        }
        if self.once_in(4) {
            spec["tcp"] = json!([{"route": route}]);
        }
        if self.once_in(5) {
            spec["exportTo"] = json!(["."]);
        }
        spec
    }

    fn destination_rule(&mut self) -> Value {
        let host = self.pick(&["x", "x.a.svc.cluster.local", "x.example", "*.example", "*.svc.cluster.local", "*"]);
        let mut policy = json!({"connectionPool": {"http": {"maxRetries": 1 + self.below(3)}}});
        if self.coin() {
            policy["tls"] = json!({"mode": self.pick(&["SIMPLE", "MUTUAL"]), "credentialName": self.pick(&["x", "y"])});
        } else if self.once_in(4) {
            policy["tls"] = json!({"mode": "ISTIO_MUTUAL"});
        }
        if self.once_in(3) {
            policy["outlierDetection"] = json!({"maxEjectionPercent": self.pick(&[10, 40, 60])});
        }
        let subsets = json!([{"name": self.pick(&["v1", "v2"]), "labels": {"app": "web"}}]);
        let mut rule = json!({"host": host, "trafficPolicy": policy, "subsets": subsets});
        if self.once_in(4) {
            rule["workloadSelector"] = json!({"matchLabels": {"app": self.pick(&["web", "db"])}});
        }
        rule
    }

    fn material(&mut self, key: &str) -> Material {
        let pem = if self.once_in(3) { "none" } else { CERTIFICATE };
        let key_name = NamespacedName::new(self.namespace(), self.pick(&["x", "y", "x-cacert"]));
        Material { key: key_name, data: [(Arc::from(key), pem.into())].into(), ..Material::default() }
    }
}

/// A certificate of nobody.
pub(super) const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----
MIIBdTCCARugAwIBAgIUSSnubL5Q2GRDFJMF8uWCNhDkNQIwCgYIKoZIzj0EAwIw
DzENMAsGA1UEAwwEdGVzdDAgFw0yNjExMjExNTM2MzdaGA8yMTI2MTAyODE1MzYz
N1owDzENMAsGA1UEAwwEdGVzdDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABD0T
Bi/gi8Z9J0MkJ9T71s8Qafpk1+KbAzbadeVA6EO4N7AxeJ2Mmh4SU4FV+jV/S3uD
JFQaVhpybBaek2gI32ejUzBRMB0GA1UdDgQWBBQN0daFpZ2zCzt0CCa8ETOfD61+
EDAfBgNVHSMEGDAWgBQN0daFpZ2zCzt0CCa8ETOfD61+EDAPBgNVHRMBAf8EBTAD
AQH/MAoGCCqGSM49BAMCA0gAMEUCIDgd+LB8JZJP9nzCfQ9oDdpZHSu7jdeKCMHc
A5i7wf+WAiEArA7Wi/bnaf+1NhxSevBJ6b7gLfKOx4qs5+vlEA5WF/M=
-----END CERTIFICATE-----
";
