//! The command line of `meltemi-sandbox`.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand};

use crate::control::client::{self, ControlError};
use crate::control::{Answer, Request};
use crate::daemon::Options;
use crate::daemon::bootstrap::{self, Up};
use crate::daemon::state::{self, KUBECONFIG, Keep, Process};
use crate::fabric::NODES_MAX;

mod cluster;
mod fault;
mod signal;

/// How long the daemon may take for anything but a command it runs for us.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);

/// How long a sandbox that was told to stop may take before it is killed.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// A Kubernetes-shaped laptop: API server and nodes in one process, pods as network namespaces.
///
/// For trying, developing and testing. Needs no root, no containers and no Kubernetes.
#[derive(Debug, Parser)]
#[command(
    name = "meltemi-sandbox",
    version,
    after_help = "\
Examples:
  meltemi-sandbox up                                   two nodes, kubeconfig printed
  meltemi-sandbox up --nodes 3 --dir /tmp/s --port 0   another one beside it
  meltemi-sandbox exec web-0 -- curl -s localhost:8080
  meltemi-sandbox logs web-0 -f
  meltemi-sandbox node-exec node-1 -- ip route
  meltemi-sandbox capture start node-1 --file /tmp/node-1.pcap
  meltemi-sandbox fault add --verb list --resource pods --status 429 --count 3
  meltemi-sandbox down"
)]
pub struct Cli {
    /// State directory [default: $XDG_RUNTIME_DIR/meltemi, else /tmp/meltemi-<uid>]
    #[arg(long, global = true, env = "MELTEMI_SANDBOX_DIR", value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Where the default state directory is made.
    #[arg(long, hide = true, global = true, env = "XDG_RUNTIME_DIR")]
    runtime_dir: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a sandbox and wait until it is ready
    Up(UpArgs),
    /// Stop the sandbox; everything in it disappears
    Down,
    /// Show nodes, pods, the API address and versions
    Status {
        /// `json` for machines
        #[arg(short, long, value_name = "FORMAT", value_parser = ["json"])]
        output: Option<String>,
    },
    /// Run a command in a container
    Exec(cluster::ExecArgs),
    /// Print a container's log
    Logs(cluster::LogsArgs),
    /// Record the packets between nodes, in pcap format
    #[command(subcommand)]
    Capture(CaptureCommand),
    /// Let the API server do something wrong
    #[command(subcommand)]
    Fault(fault::FaultCommand),
    /// Send a signal to a container's main process
    Kill(KillArgs),
    /// Run a command in a node's network namespace
    NodeExec {
        /// The node, such as node-1
        node: String,
        /// The command
        #[arg(last = true, required = true)]
        argv: Vec<String>,
    },
}

#[derive(Debug, Args)]
struct UpArgs {
    /// Number of nodes
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=i64::from(NODES_MAX)))]
    nodes: u32,
    /// Give everything an IPv6 address too
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, value_name = "BOOL")]
    ipv6: bool,
    /// Port of the API server on 127.0.0.1; 0 takes any free one
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Directory of the built binaries [default: where this program is]
    #[arg(long, value_name = "DIR")]
    bin_dir: Option<PathBuf>,
    /// How long to wait until it is ready
    #[arg(long, default_value = "10s", value_parser = parse_duration)]
    wait: Duration,
    /// Stay attached: it ends with this command
    #[arg(long)]
    foreground: bool,
    /// Start empty, also where a sandbox that crashed left its objects
    #[arg(long)]
    fresh: bool,
}

#[derive(Debug, Subcommand)]
enum CaptureCommand {
    /// Start recording a node's link
    Start {
        /// The node, such as node-1
        node: String,
        /// Where to write
        #[arg(long)]
        file: PathBuf,
    },
    /// End a recording, or all
    Stop {
        /// The node; all when left out
        node: Option<String>,
    },
}

#[derive(Debug, Args)]
struct KillArgs {
    /// The pod
    pod: String,
    /// Its namespace
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// The container, when several run
    #[arg(short, long)]
    container: Option<String>,
    /// Name or number of the signal
    #[arg(long, default_value = "KILL", value_parser = signal::parse)]
    signal: i32,
}

