//! Two enrolled pods of one node, and as many generations of its proxy as the test starts.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::agent::Agent;
use crate::pod::{ECHO_PORT, Pod, Switch};
use crate::proxy::Proxy;
use crate::stage::{local_file, socket, start_proxy};

/// `web` talks to the echo of `shop`.
#[derive(Debug)]
pub struct Duo {
    /// The client.
    pub web: std::sync::Arc<Pod>,
    /// The server.
    pub shop: Pod,
    /// The node agent.
    pub agent: Agent,
    switch: Switch,
    dir: tempfile::TempDir,
}

impl Duo {
    /// Builds it with a first proxy, which is ready. Needs a runtime of several threads, and privilege.
    ///
    /// # Errors
    /// What did not start.
    pub async fn build() -> Result<(Self, Proxy)> {
        let dir = tempfile::Builder::new().prefix("meltemi-duo-").tempdir()?;
        let switch = Switch::new()?;
        let (web, shop) = (switch.pod("web", [0, 30])?, switch.pod("shop", [0, 10])?);
        shop.serve()?;
        let agent = Agent::start(&socket(dir.path()), &[&web, &shop])?;
        let duo = Self { web: std::sync::Arc::new(web), shop, agent, switch, dir };
        let proxy = duo.proxy("first").await?;
        for pod in [&*duo.web, &duo.shop] {
            pod.redirect()?;
        }
        Ok((duo, proxy))
    }

    /// One more proxy, beside those that run; it is ready and serves both pods.
    ///
    /// # Errors
    /// It does not start.
    pub async fn proxy(&self, name: &str) -> Result<Proxy> {
        let local = local_file(&[(&self.web, true), (&self.shop, true)]);
        let mut proxy = start_proxy(name, self.dir.path(), &local)?;
        tokio::task::block_in_place(|| proxy.wait_ready())?;
        Ok(proxy)
    }

    /// A pod that is not enrolled.
    ///
    /// # Errors
    /// As [`Switch::pod`].
    pub fn outsider(&self) -> Result<Pod> {
        self.switch.pod("outsider", [0, 40])
    }

    /// The echo of `shop`.
    #[must_use]
    pub fn echo(&self) -> SocketAddr {
        SocketAddr::new(self.shop.ip, ECHO_PORT)
    }

    /// A connection of `web` to it.
    ///
    /// # Errors
    /// It is refused, or not taken in time.
    pub async fn connect(&self) -> Result<TcpStream> {
        Ok(tokio::time::timeout(PATIENCE, self.web.connect(self.echo(), None)).await.context("not taken in time")??)
    }
}

/// Says something and expects it back.
///
/// # Errors
/// It does not come back.
pub async fn say(stream: &mut TcpStream) -> Result<()> {
    let talk = async {
        stream.write_all(b"are you there?").await.context("writing")?;
        let mut answer = [0; 14];
        stream.read_exact(&mut answer).await.context("reading")?;
        anyhow::Ok(answer)
    };
    let answer = tokio::time::timeout(PATIENCE, talk).await.context("no answer in time")??;
    ensure!(&answer == b"are you there?", "the answer is {answer:?}");
    Ok(())
}

/// Nothing on one machine takes this long.
pub const PATIENCE: Duration = Duration::from_secs(8);
