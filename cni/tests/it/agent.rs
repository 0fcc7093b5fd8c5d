//! Enrolling pods in real namespaces, with a scripted node proxy and a scripted API server; installing onto a node.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{Method, StatusCode, Uri};
use cni::agent::admission::Admission;
use cni::agent::cache::Cache;
use cni::agent::enrol::{EnrolError, Enroller};
use cni::agent::watch::World;
use cni::config::Config;
use cni::install::Installer;
use cni::metrics::Metrics;
use cni::redirect::{HostRules, ProbeAddresses};
use k8s_openapi::api::core::v1::Pod;
use mesh_sys::netns::NetNs;
use mesh_telemetry::metrics::Registry;
use mesh_telemetry::ready::Readiness;
use mesh_wire::zds::workload_request::Payload;
use serde_json::{Value, json};

use crate::lab::{Lab, PATIENCE, connect, listen, path, privileged};
use crate::zds::Server;

/// Everything that was patched: path and annotation.
type Patches = Arc<Mutex<Vec<(String, Value)>>>;

async fn api_server() -> (kube::Client, Patches) {
    let patches = Patches::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri: Uri = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let router = Router::new().fallback(patch).with_state(Arc::clone(&patches));
    tokio::spawn(async move { axum::serve(listener, router).await });
    let mut config = kube::Config::new(uri);
    config.default_retry = false;
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    (kube::Client::try_from(config).unwrap(), patches)
}

async fn patch(State(patches): State<Patches>, method: Method, uri: Uri, body: String) -> (StatusCode, String) {
    let labels = |mode: &str| json!({"istio.io/dataplane-mode": mode});
    let pod = |name: &str, mode: &str| {
        json!({"apiVersion": "v1", "kind": "Pod",
               "metadata": {"name": name, "namespace": "demo", "uid": UID, "labels": labels(mode)},
               "spec": {"containers": []}, "status": {"phase": "Pending"}})
    };
    let found = match (method, uri.path()) {
        (Method::PATCH, path) => {
            let body: Value = serde_json::from_str(&body).unwrap();
            let annotation = body["metadata"]["annotations"]["ambient.istio.io/redirection"].clone();
            patches.lock().unwrap().push((path.to_owned(), annotation));
            pod("web", "ambient")
        }
        (_, "/api/v1/namespaces/demo") => {
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "demo"}})
        }
        (_, "/api/v1/namespaces/demo/pods/web") => pod("web", "ambient"),
        (_, "/api/v1/namespaces/demo/pods/plain") => pod("plain", "none"),
        _ => {
            let status =
                json!({"kind": "Status", "status": "Failure", "code": 404, "message": "", "reason": "NotFound"});
            return (StatusCode::NOT_FOUND, status.to_string());
        }
    };
    (StatusCode::OK, found.to_string())
}

/// A node with one running pod, found through a process table.
struct Node {
    lab: Lab,
    dir: tempfile::TempDir,
    server: Server,
    enroller: Arc<Enroller>,
    patches: Patches,
    client: kube::Client,
    pod: Pod,
}

const UID: &str = "0f3c2a10-5b7e-4c1d-9e2f-a1b2c3d4e5f6";

impl Node {
    async fn new() -> Self {
        let (lab, dir) = (Lab::new(), tempfile::tempdir().unwrap());
        for (pid, netns, cgroup) in
            [(1, &lab.world, "0::/init".to_owned()), (77, &lab.pod, format!("0::/kubepods/pod{UID}/c1"))]
        {
            let process = dir.path().join(format!("proc/{pid}"));
            std::fs::create_dir_all(process.join("ns")).unwrap();
            std::os::unix::fs::symlink(path(netns), process.join("ns/net")).unwrap();
            std::fs::write(process.join("cgroup"), cgroup).unwrap();
            let fields: Vec<String> = (3..40).map(|field| field.to_string()).collect();
            std::fs::write(process.join("stat"), format!("{pid} (x) {}", fields.join(" "))).unwrap();
        }
        let (client, patches) = api_server().await;
        let mut config = config(dir.path());
        config.paths.host_proc = dir.path().join("proc");
        let cache = Arc::new(Cache::default());
        let server = Server::start(Arc::clone(&cache) as Arc<dyn cni::zds::Snapshots>);
        let host = HostRules::new(lab.world.try_clone().unwrap(), ProbeAddresses::default(), 0, true);
        let enroller = Arc::new(Enroller::new(client.clone(), config, cache, server.proxies.clone(), host));
        let pod = serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "demo", "uid": UID},
            "spec": {"containers": [], "serviceAccountName": "web"},
            "status": {"phase": "Running", "podIPs": [{"ip": "10.9.0.2"}, {"ip": "fd09::2"}]}}))
        .unwrap();
        Self { lab, dir, server, enroller, patches, client, pod }
    }

    fn captured(&self) -> bool {
        self.lab.pod.run(|| !mesh_sys::nft::list_tables().unwrap().is_empty()).unwrap()
    }

    fn annotations(&self) -> Vec<Value> {
        self.patches
            .lock()
            .unwrap()
            .iter()
            .map(|(path, value)| {
                assert_eq!(path, "/api/v1/namespaces/demo/pods/web/status");
                value.clone()
            })
            .collect()
    }
}

