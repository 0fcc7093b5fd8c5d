//! Large bodies: all of them arrive, and none of them is kept.

use std::fs::File;
use std::time::Duration;

use futures::future::join_all;
use mesh_wire::l7;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

use crate::frames::{self, Client, frame, request};
use crate::isolate::isolated_test;
use crate::program::{run, told};
use crate::raw;
use crate::recorder::Recorder;
use crate::resources::{self, Service};
use crate::tunnel::Tunnels;
use crate::world::{PORT, World};

const APP: Service = Service::http1("app", 9000);
const OTHER: Service = Service::http1("other", 9001);
/// Builds without optimisation carry a quarter: memory that is kept would show as well.
const GIB: u64 = if cfg!(debug_assertions) { 1 << 28 } else { 1 << 30 };
/// The same for what is slower to carry: frames, and tunnels of the test's own.
const FRAMED: u64 = if cfg!(debug_assertions) { GIB / 4 } else { GIB };
/// What the proxy may grow by, whatever passes.
const GROWTH_KIB_MAX: u64 = 24 << 10;

async fn ready() -> (Recorder, World, u64) {
    let app = Recorder::start(APP.target).await;
    let world = World::one(APP).await;
    raw::get(PORT, "/x").await;
    let before = world.status("VmRSS");
    (app, world, before)
}

fn assert_small(world: &World, before: u64) {
    let grown = world.status("VmHWM").saturating_sub(before);
    assert!(grown < GROWTH_KIB_MAX, "grew by {grown} KiB");
}

isolated_test! {
    async fn a_gibibyte_comes_down_through_constant_memory() {
        let (_app, world, before) = ready().await;
        for (version, bytes) in [("--http1.1", GIB), ("--http2-prior-knowledge", FRAMED)] {
            let url = format!("http://127.0.0.1:{PORT}/download/{bytes}");
            let said = told("curl", &["-sS", version, "-o", "/dev/null", "-w", "%{size_download}", &url]).await;
            assert_eq!(said, bytes.to_string());
        }
        assert_small(&world, before);
    }
}

isolated_test! {
    async fn a_gibibyte_goes_up_through_constant_memory() {
        let (_app, world, before) = ready().await;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        for (version, bytes) in [("--http1.1", GIB), ("--http2-prior-knowledge", FRAMED)] {
            // It has no blocks on disk.
            File::create(&path).unwrap().set_len(bytes).unwrap();
            let url = format!("http://127.0.0.1:{PORT}/up");
            let said = told("curl", &["-sS", version, "-H", "expect:", "-T", path.to_str().unwrap(), &url]).await;
            assert!(said.contains(&format!("body: {bytes}\n")), "{said}");
        }
        assert_small(&world, before);
    }
}

isolated_test! {
    async fn what_a_slow_client_does_not_read_is_not_kept() {
        let (_app, world, before) = ready().await;
        let mut slow = Vec::new();
        for _ in 0..10 {
            let mut client = TcpStream::connect(("127.0.0.1", PORT)).await.unwrap();
            let request = format!("GET /download/{GIB} HTTP/1.1\r\nhost: x\r\n\r\n");
            client.write_all(request.as_bytes()).await.unwrap();
            slow.push(client);
        }
        // Others are served, and nothing moves any more once the buffers of the kernel are full.
        for _ in 0..20 {
            assert_eq!(raw::get(PORT, "/x").await.status, Some(200));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_small(&world, before);
    }
}

isolated_test! {
    async fn what_a_slow_client_of_http_2_does_not_read_is_not_kept() {
        let (_app, world, before) = ready().await;
        let path = format!("/download/{GIB}");
        let download = [(":method", "GET"), (":scheme", "http"), (":authority", "x"), (":path", path.as_str())];
        let mut slow = Vec::new();
        for _ in 0..5 {
            let mut client = Client::open(PORT).await;
            // The largest windows there are: nothing holds the proxy back but that nobody reads.
            client.send(&frame(frames::SETTINGS, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff])).await;
            client.send(&frame(frames::WINDOW_UPDATE, 0, 0, &[0x7f, 0xfe, 0, 0])).await;
            for number in 0..10 {
                client.send(&request(2 * number + 1, &download)).await;
            }
            slow.push(client);
        }
        for _ in 0..20 {
            assert_eq!(raw::get(PORT, "/x").await.status, Some(200));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_small(&world, before);
    }
}

isolated_test! {
    async fn what_a_slow_server_does_not_read_is_not_kept() {
        let listener = TcpListener::bind(("127.0.0.1", APP.target)).await.unwrap();
        let other = Recorder::start(OTHER.target).await;
        let slow = resources::listener(PORT, &[APP, OTHER], Some("/other"));
        let world = World::gateway(l7::Settings::default(), &[slow], &[APP, OTHER]).await;
        assert_eq!(raw::get(PORT, "/other").await.status, Some(200));
        let before = world.status("VmRSS");
        tokio::spawn(async move {
            let mut deaf = Vec::new();
            while let Ok((stream, _)) = listener.accept().await {
                deaf.push(stream);
            }
        });
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        File::create(&path).unwrap().set_len(GIB).unwrap();
        let url = format!("http://127.0.0.1:{PORT}/up");
        let uploads = ["--http1.1", "--http2-prior-knowledge"].repeat(5).into_iter().map(|version| {
            let (path, url) = (path.to_str().unwrap(), url.as_str());
            async move { run("curl", &["-sS", version, "--max-time", "3", "-H", "expect:", "-T", path, url]).await }
        });
        let others = async {
            for _ in 0..20 {
                assert_eq!(raw::get(PORT, "/other").await.status, Some(200));
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let (ended, ()) = tokio::join!(join_all(uploads), others);
        assert!(ended.iter().all(|ended| !ended.ok && ended.stderr.contains("timed out")), "{ended:?}");
        assert_eq!(other.targets().len(), 21);
        assert_small(&world, before);
    }
}

isolated_test! {
    async fn large_bodies_pass_through_tunnels_in_constant_memory() {
        let _app = Recorder::start(APP.target).await;
        let port = resources::port(APP, "10.1.1.5", 9080, l7::Protocol::Http);
        let proxy = resources::proxy(l7::proxy::Role::Waypoint, l7::Settings::default());
        let world = World::waypoint(proxy, &[port], &[APP]).await;
        Tunnels::carry(PORT, "10.1.1.5:9080").await;
        assert_eq!(raw::get(PORT, "/x").await.status, Some(200));
        let before = world.status("VmRSS");
        let bytes = FRAMED;
        let url = format!("http://127.0.0.1:{PORT}/download/{bytes}");
        let said = told("curl", &["-sS", "--http1.1", "-o", "/dev/null", "-w", "%{size_download}", &url]).await;
        assert_eq!(said, bytes.to_string());
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        File::create(&path).unwrap().set_len(bytes).unwrap();
        let url = format!("http://127.0.0.1:{PORT}/up");
        let said = told("curl", &["-sS", "--http2-prior-knowledge", "-T", path.to_str().unwrap(), &url]).await;
        assert!(said.contains(&format!("body: {bytes}\n")), "{said}");
        assert_small(&world, before);
    }
}

isolated_test! {
    async fn a_client_that_takes_its_time_gets_everything() {
        let (_app, world, before) = ready().await;
        let url = format!("http://127.0.0.1:{PORT}/download/{}", 6 << 20);
        let arguments = ["-sS", "--limit-rate", "3M", "-o", "/dev/null", "-w", "%{size_download}", &url];
        assert_eq!(told("curl", &arguments).await, (6 << 20).to_string());
        assert_small(&world, before);
    }
}
