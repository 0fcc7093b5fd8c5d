//! The control plane's binary, as a process.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::ads::Target;
use crate::cluster::{Cluster, SYSTEM};
use crate::wait::eventually;

/// A running control plane; killed when dropped.
#[derive(Debug)]
pub struct Plane {
    child: Child,
    name: String,
    addrs: Addrs,
    log: PathBuf,
    program: PathBuf,
    env: Vec<(String, std::ffi::OsString)>,
    started: Instant,
}

/// Where it listens.
#[derive(Debug, Clone, Copy)]
struct Addrs {
    http: SocketAddr,
    monitoring: SocketAddr,
    secure: SocketAddr,
    https: SocketAddr,
}

/// How it is started.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The program; by default the one beside ours.
    pub program: Option<PathBuf>,
    /// Further variables.
    pub env: Vec<(&'static str, String)>,
}

impl Plane {
    /// Starts a replica under this pod's name. It is not ready yet.
    ///
    /// # Errors
    /// The program is not there.
    pub fn start(cluster: &Cluster, name: &str, options: &Options) -> Result<Self> {
        let beside = || anyhow::Ok(tests_support::run::bin_dir()?.join("istiod"));
        let program = options.program.clone().map_or_else(beside, Ok)?;
        ensure!(program.is_file(), "{} is not there: build it, or name another one", program.display());
        let [http, monitoring, secure, https] = free_ports()?;
        let log = cluster.folder().join(format!("{name}.log"));
        let mut env: Vec<(String, std::ffi::OsString)> = vec![
            ("KUBECONFIG".into(), cluster.kubeconfig().into()),
            ("ROOT_CA_DIR".into(), cluster.folder().join("none").into()),
            ("POD_NAMESPACE".into(), SYSTEM.into()),
            ("POD_NAME".into(), name.into()),
            ("CLUSTER_ID".into(), "Kubernetes".into()),
        ];
        env.extend(options.env.iter().map(|(name, value)| ((*name).to_owned(), value.into())));
        let addrs = Addrs { http, monitoring, secure, https };
        let child = spawn(&program, &addrs, &env, &log)?;
        Ok(Self { child, name: name.to_owned(), addrs, log, program, env, started: Instant::now() })
    }

    /// Kills it and starts it again, on the same ports.
    ///
    /// # Errors
    /// It does not start.
    pub fn restart(&mut self) -> Result<()> {
        self.kill()?;
        self.child = spawn(&self.program, &self.addrs, &self.env, &self.log)?;
        self.started = Instant::now();
        Ok(())
    }

    /// Starts a replica and waits until it serves.
    ///
    /// # Errors
    /// It does not within half a minute.
    pub async fn ready(cluster: &Cluster, name: &str, options: &Options) -> Result<Self> {
        let mut plane = Self::start(cluster, name, options)?;
        plane.await_ready(Duration::from_secs(30)).await?;
        Ok(plane)
    }

    /// Waits until it serves, and tells how long that was after its start.
    ///
    /// # Errors
    /// It does not in time, or has ended: with its last words.
    pub async fn await_ready(&mut self, within: Duration) -> Result<Duration> {
        let http = self.addrs.http;
        let ready = eventually("the control plane is ready", within, async || {
            let status = get(http, "/ready").await?.0;
            ensure!(status == 200, "status {status}");
            Ok(())
        });
        ready.await.with_context(|| self.last_words())?;
        Ok(self.started.elapsed())
    }

    /// Whether it runs.
    ///
    /// # Errors
    /// The system does not tell.
    pub fn runs(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// The process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its name, which is its identity in elections.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Ends it at once, as a node that dies does.
    ///
    /// # Errors
    /// The system does not let us.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Stops it in its tracks, or lets it go on.
    ///
    /// # Errors
    /// The system does not let us.
    pub fn freeze(&self, frozen: bool) -> Result<()> {
        let signal = if frozen { Signal::SIGSTOP } else { Signal::SIGCONT };
        Ok(kill(Pid::from_raw(i32::try_from(self.pid())?), signal)?)
    }

    /// Where proxies connect, with what they need for it.
    ///
    /// # Errors
    /// The cluster has no root or token yet.
    pub async fn target(&self, cluster: &Cluster) -> Result<Target> {
        let root = cluster.mesh_root().await?;
        let mut roots = rustls::RootCertStore::empty();
        roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&root).filter_map(Result::ok));
        let mut tls = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        tls.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Target { addr: self.addrs.secure, tls: Arc::new(tls), token: cluster.proxy_token().await?.into() })
    }

    /// A metric's value, summed over its labels that contain `labels`; 0 while there is none.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn metric(&self, name: &str, labels: &str) -> Result<f64> {
        let (status, text) = get(self.addrs.monitoring, "/metrics").await?;
        ensure!(status == 200, "status {status} of the metrics");
        let of = |line: &str| {
            let (series, value) = line.rsplit_once(' ')?;
            let (found, rest) = series.split_once('{').unwrap_or((series, ""));
            (found == name && rest.contains(labels)).then(|| value.parse::<f64>().ok())?
        };
        Ok(text.lines().filter_map(of).sum())
    }

    /// The end of its log.
    #[must_use]
    pub fn last_words(&self) -> String {
        let text = self.log();
        let lines: Vec<_> = text.lines().rev().take(8).collect();
        format!("{}, newest first: {lines:#?}", self.name)
    }

    /// Its log.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.kill();
    }
}

fn spawn(program: &Path, addrs: &Addrs, env: &[(String, std::ffi::OsString)], log: &Path) -> Result<Child> {
    let output = File::options().create(true).append(true).open(log)?;
    let flags = [
        ("--httpAddr", addrs.http),
        ("--monitoringAddr", addrs.monitoring),
        ("--secureGRPCAddr", addrs.secure),
        ("--httpsAddr", addrs.https),
    ];
    Command::new(program)
        .arg("discovery")
        .args(flags.iter().flat_map(|(flag, addr)| [(*flag).to_owned(), addr.to_string()]))
        .args(["--shutdownDuration", "1s"])
        .env_clear()
        .envs(env.iter().cloned())
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .spawn()
        .with_context(|| program.display().to_string())
}

/// Status and body of a plain HTTP request.
async fn get(addr: SocketAddr, path: &str) -> Result<(u16, String)> {
    let exchange = async {
        let mut tcp = TcpStream::connect(addr).await?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: {addr}\r\nconnection: close\r\n\r\n");
        tcp.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        tcp.read_to_string(&mut answer).await?;
        anyhow::Ok(answer)
    };
    let answer = tokio::time::timeout(ANSWER, exchange).await.context("no answer")??;
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).context("no HTTP answer")?;
    let Some((_, body)) = answer.split_once("\r\n\r\n") else { bail!("no body") };
    Ok((status, body.to_owned()))
}

/// Ports of loopback that nobody uses at the moment.
fn free_ports<const N: usize>() -> Result<[SocketAddr; N]> {
    let held: Vec<_> = (0..N).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).collect::<Result<_, _>>()?;
    let addrs: Vec<_> = held.iter().map(TcpListener::local_addr).collect::<Result<_, _>>()?;
    addrs.try_into().map_err(|_| anyhow::anyhow!("as many as asked for"))
}

const ANSWER: Duration = Duration::from_secs(5);
