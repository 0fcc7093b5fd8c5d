//! Commands that go through the Kubernetes API, as `kubectl` would.

use std::io::{self, IsTerminal, Write};
use std::path::Path;

use anyhow::{Context, bail};
use clap::Args;
use futures::AsyncReadExt as _;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::api::{Api, AttachParams, AttachedProcess, ListParams, LogParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use nix::sys::termios::{self, SetArg, Termios};
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncReadExt};

use super::kubeconfig;

/// Bytes copied at once.
const CHUNK_BYTES: usize = 16 * 1024;

#[derive(Debug, Args)]
pub(super) struct ExecArgs {
    /// The pod
    pod: String,
    /// Its namespace
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// The container [default: the first]
    #[arg(short, long)]
    container: Option<String>,
    /// Pass standard input on
    #[arg(short = 'i', long)]
    stdin: bool,
    /// Give the command a terminal
    #[arg(short, long)]
    tty: bool,
    /// The command
    #[arg(last = true, required = true)]
    argv: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct LogsArgs {
    /// The pod
    pod: String,
    /// Its namespace
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// The container [default: the first]
    #[arg(short, long)]
    container: Option<String>,
    /// Go on as it writes
    #[arg(short, long)]
    follow: bool,
    /// Of the instance before the last restart
    #[arg(short, long)]
    previous: bool,
    /// Only so many lines from the end
    #[arg(long, value_name = "LINES")]
    tail: Option<i64>,
}

/// A pod as `status` shows it.
#[derive(Debug, Serialize)]
pub(super) struct PodLine {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) node: Option<String>,
    pub(super) state: String,
    pub(super) ips: Vec<String>,
}

/// All pods of the sandbox.
pub(super) fn pods(dir: &Path) -> anyhow::Result<Vec<PodLine>> {
    on_cluster(dir, async |client| {
        let pods = Api::<Pod>::all(client).list(&ListParams::default()).await.context("listing pods")?;
        Ok(pods.items.into_iter().map(PodLine::from).collect())
    })
}

/// Runs a command in a container; the result is its exit code.
pub(super) fn exec(dir: &Path, args: ExecArgs) -> anyhow::Result<u8> {
    on_cluster(dir, async |client| {
        let pods = Api::<Pod>::namespaced(client, &args.namespace);
        let mut params = AttachParams::default().stdin(args.stdin).stdout(true).stderr(!args.tty).tty(args.tty);
        params.container = args.container;
        let process = pods
            .exec(&args.pod, &args.argv, &params)
            .await
            .with_context(|| format!("running a command in pod {}/{}", args.namespace, args.pod))?;
        let _raw = if args.tty { RawTerminal::enter() } else { None };
        attend(process).await
    })
}

/// Prints a log.
pub(super) fn logs(dir: &Path, args: LogsArgs) -> anyhow::Result<u8> {
    on_cluster(dir, async |client| {
        let pods = Api::<Pod>::namespaced(client, &args.namespace);
        let params = LogParams {
            container: args.container,
            follow: args.follow,
            previous: args.previous,
            tail_lines: args.tail,
            ..LogParams::default()
        };
        let mut log = pods
            .log_stream(&args.pod, &params)
            .await
            .with_context(|| format!("reading the log of pod {}/{}", args.namespace, args.pod))?;
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            let length = log.read(&mut chunk).await.context("reading the log")?;
            if length == 0 {
                return Ok(0);
            }
            print(&mut io::stdout(), chunk.get(..length).unwrap_or_default())?;
        }
    })
}

