//! A waypoint with its control plane.

use std::fs::File;
use std::process::{Child, Command, ExitStatus};
use std::sync::Arc;
use std::time::Duration;

use http::{Extensions, HeaderMap};
use mesh_wire::discovery::Node;
use mesh_wire::l7::{self, resource::Kind};
use mesh_wire::type_url;
use mesh_xds::server::{AdsService, Backing, Change, Gatekeeper, Hub, HubOptions, Resource, TypeSpec, Unobserved};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::Status;

use crate::{resources, revocation};

/// Where the waypoint takes tunnels; that of endpoints is another one, since all are on one loopback.
pub(crate) const HBONE_PORT: u16 = 15108;

pub(crate) struct World {
    hub: Arc<Hub>,
    version: std::cell::Cell<u64>,
    child: Child,
    dir: tempfile::TempDir,
}

struct Open;

impl Gatekeeper for Open {
    type Caller = ();

    async fn admit(&self, _: &HeaderMap, _: &Extensions) -> Result<(), Status> {
        Ok(())
    }

    fn check(&self, (): &(), _: &Node) -> Result<(), Status> {
        Ok(())
    }
}

impl World {
    /// A ready waypoint with these resources.
    pub(crate) async fn waypoint(proxy: l7::Proxy, ports: &[l7::Port], addresses: Vec<Arc<Resource>>) -> Self {
        let mut routes = vec![resources::l7(resources::GATEWAY, Kind::Proxy(proxy))];
        routes.extend(ports.iter().map(|port| resources::l7(&resources::port_name(port), Kind::Port(port.clone()))));
        Self::start("waypoint", &[], routes, addresses).await
    }

    /// A ready gateway with these listeners.
    pub(crate) async fn gateway(listeners: &[l7::Listener], addresses: Vec<Arc<Resource>>) -> Self {
        let proxy = l7::Proxy { role: l7::proxy::Role::Gateway.into(), ..resources::proxy() };
        let mut routes = vec![resources::l7(resources::GATEWAY, Kind::Proxy(proxy))];
        let name = |one: &l7::Listener| format!("{}/listener/{}", resources::GATEWAY, one.section);
        routes.extend(listeners.iter().map(|one| resources::l7(&name(one), Kind::Listener(one.clone()))));
        Self::start("router", &[], routes, addresses).await
    }

    /// [`World::waypoint`] that may use so many MiB of memory.
    pub(crate) async fn small(memory_mib: u64, port: &l7::Port, addresses: Vec<Arc<Resource>>) -> Self {
        let routes = vec![
            resources::l7(resources::GATEWAY, Kind::Proxy(resources::proxy())),
            resources::l7(&resources::port_name(port), Kind::Port(port.clone())),
        ];
        let limit = (memory_mib << 20).to_string();
        Self::start("waypoint", &[("ISTIO_MEMORY_LIMIT", &limit)], routes, addresses).await
    }

    async fn start(
        role: &str,
        further: &[(&str, &str)],
        routes: Vec<Arc<Resource>>,
        addresses: Vec<Arc<Resource>>,
    ) -> Self {
        let types = [type_url::ADDRESS, type_url::L7].map(|url| TypeSpec { url, backing: Backing::Own, after: None });
        let hub = Hub::new(&types, HubOptions::default(), Box::new(Unobserved));
        hub.set_ready(true);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let service = AdsService::new(hub.clone(), Arc::new(Open));
        let server = tonic::transport::Server::builder().add_service(service);
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        let dir = tempfile::tempdir().unwrap();
        let log = File::create(dir.path().join("log")).unwrap();
        let hbone = HBONE_PORT.to_string();
        let revocations = dir.path().join(REVOCATIONS).display().to_string();
        let settings = [
            ("MELTEMI_GATEWAY", resources::GATEWAY),
            ("POD_NAME", "wp-1"),
            ("POD_NAMESPACE", "shop"),
            ("SERVICE_ACCOUNT", "wp"),
            ("INSTANCE_IP", "127.0.0.1"),
            ("XDS_ADDRESS", &address),
            ("FAKE_CA", "true"),
            ("HBONE_PORT", &hbone),
            ("CRL_PATH", &revocations),
            ("WAYPOINT_WORKER_THREADS", "2"),
            ("WAYPOINT_ACCESS_LOG", "all"),
            ("PROXY_CONFIG", "{\"terminationDrainDuration\": \"500ms\"}"),
            ("RUST_LOG", "info,waypoint=debug"),
        ];
        let mut command = Command::new(env!("CARGO_BIN_EXE_waypoint"));
        command.args(["proxy", role, "--domain", "shop.svc.cluster.local"]).env_clear();
        command.envs(settings).envs(further.iter().copied());
        command.current_dir(&dir).stdout(log.try_clone().unwrap()).stderr(log);
        let world = Self { hub, version: std::cell::Cell::new(0), child: command.spawn().unwrap(), dir };
        world.publish(type_url::ADDRESS, addresses);
        world.publish(type_url::L7, routes);
        world.eventually("ready", async |world| world.get(15021, "/healthz/ready").await.contains("200 OK")).await;
        world
    }

