//! The program under test as a process, and what it shows of itself.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use mesh_sys::netns::NetNs;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;

use crate::wait::{eventually, within};

/// A running proxy; killed when dropped.
pub struct Proxy {
    child: Mutex<Child>,
    log: Arc<Mutex<Vec<String>>>,
    readers: Vec<JoinHandle<()>>,
    netns: NetNs,
}

/// An answer of one of the proxy's HTTP ports.
#[derive(Debug, Clone)]
pub struct Reply {
    /// Status code.
    pub status: u16,
    /// Head, lower case.
    pub head: String,
    /// Body.
    pub body: String,
}

/// The program under test.
///
/// # Panics
/// When it has not been built.
#[must_use]
pub fn program() -> PathBuf {
    if let Some(named) = std::env::var_os("CONFORMANCE_ZTUNNEL") {
        return named.into();
    }
    let program = tests_support::run::bin_dir().unwrap().join("ztunnel");
    assert!(program.is_file(), "{} is missing: run `make build`", program.display());
    program
}

impl Proxy {
    /// Starts the program in a network namespace, with nothing but this environment.
    #[must_use]
    pub fn launch(netns: &NetNs, dir: &Path, env: &BTreeMap<String, String>) -> Self {
        // Its own mounts, for a name server of its own. The shell would lose variables that are no names of its own.
        let script = "mount --bind resolv.conf /etc/resolv.conf && exec env -i \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script, "sh"]);
        command.args(env.iter().map(|(name, value)| format!("{name}={value}"))).arg(program());
        command.current_dir(dir).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = netns.run(|| command.spawn()).unwrap().unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let readers = vec![collect(child.stdout.take().unwrap(), &log), collect(child.stderr.take().unwrap(), &log)];
        Self { child: Mutex::new(child), log, readers, netns: netns.try_clone().unwrap() }
    }

