//! Random Gateways and ListenerSets, and the Services, secrets, authorities, parameters and consents that they need; and
//! settings of the mesh that decide what those mean.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use mesh_api::labels as names;
use mesh_core::identity::TrustDomain;
use mesh_core::names::NamespacedName;
use mesh_wire::l7::settings::Normalization;
use serde_json::{Value, json};

use super::random::{Random, web_mesh};
use super::random_l7::CERTIFICATE;
use crate::world::gateway::{AllowedNamespaces, GatewayAddress, InboundBinding, Listener, ListenerProtocol};
use crate::world::*;

impl Random {
    pub(super) fn gateway(&mut self) -> Gateway {
        let allowed = match self.below(3) {
            0 => AllowedNamespaces::Same,
            1 => AllowedNamespaces::All,
            _ => AllowedNamespaces::Selected(Box::new(web_mesh())),
        };
        let listener =
            Listener { name: "mesh".into(), port: 15008, protocol: ListenerProtocol::Hbone, terminates: true, allowed };
        let account = self.once_in(3).then_some((names::GATEWAY_SERVICE_ACCOUNT, "sa"));
        let told = self.once_in(5).then(|| ("networking.istio.io/address-type", self.pick(&["", "IPAddress"])));
        let revision = self.once_in(8).then_some((names::REVISION, "stable"));
        Gateway {
            key: self.key(),
            class: self
                .pick(&["istio-waypoint", "istio-waypoint", "istio", "istio", "istio-east-west", "other"])
                .into(),
            created_s: i64::try_from(self.below(3)).unwrap(),
            generation: 1,
            waypoint_for: self.maybe(Self::traffic_type),
            inbound_binding: self.once_in(4).then_some(InboundBinding::Proxy(15088)),
            listeners: [listener].into(),
            addresses: self
                .maybe(|random| match random.coin() {
                    true => GatewayAddress::Ip(random.ip(5)),
                    false => GatewayAddress::Hostname("x.a.svc.cluster.local".into()),
                })
                .into_iter()
                .collect(),
            labels: revision.into_iter().collect(),
            annotations: account.into_iter().chain(told).collect(),
            spec: Arc::new(serde_json::from_value(self.gateway_spec()).unwrap()),
            ..Gateway::default()
        }
    }

    fn gateway_spec(&mut self) -> Value {
        let listeners: Vec<_> = (0..=self.below(3)).map(|nth| self.listener(nth)).collect();
        let mut spec = json!({
            "gatewayClassName": "any",
            "allowedListeners": {"namespaces": {"from": self.pick(&["All", "All", "Same"])}},
            "listeners": listeners,
        });
        if self.once_in(3) {
            spec["tls"]["frontend"] = json!({"default": self.client_validation()});
            if self.coin() {
                let of_port = json!({"port": self.pick(&[80, 443]), "tls": self.client_validation()});
                spec["tls"]["frontend"]["perPort"] = json!([of_port]);
            }
        }
        if self.once_in(5) {
            spec["tls"]["backend"] = json!({"clientCertificateRef": self.material_ref("Secret")});
        }
        if self.once_in(4) {
            let kind = if self.once_in(5) { "Secret" } else { "ConfigMap" };
            let parameters = json!({"group": "", "kind": kind, "name": self.pick(&["x", "y"])});
            spec["infrastructure"] = json!({"parametersRef": parameters, "labels": {"app": self.pick(&["web", "db"])}});
        }
        if self.once_in(4) {
            let host = self.pick(&["x", "y", "x.a.svc.cluster.local"]);
            spec["addresses"] = json!([{"type": "Hostname", "value": host}]);
        }
        spec
    }

    fn client_validation(&mut self) -> Value {
        if self.once_in(4) {
            return json!({});
        }
        let kind = self.pick(&["ConfigMap", "ConfigMap", "Secret"]);
        let mode = self.pick(&["AllowValidOnly", "AllowInsecureFallback"]);
        json!({"validation": {"caCertificateRefs": [self.material_ref(kind)], "mode": mode}})
    }

