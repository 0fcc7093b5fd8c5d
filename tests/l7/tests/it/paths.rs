//! One form of the path for policy, route and upstream, whichever way it is written.

use mesh_wire::l7::{self, settings::Normalization};

use crate::frames::{Client, End, request};
use crate::isolate::isolated_test;
use crate::raw;
use crate::recorder::Recorder;
use crate::resources::{self, Service};
use crate::tunnel::Tunnels;
use crate::world::{PORT, World};

const APP: Service = Service::http1("app", 9000);
/// What is below `/admin`.
const ADMIN: Service = Service::http1("admin", 9001);
/// A listener where nobody may call `/admin`; on [`PORT`] everybody may.
const GUARDED: u16 = 8081;

/// Where a path leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leads {
    /// To everybody's service, as this path.
    Open(&'static str),
    /// To what policies guard, as this path.
    Guarded(&'static str),
    /// Nowhere over HTTP/1; over HTTP/2 to everybody's service, as this path without its fragment.
    NoFragment(&'static str),
    Nowhere,
}
use Leads::{Guarded, NoFragment, Nowhere, Open};

async fn check(normalization: Normalization, cases: &[(&str, Leads)]) {
    let (app, admin) = (Recorder::start(APP.target).await, Recorder::start(ADMIN.target).await);
    let settings = l7::Settings { normalization: normalization.into(), ..l7::Settings::default() };
    let open = resources::listener(PORT, &[APP, ADMIN], Some("/admin"));
    let mut guarded = resources::listener(GUARDED, &[APP, ADMIN], Some("/admin"));
    guarded.authorizations = vec![resources::deny(&["/admin", "/admin/*"])];
    let _world = World::gateway(settings, &[open, guarded], &[APP, ADMIN]).await;
    let mut faults = Vec::new();
    for (path, leads) in cases {
        for (port, http2) in [(PORT, false), (PORT, true), (GUARDED, false), (GUARDED, true)] {
            let (before, before_admin) = (app.targets().len(), admin.targets().len());
            let status = if http2 { ask_http2(port, path).await } else { raw::get(port, path).await.status };
            let (seen, seen_admin) = (app.targets().split_off(before), admin.targets().split_off(before_admin));
            let none: [&str; 0] = [];
            let right = match (leads, port) {
                (Open(as_path), _) => status == Some(200) && seen == [*as_path] && seen_admin == none,
                (Guarded(as_path), PORT) => status == Some(200) && seen == none && seen_admin == [*as_path],
                (Guarded(_), _) => status == Some(403) && seen == none && seen_admin == none,
                (NoFragment(as_path), _) if http2 => status == Some(200) && seen == [*as_path] && seen_admin == none,
                (Nowhere | NoFragment(_), _) => {
                    matches!(status, Some(400) | None) && seen == none && seen_admin == none
                }
            };
            if !right {
                let version = if http2 { 2 } else { 1 };
                faults.push(format!(
                    "{path} ({port}, HTTP/{version}): {leads:?}, got {status:?} {seen:?} {seen_admin:?}"
                ));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

async fn ask_http2(port: u16, path: &str) -> Option<u16> {
    let mut client = Client::open(port).await;
    client.send(&request(1, &[(":method", "GET"), (":scheme", "http"), (":authority", "x"), (":path", path)])).await;
    match client.end(1).await {
        End::Status(status) => Some(status),
        _ => None,
    }
}

isolated_test! {
    async fn waypoint_row_9_paths_are_the_same_for_policy_route_and_upstream() {
        check(Normalization::Base, &[
            ("/a/./b/../c%2Dd", Open("/a/c-d")),
            ("/", Open("/")),
            ("/x?y=../admin/%2e#", NoFragment("/x?y=../admin/%2e")),
            ("/x#/../admin", NoFragment("/x")),
            ("/x?y=../admin/%2e&z=%2F//", Open("/x?y=../admin/%2e&z=%2F//")),
            ("/admin/x", Guarded("/admin/x")),
            ("/admin", Guarded("/admin")),
            ("/%61dmin/x", Guarded("/admin/x")),
            ("/%61%64%6d%69%6E", Guarded("/admin")),
            ("/public/../admin/x", Guarded("/admin/x")),
            ("/public/%2e%2e/admin/x", Guarded("/admin/x")),
            ("/public/.%2E/admin/x", Guarded("/admin/x")),
            ("/./admin/x", Guarded("/admin/x")),
            ("/../admin", Guarded("/admin")),
            ("/../../x", Open("/x")),
            ("/admin/../x", Open("/x")),
            ("/public\\..\\admin\\x", Guarded("/admin/x")),
            ("\\admin\\x", Nowhere),
            ("/admin%2fx", Open("/admin%2fx")),
            ("/admin%5Cx", Open("/admin%5Cx")),
            ("/public/..%2fadmin/x", Open("/public/..%2fadmin/x")),
            ("//admin/x", Open("//admin/x")),
            ("/%2561dmin/x", Open("/%2561dmin/x")),
            ("/ADMIN/x", Open("/ADMIN/x")),
            ("/admin;a=b/x", Open("/admin;a=b/x")),
            ("/public/..;/admin/x", Open("/public/..;/admin/x")),
            ("/public/..%c0%afadmin", Open("/public/..%c0%afadmin")),
            ("/a%20b%3Fc%23d", Open("/a%20b%3Fc%23d")),
            ("/a%00b", Nowhere),
            ("/a b", Nowhere),
            ("/a\u{1}b", Nowhere),
            ("/a\u{7f}b", Nowhere),
            ("admin/x", Nowhere),
        ])
        .await;
    }
}

isolated_test! {
    async fn waypoint_row_10_slashes_are_merged_after_dots_are_resolved() {
        check(Normalization::MergeSlashes, &[
            ("//x///y?z=//", Open("/x/y?z=//")),
            ("//admin//x", Guarded("/admin/x")),
            ("/public//../admin/x", Open("/public/admin/x")),
            ("/public/..//admin/x", Guarded("/admin/x")),
            ("/public/%2e%2e//%61dmin", Guarded("/admin")),
            ("/\\admin/x", Guarded("/admin/x")),
            ("//admin%2fx", Open("/admin%2fx")),
            ("/a%00//b", Nowhere),
        ])
        .await;
    }
}

isolated_test! {
    async fn encoded_slashes_are_decoded_before_everything_else_where_that_is_wanted() {
        check(Normalization::DecodeAndMergeSlashes, &[
            ("/admin%2fx", Guarded("/admin/x")),
            ("/admin%5Cx", Guarded("/admin/x")),
            ("/public/..%2Fadmin/x", Guarded("/admin/x")),
            ("/public%2f..%2fadmin%2Fx", Guarded("/admin/x")),
            ("/public%2f%2e%2e%5cadmin", Guarded("/admin")),
            ("/%2f%2fadmin", Guarded("/admin")),
            ("/public/%5c..%5cadmin/x", Open("/public/admin/x")),
            ("/admin%252fx", Open("/admin%252fx")),
            ("/x?y=%2f//", Open("/x?y=%2f//")),
        ])
        .await;
    }
}

isolated_test! {
    async fn paths_stay_as_they_are_where_that_is_wanted() {
        check(Normalization::None, &[
            ("/a/./b/../c%2Dd", Open("/a/./b/../c%2Dd")),
            ("/public/../admin/x", Open("/public/../admin/x")),
            ("/%61dmin/x", Open("/%61dmin/x")),
            ("//admin/x", Open("//admin/x")),
            ("/admin/../x", Guarded("/admin/../x")),
            ("/admin/x", Guarded("/admin/x")),
        ])
        .await;
    }
}

isolated_test! {
    async fn policies_of_a_waypoint_see_the_path_that_goes_upstream() {
        let app = Recorder::start(APP.target).await;
        let port = l7::Port {
            authorizations: vec![resources::deny(&["/admin", "/admin/*"])],
            ..resources::port(APP, "10.1.1.5", 9080, l7::Protocol::Http)
        };
        let proxy = resources::proxy(l7::proxy::Role::Waypoint, l7::Settings::default());
        let _world = World::waypoint(proxy, &[port], &[APP]).await;
        let tunnels = Tunnels::new().await;
        let ask = async |target: &str| {
            let request = format!("GET {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
            tunnels.ask("10.1.1.5:9080", &request).await.status
        };
        for guarded in [
            "/admin",
            "/admin/x",
            "/%61dmin/x",
            "/a/../admin",
            "/a/%2e%2e/admin",
            "/a\\..\\admin",
            "http://y/admin",
            "http://y/a/..//../admin",
        ] {
            assert_eq!(ask(guarded).await, Some(403), "{guarded}");
        }
        assert!(app.heads().is_empty(), "{:?}", app.heads());
        for (open, as_path) in [("/a/./b/../c%2Dd", "/a/c-d"), ("/admin/../x", "/x"), ("/admin%2Fx", "/admin%2Fx")] {
            assert_eq!(ask(open).await, Some(200), "{open}");
            assert_eq!(app.targets().last().map(String::as_str), Some(as_path));
        }
    }
}
