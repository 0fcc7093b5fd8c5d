//! `meltemi proxy-config`: what a waypoint or gateway knows and does.

pub(crate) mod tables;

use anyhow::Result;
use clap::{Args, Subcommand};
use kube::ResourceExt;
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::dump::{self, Row, entries, number, text};
use crate::output::{self, Format};
use crate::{gateway_pod, proxy};
use tables::Filter;

/// Shows what a waypoint or gateway knows and does.
#[derive(Debug, Args)]
#[command(after_help = "A proxy is named by its Gateway, its deployment or one of its pods:
  meltemi proxy-config routes waypoint.demo
  meltemi proxy-config clusters deploy/waypoint -n demo --fqdn web
  meltemi proxy-config endpoints waypoint-6f7d9.demo --status unhealthy
  meltemi proxy-config listeners gateway/edge.shop
  meltemi proxy-config all -n demo -o json > dump.json    the only gateway of the namespace
  meltemi proxy-config routes -f dump.json --port 80")]
pub struct ProxyConfig {
    #[command(subcommand)]
    view: View,
}

#[derive(Debug, Subcommand)]
enum View {
    /// Routes: which request takes which rule, in the order in which they count, and what the rule does.
    #[command(aliases = ["route", "r"])]
    Routes {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        host: Host,
        /// Only this listener: <host>:<port> of a waypoint, <listener>:<port> of a gateway.
        #[arg(long)]
        name: Option<String>,
    },
    /// Clusters: services that routes lead to, how they are called, and whether a circuit breaker is open.
    #[command(aliases = ["cluster", "c"])]
    Clusters {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        host: Host,
        /// Only this subset.
        #[arg(long)]
        subset: Option<String>,
    },
    /// Endpoints of clusters, their health, and which are left out because they failed.
    #[command(aliases = ["endpoint", "ep"])]
    Endpoints {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        host: Host,
        /// Only this subset.
        #[arg(long)]
        subset: Option<String>,
        /// Only the cluster of this name.
        #[arg(long)]
        cluster: Option<String>,
        /// Only this address.
        #[arg(long)]
        address: Option<String>,
        /// Only this status: healthy, unhealthy or ejected.
        #[arg(long, value_parser = ["healthy", "unhealthy", "ejected"], ignore_case = true)]
        status: Option<String>,
    },
    /// Listeners: addresses and ports, protocols, certificates and until when they are valid.
    #[command(aliases = ["listener", "l"])]
    Listeners {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        host: Host,
        /// Only this address.
        #[arg(long)]
        address: Option<String>,
    },
    /// The proxy's own certificates.
    #[command(aliases = ["secrets", "s"])]
    Secret {
        #[command(flatten)]
        common: Common,
    },
    /// Listeners, routes, clusters and endpoints.
    All {
        #[command(flatten)]
        common: Common,
    },
}

/// Which proxy, and how to print.
#[derive(Debug, Args)]
struct Common {
    /// Gateway, deployment or pod: [gateway/|deploy/|pod/]<name>[.<namespace>]; default: the only gateway of the namespace.
    target: Option<String>,
    /// Read a saved config dump instead of a cluster; - is standard input.
    #[arg(long, short = 'f', conflicts_with = "target")]
    file: Option<String>,
    /// How to print.
    #[arg(long, short = 'o', default_value = "short")]
    output: Format,
    /// Admin port of the proxy.
    #[arg(long, default_value_t = 15000)]
    proxy_admin_port: u16,
}

/// Which service.
#[derive(Debug, Args)]
struct Host {
    /// Only this host: the whole name, or its beginning, as in web or web.demo.
    #[arg(long, alias = "domain")]
    fqdn: Option<String>,
    /// Only this port.
    #[arg(long)]
    port: Option<u16>,
}

