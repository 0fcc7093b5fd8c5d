//! `meltemi ztunnel-config`: what a node proxy knows and does.

mod connections;
mod live;
mod tables;

use anyhow::{Result, ensure};
use clap::{Args, Subcommand, ValueEnum};
use kube::ResourceExt;
use serde_json::Value;

use crate::cluster::Cluster;
use crate::dump::{self, Row};
use crate::output::{self, Format};
use crate::proxy::{self, Which};

/// Shows what a node proxy knows and does.
#[derive(Debug, Args)]
pub struct ZtunnelConfig {
    #[command(subcommand)]
    view: View,
}

/// Which proxy, and how to print.
#[derive(Debug, Args)]
struct Common {
    /// Node proxy pod, or any pod whose node's proxy is meant: [pod/]<name>[.<namespace>].
    target: Option<String>,
    /// The proxy on this node.
    #[arg(long)]
    node: Option<String>,
    /// Read a saved config dump instead of a cluster; - is standard input.
    #[arg(long, short = 'f')]
    file: Option<String>,
    /// How to print.
    #[arg(long, short = 'o', default_value = "short")]
    output: Format,
    /// Admin port of the proxy.
    #[arg(long, default_value_t = 15000)]
    proxy_admin_port: u16,
}

#[derive(Debug, Subcommand)]
enum View {
    /// Workloads: who is known, and whether traffic to them is encrypted.
    #[command(aliases = ["workloads", "w"], after_help = "Example: meltemi ztunnel-config workloads --workload-namespace demo")]
    Workload {
        #[command(flatten)]
        common: Common,
        /// Only this address.
        #[arg(long)]
        address: Option<String>,
        /// Only this namespace.
        #[arg(long)]
        workload_namespace: Option<String>,
        /// Only this node.
        #[arg(long)]
        workload_node: Option<String>,
    },
    /// Services: addresses and endpoints.
    #[command(aliases = ["services", "s", "svc"])]
    Service {
        #[command(flatten)]
        common: Common,
        /// Only this namespace.
        #[arg(long)]
        service_namespace: Option<String>,
    },
    /// Authorization policies.
    #[command(aliases = ["policies", "p", "pol"])]
    Policy {
        #[command(flatten)]
        common: Common,
        /// Only this namespace.
        #[arg(long)]
        policy_namespace: Option<String>,
    },
    /// Certificates that the proxy holds for the pods of its node.
    #[command(aliases = ["certificates", "certs", "cert"])]
    Certificate {
        #[command(flatten)]
        common: Common,
    },
    /// Connections that are open now.
    #[command(aliases = ["connection", "cons"])]
    Connections {
        #[command(flatten)]
        common: Common,
        /// Only this direction.
        #[arg(long)]
        direction: Option<Direction>,
        /// Addresses instead of names.
        #[arg(long)]
        raw: bool,
        /// Also who is at both ends, how much was moved and for how long; needs a proxy of ours, not a file.
        #[arg(long, conflicts_with_all = ["raw", "file"])]
        details: bool,
        /// Only this namespace.
        #[arg(long)]
        workload_namespace: Option<String>,
    },
}

/// As the pod sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Direction {
    /// To the pod.
    Inbound,
    /// From the pod.
    Outbound,
}

