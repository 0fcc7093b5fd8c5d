//! Certificates that are taken back: what becomes of open connections and of new ones.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::isolate::isolated_test;
use crate::mesh::{APP_PORT, BOTH, Mesh, Node, identity_of, log_line};
use crate::pod::Pod;

/// Two pods whose proxies look at one file of revoked certificates, which holds none.
struct Town {
    mesh: Mesh,
    dir: tempfile::TempDir,
}

impl Town {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca-crl.pem");
        std::fs::write(&path, "").unwrap();
        let mesh = Mesh::start_with(BOTH, &[("CRL_PATH", path.to_str().unwrap())]).await;
        Self { mesh, dir }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("ca-crl.pem")
    }

    /// Replaces the file as the kubelet does.
    fn revoke(&self, certificates: &[&CertificateDer<'_>]) {
        let new = self.dir.path().join("new");
        let contents = if certificates.is_empty() { String::new() } else { self.mesh.ca.crl(certificates) };
        std::fs::write(&new, contents).unwrap();
        std::fs::rename(new, self.path()).unwrap();
    }

    /// A connection that the application of `cart` answers, for as long as it is served.
    async fn talk(&self) -> TcpStream {
        let mut stream = self.mesh.web.connect(self.mesh.vip).await.unwrap();
        stream.write_all(b"x").await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), b'x');
        stream
    }

    fn serve(&self) {
        let listener = self.mesh.cart.listen(SocketAddr::new("::".parse().unwrap(), APP_PORT));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (mut read, mut write) = stream.into_split();
                tokio::spawn(async move { tokio::io::copy(&mut read, &mut write).await });
            }
        });
    }

    async fn answers(&self) -> bool {
        let Ok(mut stream) = self.mesh.web.connect(self.mesh.vip).await else { return false };
        stream.write_all(b"x").await.is_ok() && stream.read_u8().await.is_ok()
    }
}

async fn leaf(node: &Node, pod: &Pod) -> CertificateDer<'static> {
    node.shared.certs.fetch(&identity_of(pod)).await.unwrap().leaf().clone()
}

fn count(node: &Node, name: &str, label: &str) -> u64 {
    let metrics = node.registry.encode();
    let lines = metrics.lines().filter(|line| line.starts_with(name) && line.contains(label));
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

const CLOSED: &str = "istio_tcp_connections_closed_total";
const REJECTED: &str = "istio_crl_policy_rejections_total";

isolated_test! {
    async fn ca_row_17_and_ca_row_18_a_revoked_client_loses_its_tunnel_and_may_come_back_when_the_list_is_empty() {
        let town = Town::start().await;
        town.serve();
        let mut open = town.talk().await;
        town.revoke(&[&leaf(&town.mesh.web_node, &town.mesh.web).await]);
        let cut = tokio::time::timeout(Duration::from_secs(2), open.read(&mut [0; 1])).await;
        assert_eq!(cut.expect("the connection was not cut in time").unwrap_or(0), 0);
        let web = town.mesh.web.v4.to_string();
        log_line(&["direction=inbound", &web, "certificate of the peer was revoked: serial"]).await;
        assert_eq!(count(&town.mesh.cart_node, CLOSED, "CERT_REVOKED"), 1);

        assert!(!town.answers().await, "a revoked client got in");
        assert!(count(&town.mesh.cart_node, REJECTED, "reporter=\"destination\"") > 0);
        log_line(&["direction=inbound", &web, "peer certificate is revoked"]).await;

        town.revoke(&[]);
        let back = async {
            while !town.answers().await {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), back).await.expect("the client was not let in again");
    }
}

isolated_test! {
    async fn ca_row_17_a_revoked_server_is_left_by_its_clients_open_streams_and_pooled_tunnels_alike() {
        let town = Town::start().await;
        town.serve();
        let mut open = town.talk().await;
        town.revoke(&[&leaf(&town.mesh.cart_node, &town.mesh.cart).await]);
        let cut = tokio::time::timeout(Duration::from_secs(2), open.read(&mut [0; 1])).await;
        assert_eq!(cut.expect("the connection was not cut in time").unwrap_or(0), 0);
        let web = town.mesh.web.v4.to_string();
        log_line(&["direction=outbound", &web, "certificate of the peer was revoked: serial"]).await;
        assert_eq!(count(&town.mesh.web_node, CLOSED, "CERT_REVOKED"), 1);
        assert!(!town.answers().await, "a revoked server was used");
        assert!(count(&town.mesh.web_node, REJECTED, "reporter=\"source\"") > 0);
    }
}

isolated_test! {
    async fn ca_row_17_a_tunnel_without_streams_is_cut_as_well() {
        let town = Town::start().await;
        town.serve();
        // Both ends are done with the stream; the tunnel stays in the pool.
        drop(town.talk().await);
        town.revoke(&[&leaf(&town.mesh.web_node, &town.mesh.web).await]);
        log_line(&["tunnel was cut", &town.mesh.web.v4.to_string(), "certificate of the peer was revoked"]).await;
    }
}
