//! Runs a test with the privileges it needs: as it is, or once more inside a user namespace.

use std::process::Command;
use std::time::Duration;

use mesh_sys::netns::NetNs;

/// Runs `test` on a runtime of its own. `name` is the path of the test as libtest knows it.
///
/// # Panics
/// When the test fails or there is no way to make network namespaces.
pub fn isolated<F: Future<Output = ()>>(name: &str, test: F) {
    if NetNs::create().is_ok() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            tokio::time::timeout(TEST_LIMIT, test).await.expect("the test hangs");
        });
        runtime.shutdown_timeout(Duration::from_secs(1));
        return;
    }
    assert!(
        std::env::var_os(MARK).is_none(),
        "this test needs network namespaces; run it as root or allow user namespaces"
    );
    let status = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net", "--mount"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(MARK, "1")
        .status()
        .expect("unshare(1) is part of every Linux distribution");
    assert!(status.success(), "{name} failed in its user namespace");
}

/// Declares tests that run [`isolated`].
#[macro_export]
macro_rules! isolated_test {
    ($(#[$meta:meta])* async fn $name:ident() $body:block) => {
        $(#[$meta])*
        #[test]
        fn $name() {
            // libtest leaves the name of the crate out.
            let module = module_path!().split_once("::").map_or("", |(_, rest)| rest);
            $crate::isolate::isolated(&format!("{module}::{}", stringify!($name)), async $body);
        }
    };
}

const MARK: &str = "CONFORMANCE_ISOLATED";
const TEST_LIMIT: Duration = Duration::from_secs(90);
