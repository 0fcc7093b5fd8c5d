//! The real binary without a cluster: a directory of YAML in, workloads to a delta client out.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a test may

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use mesh_wire::discovery::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use mesh_wire::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node};
use mesh_wire::type_url;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::{Channel, Endpoint};

/// Ends with the test.
struct Istiod(Child);

impl Drop for Istiod {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The process, and where it serves xDS and readiness.
fn start(dir: &Path) -> (Istiod, String, String) {
    start_monitored(dir, "127.0.0.1:0")
}

/// The same, with its metrics at an address.
fn start_monitored(dir: &Path, monitoring: &str) -> (Istiod, String, String) {
    let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let (xds, http) = (free(), free());
    let child = Command::new(env!("CARGO_BIN_EXE_istiod"))
        .args(["discovery", "--registries="])
        .arg(format!("--monitoringAddr={monitoring}"))
        .arg(format!("--configDir={}", dir.display()))
        .arg(format!("--grpcAddr={xds}"))
        .arg(format!("--httpAddr={http}"))
        .env_clear()
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    (Istiod(child), xds, http)
}

async fn connect(xds: &str) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{xds}")).unwrap();
    let attempt = async {
        loop {
            match endpoint.connect().await {
                Ok(channel) => break channel,
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    };
    timeout(PATIENCE, attempt).await.expect("istiod listens")
}

/// A wildcard client of addresses and policies, as a node proxy is one.
struct Client {
    requests: mpsc::Sender<DeltaDiscoveryRequest>,
    responses: Streaming<DeltaDiscoveryResponse>,
}

impl Client {
    async fn open(channel: Channel) -> Self {
        let attempt = async {
            loop {
                let (requests, stream) = mpsc::channel(8);
                for type_url in [type_url::ADDRESS, type_url::AUTHORIZATION] {
                    let node = Node { id: "ztunnel~127.0.0.1~zt.istio-system~x".into(), ..Node::default() };
                    let request =
                        DeltaDiscoveryRequest { node: Some(node), type_url: type_url.into(), ..Default::default() };
                    requests.send(request).await.unwrap();
                }
                let mut client = AggregatedDiscoveryServiceClient::new(channel.clone());
                // Not ready yet: as a proxy does, try again.
                match client.delta_aggregated_resources(ReceiverStream::new(stream)).await {
                    Ok(answer) => break Self { requests, responses: answer.into_inner() },
                    Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            }
        };
        timeout(PATIENCE, attempt).await.expect("a stream opens")
    }

    /// Waits until a response names this resource (removed ones with a `-` before).
    async fn sees(&mut self, name: &str) {
        let wait = async {
            loop {
                let response = self.responses.message().await.unwrap().expect("the stream goes on");
                let removed = response.removed_resources.iter().map(|one| format!("-{one}"));
                let names: Vec<_> = response.resources.iter().map(|one| one.name.clone()).chain(removed).collect();
                let ack = DeltaDiscoveryRequest {
                    type_url: response.type_url,
                    response_nonce: response.nonce,
                    ..Default::default()
                };
                self.requests.send(ack).await.unwrap();
                if names.iter().any(|one| one == name) {
                    return;
                }
            }
        };
        timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("{name} is not told"));
    }
}

fn pod(name: &str, ip: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: shop, labels: {{app: web}}}}\n\
         status: {{phase: Running, podIP: {ip}, conditions: [{{type: Ready, status: 'True'}}]}}\n---\n"
    )
}

const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: shop}\n\
    spec: {clusterIP: 10.96.0.10, selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}\n";
const POLICY: &str = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
    metadata: {name: closed, namespace: shop}\nspec: {}\n";