    /// Publishes resources of a type.
    pub(crate) fn publish(&self, url: &'static str, resources: Vec<Arc<Resource>>) {
        self.change(url, resources.into_iter().map(|one| (one.name.clone(), Some(one))).collect());
    }

    /// Publishes one port anew.
    pub(crate) fn port(&self, port: &l7::Port) {
        let resource = resources::l7(&resources::port_name(port), Kind::Port(port.clone()));
        self.publish(type_url::L7, vec![resource]);
    }

    /// Takes resources of a type away.
    pub(crate) fn remove(&self, url: &'static str, names: &[&str]) {
        self.change(url, names.iter().map(|name| (Arc::from(*name), None)).collect());
    }

    fn change(&self, type_url: &'static str, resources: Vec<(Arc<str>, Option<Arc<Resource>>)>) {
        let changes: Vec<_> =
            resources.into_iter().map(|(name, resource)| Change { type_url, name, resource }).collect();
        self.version.set(self.version.get() + 1);
        self.hub.publish(self.version.get().to_string().into(), &changes);
    }

    /// Takes certificates of the mesh back: these and no others.
    pub(crate) fn revoke(&self, revoked: &[&CertificateDer<'_>]) {
        // At once: half of a list is none.
        let written = self.dir.path().join("new");
        std::fs::write(&written, revocation::list(revoked)).unwrap();
        std::fs::rename(written, self.dir.path().join(REVOCATIONS)).unwrap();
    }

    /// GET on loopback; empty while nobody listens.
    pub(crate) async fn get(&self, port: u16, path: &str) -> String {
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)).await else { return String::new() };
        Self::said(&mut stream, &format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")).await
    }

    /// POST of JSON on loopback.
    pub(crate) async fn post(&self, port: u16, path: &str, body: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let head =
            format!("POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n");
        Self::said(&mut stream, &format!("{head}content-length: {}\r\n\r\n{body}", body.len())).await
    }

    async fn said(stream: &mut TcpStream, request: &str) -> String {
        let mut text = String::new();
        if stream.write_all(request.as_bytes()).await.is_ok() {
            let _ = stream.read_to_string(&mut text).await;
        }
        text
    }

    /// Waits until a condition holds.
    pub(crate) async fn eventually(&self, what: &str, condition: impl AsyncFn(&Self) -> bool) {
        for _ in 0..500 {
            if condition(self).await {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("never: {what}; the log says:\n{}", self.log());
    }

    /// Waits for a metric whose line holds all of `parts`.
    pub(crate) async fn metric(&self, parts: &[&str]) {
        let holds = async |world: &Self| {
            let text = world.get(15020, "/stats/prometheus").await;
            text.lines().any(|line| !line.starts_with('#') && parts.iter().all(|part| line.contains(part)))
        };
        self.eventually(&format!("metric {parts:?}"), holds).await;
    }

    /// A number of `/proc/PID/status`, such as `VmHWM`, MiB.
    pub(crate) fn memory_mib(&self, field: &str) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = text.lines().find(|line| line.starts_with(field)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() >> 10
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    pub(crate) async fn ended(&mut self) -> ExitStatus {
        for _ in 0..1500 {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("the proxy does not end; its log:\n{}", self.log());
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("log of the proxy:\n{}", self.log());
        }
    }
}

/// Beside the log.
const REVOCATIONS: &str = "ca-crl.pem";