impl ZtunnelConfig {
    /// Runs the command.
    ///
    /// # Errors
    /// Says which proxy or file cannot be read, or which argument is wrong.
    pub async fn run(self, cluster: &Cluster) -> Result<()> {
        match self.view {
            View::Workload { common, address, workload_namespace, workload_node } => {
                let (dump, about) = common.dump(cluster).await?;
                let keep =
                    tables::WorkloadFilter { address, namespace: workload_namespace, node: workload_node, about };
                let rows = tables::workloads(&dump, &keep);
                common.print(&tables::WORKLOAD_HEADER, rows)
            }
            View::Service { common, service_namespace } => {
                let (dump, _) = common.dump(cluster).await?;
                common.print(&tables::SERVICE_HEADER, tables::services(&dump, service_namespace.as_deref()))
            }
            View::Policy { common, policy_namespace } => {
                let (dump, _) = common.dump(cluster).await?;
                common.print(&tables::POLICY_HEADER, tables::policies(&dump, policy_namespace.as_deref()))
            }
            View::Certificate { common } => {
                ensure!(
                    common.target.is_some() || common.node.is_some() || common.file.is_some(),
                    "each proxy holds the certificates of its own node only: name a pod, --node or --file"
                );
                let (dump, _) = common.dump(cluster).await?;
                common.print(&tables::CERTIFICATE_HEADER, tables::certificates(&dump))
            }
            View::Connections { common, direction, details: true, workload_namespace, .. } => {
                let (answer, about) = common.ask(cluster, live::path).await?;
                let filter = connections::Filter { direction, raw: true, namespace: workload_namespace, about };
                common.print(&live::HEADER, live::rows(&answer, &filter))?;
                live::warn_about_left_out(&answer);
                Ok(())
            }
            View::Connections { common, direction, raw, workload_namespace, .. } => {
                let (dump, about) = common.dump(cluster).await?;
                let filter = connections::Filter { direction, raw, namespace: workload_namespace, about };
                common.print(&connections::HEADER, connections::rows(&dump, &filter))
            }
        }
    }
}

impl Common {
    /// The dump, and the pod to narrow the view to, as `(namespace, name)`.
    async fn dump(&self, cluster: &Cluster) -> Result<(Value, Option<(String, String)>)> {
        match &self.file {
            Some(file) => {
                self.one_source()?;
                Ok((dump::read(file)?, None))
            }
            None => self.ask(cluster, |_| "/config_dump".to_owned()).await,
        }
    }

    fn one_source(&self) -> Result<()> {
        let given = [self.target.is_some(), self.node.is_some(), self.file.is_some()];
        ensure!(given.iter().filter(|one| **one).count() <= 1, "at most one of a pod, --node and --file may be given");
        Ok(())
    }

    /// What the proxy answers to `path`, which may depend on the pod to narrow the view to, and that pod.
    async fn ask(
        &self,
        cluster: &Cluster,
        path: impl FnOnce(Option<&(String, String)>) -> String,
    ) -> Result<(Value, Option<(String, String)>)> {
        self.one_source()?;
        let client = cluster.client().await?;
        let which = match (&self.target, &self.node) {
            (Some(target), _) => proxy::parse_target(target, cluster.namespace_or(&client))?,
            (None, Some(node)) => Which::Node(node.clone()),
            (None, None) => Which::Any,
        };
        let which = self.retry_in_system_namespace(which, cluster, &client).await?;
        let found = proxy::find(&client, &cluster.istio_namespace, &which).await?;
        let about = found.about.map(|pod| (pod.namespace().unwrap_or_default(), pod.name_any()));
        let path = path(about.as_ref());
        let answer = proxy::get_json(&client, &found.proxy, self.proxy_admin_port, &path).await?;
        Ok((answer, about))
    }

    /// `ztunnel-abc` without a namespace means the proxy, wherever the context points.
    async fn retry_in_system_namespace(&self, which: Which, cluster: &Cluster, client: &kube::Client) -> Result<Which> {
        let Which::Pod { name, .. } = &which else { return Ok(which) };
        let explicit = self.target.as_ref().is_some_and(|target| target.contains('.')) || cluster.namespace.is_some();
        let proxies = proxy::all(client, &cluster.istio_namespace).await?;
        if !explicit && proxies.iter().any(|pod| pod.name_any() == *name) {
            return Ok(Which::Pod { namespace: cluster.istio_namespace.clone(), name: name.clone() });
        }
        Ok(which)
    }

    fn print(&self, header: &[&str], rows: Vec<Row>) -> Result<()> {
        if self.output != Format::Short {
            let sources: Vec<Value> = rows.into_iter().map(|row| row.source).collect();
            return output::machine(self.output, &sources);
        }
        output::table(header, rows.into_iter().map(|row| row.cells).collect())
    }
}

/// The table of the certificates of any proxy's dump: its header and rows.
pub(crate) fn certificates(dump: &Value) -> (&'static [&'static str], Vec<Row>) {
    (&tables::CERTIFICATE_HEADER, tables::certificates(dump))
}
