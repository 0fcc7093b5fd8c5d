//! The shipped program, started with nothing but environment variables.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::pod::Pod;

/// A running node proxy. Killed when dropped.
pub(crate) struct Proxy<'a> {
    /// Whose network namespace is the process's.
    host: &'a Pod,
    child: Child,
    dir: tempfile::TempDir,
}

/// The status and the body of an answer.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

impl<'a> Proxy<'a> {
    /// Starts in the namespace of `host` with these settings and no others.
    pub(crate) fn start(host: &'a Pod, settings: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let log = File::create(dir.path().join("log")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_ztunnel"));
        command.env_clear().envs(settings.iter().copied()).env("ZTUNNEL_WORKER_THREADS", "2");
        command.current_dir(&dir).stdout(log.try_clone().unwrap()).stderr(log);
        let child = host.netns.run(|| command.spawn()).unwrap().unwrap();
        Self { host, child, dir }
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap()
    }

    /// Waits for a line that holds all of `parts`.
    pub(crate) async fn log_line(&self, parts: &[&str]) -> String {
        for _ in 0..500 {
            if let Some(line) = self.log().lines().find(|line| parts.iter().all(|part| line.contains(part))) {
                return line.to_owned();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("no line with {parts:?} in:\n{}", self.log());
    }

    /// GET on loopback; an error while nobody listens.
    pub(crate) async fn get(&self, port: u16, path: &str) -> io::Result<Answer> {
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut stream = self.host.connect(addr).await?;
        stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes()).await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        let status = text.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or_default();
        let body = text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
        Ok(Answer { status, body })
    }

    /// Waits until `/healthz/ready` answers what `wanted` wants.
    pub(crate) async fn readiness(&mut self, wanted: impl Fn(&Answer) -> bool) -> Answer {
        for _ in 0..500 {
            if let Ok(answer) = self.get(15021, "/healthz/ready").await
                && wanted(&answer)
            {
                return answer;
            }
            assert!(self.child.try_wait().unwrap().is_none(), "the proxy ended:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("readiness never came to be as wanted; the log says:\n{}", self.log());
    }

    pub(crate) async fn ready(&mut self) {
        self.readiness(|answer| answer.status == 200).await;
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    pub(crate) async fn ended(&mut self) -> ExitStatus {
        for _ in 0..1000 {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the proxy does not end; its log:\n{}", self.log());
    }
}

impl Drop for Proxy<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("log of the proxy:\n{}", self.log());
        }
    }
}

/// Runs the program to its end: exit code and what it said.
pub(crate) fn run(arguments: &[&str], settings: &[(&str, &str)]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ztunnel"));
    let output = command.args(arguments).env_clear().envs(settings.iter().copied()).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).unwrap())
}

/// A file of this repository.
pub(crate) fn repository(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}
