//! nginx as the server.

use tempfile::TempDir;
use tokio::process::Child;

use crate::isolate::isolated_test;
use crate::program::{run, serve, told};
use crate::resources::Service;
use crate::world::{PORT, World};

pub(crate) const NGINX: Service = Service::http1("nginx", 9100);

/// The same, where it speaks HTTP/2 in the clear.
const NGINX_HTTP2: Service = Service::http2("nginx2", 9101);

/// nginx with a file and some answers, in one process.
pub(crate) async fn serve_files() -> (TempDir, Child) {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().display();
    std::fs::write(dir.path().join("page"), "0123456789").unwrap();
    std::fs::write(dir.path().join("text.txt"), "words ".repeat(10_000)).unwrap();
    let config = format!(
        "user root root; daemon off; master_process off; pid {at}/pid; error_log {at}/error.log;\n\
         events {{ worker_connections 1024; }}\n\
         http {{\n  access_log off; default_type text/plain; client_body_temp_path {at}/body; proxy_temp_path {at}/proxy;\n  \
         fastcgi_temp_path {at}/f; uwsgi_temp_path {at}/u; scgi_temp_path {at}/s; keepalive_requests 500;\n  \
         server {{\n    listen 127.0.0.1:{port}; listen 127.0.0.1:{port2} http2; root {at}; gzip on; gzip_types text/plain; gzip_min_length 100;\n    \
         location = /empty {{ return 204; }}\n    location = /moved {{ return 301 /page; }}\n    \
         location = /gone {{ return 410 gone; }}\n    location = /drop {{ return 444; }}\n    \
         location = /host {{ return 200 \"$host $request_uri $http_x_forwarded_for\"; }}\n  }}\n}}\n",
        port = NGINX.target,
        port2 = NGINX_HTTP2.target,
    );
    let file = dir.path().join("nginx.conf");
    std::fs::write(&file, config).unwrap();
    let error_log = format!("{at}/error.log");
    let server = serve("nginx", &["-e", &error_log, "-c", file.to_str().unwrap()], NGINX.target).await;
    (dir, server)
}

/// [`serve_files`] behind a gateway.
async fn start() -> (TempDir, Child, World) {
    let (dir, server) = serve_files().await;
    (dir, server, World::one(NGINX).await)
}

isolated_test! {
    async fn nginx_serves_files_parts_and_conditions_through_the_proxy() {
        let (_dir, _server, _world) = start().await;
        let url = |path: &str| format!("http://127.0.0.1:{PORT}{path}");
        for version in ["--http1.1", "--http2-prior-knowledge"] {
            let curl = async |arguments: &[&str]| {
                told("curl", &[&["-sS", "--max-time", "10", version], arguments].concat()).await
            };
            assert_eq!(curl(&[&url("/page")]).await, "0123456789");
            assert_eq!(curl(&["-r", "2-4", &url("/page")]).await, "234");
            let head = curl(&["-I", &url("/page")]).await;
            assert!(head.contains("content-length: 10\r\n"), "{head}");
            let tag = head.lines().find_map(|line| line.strip_prefix("etag: ")).unwrap().trim().to_owned();
            let matching = format!("if-none-match: {tag}");
            let said = curl(&["-i", "-H", &matching, &url("/page")]).await;
            assert!(said.contains(" 304") && said.trim_end().ends_with(&tag) || said.contains("304"), "{said}");
            assert!(curl(&["-i", &url("/empty")]).await.contains(" 204"));
            assert_eq!(curl(&["-w", "%{http_code}", &url("/gone")]).await, "gone410");
            assert_eq!(curl(&["-o", "/dev/null", "-w", "%{http_code}", &url("/missing")]).await, "404");
            assert!(curl(&["-i", &url("/moved")]).await.contains("301"));
            assert_eq!(curl(&["--compressed", &url("/text.txt")]).await.len(), 60_000);
            let packed = curl(&["--compressed", "-o", "/dev/null", "-w", "%{size_download}", &url("/text.txt")]).await;
            assert!(packed.parse::<u32>().unwrap() < 10_000, "{packed}");
            assert!(curl(&["-H", "host: shop.example", &url("/host?a=b")]).await.starts_with("shop.example /host?a=b"));
            assert_eq!(curl(&["-o", "/dev/null", "-w", "%{http_code}", &url("/drop")]).await, "503");
            assert_eq!(curl(&["-d", "x=y", "-o", "/dev/null", "-w", "%{http_code}", &url("/page")]).await, "405");
        }
    }
}

isolated_test! {
    async fn wrk_loses_no_request() {
        let (_dir, _server, _world) = start().await;
        let url = format!("http://127.0.0.1:{PORT}/page");
        let said = told("wrk", &["-t", "1", "-c", "32", "-d", "3s", "--timeout", "5s", &url]).await;
        assert!(said.contains("Requests/sec") && !said.contains("Non-2xx") && !said.contains("Socket errors"), "{said}");
    }
}

isolated_test! {
    async fn h2load_loses_no_request() {
        let (_dir, _server, _world) = start().await;
        let url = format!("http://127.0.0.1:{PORT}/page");
        for version in [&["--h1"][..], &["-m", "20"]] {
            let said = told("h2load", &[&["-n", "3000", "-c", "10"], version, &[url.as_str()]].concat()).await;
            assert!(said.contains("3000 succeeded, 0 failed, 0 errored, 0 timeout"), "{said}");
            assert!(said.contains("status codes: 3000 2xx"), "{said}");
        }
    }
}

isolated_test! {
    async fn nghttp_gets_many_streams_and_uploads() {
        let (dir, _server, _world) = start().await;
        let url = |path: &str| format!("http://127.0.0.1:{PORT}{path}");
        let urls = ["/page", "/text.txt", "/empty", "/page"].map(url);
        let ended = run("nghttp", &[&["-s", "-n"][..], &urls.each_ref().map(String::as_str)].concat()).await;
        assert!(ended.ok && ended.stdout.contains(" 204 ") && ended.stdout.contains(" 200 "), "{ended:?}");
        let file = dir.path().join("text.txt");
        let ended = run("nghttp", &["-v", "-d", file.to_str().unwrap(), &url("/page")]).await;
        assert!(ended.ok && ended.stdout.contains(":status: 405"), "{ended:?}");
    }
}

isolated_test! {
    async fn nginx_is_spoken_to_in_http_2_where_that_is_wanted() {
        let (_dir, _server) = serve_files().await;
        let _world = World::one(NGINX_HTTP2).await;
        let url = |path: &str| format!("http://127.0.0.1:{PORT}{path}");
        for version in ["--http1.1", "--http2-prior-knowledge"] {
            let curl = async |arguments: &[&str]| {
                told("curl", &[&["-sS", "--max-time", "10", version], arguments].concat()).await
            };
            assert_eq!(curl(&[&url("/page")]).await, "0123456789");
            assert!(curl(&["-I", &url("/page")]).await.contains("content-length: 10\r\n"));
            assert!(curl(&["-i", &url("/empty")]).await.contains(" 204"));
            assert_eq!(curl(&["-d", "x=y", "-o", "/dev/null", "-w", "%{http_code}", &url("/page")]).await, "405");
            assert_eq!(curl(&["--compressed", &url("/text.txt")]).await.len(), 60_000);
        }
        for version in [&["--h1"][..], &["-m", "20"]] {
            let said = told("h2load", &[&["-n", "2000", "-c", "10"], version, &[url("/page").as_str()]].concat()).await;
            assert!(said.contains("2000 succeeded, 0 failed, 0 errored, 0 timeout"), "{said}");
        }
    }
}