    pub(super) fn listener_set(&mut self) -> Value {
        let listeners: Vec<_> = (0..=self.below(2)).map(|nth| self.listener(nth)).collect();
        let mut parent = json!({"name": self.pick(&["x", "y"])});
        if self.once_in(3) {
            parent["namespace"] = json!(&*self.namespace());
        }
        json!({"parentRef": parent, "listeners": listeners})
    }

    /// Few ports and names of hosts, so that listeners conflict.
    fn listener(&mut self, nth: usize) -> Value {
        let protocol = self.pick(&["HTTP", "HTTP", "HTTPS", "HTTPS", "TLS", "TCP"]);
        let mut listener = json!({
            "name": format!("l{nth}"),
            "port": self.pick(&[80, 443]),
            "protocol": protocol,
            "allowedRoutes": {"namespaces": {"from": self.pick(&["All", "All", "Same"])}},
        });
        if protocol != "TCP" && self.coin() {
            listener["hostname"] = json!(self.pick(&["x.example", "*.example"]));
        }
        if protocol == "TLS" && self.coin() {
            listener["tls"] = json!({"mode": "Passthrough"});
        } else if matches!(protocol, "HTTPS" | "TLS") {
            listener["tls"] = json!({"mode": "Terminate", "certificateRefs": [self.material_ref("Secret")]});
            if self.once_in(4) {
                let mode = self.pick(&["MUTUAL", "OPTIONAL_MUTUAL", "ISTIO_MUTUAL"]);
                listener["tls"]["options"] = json!({"gateway.istio.io/tls-terminate-mode": mode});
            }
        }
        listener
    }

    fn material_ref(&mut self, kind: &str) -> Value {
        let mut one = json!({"group": "", "kind": kind, "name": self.pick(&["x", "y"])});
        if self.coin() {
            one["namespace"] = json!(&*self.namespace());
        }
        one
    }

    /// Consent of a namespace: to its services, secrets or authorities.
    pub(super) fn grant(&mut self) -> Value {
        let secrets = json!({"group": "", "kind": "Secret"});
        let (from, to) = self.pick(&[
            (&["HTTPRoute"][..], json!({"group": "", "kind": "Service"})),
            (&["Gateway"], json!({"group": "", "kind": "ConfigMap"})),
            (&["Gateway"], secrets.clone()),
            (&["Gateway", "ListenerSet"], secrets),
            (&["ListenerSet"], json!({"group": "", "kind": "Secret", "name": "x"})),
        ]);
        let namespace = self.namespace();
        let from =
            from.iter().map(|kind| json!({"group": names::GATEWAY_GROUP, "kind": kind, "namespace": &*namespace}));
        json!({"from": from.collect::<Vec<_>>(), "to": [to]})
    }

    /// A Secret for listeners; some do not hold what they should.
    pub(super) fn key_pair(&mut self) -> Material {
        let (certificate, key) = self.pick(&*KEY_PAIRS);
        let key = match self.below(6) {
            0 => "none".to_owned(),
            // May be that of the other one.
            1 => self.pick(&*KEY_PAIRS).1,
            _ => key,
        };
        let mut data = vec![("tls.crt", certificate), ("tls.key", key)];
        if self.once_in(4) {
            data.push(("ca.crt", CERTIFICATE.to_owned()));
        }
        Material { type_: "kubernetes.io/tls".into(), ..self.filled(data) }
    }

