//! Programs of others that call a service through its waypoint, as pods of the mesh do.

use mesh_wire::l7::{self, Protocol};

use crate::isolate::isolated_test;
use crate::nginx::{NGINX, serve_files};
use crate::program::{python, python_there, script, serve, told};
use crate::resources::{self, Service};
use crate::tunnel::Tunnels;
use crate::world::{PORT, World};

/// A waypoint for these ports of one address, each of which local programs find at a port of its own.
async fn waypoint(ports: &[(Service, Protocol, u16, &'static str)]) -> World {
    let proxy = resources::proxy(l7::proxy::Role::Waypoint, l7::Settings::default());
    let number = |authority: &str| authority.rsplit_once(':').unwrap().1.parse().unwrap();
    let all: Vec<_> = ports
        .iter()
        .map(|(service, protocol, _, authority)| resources::port(*service, "10.1.1.5", number(authority), *protocol))
        .collect();
    let services: Vec<_> = ports.iter().map(|one| one.0).collect();
    let world = World::waypoint(proxy, &all, &services).await;
    for (_, _, near, authority) in ports {
        Tunnels::carry(*near, authority).await;
    }
    world
}

isolated_test! {
    async fn waypoint_row_1_curl_wrk_and_h2load_reach_nginx_through_tunnels() {
        let (_dir, _server) = serve_files().await;
        let same = Service { http: l7::backend::Http::Same, ..NGINX };
        let _world = waypoint(&[
            (NGINX, Protocol::Http, PORT, "10.1.1.5:80"),
            (same, Protocol::Detect, 8081, "10.1.1.5:81"),
        ])
        .await;
        let url = format!("http://127.0.0.1:{PORT}/page");
        for version in ["--http1.1", "--http2-prior-knowledge"] {
            assert_eq!(told("curl", &["-sS", "--max-time", "10", version, &url]).await, "0123456789");
        }
        assert_eq!(told("curl", &["-sS", "--max-time", "10", "http://127.0.0.1:8081/page"]).await, "0123456789");
        let said = told("wrk", &["-t", "1", "-c", "16", "-d", "2s", "--timeout", "5s", &url]).await;
        assert!(said.contains("Requests/sec") && !said.contains("Non-2xx") && !said.contains("Socket errors"), "{said}");
        let said = told("h2load", &["-n", "1000", "-c", "4", "-m", "10", &url]).await;
        assert!(said.contains("1000 succeeded, 0 failed, 0 errored, 0 timeout"), "{said}");
    }
}

isolated_test! {
    with python_there();
    async fn waypoint_row_8_grpc_calls_of_every_shape_pass_through_tunnels() {
        const GRPC: Service = Service::http2("grpc", 9200);
        let script = script("grpc_calls.py");
        let _server = serve(&python(), &[&script, "serve", &GRPC.target.to_string()], GRPC.target).await;
        let world = waypoint(&[(GRPC, Protocol::Http2, PORT, "10.1.1.5:80")]).await;
        let said = told(&python(), &[&script, "call", &PORT.to_string()]).await;
        assert!(said.ends_with("many\nunimplemented\n"), "{said}{}", world.log());
    }
}

isolated_test! {
    with python_there();
    async fn waypoint_row_14_websockets_pass_through_tunnels() {
        const ECHO: Service = Service::http1("echo", 9300);
        let script = script("websocket.py");
        let _server = serve(&python(), &[&script, "serve", &ECHO.target.to_string()], ECHO.target).await;
        let _world = waypoint(&[(ECHO, Protocol::Http, PORT, "10.1.1.5:80")]).await;
        let said = told(&python(), &[&script, "talk", &PORT.to_string()]).await;
        assert!(said.ends_with("close 4001 over\nrefused 403\n"), "{said}");
    }
}
