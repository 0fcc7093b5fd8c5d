//! The incremental result equals the result computed from scratch.

use std::collections::{BTreeMap, HashSet};

use mesh_api::security::{Action, AuthorizationPolicySpec, Mode};
use mesh_core::identity::TrustDomain;
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::world::{
    AuthorizationPolicy, Change, Distribution, Labels, Locality, MeshSettings, Namespace, Node, Object,
    PeerAuthentication, Pod, Selector, Service, ServicePort, Slice, TargetPort,
};

const NAMESPACES: [&str; 3] = ["a", "b", "istio-system"];

#[derive(Clone, Debug)]
enum Step {
    Upsert(Object),
    Delete(Kind, NamespacedName),
    /// Relist: every object whose key's hash is odd vanished unseen.
    Relist(Kind),
    Settings(Box<MeshSettings>),
    /// Unreadable, with this standing in.
    Broken(Object),
    Flush,
}

fn name() -> impl Strategy<Value = NamespacedName> {
    (select(&NAMESPACES[..]), select(&["x", "y", "z"][..]))
        .prop_map(|(namespace, name)| NamespacedName::new(namespace, name))
}

fn labels() -> impl Strategy<Value = Labels> {
    btree_map(select(&["app", "tier", "mesh"][..]), select(&["web", "db"][..]), 0..3)
        .prop_map(|all| all.into_iter().collect())
}

fn selector() -> impl Strategy<Value = Option<Labels>> {
    labels().prop_map(|labels| (!labels.is_empty()).then_some(labels))
}

fn distribution() -> impl Strategy<Value = Option<Distribution>> {
    option::of(select(&[Distribution::SameZone, Distribution::SameNode, Distribution::Any][..]))
}

prop_compose! {
    fn pod()(key in name(), labels in labels(), uid in select(&["u1", "u2"][..]), node in select(&["", "n1", "n2"][..]),
             ip in option::of(1u8..5), ready: bool, redirected: bool, port in option::of(1u16..3)) -> Object {
        Object::Pod(Pod {
            key, labels, ready, redirected, uid: uid.into(), service_account: "sa".into(), node: node.into(),
            workload_name: "w".into(), host_network: false,
            ips: ip.map(|ip| std::net::IpAddr::from([10, 0, 0, ip])).into_iter().collect(),
            ports: port.map(|port| ("named".into(), port)).into_iter().collect(),
        })
    }
}

prop_compose! {
    fn service()(key in name(), selector in selector(), named: bool, ip in option::of(1u8..4), node_local: bool,
                 distribution in distribution(), annotation in distribution(), unready: bool) -> Object {
        let target = if named { TargetPort::Name("named".into()) } else { TargetPort::Number(8080) };
        Object::Service(Service {
            key, selector, node_local, distribution, distribution_annotation: annotation, publish_not_ready: unready,
            families: Default::default(),
            cluster_ips: ip.map(|ip| std::net::IpAddr::from([10, 96, 0, ip])).into_iter().collect(),
            ports: [ServicePort { name: "p".into(), port: 80, target, protocol: Default::default() }].into(),
        })
    }
}

prop_compose! {
    fn slice()(key in name(), service in select(&["x", "y", "z"][..]), pod in option::of(select(&["x", "y", "z"][..])),
               uid in select(&["u1", "u2"][..]), ips in btree_map(1u8..4, any::<bool>(), 0..3), port in 1u16..3) -> Object {
        let pods = pod.map(|pod| (NamespacedName::new(key.namespace.clone(), pod), Arc::from(uid)));
        Object::Slice(Slice {
            service: NamespacedName::new(key.namespace.clone(), service),
            ports: [("p".into(), port)].into(),
            pods: pods.into_iter().collect(),
            addresses: ips.into_iter().map(|(ip, ready)| (std::net::IpAddr::from([192, 168, 0, ip]), ready)).collect(),
            key,
        })
    }
}

