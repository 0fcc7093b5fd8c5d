//! Programs of others.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};

/// How a program ended.
#[derive(Debug, Clone)]
pub(crate) struct Ended {
    pub(crate) ok: bool,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs a program to its end.
pub(crate) async fn run(program: &str, arguments: &[&str]) -> Ended {
    let mut command = Command::new(program);
    command.args(arguments).env("PATH", path()).stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(Duration::from_secs(60), command.output()).await;
    let output = output.unwrap_or_else(|_| panic!("{program} {arguments:?} does not end"));
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}; `make deps` installs it"));
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ended { ok: output.status.success(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// A program that succeeds: its standard output.
pub(crate) async fn told(program: &str, arguments: &[&str]) -> String {
    let ended = run(program, arguments).await;
    assert!(ended.ok, "{program} {arguments:?}: {ended:?}");
    ended.stdout
}

/// Starts a server, killed when dropped, and waits until it takes connections.
pub(crate) async fn serve(program: &str, arguments: &[&str], port: u16) -> Child {
    let mut command = Command::new(program);
    command.args(arguments).env("PATH", path()).stdin(Stdio::null()).kill_on_drop(true);
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{program}: {error}; `make deps` installs it"));
    for _ in 0..500 {
        if tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
            return child;
        }
        if let Ok(Some(status)) = child.try_wait() {
            panic!("{program} {arguments:?} ended: {status}");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{program} does not listen at {port}");
}

/// Servers are not everybody's programs.
fn path() -> String {
    format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default())
}

/// A Python with gRPC and WebSocket, which may have to be fetched: asked for where there is a network.
pub(crate) fn python_there() -> [(&'static str, &'static str); 1] {
    if let Some(known) = std::env::var_os("L7_PYTHON") {
        return [("L7_PYTHON", known.to_string_lossy().into_owned().leak())];
    }
    let root = root();
    let output = std::process::Command::new(root.join("tools/l7-python.sh")).current_dir(&root).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    [("L7_PYTHON", String::from_utf8(output.stdout).unwrap().trim().to_owned().leak())]
}

/// What [`python_there`] found.
pub(crate) fn python() -> String {
    std::env::var("L7_PYTHON").unwrap()
}

/// A script beside these tests.
pub(crate) fn script(name: &str) -> String {
    root().join("tests/l7/scripts").join(name).to_str().unwrap().to_owned()
}

fn root() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}