    /// All it has said, line by line.
    #[must_use]
    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    /// Waits for a line that holds all of `parts`.
    pub async fn log_line(&self, parts: &[&str]) -> String {
        let found = tokio::time::timeout(crate::wait::SOON, async {
            loop {
                let found = self.log().into_iter().find(|line| parts.iter().all(|part| line.contains(part)));
                match found {
                    Some(line) => return line,
                    None => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        });
        found.await.unwrap_or_else(|_| panic!("no line with {parts:?} in the log:\n{}", self.log().join("\n")))
    }

    /// Waits until it says that it is ready.
    pub async fn ready(&self) {
        let mut last = String::new();
        let asked = tokio::time::timeout(Duration::from_secs(20), async {
            loop {
                match self.readiness().await {
                    Some(reply) if reply.status == 200 => return,
                    other => last = format!("{other:?}"),
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        if asked.await.is_err() {
            panic!("not ready: {last}\n{}", self.log().join("\n"));
        }
    }

    /// Its readiness; `None` while it does not listen.
    pub async fn readiness(&self) -> Option<Reply> {
        self.http(15021, "GET", "/healthz/ready").await
    }

    /// Waits until readiness is refused, naming `task`.
    pub async fn unready(&self, task: &str) -> Reply {
        eventually(&format!("not ready because of {task}"), async || {
            self.readiness().await.filter(|reply| reply.status == 500 && reply.body.contains(task))
        })
        .await
    }

    /// One request to an admin path.
    ///
    /// # Panics
    /// When it does not answer.
    pub async fn admin(&self, method: &str, path: &str) -> Reply {
        self.http(15000, method, path).await.expect("the admin port answers")
    }

    /// The configuration dump.
    pub async fn dump(&self) -> Value {
        let reply = self.admin("GET", "/config_dump").await;
        assert_eq!(reply.status, 200, "{}", reply.body);
        serde_json::from_str(&reply.body).unwrap()
    }

    /// Waits until the dump satisfies `wanted`.
    pub async fn dump_that(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        eventually(what, async || Some(self.dump().await).filter(&wanted)).await
    }

    /// The metrics page.
    pub async fn metrics(&self) -> String {
        self.http(15020, "GET", "/metrics").await.expect("the stats port answers").body
    }

    /// The sum of all samples of a metric that have these labels.
    pub async fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        samples(&self.metrics().await, name, labels).iter().map(|(_, value)| value).sum()
    }

    /// Waits until [`Proxy::metric`] is `value`.
    pub async fn metric_is(&self, name: &str, labels: &[(&str, &str)], value: f64) {
        let mut page = String::new();
        let reached = tokio::time::timeout(crate::wait::SOON, async {
            loop {
                page = self.metrics().await;
                if samples(&page, name, labels).iter().map(|(_, value)| value).sum::<f64>() == value {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        if reached.await.is_err() {
            let same: Vec<_> = page.lines().filter(|line| line.starts_with(name)).collect();
            panic!("{name} with {labels:?} is not {value}:\n{}", same.join("\n"));
        }
    }

    /// One request to a port of the process; `None` when nobody listens.
    pub async fn http(&self, port: u16, method: &str, path: &str) -> Option<Reply> {
        self.http_with(port, method, path, "").await
    }

    /// [`Proxy::http`] with more header lines, each with its line end.
    pub async fn http_with(&self, port: u16, method: &str, path: &str, headers: &str) -> Option<Reply> {
        let socket = self.netns.run(TcpSocket::new_v4).unwrap().unwrap();
        let asked = async {
            let mut stream = socket.connect(([127, 0, 0, 1], port).into()).await.ok()?;
            let request = format!(
                "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 0\r\n{headers}\r\n"
            );
            stream.write_all(request.as_bytes()).await.ok()?;
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes).await.ok()?;
            let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
            let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
            let body = &bytes[end + 4..];
            let status = head.split(' ').nth(1)?.parse().ok()?;
            let head = head.to_lowercase();
            let body = if head.contains("transfer-encoding: chunked") { unchunk(body) } else { body.to_vec() };
            Some(Reply { status, head, body: String::from_utf8_lossy(&body).into_owned() })
        };
        tokio::time::timeout(Duration::from_secs(5), asked).await.ok().flatten()
    }

    /// Process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.lock().unwrap().id()
    }

    /// Sends a signal by its name.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args([format!("-{name}"), self.pid().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// Waits for the end; the exit code, or `None` when a signal ended it.
    pub async fn exit(&self) -> Option<i32> {
        within("the proxy ends", Duration::from_secs(20), async {
            loop {
                let ended = self.child.lock().unwrap().try_wait().unwrap();
                match ended {
                    // All that it has said is read.
                    Some(status) if self.readers.iter().all(JoinHandle::is_finished) => return status.code(),
                    _ => tokio::time::sleep(Duration::from_millis(10)).await,
                }
            }
        })
        .await
    }

    /// Whether it still runs.
    #[must_use]
    pub fn runs(&self) -> bool {
        self.child.lock().unwrap().try_wait().unwrap().is_none()
    }

    /// How many descriptors of the process stand for this network namespace.
    #[must_use]
    pub fn descriptors_of(&self, netns: &NetNs) -> usize {
        let wanted = format!("net:[{}]", netns.id().inode);
        let all = std::fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().flatten();
        all.filter(|fd| std::fs::read_link(fd.path()).is_ok_and(|target| target.as_os_str() == wanted.as_str())).count()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let child = self.child.get_mut().unwrap();
        let _ = child.kill();
        let _ = child.wait();
        if std::thread::panicking() {
            let log = self.log.lock().unwrap();
            let tail = log.len().saturating_sub(40);
            eprintln!("the proxy's last words:\n{}", log[tail..].join("\n"));
        }
    }
}

/// The samples of a metric, as the line and its value, that have these labels.
#[must_use]
pub fn samples(page: &str, name: &str, labels: &[(&str, &str)]) -> Vec<(String, f64)> {
    let matches = |line: &&str| {
        let rest = line.strip_prefix(name).unwrap_or("x");
        let own = rest.starts_with('{') || rest.starts_with(' ');
        own && labels.iter().all(|(key, value)| line.contains(&format!("{key}=\"{value}\"")))
    };
    let value = |line: &str| line.rsplit(' ').next().and_then(|text| text.parse().ok()).unwrap_or(f64::NAN);
    page.lines().filter(matches).map(|line| (line.to_owned(), value(line))).collect()
}

fn collect(stream: impl Read + Send + 'static, log: &Arc<Mutex<Vec<String>>>) -> JoinHandle<()> {
    let log = Arc::clone(log);
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            log.lock().unwrap().push(line);
        }
    })
}

fn unchunk(mut body: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    while let Some(line) = body.windows(2).position(|window| window == b"\r\n") {
        let size = usize::from_str_radix(String::from_utf8_lossy(&body[..line]).trim(), 16).unwrap_or(0);
        let Some(chunk) = body.get(line + 2..line + 2 + size).filter(|chunk| !chunk.is_empty()) else { break };
        whole.extend_from_slice(chunk);
        body = body.get(line + 2 + size + 2..).unwrap_or_default();
    }
    whole
}