impl ProxyConfig {
    /// Runs the command.
    ///
    /// # Errors
    /// Says which proxy or file cannot be read, or which argument is wrong.
    pub async fn run(self, cluster: &Cluster) -> Result<()> {
        match self.view {
            View::Routes { common, host, name } => {
                let dump = common.dump(cluster).await?;
                let filter = Filter { name, ..host.filter() };
                common.print(&dump, "routes", &tables::ROUTES, tables::routes(&dump, &filter))
            }
            View::Clusters { common, host, subset } => {
                let dump = common.dump(cluster).await?;
                let filter = Filter { subset, ..host.filter() };
                common.print(&dump, "clusters", &tables::CLUSTERS, tables::clusters(&dump, &filter))
            }
            View::Endpoints { common, host, subset, cluster: name, address, status } => {
                let dump = common.dump(cluster).await?;
                let filter = Filter { subset, name, address, status, ..host.filter() };
                common.print(&dump, "endpoints", &tables::ENDPOINTS, tables::endpoints(&dump, &filter))
            }
            View::Listeners { common, host, address } => {
                let dump = common.dump(cluster).await?;
                let filter = Filter { address, ..host.filter() };
                common.print(&dump, "listeners", &tables::LISTENERS, tables::listeners(&dump, &filter))
            }
            View::Secret { common } => {
                let dump = common.dump(cluster).await?;
                let (header, rows) = crate::ztunnel_config::certificates(&dump);
                common.print(&dump, "certificates", header, rows)
            }
            View::All { common } => common.all(cluster).await,
        }
    }
}

impl Host {
    fn filter(self) -> Filter {
        Filter { fqdn: self.fqdn, port: self.port, ..Filter::default() }
    }
}

impl Common {
    async fn dump(&self, cluster: &Cluster) -> Result<Value> {
        let dump = match &self.file {
            Some(file) => dump::read(file)?,
            None => {
                let client = cluster.client().await?;
                let namespace = cluster.namespace_or(&client);
                let pod = gateway_pod::find(&client, namespace, self.target.as_deref()).await?;
                let dump = proxy::get_json(&client, &pod, self.proxy_admin_port, "/config_dump").await?;
                if dump.get("proxy").is_some_and(Value::is_null) {
                    output::note(format!(
                        "warning: the control plane has told {} nothing yet; 'meltemi proxy-status' says whether it is connected",
                        pod.name_any()
                    ));
                }
                dump
            }
        };
        anyhow::ensure!(
            dump.get("listeners").is_some(),
            "this is no dump of a waypoint or gateway: it has no listeners; for a node proxy's use 'meltemi ztunnel-config'"
        );
        Ok(dump)
    }

    async fn all(&self, cluster: &Cluster) -> Result<()> {
        let dump = self.dump(cluster).await?;
        if self.output != Format::Short {
            return output::machine(self.output, &dump);
        }
        let filter = Filter::default();
        for (title, header, rows) in [
            ("LISTENERS", tables::LISTENERS.as_slice(), tables::listeners(&dump, &filter)),
            ("ROUTES", &tables::ROUTES, tables::routes(&dump, &filter)),
            ("CLUSTERS", &tables::CLUSTERS, tables::clusters(&dump, &filter)),
            ("ENDPOINTS", &tables::ENDPOINTS, tables::endpoints(&dump, &filter)),
        ] {
            output::line(format!("------ {title} ------"))?;
            output::wide_table(header, rows.into_iter().map(|row| row.cells).collect())?;
            output::line("")?;
        }
        for key in ["listeners", "routes", "clusters"] {
            warn_about_left_out(&dump, key);
        }
        warn_about_refused(&dump);
        Ok(())
    }

    fn print(&self, dump: &Value, key: &str, header: &[&str], rows: Vec<Row>) -> Result<()> {
        if self.output == Format::Short {
            output::wide_table(header, rows.into_iter().map(|row| row.cells).collect())?;
        } else {
            output::machine(self.output, &rows.into_iter().map(|row| row.source).collect::<Vec<_>>())?;
        }
        warn_about_left_out(dump, key);
        warn_about_refused(dump);
        Ok(())
    }
}

fn warn_about_left_out(dump: &Value, key: &str) {
    let key = if key == "endpoints" { "clusters" } else { key };
    let left_out = number(dump.get("leftOut").unwrap_or(&json!({})), key);
    if left_out > 0 {
        output::note(format!("warning: {left_out} more {key} are not in the dump, which is bounded"));
    }
}

/// What the control plane sent and the proxy could not use.
fn warn_about_refused(dump: &Value) {
    for refused in entries(dump, "refused") {
        let (name, reason) = (text(refused, "resource"), text(refused, "reason"));
        output::note(format!("warning: {name} could not be used, what was there before is in force: {reason}"));
    }
}
