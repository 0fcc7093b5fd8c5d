//! One probe: what is asked of a container, and the asking.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, HTTPGetAction, LifecycleHandler, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::{grpc, http};
use crate::backend::ExecRequest;
use crate::runtime::NodeRuntime;

/// What a probe does, with ports resolved. The host is the pod's address unless named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::kubelet) enum Action {
    Http { tls: bool, host: Option<String>, port: u16, path: String, headers: Vec<(String, String)> },
    Tcp { host: Option<String>, port: u16 },
    Grpc { port: u16, service: String },
    Exec { argv: Vec<String> },
}

impl Action {
    /// The action of a probe.
    ///
    /// # Errors
    /// A message when the probe names no action or a port the container does not have.
    pub(in crate::kubelet) fn of_probe(probe: &Probe, container: &Container) -> Result<Self, String> {
        if let Some(exec) = &probe.exec {
            return Ok(Self::exec(exec.command.clone()));
        }
        if let Some(get) = &probe.http_get {
            return Self::http(get, container);
        }
        if let Some(tcp) = &probe.tcp_socket {
            return Ok(Self::Tcp { host: named(tcp.host.as_ref()), port: port(&tcp.port, container)? });
        }
        if let Some(grpc) = &probe.grpc {
            return Ok(Self::Grpc { port: number(grpc.port)?, service: grpc.service.clone().unwrap_or_default() });
        }
        Err("probe has none of httpGet, tcpSocket, grpc and exec".into())
    }

    /// The action of a lifecycle hook but `sleep`.
    pub(in crate::kubelet) fn of_hook(hook: &LifecycleHandler, container: &Container) -> Result<Self, String> {
        if let Some(exec) = &hook.exec {
            return Ok(Self::exec(exec.command.clone()));
        }
        match &hook.http_get {
            Some(get) => Self::http(get, container),
            None => Err("lifecycle hook has none of exec, httpGet and sleep".into()),
        }
    }

    fn exec(command: Option<Vec<String>>) -> Self {
        Self::Exec { argv: command.unwrap_or_default() }
    }

    fn http(get: &HTTPGetAction, container: &Container) -> Result<Self, String> {
        let path = get.path.clone().unwrap_or_default();
        let headers = get.http_headers.iter().flatten();
        Ok(Self::Http {
            tls: get.scheme.as_deref() == Some("HTTPS"),
            host: named(get.host.as_ref()),
            port: port(&get.port, container)?,
            path: if path.starts_with('/') { path } else { format!("/{path}") },
            headers: headers.map(|header| (header.name.clone(), header.value.clone())).collect(),
        })
    }
}

fn named(host: Option<&String>) -> Option<String> {
    host.filter(|host| !host.is_empty()).cloned()
}

fn port(port: &IntOrString, container: &Container) -> Result<u16, String> {
    match port {
        IntOrString::Int(value) => number(*value),
        IntOrString::String(name) => {
            let found = container
                .ports
                .iter()
                .flatten()
                .find(|port| port.name.as_ref() == Some(name))
                .map(|port| port.container_port);
            match (found, name.parse::<i32>()) {
                (Some(value), _) | (None, Ok(value)) => number(value),
                _ => Err(format!("container {:?} has no port named {name:?}", container.name)),
            }
        }
    }
}

fn number(value: i32) -> Result<u16, String> {
    u16::try_from(value).ok().filter(|port| *port > 0).ok_or_else(|| format!("port {value} is not between 1 and 65535"))
}

/// Whom a probe is for.
#[derive(Debug, Clone)]
pub(in crate::kubelet) struct Target {
    pub(in crate::kubelet) runtime: NodeRuntime,
    pub(in crate::kubelet) uid: String,
    pub(in crate::kubelet) container: String,
    pub(in crate::kubelet) pod_ip: IpAddr,
}

