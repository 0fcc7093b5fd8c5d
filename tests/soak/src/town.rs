//! Two nodes with a proxy each: clients on one, servers on the other.

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use mesh_sys::netns::NetNs;

use hostile::agent::Agent;
use hostile::pod::{Pod, Switch};
use hostile::proxy::Proxy;

use crate::control::{Control, Seen};
use crate::plan::Plan;

/// Everything that takes part.
#[derive(Debug)]
pub struct Town {
    /// Where clients live.
    pub near: Node,
    /// Where servers live.
    pub far: Node,
    /// The control plane of both.
    pub control: Control,
    /// What joins all pods.
    pub switch: Switch,
    _dir: tempfile::TempDir,
}

/// One node.
#[derive(Debug)]
pub struct Node {
    /// Its name.
    pub name: &'static str,
    /// Pods that stay.
    pub pods: Vec<Arc<Pod>>,
    /// Its agent.
    pub agent: Agent,
    /// Its proxy.
    pub proxy: Proxy,
}

impl Town {
    /// Builds it; pods that stay are enrolled and known, servers among them serve.
    ///
    /// # Errors
    /// What did not start.
    pub async fn build(plan: &Plan) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("meltemi-soak-").tempdir()?;
        let switch = Switch::new()?;
        let control = Control::new();
        let clients = pods(&switch, "web", 1)?;
        let servers = pods(&switch, "cart", 2)?;
        for server in &servers {
            server.serve()?;
        }
        let release = format!("{}s", plan.pool_release.as_secs());
        let start = async |name, pods| Node::start(name, pods, &control, &release, dir.path()).await;
        let (near, far) = (start("near", clients).await?, start("far", servers).await?);
        let mut town = Self { near, far, control, switch, _dir: dir };
        town.tell_all();
        for node in [&mut town.near, &mut town.far] {
            tokio::task::block_in_place(|| node.proxy.wait_ready())?;
            for pod in &node.pods {
                pod.redirect()?;
            }
        }
        Ok(town)
    }

    fn tell_all(&self) {
        let seen = |node: &'static str, serves| move |pod| Seen { pod, node, serves };
        let clients = self.near.pods.iter().map(AsRef::as_ref).map(seen("near", false));
        let servers = self.far.pods.iter().map(AsRef::as_ref).map(seen("far", true));
        self.control.tell(&clients.chain(servers).collect::<Vec<_>>());
    }
}

impl Node {
    async fn start(
        name: &'static str,
        pods: Vec<Arc<Pod>>,
        control: &Control,
        release: &str,
        dir: &Path,
    ) -> Result<Self> {
        let uds = dir.join(format!("{name}.sock"));
        let all: Vec<_> = pods.iter().map(AsRef::as_ref).collect();
        let agent = Agent::start(&uds, &all)?;
        let netns = Arc::new(NetNs::create()?);
        // The proxy reaches the control plane on the loopback interface of its own namespace.
        let listener = netns.run(|| std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, CONTROL_PORT)))??;
        control.serve(listener)?;
        let (uds, address) = (uds.display().to_string(), format!("http://127.0.0.1:{CONTROL_PORT}"));
        let mut environment = hostile::stage::environment(&uds);
        environment.retain(|(key, _)| *key != "NODE_NAME");
        environment.extend([
            ("NODE_NAME", name),
            ("XDS_ADDRESS", address.as_str()),
            ("POOL_UNUSED_RELEASE_TIMEOUT", release),
        ]);
        let proxy = Proxy::start_in(netns, name, dir, &environment)?;
        Ok(Self { name, pods, agent, proxy })
    }
}

fn pods(switch: &Switch, name: &str, high: u8) -> Result<Vec<Arc<Pod>>> {
    let pod = |low| switch.pod(&format!("{name}-{low}"), [high, low]).map(Arc::new);
    (1..=PODS).map(pod).collect::<Result<_>>().with_context(|| format!("pods {name}"))
}

/// Pods of each node that stay.
const PODS: u8 = 4;
const CONTROL_PORT: u16 = 15010;