/// Runs `work` with a client of the sandbox in this directory.
fn on_cluster<T>(dir: &Path, work: impl AsyncFnOnce(Client) -> anyhow::Result<T>) -> anyhow::Result<T> {
    let path = kubeconfig(dir);
    if !path.exists() {
        bail!(
            "no sandbox runs in {}: start one with `meltemi-sandbox up`, or name its directory with --dir",
            dir.display()
        );
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(async {
        let file = Kubeconfig::read_from(&path).with_context(|| format!("reading {}", path.display()))?;
        let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
        work(Client::try_from(config)?).await
    });
    // A thread may still wait for the terminal's next key.
    runtime.shutdown_background();
    outcome
}

async fn attend(mut process: AttachedProcess) -> anyhow::Result<u8> {
    let (stdin, stdout, stderr) = (process.stdin(), process.stdout(), process.stderr());
    let input = async {
        if let Some(mut stdin) = stdin {
            // The command may end without reading everything.
            let _ = tokio::io::copy(&mut blocking_stdin(), &mut stdin).await;
        }
    };
    let status = process.take_status();
    let output = async {
        tokio::try_join!(copy_to(stdout, io::stdout()), copy_to(stderr, io::stderr()))?;
        anyhow::Ok(match status {
            Some(status) => status.await,
            None => None,
        })
    };
    tokio::pin!(input);
    tokio::pin!(output);
    let status = tokio::select! {
        status = &mut output => status?,
        () = &mut input => output.await?,
    };
    exit_code(status.as_ref())
}

/// Standard input; a current-thread runtime has no other way to read it.
fn blocking_stdin() -> impl AsyncRead {
    let (sender, receiver) = tokio::io::simplex(CHUNK_BYTES);
    let _ = std::thread::Builder::new().name("stdin".to_owned()).spawn(move || forward_stdin(receiver));
    sender
}

fn forward_stdin(mut writer: tokio::io::WriteHalf<tokio::io::SimplexStream>) {
    use tokio::io::AsyncWriteExt as _;
    let mut chunk = [0; 1024];
    while let Ok(length @ 1..) = io::Read::read(&mut io::stdin(), &mut chunk) {
        let bytes = chunk.get(..length).unwrap_or_default();
        if futures::executor::block_on(writer.write_all(bytes)).is_err() {
            return;
        }
    }
}

async fn copy_to(from: Option<impl AsyncRead + Unpin>, mut to: impl Write) -> anyhow::Result<()> {
    let Some(mut from) = from else { return Ok(()) };
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let length = from.read(&mut chunk).await.context("reading the command's output")?;
        if length == 0 {
            return Ok(());
        }
        print(&mut to, chunk.get(..length).unwrap_or_default())?;
    }
}

fn print(to: &mut impl Write, bytes: &[u8]) -> anyhow::Result<()> {
    to.write_all(bytes).and_then(|()| to.flush()).context("writing output")
}

/// The exit code in the status that ends an `exec`.
fn exit_code(status: Option<&Status>) -> anyhow::Result<u8> {
    let Some(status) = status else { bail!("the connection ended before the command's exit code arrived") };
    if status.status.as_deref() == Some("Success") {
        return Ok(0);
    }
    let causes = status.details.iter().flat_map(|details| details.causes.iter().flatten());
    let code = causes
        .filter(|cause| cause.reason.as_deref() == Some("ExitCode"))
        .find_map(|cause| cause.message.as_deref()?.parse().ok());
    match code {
        Some(code) => Ok(code),
        None => bail!("{}", status.message.as_deref().unwrap_or("the command could not be run")),
    }
}

/// The terminal in raw mode until this is dropped.
struct RawTerminal(Termios);

impl RawTerminal {
    fn enter() -> Option<Self> {
        if !io::stdin().is_terminal() {
            return None;
        }
        let before = termios::tcgetattr(io::stdin()).ok()?;
        let mut raw = before.clone();
        termios::cfmakeraw(&mut raw);
        termios::tcsetattr(io::stdin(), SetArg::TCSADRAIN, &raw).ok()?;
        Some(Self(before))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // The terminal may be gone.
        let _ = termios::tcsetattr(io::stdin(), SetArg::TCSADRAIN, &self.0);
    }
}

impl From<Pod> for PodLine {
    fn from(pod: Pod) -> Self {
        let status = pod.status.unwrap_or_default();
        let waiting = status
            .container_statuses
            .iter()
            .flatten()
            .find_map(|container| container.state.as_ref()?.waiting.as_ref()?.reason.clone());
        let state = match pod.metadata.deletion_timestamp {
            Some(_) => "Terminating".to_owned(),
            None => waiting.or(status.phase).unwrap_or_default(),
        };
        Self {
            namespace: pod.metadata.namespace.unwrap_or_default(),
            name: pod.metadata.name.unwrap_or_default(),
            node: pod.spec.and_then(|spec| spec.node_name),
            state,
            ips: status.pod_ips.into_iter().flatten().map(|ip| ip.ip).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_come_from_the_status() {
        let parse = |text: &str| serde_json::from_str::<Status>(text).unwrap();
        let success = parse(r#"{"status":"Success"}"#);
        assert_eq!(exit_code(Some(&success)).unwrap(), 0);
        let failure = parse(r#"{"status":"Failure","details":{"causes":[{"reason":"ExitCode","message":"3"}]}}"#);
        assert_eq!(exit_code(Some(&failure)).unwrap(), 3);
        let refused = parse(r#"{"status":"Failure","message":"no such container"}"#);
        assert_eq!(exit_code(Some(&refused)).unwrap_err().to_string(), "no such container");
        assert!(exit_code(None).is_err());
    }
}
