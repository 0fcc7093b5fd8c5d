//! A server for a test, and clients of it.

use std::{future::Future, net::TcpListener, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{StreamExt, future::BoxFuture, stream};
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use sandbox::{
    api::{ApiConfig, ApiServer},
    backend::{BackendError, BoxDuplex, ExecRequest, ExecSession, LogOptions, LogStream, NodeBackend},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, duplex},
    sync::oneshot,
    task::JoinHandle,
};

/// Longest that anything in these tests may take.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// A running server.
pub struct Server {
    pub api: Arc<ApiServer>,
}

impl Server {
    pub fn start() -> Self {
        Self::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut ApiConfig)) -> Self {
        let mut config = ApiConfig::new(Arc::new(ScriptedNode));
        change(&mut config);
        Self { api: ApiServer::new(config).unwrap() }
    }

    /// The in-process client.
    pub fn client(&self) -> Client {
        self.api.client()
    }

    /// Listens on loopback with TLS.
    pub fn listen(&self) -> Listening {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let tls = self.api.tls(&[]).unwrap();
        let serving = tokio::spawn({
            let api = self.api.clone();
            async move { api.serve(vec![listener], tls).await.unwrap() }
        });
        let directory = tempfile::tempdir().unwrap();
        let kubeconfig = directory.path().join("kubeconfig");
        std::fs::write(&kubeconfig, self.api.admin_kubeconfig(&url)).unwrap();
        Listening { serving, directory, kubeconfig }
    }

    /// Calls the server in process with a method, a path and a JSON body.
    pub async fn call(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let content_type = match method {
            "PATCH" => "application/merge-patch+json",
            _ => "application/json",
        };
        self.call_with(method, path, body, &[("content-type", content_type)]).await
    }

    pub async fn call_with(&self, method: &str, path: &str, body: Value, headers: &[(&str, &str)]) -> (u16, Value) {
        let body = if body.is_null() { Vec::new() } else { serde_json::to_vec(&body).unwrap() };
        let mut request = http::Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.client().send(request.body(body.into()).unwrap()).await.unwrap();
        let code = response.status().as_u16();
        let bytes = http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes();
        let value = serde_json::from_slice(&bytes).unwrap_or_else(|_| json!(String::from_utf8_lossy(&bytes)));
        (code, value)
    }

    /// Creates an object that must be accepted.
    pub async fn create(&self, path: &str, object: Value) -> Value {
        let (code, answer) = self.call("POST", path, object).await;
        assert_eq!(code, 201, "{path}: {answer}");
        answer
    }

    pub async fn get(&self, path: &str) -> Value {
        self.call("GET", path, Value::Null).await.1
    }

    /// Waits until a path answers 404.
    pub async fn gone(&self, path: &str) {
        within(async {
            while self.call("GET", path, Value::Null).await.0 != 404 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }
}

/// A server that listens until dropped.
pub struct Listening {
    serving: JoinHandle<()>,
    pub directory: tempfile::TempDir,
    pub kubeconfig: PathBuf,
}

impl Listening {
    /// A kube-rs client over TLS.
    pub async fn client(&self) -> Client {
        let kubeconfig = Kubeconfig::read_from(&self.kubeconfig).unwrap();
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
        Client::try_from(config).unwrap()
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Runs something that must not take long.
pub async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, work).await.expect("done within the deadline")
}

/// Installs the crypto provider that kube's TLS client looks for.
pub fn crypto() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

/// A node whose containers do what their command says: `cat` echoes its input, `fail N` prints to
/// standard error and exits with N, anything else prints its arguments.
pub struct ScriptedNode;

impl NodeBackend for ScriptedNode {
    fn logs<'a>(
        &'a self,
        node: &'a str,
        pod_uid: &'a str,
        container: &'a str,
        options: LogOptions,
    ) -> BoxFuture<'a, Result<LogStream, BackendError>> {
        Box::pin(async move {
            if options.previous {
                let what = format!("previous instance of container {container} of pod {pod_uid}");
                return Err(BackendError::NotFound { what, node: node.to_owned() });
            }
            let lines: Vec<String> = (1..=5).map(|line| format!("{container} line {line}\n")).collect();
            let skipped =
                options.tail_lines.map_or(0, |tail| lines.len().saturating_sub(usize::try_from(tail).unwrap()));
            let lines: Vec<_> = lines.into_iter().skip(skipped).map(|line| Ok(Bytes::from(line))).collect();
            let ended = stream::iter(lines);
            Ok(if options.follow { ended.chain(stream::pending()).boxed() } else { ended.boxed() })
        })
    }

    fn exec<'a>(
        &'a self,
        _node: &'a str,
        _pod_uid: &'a str,
        _container: &'a str,
        request: ExecRequest,
    ) -> BoxFuture<'a, Result<ExecSession, BackendError>> {
        Box::pin(async move {
            let (stdin, mut input) = duplex(1024);
            let (mut output, stdout) = duplex(1024);
            let (mut errors, stderr) = duplex(1024);
            let (exited, exit) = oneshot::channel();
            let stdin = request.stdin.then(|| Box::pin(stdin) as _);
            tokio::spawn(async move {
                let argv: Vec<&str> = request.argv.iter().map(String::as_str).collect();
                let code = match argv.as_slice() {
                    ["cat"] => {
                        let mut buffer = [0; 512];
                        while let Ok(read @ 1..) = input.read(&mut buffer).await {
                            output.write_all(&buffer[..read]).await.unwrap();
                        }
                        0
                    }
                    ["fail", code] => {
                        errors.write_all(b"failed\n").await.unwrap();
                        code.parse().unwrap()
                    }
                    other => {
                        output.write_all(other.join(" ").as_bytes()).await.unwrap();
                        0
                    }
                };
                let _ = exited.send(code);
            });
            Ok(ExecSession { stdin, stdout: Box::pin(stdout), stderr: Box::pin(stderr), exit })
        })
    }

    fn port_forward<'a>(
        &'a self,
        node: &'a str,
        _pod_uid: &'a str,
        port: u16,
    ) -> BoxFuture<'a, Result<BoxDuplex, BackendError>> {
        Box::pin(async move {
            if port != 80 {
                let reason = format!("nothing listens on port {port} of {node}");
                return Err(BackendError::Failed { action: "connecting".to_owned(), reason });
            }
            let (near, mut far) = duplex(1024);
            tokio::spawn(async move {
                let mut buffer = [0; 5];
                far.read_exact(&mut buffer).await.unwrap();
                buffer.make_ascii_uppercase();
                far.write_all(&buffer).await.unwrap();
            });
            Ok(Box::pin(near) as BoxDuplex)
        })
    }
}

/// A pod of one container.
pub fn pod(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "main", "image": "echo"}]}})
}

/// A pod bound to a node.
pub fn bound_pod(name: &str) -> Value {
    let mut pod = pod(name);
    pod["spec"]["nodeName"] = json!("node-1");
    pod
}
