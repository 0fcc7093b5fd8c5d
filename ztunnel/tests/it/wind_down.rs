//! What happens to connections when a pod is no longer served.

use std::net::SocketAddr;
use std::time::Duration;

use mesh_core::drain::DrainMode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::RuntimeMetrics;

use crate::isolate::isolated_test;
use crate::mesh::{APP_PORT, BOTH, Enrolled, Mesh};

/// An application that echoes until the client is done.
fn serve_copies(mesh: &Mesh) {
    let listener = mesh.cart.listen(SocketAddr::new("::".parse().unwrap(), APP_PORT));
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (mut read, mut write) = stream.into_split();
            tokio::spawn(async move { tokio::io::copy(&mut read, &mut write).await });
        }
    });
}

isolated_test! {
    async fn a_graceful_stop_closes_the_listeners_and_lets_connections_finish() {
        let mut mesh = Mesh::start(BOTH).await;
        serve_copies(&mesh);
        let mut open = mesh.web.connect(mesh.vip).await.unwrap();
        open.write_all(b"a").await.unwrap();
        assert_eq!(open.read_u8().await.unwrap(), b'a');
        let proxy = mesh.cart_node.proxy.take().unwrap();
        let stopping = tokio::spawn(async move { proxy.stop(DrainMode::Graceful).await });
        // The listener is gone once a new connection is refused.
        let deadline = tokio::time::Instant::now() + Duration::from_secs(2);
        while mesh.web.ask(mesh.vip, "new").await.is_ok_and(|answer| answer == "new") {
            assert!(tokio::time::Instant::now() < deadline, "new connections are still taken");
        }
        open.write_all(b"b").await.unwrap();
        assert_eq!(open.read_u8().await.unwrap(), b'b');
        assert!(!stopping.is_finished());
        open.shutdown().await.unwrap();
        assert_eq!(open.read(&mut [0; 1]).await.unwrap(), 0);
        tokio::time::timeout(Duration::from_secs(2), stopping).await.expect("the drain ends early").unwrap();
    }
}

isolated_test! {
    async fn no_task_of_a_pod_outlives_it_even_if_nothing_changes_any_more() {
        for mode in [DrainMode::Graceful, DrainMode::Immediate] {
            let mut mesh = Mesh::start(Enrolled { web: false, cart: false }).await;
            let shared = mesh.cart_node.shared.clone();
            let tasks = || {
                let workers = shared.workers.metrics();
                let control = tokio::runtime::Handle::current().metrics();
                workers.iter().map(|(_, runtime)| runtime).chain([&control]).map(RuntimeMetrics::num_alive_tasks).sum::<usize>()
            };
            let before = tasks();
            mesh.cart_node.enrol(&mesh.cart).await;
            // Whoever watches the pod has seen the present state by then.
            tokio::time::sleep(Duration::from_millis(50)).await;
            assert!(tasks() > before);
            let proxy = mesh.cart_node.proxy.take().unwrap();
            proxy.stop(mode).await;
            drop(proxy);
            let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
            while tasks() > before {
                assert!(tokio::time::Instant::now() < deadline, "{mode:?}: {} tasks, {before} before", tasks());
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }
}

isolated_test! {
    async fn an_immediate_stop_cuts_everything() {
        let mut mesh = Mesh::start(BOTH).await;
        serve_copies(&mesh);
        let mut open = mesh.web.connect(mesh.vip).await.unwrap();
        open.write_all(b"a").await.unwrap();
        assert_eq!(open.read_u8().await.unwrap(), b'a');
        let proxy = mesh.cart_node.proxy.take().unwrap();
        tokio::time::timeout(Duration::from_secs(2), proxy.stop(DrainMode::Immediate)).await.unwrap();
        assert!(proxy.connections().is_empty());
        let read = tokio::time::timeout(Duration::from_secs(2), open.read(&mut [0; 1])).await.unwrap();
        assert_eq!(read.unwrap_or(0), 0);
    }
}

isolated_test! {
    async fn live_connections_are_listed_with_both_destinations() {
        let mesh = Mesh::start(BOTH).await;
        serve_copies(&mesh);
        let mut open = mesh.web.connect(mesh.vip).await.unwrap();
        open.write_all(b"a").await.unwrap();
        assert_eq!(open.read_u8().await.unwrap(), b'a');
        let leaving = mesh.web_node.proxy.as_ref().unwrap().connections();
        assert_eq!(leaving.len(), 1);
        assert_eq!(leaving[0].original_dst, mesh.vip);
        assert_eq!(leaving[0].actual_dst, SocketAddr::new(mesh.cart.v4, 15008));
        let arriving = mesh.cart_node.proxy.as_ref().unwrap().connections();
        assert_eq!(arriving.len(), 1);
        assert_eq!(arriving[0].src.ip(), mesh.web.v4);
        assert_eq!(arriving[0].actual_dst, mesh.app());
    }
}
