//! One node with two enrolled pods, and two pods outside of the mesh that hold certificates: one well-behaved client, one
//! hostile peer.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use mesh_core::Identity;
use mesh_identity::{CertSource, FakeCa, TlsPolicy, WorkloadCert};

use crate::agent::Agent;
use crate::pod::{NAMESPACE, Pod, Switch};
use crate::proxy::Proxy;

/// Everything that takes part.
#[derive(Debug)]
pub struct Stage {
    /// Enrolled; serves the well-behaved client.
    pub shop: Pod,
    /// Enrolled; is attacked.
    pub target: Pod,
    /// Well-behaved.
    pub web: Pod,
    /// Not so.
    pub mallory: Pod,
    /// Addresses of `mallory`, its own among them.
    pub crowd: Vec<IpAddr>,
    /// Serves both enrolled pods.
    pub proxy: Proxy,
    /// The node agent.
    pub agent: Agent,
    _switch: Switch,
    _dir: tempfile::TempDir,
}

impl Stage {
    /// Builds it and waits until the proxy is ready. Needs a runtime and privilege.
    ///
    /// # Errors
    /// What did not start.
    pub async fn build() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("meltemi-hostile-").tempdir()?;
        let switch = Switch::new()?;
        let [shop, target, web, mallory] =
            [("shop", [0, 10]), ("target", [0, 20]), ("web", [0, 30]), ("mallory", [0, 40])]
                .map(|(name, address)| switch.pod(name, address));
        let (shop, target, web, mallory) = (shop?, target?, web?, mallory?);
        let mut crowd = vec![mallory.ip];
        for last in 1..=CROWD {
            let address = IpAddr::from([10, 1, 1, last]);
            mallory.add_address(address)?;
            crowd.push(address);
        }
        shop.serve()?;
        target.serve_in_background()?;
        let local = local_file(&[(&shop, true), (&target, true), (&web, false), (&mallory, false)]);
        let agent = Agent::start(&socket(dir.path()), &[&shop, &target])?;
        let mut proxy = start_proxy("proxy", dir.path(), &local)?;
        tokio::task::block_in_place(|| proxy.wait_ready())?;
        proxy.step_back()?;
        for pod in [&shop, &target] {
            pod.redirect()?;
        }
        Ok(Self { shop, target, web, mallory, crowd, proxy, agent, _switch: switch, _dir: dir })
    }
}

/// The node agent's socket of a stage in `dir`.
#[must_use]
pub fn socket(dir: &Path) -> std::path::PathBuf {
    dir.join("zds.sock")
}

/// A proxy of node [`NODE`] with a local file in place of a control plane.
///
/// # Errors
/// As [`Proxy::start`].
pub fn start_proxy(name: &str, dir: &Path, local: &str) -> Result<Proxy> {
    let file = dir.join("local.yaml");
    std::fs::write(&file, local)?;
    let (file, uds) = (file.display().to_string(), socket(dir).display().to_string());
    let settings = [("LOCAL_XDS_PATH", file.as_str()), ("XDS_ADDRESS", "")];
    Proxy::start(name, dir, &[&settings[..], &environment(&uds)].concat())
}

/// Settings that every proxy of the tests has.
#[must_use]
pub fn environment(uds: &str) -> Vec<(&'static str, &str)> {
    vec![
        ("INPOD_UDS", uds),
        ("FAKE_CA", "true"),
        ("NODE_NAME", NODE),
        ("ISTIO_META_DNS_CAPTURE", "false"),
        ("ZTUNNEL_WORKER_THREADS", "2"),
        ("CONNECTION_TERMINATION_DEADLINE", "5s"),
        ("RUST_LOG", "info"),
    ]
}

/// What the control plane would say of `pods`: whether each is enrolled; all of them on [`NODE`].
#[must_use]
pub fn local_file(pods: &[(&Pod, bool)]) -> String {
    let mut text = "workloads:\n".to_owned();
    for (pod, enrolled) in pods {
        let (name, ip, protocol) = (&pod.name, pod.ip, if *enrolled { "HBONE" } else { "TCP" });
        let _ = write!(
            text,
            "- uid: Kubernetes//Pod/{NAMESPACE}/{name}\n  name: {name}\n  namespace: {NAMESPACE}\n  \
             serviceAccount: {name}\n  workloadIps: [{ip}]\n  protocol: {protocol}\n  node: {NODE}\n  \
             trustDomain: cluster.local\n  canonicalName: {name}\n  workloadName: {name}\n",
        );
    }
    text
}

/// A certificate of the development authority.
///
/// # Errors
/// What the authority said.
pub async fn certificate(identity: Identity) -> Result<Arc<WorkloadCert>> {
    let authority = FakeCa::new(Duration::from_secs(24 * 3600), TlsPolicy::default())?;
    let issued = authority.issue(identity).await;
    Ok(Arc::new(issued.context("development authority")?))
}

/// The node of every pod.
pub const NODE: &str = "node-a";
/// Further addresses of the hostile peer: more than hold all turns at handshakes together.
const CROWD: u8 = 16;