fn cluster_object() -> impl Strategy<Value = Object> {
    let namespace = (select(&NAMESPACES[..]), labels(), option::of(select(&["net1", "net2"][..])), distribution())
        .prop_map(|(name, labels, network, distribution)| {
            let labels =
                labels.iter().cloned().chain(network.map(|one| (mesh_api::labels::NETWORK.into(), one.into())));
            Object::Namespace(Namespace { name: name.into(), labels: labels.collect(), distribution })
        });
    let node = (select(&["n1", "n2"][..]), select(&["", "z1", "z2"][..])).prop_map(|(name, zone)| {
        let locality = Locality { zone: zone.into(), ..Locality::default() };
        Object::Node(Node { name: name.into(), locality })
    });
    prop_oneof![namespace, node]
}

prop_compose! {
    fn authorization()(key in name(), selector in selector(), dry_run: bool, generation in 0i64..2,
                       action in select(&[Action::Allow, Action::Deny, Action::Audit][..])) -> Object {
        let spec = Arc::new(AuthorizationPolicySpec { action: Some(action), ..Default::default() });
        Object::Authorization(AuthorizationPolicy { key, generation, dry_run, selector, spec })
    }
}

prop_compose! {
    fn peer()(key in name(), selector in selector(), created_s in 0i64..3, mode in mode(),
              ports in btree_map(80u16..82, mode(), 0..3)) -> Object {
        Object::Peer(PeerAuthentication { key, created_s, selector, mode, ports })
    }
}

fn mode() -> impl Strategy<Value = Mode> {
    select(&[Mode::Unset, Mode::Disable, Mode::Permissive, Mode::Strict][..])
}

prop_compose! {
    fn settings()(domain in select(&["cluster.local", "td.acme"][..]), root in select(&["istio-system", "a"][..]),
                  strict: bool, dry_run: bool, selected: bool) -> Step {
        let selector = Selector { match_labels: [("mesh".to_owned(), "web".to_owned())].into(), ..Default::default() };
        Step::Settings(Box::new(MeshSettings {
            trust_domain: TrustDomain::new(domain).unwrap(),
            root_namespace: root.into(),
            l7_deny_at_l4: strict,
            dry_run,
            discovery_selectors: selected.then_some(selector).into_iter().collect(),
            ..MeshSettings::default()
        }))
    }
}

fn step() -> impl Strategy<Value = Step> {
    let object = prop_oneof![
        4 => pod(), 3 => service(), 3 => slice(), 2 => cluster_object(), 2 => authorization(), 3 => peer()
    ];
    let kind = select(&Kind::ALL[..]);
    prop_oneof![
        12 => object.clone().prop_map(Step::Upsert),
        3 => object.prop_map(|object| Step::Delete(object.kind(), object.key())),
        1 => kind.prop_map(Step::Relist),
        1 => settings(),
        2 => prop_oneof![authorization(), peer()].prop_map(Step::Broken),
        5 => Just(Step::Flush),
    ]
}

