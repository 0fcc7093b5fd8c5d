//! Runs a test once more in a network namespace of its own, so that it may listen wherever it likes.

use std::process::Command;

/// Runs `test` on one thread, as a worker does. `name` is the path of the test as libtest knows it.
pub(crate) fn isolated<F: Future<Output = ()>>(name: &str, test: F) {
    if std::env::var_os(MARK).is_some() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let local = tokio::task::LocalSet::new();
        local.block_on(&runtime, async {
            tokio::time::timeout(std::time::Duration::from_secs(60), test).await.expect("the test hangs");
        });
        return;
    }
    let status = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net", "sh", "-c", "ip link set lo up && exec \"$@\"", "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(MARK, "1")
        .status()
        .expect("unshare(1) is part of every Linux distribution");
    assert!(status.success(), "{name} failed; it needs the right to make user and network namespaces");
}

const MARK: &str = "MELTEMI_TEST_ISOLATED";

/// Declares a test that runs [`isolated`].
macro_rules! isolated_test {
    ($(#[$meta:meta])* async fn $name:ident() $body:block) => {
        $(#[$meta])*
        #[test]
        fn $name() {
            // libtest leaves the name of the crate out.
            let module = module_path!().split_once("::").map_or("", |(_, rest)| rest);
            crate::isolate::isolated(&format!("{module}::{}", stringify!($name)), async $body);
        }
    };
}
pub(crate) use isolated_test;