    /// A ConfigMap with parameters of Gateways, or with what those of a class have in common.
    pub(super) fn parameters(&mut self) -> Material {
        let app = self.pick(&["web", "db"]);
        let patch = format!("spec: {{template: {{metadata: {{labels: {{app: {app}}}}}}}}}");
        let data = match self.below(5) {
            0 => vec![("deployment", "[]".to_owned())],
            1 => vec![("service", "spec: {type: NodePort}".to_owned())],
            _ => vec![("deployment", patch)],
        };
        let mut map = Material { created_s: i64::try_from(self.below(3)).unwrap(), ..self.filled(data) };
        if self.once_in(3) {
            let class = self.pick(&["istio", "istio-waypoint"]);
            map.labels = [("gateway.istio.io/defaults-for-class", class)].into_iter().collect();
            map.key.namespace = names::SYSTEM_NAMESPACE.into();
        }
        map
    }

    fn filled(&mut self, data: Vec<(&'static str, String)>) -> Material {
        let key = NamespacedName::new(self.namespace(), self.pick(&["x", "y"]));
        let data = data.into_iter().map(|(name, value)| (Arc::from(name), value.into())).collect();
        Material { key, data, ..Material::default() }
    }

    /// A Service that leads to a Gateway's proxies, as a rule from outside.
    pub(super) fn gateway_service(&mut self, service: Service) -> Service {
        let name = self.pick(&["x", "y", "x-istio", "y-istio", "z-istio"]);
        let port = |number: u16| ServicePort {
            name: format!("p{number}").into(),
            port: number,
            target: TargetPort::Number(8000 + number),
            protocol: Protocol::default(),
        };
        let gateway = self.maybe(|random| (names::GATEWAY_NAME, random.pick(&["x", "y", "z"])));
        // Or it says what a revision is called.
        let tag =
            self.once_in(4).then(|| [("istio.io/tag", "stable"), (names::REVISION, self.pick(&["default", "1"]))]);
        Service {
            key: NamespacedName::new(service.key.namespace.clone(), name),
            ports: self.pick(&[&[80][..], &[443], &[80, 443]]).iter().map(|number| port(*number)).collect(),
            load_balancer: !self.once_in(4),
            external: self.some(2, |random| Arc::from(random.pick(&["192.0.2.7", "lb.example"]))).into(),
            labels: gateway.into_iter().chain(tag.into_iter().flatten()).collect(),
            ..service
        }
    }

    /// Settings of layer 7 and of Gateways, and other names of the trust domain.
    pub(super) fn l7_settings(&mut self) -> MeshSettings {
        let alias = self.once_in(3).then(|| TrustDomain::new(self.pick(&["old.acme", "td.acme"])).unwrap());
        let proxies =
            ProxySettings { manual: !self.once_in(4), copy_metadata: self.coin(), ..ProxySettings::default() };
        let default = L7Settings::default();
        let export_to = |random: &mut Self| random.once_in(3).then(|| random.pick(&[".", "a", "*"]).to_owned());
        let policy = self.once_in(3).then(|| {
            let tls = json!({"mode": "SIMPLE", "credentialName": self.pick(&["x", "y"])});
            let policy = json!({"connectionPool": {"http": {"maxRetries": 1 + self.below(3)}}, "tls": tls});
            serde_json::from_value(policy).unwrap()
        });
        let l7 = L7Settings {
            normalization: self.pick(&[Normalization::Base, Normalization::MergeSlashes]),
            connect_timeout: Duration::from_secs(self.pick(&[5, 10])),
            default_policy: policy,
            h2_upgrade: self.once_in(3),
            virtual_services_export_to: export_to(self).into_iter().collect(),
            rules_export_to: export_to(self).into_iter().collect(),
            trusted_proxies: self.pick(&[0, 1]),
            proxy_protocol: self.once_in(3),
            mesh_grants: self.once_in(3),
            ..default
        };
        let trust_domain_aliases = alias.into_iter().collect();
        MeshSettings { trust_domain_aliases, l7, proxies: Arc::new(proxies), ..MeshSettings::default() }
    }
}

/// Certificates and keys, PEM, of servers that nobody connects to.
static KEY_PAIRS: LazyLock<[(String, String); 2]> = LazyLock::new(|| {
    [(); 2].map(|()| {
        let made = rcgen::generate_simple_self_signed(vec!["x.example".to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    })
});