/// Runs the steps, and keeps what a fresh model has to be told at the end.
#[derive(Default)]
struct Run {
    model: Model,
    objects: BTreeMap<(Kind, NamespacedName), Object>,
    broken: BTreeMap<(Kind, NamespacedName), Change>,
    settings: Option<MeshSettings>,
    /// What a client that was sent every delta holds.
    client: BTreeMap<(&'static str, Arc<str>), Arc<Resource>>,
    statuses: BTreeMap<NamespacedName, PolicyStatus>,
}

impl Run {
    fn step(&mut self, step: Step) {
        match step {
            Step::Upsert(object) => {
                self.broken.remove(&(object.kind(), object.key()));
                self.objects.insert((object.kind(), object.key()), object.clone());
                self.model.apply(Change::Upsert(object));
            }
            Step::Delete(kind, key) => {
                self.broken.remove(&(kind, key.clone()));
                self.objects.remove(&(kind, key.clone()));
                self.model.apply(Change::Delete(kind, key));
            }
            Step::Relist(kind) => {
                let stays = |key: &NamespacedName| key.name.len() + key.namespace.len() > 2;
                self.objects.retain(|(have, key), _| *have != kind || stays(key));
                self.broken.retain(|(have, key), _| *have != kind || stays(key));
                let keys = self.objects.keys().filter(|(have, _)| *have == kind).map(|(_, key)| key.clone());
                let broken = self.broken.keys().filter(|(have, _)| *have == kind).map(|(_, key)| key.clone());
                let keep: HashSet<_> = keys.chain(broken).collect();
                self.model.apply(Change::Retain(kind, keep));
            }
            Step::Settings(settings) => {
                self.settings = Some((*settings).clone());
                self.model.apply(Change::Settings(Arc::new(*settings)));
            }
            Step::Broken(stand_in) => {
                let (kind, key) = (stand_in.kind(), stand_in.key());
                let stand_in = Some(Box::new(stand_in));
                let change = Change::Broken { kind, key: key.clone(), generation: 7, reason: "bad".into(), stand_in };
                self.broken.insert((kind, key), change.clone());
                self.model.apply(change);
            }
            Step::Flush => self.flush(),
        }
    }

    fn flush(&mut self) {
        let delta = self.model.flush();
        for server::Change { type_url, name, resource } in delta.changes {
            let key = (type_url, name);
            match resource {
                Some(resource) => {
                    assert_ne!(self.client.insert(key, resource.clone()), Some(resource), "a push without change")
                }
                None => assert!(self.client.remove(&key).is_some(), "{key:?} was never sent"),
            }
        }
        for (key, status) in delta.statuses {
            match status {
                Some(status) => self.statuses.insert(key, status),
                None => self.statuses.remove(&key),
            };
        }
    }