/// Runs a command line; the result is the process's exit code.
///
/// # Errors
///
/// A chain of sentences for people.
pub fn run(cli: Cli) -> anyhow::Result<u8> {
    let dir = cli.dir.unwrap_or_else(|| state::default_dir(cli.runtime_dir.as_deref()));
    match cli.command {
        Command::Up(args) => up(&dir, args),
        Command::Down => down(&dir),
        Command::Status { output } => status(&dir, output.is_some()),
        Command::Exec(args) => cluster::exec(&dir, args),
        Command::Logs(args) => cluster::logs(&dir, args),
        Command::Capture(CaptureCommand::Start { node, file }) => {
            let file = std::path::absolute(file)?;
            ask(&dir, &Request::CaptureStart { node, file })
        }
        Command::Capture(CaptureCommand::Stop { node }) => ask(&dir, &Request::CaptureStop { node }),
        Command::Fault(command) => fault::run(&dir, command),
        Command::Kill(KillArgs { pod, namespace, container, signal }) => {
            ask(&dir, &Request::Kill { namespace, pod, container, signal })
        }
        Command::NodeExec { node, argv } => node_exec(&dir, node, argv),
    }
}

fn up(dir: &Path, args: UpArgs) -> anyhow::Result<u8> {
    let executable = std::env::current_exe().context("finding this program")?;
    let beside = || executable.parent().map(Path::to_owned).context("finding this program's directory");
    let bin_dir = args.bin_dir.map_or_else(beside, Ok)?;
    let bin_dir = bin_dir.canonicalize().with_context(|| format!("--bin-dir {}", bin_dir.display()))?;
    let options = Options {
        dir: state::create(dir)?,
        bin_dir,
        executable,
        nodes: args.nodes,
        ipv6: args.ipv6 && crate::link::ipv6_enabled(),
        foreground: args.foreground,
    };
    if args.fresh && !client::is_running(dir) {
        state::clear(&options.dir, Keep::Nothing)?;
        state::create(&options.dir)?;
    }
    let up = bootstrap::up(&options, args.port, args.wait)?;
    let mut out = io::stdout().lock();
    describe(&mut out, &options.dir, &up, args.ipv6 && !options.ipv6)?;
    if args.foreground {
        writeln!(out, "\nIt ends with this command (Ctrl-C).")?;
        up.attend(&options.dir)?;
    }
    Ok(0)
}

fn describe(out: &mut impl Write, dir: &Path, up: &Up, ipv6_missing: bool) -> io::Result<()> {
    let status = &up.status;
    let how = if up.unprivileged { "in a user namespace of its own" } else { "as root" };
    writeln!(out, "Sandbox up in {:.1} s, {how}.", up.took.as_secs_f64())?;
    if up.resumed {
        writeln!(out, "The objects of the sandbox that ran here before are back (start empty with --fresh).")?;
    }
    writeln!(out, "  API server  {} (Kubernetes {})", status.api_server, status.kubernetes_version)?;
    for node in &status.nodes {
        let ips: Vec<String> = node.ips.iter().map(ToString::to_string).collect();
        writeln!(out, "  {}      {}", node.name, ips.join(", "))?;
    }
    if ipv6_missing {
        writeln!(out, "  IPv6 is switched off on this machine: IPv4 only")?;
    }
    writeln!(out, "\nNext:")?;
    writeln!(out, "  export KUBECONFIG={}", status.kubeconfig)?;
    writeln!(out, "  kubectl get nodes")?;
    let dir = dir_option(dir);
    writeln!(out, "  meltemi-sandbox status{dir}")?;
    writeln!(out, "  meltemi-sandbox down{dir}")
}

/// The `--dir` that later commands need; none for the default directory.
fn dir_option(dir: &Path) -> String {
    #[allow(clippy::disallowed_methods)] // only shown to people
    let runtime_dir = std::env::var("XDG_RUNTIME_DIR").ok();
    let default = state::default_dir(runtime_dir.as_deref());
    if default == dir { String::new() } else { format!(" --dir {}", dir.display()) }
}

