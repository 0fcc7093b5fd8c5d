//! Access to the cluster that a kubeconfig names.

use anyhow::{Context, Result};
use clap::Args;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use mesh_api::labels;

/// Which cluster, and where the control plane lives in it.
#[derive(Debug, Clone, Args)]
pub struct Cluster {
    /// Kubeconfig file; default is $KUBECONFIG, then ~/.kube/config.
    #[arg(long, short = 'c', global = true)]
    pub kubeconfig: Option<std::path::PathBuf>,
    /// Context of the kubeconfig.
    #[arg(long, global = true)]
    pub context: Option<String>,
    /// Namespace to work in; default is that of the context.
    #[arg(long, short = 'n', global = true)]
    pub namespace: Option<String>,
    /// Namespace of the control plane.
    #[arg(long = "istioNamespace", short = 'i', global = true, default_value = labels::SYSTEM_NAMESPACE)]
    pub istio_namespace: String,
}

impl Cluster {
    /// A client for the cluster.
    ///
    /// # Errors
    /// Says which kubeconfig was tried and how to name another.
    pub async fn client(&self) -> Result<Client> {
        let options = KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
        let config = match &self.kubeconfig {
            Some(path) => {
                let file = Kubeconfig::read_from(path).with_context(|| format!("reading {}", path.display()))?;
                Config::from_custom_kubeconfig(file, &options).await?
            }
            None => Config::from_kubeconfig(&options).await.context(
                "no usable kubeconfig: set KUBECONFIG or --kubeconfig, or start a sandbox with 'meltemi sandbox up'",
            )?,
        };
        Client::try_from(config).context("preparing the connection to the cluster")
    }

    /// The namespace to work in.
    #[must_use]
    pub fn namespace_or<'a>(&'a self, client: &'a Client) -> &'a str {
        self.namespace.as_deref().unwrap_or_else(|| client.default_namespace())
    }
}
