//! A layer-7 proxy with its control plane.

use std::fs::File;
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::Duration;

use http::{Extensions, HeaderMap};
use mesh_wire::discovery::Node;
use mesh_wire::l7::{self, resource::Kind};
use mesh_wire::type_url;
use mesh_xds::server::{AdsService, Backing, Change, Gatekeeper, Hub, HubOptions, Resource, TypeSpec, Unobserved};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::Status;

use crate::raw;
use crate::resources::{self, Service};

/// A running proxy. Killed when dropped.
pub(crate) struct World {
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
    /// A ready gateway with these listeners.
    pub(crate) async fn gateway(settings: l7::Settings, listeners: &[l7::Listener], services: &[Service]) -> Self {
        let proxy = resources::proxy(l7::proxy::Role::Gateway, settings);
        let mut routes = vec![resources::l7(resources::GATEWAY, Kind::Proxy(proxy))];
        let name = |one: &l7::Listener| format!("{}/listener/{}", resources::GATEWAY, one.section);
        routes.extend(listeners.iter().map(|one| resources::l7(&name(one), Kind::Listener(one.clone()))));
        let world = Self::start("router", routes, services).await;
        for listener in listeners {
            let port = u16::try_from(listener.port).unwrap();
            world
                .eventually("listening", async || tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok())
                .await;
        }
        world
    }

    /// A gateway with one listener on [`PORT`] that sends everything to `service`.
    pub(crate) async fn one(service: Service) -> Self {
        let listener = resources::listener(PORT, &[service], None);
        Self::gateway(l7::Settings::default(), &[listener], &[service]).await
    }

    /// A ready waypoint with these ports.
    pub(crate) async fn waypoint(proxy: l7::Proxy, ports: &[l7::Port], services: &[Service]) -> Self {
        let mut routes = vec![resources::l7(resources::GATEWAY, Kind::Proxy(proxy))];
        let name =
            |port: &l7::Port| format!("{}/{}/{}:{}", resources::GATEWAY, port.namespace, port.hostname, port.port);
        routes.extend(ports.iter().map(|port| resources::l7(&name(port), Kind::Port(port.clone()))));
        Self::start("waypoint", routes, services).await
    }

    async fn start(role: &str, routes: Vec<Arc<Resource>>, services: &[Service]) -> Self {
        let types = [type_url::ADDRESS, type_url::L7].map(|url| TypeSpec { url, backing: Backing::Own, after: None });
        let hub = Hub::new(&types, HubOptions::default(), Box::new(Unobserved));
        let change = |type_url, resource: Arc<Resource>| Change {
            type_url,
            name: resource.name.clone(),
            resource: Some(resource),
        };
        let addresses = services.iter().flat_map(Service::addresses).map(|one| change(type_url::ADDRESS, one));
        let changes: Vec<_> = addresses.chain(routes.into_iter().map(|one| change(type_url::L7, one))).collect();
        hub.publish("1".into(), &changes);
        hub.set_ready(true);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let service = AdsService::new(hub, Arc::new(Open));
        let server = tonic::transport::Server::builder().add_service(service);
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        let dir = tempfile::tempdir().unwrap();
        let log = File::create(dir.path().join("log")).unwrap();
        let settings = [
            ("MELTEMI_GATEWAY", resources::GATEWAY),
            ("POD_NAME", "wp-1"),
            ("POD_NAMESPACE", "shop"),
            ("SERVICE_ACCOUNT", "wp"),
            ("INSTANCE_IP", "127.0.0.1"),
            ("XDS_ADDRESS", &address),
            ("FAKE_CA", "true"),
            ("WAYPOINT_WORKER_THREADS", "2"),
            ("RUST_LOG", "info"),
        ];
        let program = tests_support::run::bin_dir().unwrap().join("waypoint");
        let mut command = Command::new(&program);
        command.args(["proxy", role]).env_clear().envs(settings);
        command.current_dir(&dir).stdout(log.try_clone().unwrap()).stderr(log);
        let child = command.spawn().unwrap_or_else(|error| panic!("{}: {error}; build it", program.display()));
        let world = Self { child, dir };
        let ready = async || raw::get(15021, "/healthz/ready").await.status == Some(200);
        world.eventually("ready", ready).await;
        world
    }

    /// Waits until a condition holds.
    pub(crate) async fn eventually(&self, what: &str, condition: impl AsyncFn() -> bool) {
        for _ in 0..1000 {
            if condition().await {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("never: {what}");
    }

    /// A number of `/proc/PID/status`, such as `VmRSS` (KiB).
    pub(crate) fn status(&self, field: &str) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = text.lines().find(|line| line.starts_with(field)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// Puts it behind the test's own threads.
    pub(crate) fn step_back(&self) {
        tests_support::priority::step_back(self.child.id()).unwrap();
    }

    /// All it has written so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().rev().take(40).collect();
            eprintln!("log of the proxy, latest first:\n{}", lines.join("\n"));
        }
    }
}

/// Where most gateways of these tests listen.
pub(crate) const PORT: u16 = 8080;