    fn scratch(&self) -> Model {
        let mut model = Model::default();
        // The opposite order of kinds and names.
        for object in self.objects.values().rev() {
            model.apply(Change::Upsert(object.clone()));
        }
        self.broken.values().for_each(|change| model.apply(change.clone()));
        if let Some(settings) = &self.settings {
            model.apply(Change::Settings(Arc::new(settings.clone())));
        }
        model.flush();
        model
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn incremental_equals_from_scratch(steps in vec(step(), 1..60)) {
        let mut run = Run::default();
        for step in steps {
            run.step(step);
        }
        run.flush();
        let fresh = run.scratch();
        prop_assert_eq!(run.model.addresses(), fresh.addresses());
        prop_assert_eq!(run.model.authorizations(), fresh.authorizations());
        prop_assert_eq!(run.model.statuses(), fresh.statuses());
        prop_assert_eq!(&run.statuses, fresh.statuses());
        let mut expected: BTreeMap<_, _> = fresh.addresses().iter()
            .map(|(name, one)| ((type_url::ADDRESS, name.clone()), one.clone())).collect();
        expected.extend(fresh.authorizations().iter()
            .map(|(name, one)| ((type_url::AUTHORIZATION, name.clone()), one.clone())));
        prop_assert_eq!(run.client, expected);
    }
}

fn web(ready: bool, app: &str) -> Change {
    Change::Upsert(Object::Pod(Pod {
        key: NamespacedName::new("a", "web"),
        uid: "u".into(),
        service_account: "sa".into(),
        node: "n1".into(),
        labels: [("app", app), ("unrelated", if ready { "1" } else { "2" })].into_iter().collect(),
        workload_name: "web".into(),
        ips: [std::net::IpAddr::from([10, 0, 0, 1])].into(),
        ready,
        host_network: false,
        redirected: true,
        ports: Box::default(),
    }))
}

#[test]
fn xds_row_3_a_pod_that_turns_unready_is_one_resource() {
    let mut model = Model::default();
    model.apply(web(true, "web"));
    assert_eq!(model.flush().changes.len(), 1);
    model.apply(web(false, "web"));
    assert_eq!(model.flush().changes.len(), 1);
}

#[test]
fn row_17_an_unrelated_label_causes_no_push() {
    let mut model = Model::default();
    model.apply(web(true, "web"));
    model.flush();
    let Change::Upsert(Object::Pod(mut pod)) = web(true, "web") else { unreachable!() };
    pod.labels = [("app", "web"), ("unrelated", "other")].into_iter().collect();
    model.apply(Change::Upsert(Object::Pod(pod)));
    assert!(model.flush().changes.is_empty());
}

#[test]
fn xds_row_15_a_policy_without_references_is_one_resource() {
    let mut model = Model::default();
    model.apply(web(true, "web"));
    model.flush();
    let policy = |selector: Option<Labels>| {
        Change::Upsert(Object::Authorization(AuthorizationPolicy {
            key: NamespacedName::new("a", "p"),
            generation: 1,
            dry_run: false,
            selector,
            spec: Arc::default(),
        }))
    };
    model.apply(policy(None));
    let urls = |delta: Delta| delta.changes.iter().map(|one| one.type_url).collect::<Vec<_>>();
    assert_eq!(urls(model.flush()), [type_url::AUTHORIZATION]);
    model.apply(policy(Some([("app", "web")].into_iter().collect())));
    assert_eq!(urls(model.flush()), [type_url::ADDRESS, type_url::AUTHORIZATION]);
}

#[test]
fn an_unreadable_policy_without_an_earlier_version_fails_closed() {
    let broken = |spec: serde_json::Value| {
        let object = serde_json::json!({
            "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
            "metadata": {"name": "p", "namespace": "a", "generation": 3}, "spec": spec,
        });
        crate::source::convert::change(Kind::Authorization, serde_json::from_value(object).unwrap(), "default")
    };
    let key = NamespacedName::new("a", "p");
    let published = |model: &Model| {
        let resource = model.authorizations().get("a/p")?;
        let policy = <mesh_wire::security::Authorization as prost::Message>::decode(resource.body.clone()).unwrap();
        Some((policy.action(), policy.scope(), policy.rules.len()))
    };
    let message = |model: &Model| model.statuses().get(&key).unwrap().verdict.message.clone();
    use mesh_wire::security::{Action as WireAction, Scope};
    // A control plane that starts knows no earlier version.
    let mut model = Model::default();
    model.apply(web(true, "web"));
    model.apply(broken(serde_json::json!({"selector": {"matchLabels": {"app": "web"}}, "rules": 7})));
    assert!(model.flush().changes.iter().any(|one| one.type_url == type_url::ADDRESS), "the pod names the policy");
    assert_eq!(published(&model), Some((WireAction::Allow, Scope::WorkloadSelector, 0)));
    assert!(message(&model).contains("allows nothing") && message(&model).contains("spec.rules"));
    model.apply(broken(serde_json::json!({"action": "DENY", "rules": 7})));
    model.flush();
    assert_eq!(published(&model), Some((WireAction::Deny, Scope::Namespace, 1)));
    assert!(message(&model).contains("is denied"));
    // Once a version could be read, that one stays.
    let readable = serde_json::json!({
        "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
        "metadata": {"name": "p", "namespace": "a"}, "spec": {"rules": [{}]},
    });
    let readable = serde_json::from_value(readable).unwrap();
    model.apply(crate::source::convert::change(Kind::Authorization, readable, "default"));
    model.apply(broken(serde_json::json!({"action": "DENY", "rules": 7})));
    model.flush();
    assert_eq!(published(&model), Some((WireAction::Allow, Scope::Namespace, 1)));
    assert!(message(&model).contains("last readable version stays"));
    // Scope unreadable: the status says so.
    let mut model = Model::default();
    model.apply(broken(serde_json::json!({"selector": 7})));
    model.flush();
    assert_eq!(published(&model), None);
    assert!(message(&model).contains("nothing of it is enforced"));
}
