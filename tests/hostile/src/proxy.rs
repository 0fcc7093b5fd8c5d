//! A node proxy process.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use mesh_sys::netns::NetNs;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tests_support::eventually;

/// A running proxy; killed when dropped.
#[derive(Debug)]
pub struct Proxy {
    child: Child,
    netns: Arc<NetNs>,
    log: PathBuf,
}

/// What a process takes of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Footprint {
    /// Resident memory.
    pub rss_bytes: u64,
    /// Open files and sockets.
    pub descriptors: u64,
    /// Threads.
    pub threads: u64,
}

impl Proxy {
    /// Starts one in a namespace of its own; `environment` is all it gets. Its log goes to `dir/name.log`.
    ///
    /// # Errors
    /// The program is not built, or there is no privilege.
    pub fn start(name: &str, dir: &Path, environment: &[(&str, &str)]) -> Result<Self> {
        let netns = Arc::new(NetNs::create()?);
        Self::start_in(netns, name, dir, environment)
    }

    /// [`Proxy::start`] in a given namespace: whatever the proxy itself talks to is reached from there.
    ///
    /// # Errors
    /// As [`Proxy::start`].
    pub fn start_in(netns: Arc<NetNs>, name: &str, dir: &Path, environment: &[(&str, &str)]) -> Result<Self> {
        let program = tests_support::run::bin_dir()?.join("ztunnel");
        let log = dir.join(format!("{name}.log"));
        let file = File::create(&log)?;
        let mut command = Command::new(&program);
        command.env_clear().envs(environment.iter().copied()).current_dir(dir);
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let child = netns.run(|| command.spawn())?.with_context(|| format!("starting {}", program.display()))?;
        Ok(Self { child, netns, log })
    }

    /// Waits until it says that it is ready.
    ///
    /// # Errors
    /// It is not within 30 s; with the end of its log.
    pub fn wait_ready(&mut self) -> Result<()> {
        eventually("the proxy is ready", START, || {
            let (status, body) = self.get(READY_PORT, "/healthz/ready")?;
            ensure!(status == 200, "{status}: {body}");
            Ok(())
        })
        .map_err(|error| error.context(self.last_words()))
    }

    /// GETs a page of one of its own servers: status and body.
    ///
    /// # Errors
    /// It does not answer.
    pub fn get(&self, port: u16, path: &str) -> Result<(u16, String)> {
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut stream = self.netns.run(|| TcpStream::connect_timeout(&addr, Duration::from_secs(5)))??;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let answer = String::from_utf8_lossy(&answer);
        let (head, body) = answer.split_once("\r\n\r\n").context("no answer")?;
        let status = head.split_whitespace().nth(1).context("no status")?.parse()?;
        Ok((status, body.to_owned()))
    }

    /// What it takes now.
    ///
    /// # Errors
    /// It is gone.
    pub fn footprint(&self) -> Result<Footprint> {
        self.watcher().footprint()
    }

    /// Looks at its footprint from another thread.
    #[must_use]
    pub fn watcher(&self) -> Watcher {
        Watcher { proc: PathBuf::from(format!("/proc/{}", self.child.id())) }
    }

    /// Puts it behind the test's own threads, as [`tests_support::priority::step_back`] tells.
    ///
    /// # Errors
    /// As there.
    pub fn step_back(&self) -> Result<()> {
        tests_support::priority::step_back(self.child.id())
    }

    /// Asks it to end.
    ///
    /// # Errors
    /// It is gone.
    pub fn terminate(&self) -> Result<()> {
        self.signal(Signal::SIGTERM)
    }

    /// Sends it any signal.
    ///
    /// # Errors
    /// It is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.child.id())?);
        Ok(kill(pid, signal)?)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// It has not ended within `within`.
    pub fn wait(&mut self, within: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + within;
        loop {
            match self.child.try_wait()? {
                Some(status) => return Ok(status),
                None if Instant::now() >= deadline => bail!("the proxy has not ended within {within:?}"),
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    /// All it has written so far.
    ///
    /// # Errors
    /// The file is gone.
    pub fn log(&self) -> Result<String> {
        Ok(String::from_utf8_lossy(&std::fs::read(&self.log)?).into_owned())
    }

    /// The last lines of its log.
    #[must_use]
    pub fn last_words(&self) -> String {
        let log = self.log().unwrap_or_default();
        let lines: Vec<_> = log.lines().rev().take(20).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

/// Reads what a process takes.
#[derive(Debug, Clone)]
pub struct Watcher {
    proc: PathBuf,
}

impl Watcher {
    /// What it takes now.
    ///
    /// # Errors
    /// It is gone.
    pub fn footprint(&self) -> Result<Footprint> {
        let status = std::fs::read_to_string(self.proc.join("status"))?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let value = line.and_then(|line| line.split_whitespace().next()).with_context(|| name.to_owned())?;
            anyhow::Ok(value.parse::<u64>()?)
        };
        Ok(Footprint {
            rss_bytes: field("VmRSS:")? * 1024,
            descriptors: std::fs::read_dir(self.proc.join("fd"))?.count() as u64,
            threads: field("Threads:")?,
        })
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // It may have ended long ago.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Metrics.
pub const STATS_PORT: u16 = 15020;
/// Readiness.
pub const READY_PORT: u16 = 15021;
const START: Duration = Duration::from_secs(30);