fn config(dir: &std::path::Path) -> Config {
    let env = [
        ("NODE_NAME", "n1"),
        ("POD_NAMESPACE", "istio-system"),
        ("KUBERNETES_SERVICE_HOST", "10.96.0.1"),
        ("KUBERNETES_SERVICE_PORT", "443"),
    ];
    let mut config = Config::new(&env.into_iter().collect()).unwrap();
    config.paths.host_root = "/".into();
    config.paths.run_dir = dir.join("run");
    config
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_pod_is_served_before_its_traffic_is_captured() {
    if !privileged("agent::a_running_pod_is_served_before_its_traffic_is_captured") {
        return;
    }
    let node = Node::new().await;
    let proxy = node.server.connect_ready().await;
    let (enroller, pod) = (Arc::clone(&node.enroller), node.pod.clone());
    let work = tokio::spawn(async move { enroller.add(&pod).await });
    let (payload, mut fds) = proxy.next().await;
    let Payload::Add(add) = payload else { panic!("{payload:?}") };
    assert_eq!((add.uid.as_str(), add.workload_info.unwrap().service_account.as_str()), (UID, "web"));
    assert_eq!(NetNs::from_fd(fds.remove(0)).unwrap().id(), node.lab.pod.id());
    assert!(!node.captured(), "captured before anybody listens");
    proxy.ack("").await;
    work.await.unwrap().unwrap();
    assert!(node.captured());
    assert_eq!(node.annotations(), [json!("enabled")]);

    // And out again.
    let (enroller, pod) = (Arc::clone(&node.enroller), node.pod.clone());
    let work = tokio::spawn(async move { enroller.remove(&pod, false).await });
    assert!(matches!(proxy.next().await.0, Payload::Del(del) if del.uid == UID));
    assert!(!node.captured(), "the proxy let go before the rules did");
    proxy.ack("").await;
    work.await.unwrap().unwrap();
    assert_eq!(node.annotations(), [json!("enabled"), Value::Null]);
}

#[tokio::test(flavor = "multi_thread")]
async fn cni_row_14_without_a_proxy_a_pod_is_pending_and_refused_until_one_comes() {
    if !privileged("agent::cni_row_14_without_a_proxy_a_pod_is_pending_and_refused_until_one_comes") {
        return;
    }
    let node = Node::new().await;
    let server = listen(&node.lab.world, "10.9.0.1:80");
    let error = node.enroller.add(&node.pod).await.unwrap_err();
    assert!(matches!(error, EnrolError::Proxy { .. }) && error.is_retryable(), "{error}");
    assert_eq!(node.annotations(), [json!("pending")]);
    assert!(node.captured());
    // Nothing gets out in the clear: nobody listens where the rules lead to.
    let refused = connect(&node.lab.pod, "10.9.0.1:80").unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    drop(server);

    let proxy = node.server.connect().await;
    let (payload, _) = proxy.next().await;
    assert!(matches!(payload, Payload::Add(add) if add.uid == UID), "the snapshot lacks the pending pod");
    proxy.ack("").await;
    assert!(matches!(proxy.next().await.0, Payload::SnapshotSent(_)));
    proxy.ack("").await;
    let (enroller, pod) = (Arc::clone(&node.enroller), node.pod.clone());
    let work = tokio::spawn(async move { enroller.add(&pod).await });
    assert!(matches!(proxy.next().await.0, Payload::Add(_)));
    proxy.ack("").await;
    work.await.unwrap().unwrap();
    assert_eq!(node.annotations(), [json!("pending"), json!("enabled")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_pod_is_captured_before_it_is_served() {
    if !privileged("agent::a_new_pod_is_captured_before_it_is_served") {
        return;
    }
    let node = Node::new().await;
    let netns = std::path::PathBuf::from(path(&node.lab.pod));
    let ips = ["10.9.0.2".parse().unwrap()];
    let error = node.enroller.admit(&node.pod, &ips, netns.clone()).await.unwrap_err();
    assert!(matches!(error, EnrolError::Proxy { .. }), "{error}");
    assert!(node.captured());

    let proxy = node.server.connect_ready().await;
    let (enroller, pod) = (Arc::clone(&node.enroller), node.pod.clone());
    let work = tokio::spawn(async move { enroller.admit(&pod, &ips, netns).await });
    assert!(matches!(proxy.next().await.0, Payload::Add(_)));
    assert!(node.captured());
    proxy.ack("").await;
    work.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_agent_takes_over_enrolled_pods_without_touching_them() {
    if !privileged("agent::a_restarted_agent_takes_over_enrolled_pods_without_touching_them") {
        return;
    }
    let node = Node::new().await;
    let mut lost = node.pod.clone();
    (lost.metadata.name, lost.metadata.uid) =
        (Some("lost".into()), Some("1f3c2a10-5b7e-4c1d-9e2f-a1b2c3d4e5f6".into()));
    node.enroller.adopt(&[node.pod.clone(), lost]).await;
    node.enroller.sync_node().unwrap();
    assert!(node.annotations().is_empty());
    let proxy = node.server.connect().await;
    let mut seen = BTreeMap::new();
    loop {
        let (payload, fds) = proxy.next().await;
        proxy.ack("").await;
        match payload {
            Payload::Add(add) => drop(seen.insert(add.uid, fds.len())),
            Payload::Keep(keep) => drop(seen.insert(keep.uid, 0)),
            Payload::SnapshotSent(_) => break,
            Payload::Del(del) => panic!("{del:?}"),
        }
    }
    assert_eq!(seen.into_values().collect::<Vec<_>>(), [1, 0]);
    let sets = node.lab.world.run(|| mesh_sys::nft::list_table("inet", "istio-ambient-nat").unwrap().unwrap()).unwrap();
    assert!(sets.contains("10.9.0.2") && sets.contains("fd09::2"), "{sets}");
    assert!(node.dir.path().exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_with_an_illegal_interface_name_is_refused_by_name() {
    if !privileged("agent::a_pod_with_an_illegal_interface_name_is_refused_by_name") {
        return;
    }
    let node = Node::new().await;
    let mut pod = node.pod.clone();
    pod.metadata.annotations =
        Some(BTreeMap::from([("istio.io/reroute-virtual-interfaces".to_owned(), "tap0\"; flush".to_owned())]));
    let error = node.enroller.add(&pod).await.unwrap_err();
    assert!(!error.is_retryable() && error.to_string().contains("flush"), "{error}");
    assert!(!node.captured());
}

/// Posts an event as the plugin does.
async fn post(socket: &std::path::Path, body: String) -> (u16, String) {
    let socket = socket.to_owned();
    let call = move || cni::plugin::unix_http::post(&socket, "/cmdadd", body, PATIENCE).unwrap();
    tokio::task::spawn_blocking(call).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_the_plugin_get_the_status_that_fits() {
    if !privileged("agent::events_of_the_plugin_get_the_status_that_fits") {
        return;
    }
    let node = Node::new().await;
    let socket = node.dir.path().join("run/pluginevent.sock");
    let registry = Registry::new();
    let admission = Admission {
        world: Arc::new(World::new(Arc::default())),
        enroller: Arc::clone(&node.enroller),
        eligibility: Arc::new(config(node.dir.path()).eligibility),
        client: node.client.clone(),
        metrics: Metrics::register(&registry),
    };
    let listener = cni::agent::admission::bind(&socket).unwrap();
    tokio::spawn(async move { axum::serve(listener, admission.router()).await });
    let netns = path(&node.lab.pod);
    let event = |name: &str, uid: Option<&str>, netns: &str| {
        json!({"Netns": netns, "PodName": name, "PodNamespace": "demo", "PodUID": uid,
               "IPs": [{"Interface": 0, "Address": {"IP": "10.9.0.2", "Mask": ""}, "Gateway": ""}]})
        .to_string()
    };
    for (body, status, part) in [
        (String::new(), 400, "empty"),
        ("{".to_owned(), 400, "event"),
        (event("web", None, &netns).replace("10.9.0.2", "ten"), 400, "ten"),
        (event("ghost", None, &netns), 500, "not known"),
        (event("web", Some("another-uid"), &netns), 500, "not known"),
        (event("plain", None, &netns), 500, "not to be captured"),
        (event("web", None, "/does/not/exist"), 500, "/does/not/exist"),
        (event("web", Some(UID), &netns), 500, "no node proxy"),
    ] {
        let (found, text) = post(&socket, body.clone()).await;
        assert!(found == status && text.contains(part), "{body}: {found} {text}");
    }
    let proxy = node.server.connect_ready().await;
    let served = tokio::spawn(async move {
        assert!(matches!(proxy.next().await.0, Payload::Add(_)));
        proxy.ack("").await;
        proxy
    });
    assert_eq!(post(&socket, event("web", Some(UID), &netns)).await, (200, String::new()));
    drop(served.await.unwrap());
    assert_eq!(node.annotations(), [json!("enabled")]);
    let metrics = registry.encode();
    for line in [
        "istio_cni_plugin_requests_total{response_code=\"200\"} 1",
        "istio_cni_plugin_requests_total{response_code=\"400\"} 3",
        "istio_cni_plugin_requests_total{response_code=\"500\"} 5",
    ] {
        assert!(metrics.contains(line), "{line} is missing in\n{metrics}");
    }
}

/// A node to install on.
struct Host {
    dir: tempfile::TempDir,
    installer: Installer,
    registry: Registry,
    readiness: Readiness,
}

impl Host {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["image", "bin", "net.d", "run", "sa"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        std::fs::write(dir.path().join("image/istio-cni"), "binary").unwrap();
        std::fs::write(dir.path().join("sa/ca.crt"), "PEM").unwrap();
        std::fs::write(dir.path().join("sa/token"), "token-1").unwrap();
        let mut config = config(dir.path());
        config.paths.image_bin = dir.path().join("image");
        config.paths.host_bin = dir.path().join("bin");
        config.paths.net_dir = dir.path().join("net.d");
        config.paths.service_account = dir.path().join("sa");
        let registry = Registry::new();
        let installer = Installer::new(&config, Metrics::register(&registry));
        Self { dir, installer, registry, readiness: Readiness::new() }
    }

    fn write_main_cni(&self) {
        let text = json!({"name": "n", "cniVersion": "1.0.0", "plugins": [{"type": "calico"}, {"type": "portmap"}]});
        let temporary = self.dir.path().join("net.d/new");
        std::fs::write(&temporary, text.to_string()).unwrap();
        std::fs::rename(temporary, self.dir.path().join("net.d/10-calico.conflist")).unwrap();
    }

    fn types(&self) -> Vec<String> {
        let text = std::fs::read(self.dir.path().join("net.d/10-calico.conflist")).unwrap_or_default();
        let list: Value = serde_json::from_slice(&text).unwrap_or_default();
        let plugins = list["plugins"].as_array().cloned().unwrap_or_default();
        plugins.iter().map(|plugin| plugin["type"].as_str().unwrap().to_owned()).collect()
    }

    async fn eventually(&self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let until = tokio::time::Instant::now() + PATIENCE;
        while !holds(self) {
            assert!(
                tokio::time::Instant::now() < until,
                "{what}: {:?} pending {:?}",
                self.types(),
                self.readiness.pending()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn ready(&self) -> bool {
        self.readiness.pending().is_empty()
    }
}

#[tokio::test]
async fn cni_row_4_5_and_7_the_plugin_is_installed_repaired_and_removed() {
    let host = Host::new();
    let gate = host.readiness.gate("cni installation");
    let work = tokio::spawn(host.installer.clone().run(gate));
    let kubeconfig = host.dir.path().join("run/istio-cni-kubeconfig");
    host.eventually("kubeconfig", |_| kubeconfig.exists()).await;
    assert!(!host.ready(), "ready before the node has a CNI configuration");

    host.write_main_cni();
    host.eventually("installed", |host| host.types() == ["calico", "portmap", "istio-cni"] && host.ready()).await;
    let first = std::fs::read(host.dir.path().join("net.d/10-calico.conflist")).unwrap();
    assert!(host.installer.install().unwrap());
    assert_eq!(std::fs::read(host.dir.path().join("net.d/10-calico.conflist")).unwrap(), first);
    let entry = &serde_json::from_slice::<Value>(&first).unwrap()["plugins"][2];
    assert_eq!((&entry["ambient_enabled"], &entry["pod_namespace"]), (&json!(true), &json!("istio-system")));

    let began = std::time::Instant::now();
    host.write_main_cni();
    host.eventually("repaired", |host| host.types().len() == 3 && host.ready()).await;
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());

    std::fs::remove_file(host.dir.path().join("bin/istio-cni")).unwrap();
    host.eventually("binary back", |host| host.dir.path().join("bin/istio-cni").exists() && host.ready()).await;

    std::fs::write(host.dir.path().join("sa/token"), "token-2").unwrap();
    host.eventually("token followed", |_| {
        std::fs::read_to_string(&kubeconfig).is_ok_and(|text| text.contains("token-2"))
    })
    .await;
    assert!(
        host.registry.encode().contains("istio_cni_installs_total{result=\"SUCCESS\"}"),
        "{}",
        host.registry.encode()
    );

    work.abort();
    host.installer.remove();
    assert_eq!(host.types(), ["calico", "portmap"]);
    assert!(!kubeconfig.exists() && !host.dir.path().join("bin/istio-cni").exists());
}
