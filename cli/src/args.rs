//! The command line.

use std::ffi::OsString;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::cluster::Cluster;
use crate::enroll::Enroll;
use crate::explain::Explain;
use crate::install::Install;
use crate::policy::Policy;
use crate::proxy_config::ProxyConfig;
use crate::proxy_status::ProxyStatus;
use crate::sandbox;
use crate::uninstall::Uninstall;
use crate::version::Version;
use crate::waypoint::Waypoint;
use crate::ztunnel_config::ZtunnelConfig;

/// Installs, inspects and explains the mesh.
#[derive(Debug, Parser)]
#[command(
    name = "meltemi",
    version,
    after_help = "Examples:
  meltemi sandbox up                          a cluster on this machine, nothing else needed
  meltemi install --skip-confirmation         the mesh, into the cluster of $KUBECONFIG
  meltemi enroll demo                         a namespace into the mesh, without a restart
  meltemi waypoint apply -n demo --wait       a layer-7 proxy for it
  meltemi proxy-config routes waypoint.demo   what a waypoint does with requests, and where they go
  meltemi proxy-status                        every proxy and what it is in step with
  meltemi explain sleep.demo web.demo:80      what happens to this connection, and why
  meltemi policy simulate -f policy.yaml      which connections a policy would allow or refuse"
)]
pub struct Args {
    #[command(flatten)]
    cluster: Cluster,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// A Kubernetes-shaped cluster on this machine: up, down, status, exec, logs, …
    #[command(disable_help_flag = true)]
    Sandbox {
        /// Handed to meltemi-sandbox.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Install the mesh.
    #[command(alias = "upgrade")]
    Install(Install),
    /// Remove the mesh.
    Uninstall(Uninstall),
    /// Put a namespace into the mesh.
    Enroll(Enroll),
    /// Take a namespace out of the mesh.
    Unenroll(Enroll),
    /// What a node proxy knows and does.
    #[command(alias = "zc")]
    ZtunnelConfig(ZtunnelConfig),
    /// What a waypoint or gateway knows and does: routes, clusters, endpoints, listeners.
    #[command(alias = "pc")]
    ProxyConfig(ProxyConfig),
    /// Which proxies are connected to the control plane, and whether they have what it last sent.
    #[command(alias = "ps")]
    ProxyStatus(ProxyStatus),
    /// What would happen to a connection or a request, and why.
    Explain(Explain),
    /// What a policy would change, before it is applied.
    Policy(Policy),
    /// Layer-7 proxies of namespaces and services.
    Waypoint(Waypoint),
    /// Versions of this tool, the control plane and the node proxies.
    Version(Version),
}

impl Args {
    /// Runs the command.
    ///
    /// # Errors
    /// Each says what to do about it.
    pub async fn run(self) -> Result<()> {
        let cluster = &self.cluster;
        match self.command {
            Command::Sandbox { arguments } => sandbox::exec(&arguments),
            Command::Install(command) => command.run(cluster).await,
            Command::Uninstall(command) => command.run(cluster).await,
            Command::Enroll(command) => command.run(cluster, true).await,
            Command::Unenroll(command) => command.run(cluster, false).await,
            Command::ZtunnelConfig(command) => command.run(cluster).await,
            Command::ProxyConfig(command) => command.run(cluster).await,
            Command::ProxyStatus(command) => command.run(cluster).await,
            Command::Explain(command) => command.run(cluster).await,
            Command::Policy(command) => command.run(cluster).await,
            Command::Waypoint(command) => command.run(cluster).await,
            Command::Version(command) => command.run(cluster).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn global_flags_may_follow_the_command() {
        let args = Args::try_parse_from(["meltemi", "zc", "workloads", "-n", "demo", "-o", "json"]).unwrap();
        assert_eq!(args.cluster.namespace.as_deref(), Some("demo"));
        assert!(Args::try_parse_from(["meltemi", "zc", "workloads", "-o", "xml"]).is_err());
    }

    #[test]
    fn sandbox_arguments_are_handed_over_untouched() {
        let args = Args::try_parse_from(["meltemi", "sandbox", "exec", "p", "-n", "x", "--", "sh", "-c", "a"]).unwrap();
        let Command::Sandbox { arguments } = args.command else { panic!("not the sandbox") };
        assert_eq!(arguments, ["exec", "p", "-n", "x", "--", "sh", "-c", "a"]);
    }
}