fn down(dir: &Path) -> anyhow::Result<u8> {
    let process = Process::recorded(dir).filter(Process::alive);
    match client::call(dir, &Request::Down, Some(ANSWER_DEADLINE), |_| {}) {
        // A daemon that ends closes the connection, whatever it said before.
        Ok(_) | Err(ControlError::Broken { .. }) => {}
        Err(error) if process.is_none() => {
            // Only left-overs of a crash, if anything.
            state::clear(dir, Keep::Nothing)?;
            return Err(error.into());
        }
        Err(_) => {}
    }
    if let Some(process) = process
        && !process.end(STOP_PATIENCE)
    {
        bail!("process {} of the sandbox could not be ended: kill it as the user who started it", process.pid);
    }
    state::clear(dir, Keep::Nothing)?;
    writeln!(io::stdout(), "Sandbox stopped; nothing of it is left.")?;
    Ok(0)
}

fn status(dir: &Path, json: bool) -> anyhow::Result<u8> {
    let mut found = None;
    client::call(dir, &Request::Status, Some(ANSWER_DEADLINE), |answer| {
        if let Answer::Status(status) = answer {
            found = Some(status);
        }
    })?;
    let status = found.context("the sandbox did not answer")?;
    let pods = cluster::pods(dir)?;
    let mut out = io::stdout().lock();
    if json {
        let value = serde_json::json!({ "sandbox": status, "pods": pods });
        writeln!(out, "{value:#}")?;
        return Ok(0);
    }
    writeln!(out, "Sandbox {}, Kubernetes {}", status.version, status.kubernetes_version)?;
    writeln!(out, "  API server  {}", status.api_server)?;
    writeln!(out, "  KUBECONFIG  {}", status.kubeconfig)?;
    writeln!(out, "  binaries    {}", status.bin_dir)?;
    for node in &status.nodes {
        let ips: Vec<String> = node.ips.iter().map(ToString::to_string).collect();
        writeln!(out, "\n{} ({}), {} pods", node.name, ips.join(", "), node.pods)?;
        for pod in pods.iter().filter(|pod| pod.node.as_deref() == Some(&node.name)) {
            writeln!(
                out,
                "  {:<44} {:<18} {}",
                format!("{}/{}", pod.namespace, pod.name),
                pod.state,
                pod.ips.join(", ")
            )?;
        }
    }
    for pod in pods.iter().filter(|pod| pod.node.is_none()) {
        writeln!(out, "\nnot scheduled: {}/{}", pod.namespace, pod.name)?;
    }
    Ok(0)
}

fn node_exec(dir: &Path, node: String, argv: Vec<String>) -> anyhow::Result<u8> {
    let mut code = None;
    // Output arrives as long as the command runs, however long that is.
    client::call(dir, &Request::NodeExec { node, argv }, None, |answer| match answer {
        Answer::Stdout(text) => {
            let _ = io::stdout().write_all(text.as_bytes());
            let _ = io::stdout().flush();
        }
        Answer::Stderr(text) => {
            let _ = io::stderr().write_all(text.as_bytes());
        }
        Answer::Exit(exit) => code = Some(exit),
        _ => {}
    })?;
    let code = code.context("the command's exit code did not arrive")?;
    Ok(u8::try_from(code).unwrap_or(u8::MAX))
}

fn ask(dir: &Path, request: &Request) -> anyhow::Result<u8> {
    let sentence = client::call(dir, request, Some(ANSWER_DEADLINE), |_| {})?;
    writeln!(io::stdout(), "{sentence}")?;
    Ok(0)
}

/// The administrator's kubeconfig of the sandbox in this directory.
fn kubeconfig(dir: &Path) -> PathBuf {
    dir.join(KUBECONFIG)
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    mesh_core::duration::parse(text).map_err(|error| error.to_string())
}