const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_proxy_is_served_from_files_and_follows_their_changes() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name);
    std::fs::create_dir(file("apps")).unwrap();
    std::fs::write(file("apps/web.yaml"), pod("web-1", "10.0.0.1") + SERVICE).unwrap();
    std::fs::write(file("broken.yaml"), "kind: [").unwrap();
    let (_istiod, xds, _) = start(dir.path());
    let mut client = Client::open(connect(&xds).await).await;
    client.sees("shop/web.shop.svc.cluster.local").await;

    std::fs::write(file("policy.yaml"), POLICY).unwrap();
    client.sees("shop/closed").await;
    std::fs::write(file("apps/more.yaml"), pod("web-2", "10.0.0.2")).unwrap();
    client.sees("Kubernetes//Pod/shop/web-2").await;
    std::fs::remove_file(file("apps/more.yaml")).unwrap();
    client.sees("-Kubernetes//Pod/shop/web-2").await;
    // A file that nobody can read any more takes nothing away; a repaired one is read.
    std::fs::write(file("policy.yaml"), "kind: [").unwrap();
    std::fs::write(file("broken.yaml"), pod("web-3", "10.0.0.3")).unwrap();
    client.sees("Kubernetes//Pod/shop/web-3").await;
    std::fs::remove_file(file("policy.yaml")).unwrap();
    client.sees("-shop/closed").await;
}

#[test]
fn without_cluster_and_without_files_there_is_nothing_to_do() {
    let run = |args: &[&str]| {
        let output =
            Command::new(env!("CARGO_BIN_EXE_istiod")).arg("discovery").args(args).env_clear().output().unwrap();
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
    };
    assert!(run(&["--registries="]).contains("needs --configDir"));
    assert!(run(&["--registries=", "--configDir=/does/not/exist"]).contains("/does/not/exist"));
}

/// Waits until readiness is answered like this.
async fn is_ready(http: &str, status: &str, part: &str) {
    answers(http, "/ready", status, part).await;
}

/// Waits until a page is answered like this.
async fn answers(http: &str, page: &str, status: &str, part: &str) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut answer = String::new();
    let asked = async {
        loop {
            if let Ok(mut tcp) = tokio::net::TcpStream::connect(http).await {
                let asked = format!("GET {page} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
                tcp.write_all(asked.as_bytes()).await.unwrap();
                answer.clear();
                tcp.read_to_string(&mut answer).await.unwrap();
                if answer.starts_with(&format!("HTTP/1.1 {status}")) && answer.contains(part) {
                    return;
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let found = timeout(PATIENCE, asked).await;
    assert!(found.is_ok(), "{status} with {part:?} is not answered, but {answer}");
}

#[tokio::test]
async fn a_file_that_nobody_could_read_since_the_start_keeps_the_process_from_being_ready() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name);
    std::fs::write(file("web.yaml"), SERVICE).unwrap();
    std::fs::write(file("policy.yaml"), "kind: [").unwrap();
    let (_istiod, xds, http) = start(dir.path());
    is_ready(&http, "503", "policy.yaml cannot be read").await;
    // What can be read is served meanwhile.
    let mut client = Client::open(connect(&xds).await).await;
    client.sees("shop/web.shop.svc.cluster.local").await;
    std::fs::write(file("policy.yaml"), POLICY).unwrap();
    is_ready(&http, "200", "ready").await;
    client.sees("shop/closed").await;
    // Now it has a version that stays in force; and a new file never stops a process that runs.
    std::fs::write(file("policy.yaml"), "kind: [").unwrap();
    std::fs::write(file("new.yaml"), "kind: [").unwrap();
    std::fs::write(file("more.yaml"), pod("web-9", "10.0.0.9")).unwrap();
    client.sees("Kubernetes//Pod/shop/web-9").await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    is_ready(&http, "200", "ready").await;
}

#[tokio::test]
async fn what_the_process_uses_of_the_system_is_among_its_metrics() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("web.yaml"), SERVICE).unwrap();
    let monitoring = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let (_istiod, _, http) = start_monitored(dir.path(), &monitoring);
    is_ready(&http, "200", "ready").await;
    for name in
        ["process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds", "process_start_time_seconds"]
    {
        answers(&monitoring, "/metrics", "200", &format!("\n{name} ")).await;
    }
}