/// Asks once, within `timeout`.
///
/// # Errors
/// What was answered instead of a success, for the `Unhealthy` event.
pub(in crate::kubelet) async fn perform(target: &Target, action: &Action, timeout: Duration) -> Result<(), String> {
    let ask = async {
        match action {
            Action::Http { tls, host, port, path, headers } => {
                let stream = target.connect(host.as_deref(), *port).await?;
                let host = match host {
                    Some(host) => host.clone(),
                    None => SocketAddr::new(target.pod_ip, *port).to_string(),
                };
                http::get(stream, *tls, &host, path, headers).await
            }
            Action::Tcp { host, port } => target.connect(host.as_deref(), *port).await.map(drop),
            Action::Grpc { port, service } => {
                let stream = target.connect(None, *port).await?;
                grpc::check(stream, &SocketAddr::new(target.pod_ip, *port).to_string(), service).await
            }
            Action::Exec { argv } => target.exec(argv).await,
        }
    };
    // Boxed: the four protocols' states together are large, and probes are rare.
    tokio::time::timeout(timeout, Box::pin(ask))
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {} s", timeout.as_secs())))
}

impl Target {
    /// A connection from the node's network namespace, as a kubelet's is.
    async fn connect(&self, host: Option<&str>, port: u16) -> Result<TcpStream, String> {
        let ip: IpAddr = match host {
            None => self.pod_ip,
            Some("localhost") => IpAddr::from([127, 0, 0, 1]),
            Some(host) => host.parse().map_err(|_| format!("host {host:?} is not an IP address"))?,
        };
        let address = SocketAddr::new(ip, port);
        let socket = self
            .runtime
            .node_netns()
            .run(|| if address.is_ipv4() { tokio::net::TcpSocket::new_v4() } else { tokio::net::TcpSocket::new_v6() })
            .and_then(|socket| socket)
            .map_err(|error| format!("socket in the node's namespace: {error}"))?;
        socket.connect(address).await.map_err(|error| format!("dial tcp {address}: {error}"))
    }

    async fn exec(&self, argv: &[String]) -> Result<(), String> {
        let request = ExecRequest { argv: argv.to_vec(), stdin: false, tty: false };
        let session =
            self.runtime.exec(&self.uid, &self.container, request).await.map_err(|error| error.to_string())?;
        let mut output = Vec::new();
        let mut stdout = session.stdout.take(OUTPUT_BYTES_MAX);
        let mut stderr = session.stderr.take(OUTPUT_BYTES_MAX);
        let mut errors = Vec::new();
        // A broken pipe only loses text of the message.
        let _ = tokio::join!(stdout.read_to_end(&mut output), stderr.read_to_end(&mut errors));
        let code = session.exit.await.unwrap_or(-1);
        if code == 0 {
            return Ok(());
        }
        output.extend_from_slice(&errors);
        let text = String::from_utf8_lossy(&output);
        Err(match text.trim() {
            "" => format!("command ended with exit code {code}"),
            text => format!("command ended with exit code {code}: {text}"),
        })
    }
}

/// Output of an exec probe that is read (a kubelet reads 10 KiB).
const OUTPUT_BYTES_MAX: u64 = 10 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn action(probe: Value) -> Result<Action, String> {
        let container = serde_json::from_value(json!({"name": "c", "ports": [
            {"name": "http", "containerPort": 8080}]}))
        .unwrap();
        Action::of_probe(&serde_json::from_value(probe).unwrap(), &container)
    }

    #[test]
    fn actions_resolve_ports_and_default_paths() {
        assert_eq!(
            action(json!({"httpGet": {"port": "http", "httpHeaders": [{"name": "X", "value": "1"}]}})),
            Ok(Action::Http {
                tls: false,
                host: None,
                port: 8080,
                path: "/".into(),
                headers: vec![("X".into(), "1".into())]
            })
        );
        assert_eq!(
            action(json!({"tcpSocket": {"port": 99, "host": "10.0.0.1"}})),
            Ok(Action::Tcp { host: Some("10.0.0.1".into()), port: 99 })
        );
        assert_eq!(
            action(json!({"grpc": {"port": 5000, "service": "s"}})),
            Ok(Action::Grpc { port: 5000, service: "s".into() })
        );
        assert_eq!(action(json!({"exec": {"command": ["true"]}})), Ok(Action::Exec { argv: vec!["true".into()] }));
        assert!(action(json!({"tcpSocket": {"port": "nope"}})).unwrap_err().contains("nope"));
        assert!(action(json!({"tcpSocket": {"port": 0}})).unwrap_err().contains('0'));
        assert!(action(json!({})).is_err());
    }
}
