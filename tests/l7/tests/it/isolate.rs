//! Runs a test once more in a network namespace of its own, so that it may listen wherever it likes.

use std::process::Command;
use std::time::Duration;

use tokio::task::LocalSet;

/// Runs `test`. `name` is the path of the test as libtest knows it.
pub(crate) fn isolated<F: Future<Output = ()>>(name: &str, settings: &[(&str, &str)], test: F) {
    if std::env::var_os(MARK).is_some() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        // Tunnels stay on the thread where they began.
        let limited = async { tokio::time::timeout(TEST_LIMIT, test).await.expect("the test hangs") };
        LocalSet::new().block_on(&runtime, limited);
        runtime.shutdown_background();
        return;
    }
    let status = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net", "sh", "-c", "ip link set lo up && exec \"$@\"", "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(MARK, "1")
        .envs(settings.iter().copied())
        .status()
        .expect("unshare(1) is part of every Linux distribution");
    assert!(status.success(), "{name} failed; it needs the right to make user and network namespaces");
}

const MARK: &str = "MELTEMI_TEST_ISOLATED";
const TEST_LIMIT: Duration = Duration::from_secs(90);

/// Declares a test that runs [`isolated`]; what follows `with` is evaluated before, where there is a network.
macro_rules! isolated_test {
    (with $settings:expr; async fn $name:ident() $body:block) => {
        #[test]
        fn $name() {
            // libtest leaves the name of the crate out.
            let module = module_path!().split_once("::").map_or("", |(_, rest)| rest);
            crate::isolate::isolated(&format!("{module}::{}", stringify!($name)), &$settings, async $body);
        }
    };
    (async fn $name:ident() $body:block) => {
        crate::isolate::isolated_test! { with []; async fn $name() $body }
    };
}
pub(crate) use isolated_test;
