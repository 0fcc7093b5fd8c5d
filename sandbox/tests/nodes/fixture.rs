//! A sandbox of its own for each test, taken down with it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::conditions::is_pod_running;
use kube::runtime::wait::await_condition;
use kube::{Client, Config};
use sandbox::daemon::state::Process;
use serde_json::{Value, json};

/// Longest wait for anything that normally takes well under a second.
const DEADLINE: Duration = Duration::from_secs(20);

/// What `up` may take.
const UP_DEADLINE: Duration = Duration::from_secs(3);

/// How often output that cannot be waited for is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// A running sandbox.
pub(crate) struct Sandbox {
    /// Directory of the test; the state directory is below.
    scratch: tempfile::TempDir,
    dir: PathBuf,
}

impl Sandbox {
    /// Brings up a sandbox; `name` shows in its path.
    pub(crate) fn up(name: &str, arguments: &[&str]) -> Self {
        let scratch = tempfile::Builder::new().prefix(&format!("sandbox-{name}-")).tempdir().unwrap();
        let dir = scratch.path().canonicalize().unwrap().join("state");
        let sandbox = Self { scratch, dir };
        sandbox.start(arguments);
        sandbox
    }

    /// Runs `up` and checks what it promises.
    pub(crate) fn start(&self, arguments: &[&str]) {
        let started = Instant::now();
        let output = self.run(&[&["up"], arguments].concat());
        let took = started.elapsed();
        assert!(output.status.success(), "up: {}", String::from_utf8_lossy(&output.stderr));
        assert!(took <= UP_DEADLINE, "up took {took:?}, may take {UP_DEADLINE:?}");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(said.contains("KUBECONFIG="), "{said}");
    }

    /// The state directory.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// A directory for the test's own files.
    pub(crate) fn scratch(&self) -> &Path {
        self.scratch.path()
    }

    /// Runs a command line against this sandbox.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_meltemi-sandbox"))
            .arg("--dir")
            .arg(&self.dir)
            .args(arguments)
            .output()
            .unwrap()
    }

    /// Creates a pod and waits until it runs.
    pub(crate) fn create_pod(&self, pod: &Value) {
        let pod: Pod = serde_json::from_value(pod.clone()).unwrap();
        let name = pod.metadata.name.clone().unwrap();
        self.with_pods(async |pods| {
            pods.create(&PostParams::default(), &pod).await.unwrap();
            let running = await_condition(pods.clone(), &name, is_pod_running());
            if tokio::time::timeout(DEADLINE, running).await.is_err() {
                let found = pods.get(&name).await.unwrap();
                panic!("pod {name} does not run: {:#}", serde_json::to_value(found.status).unwrap());
            }
        });
    }

    /// A pod's addresses.
    pub(crate) fn pod_ips(&self, name: &str) -> Vec<String> {
        self.with_pods(async |pods| {
            let status = pods.get(name).await.unwrap().status.unwrap();
            status.pod_ips.unwrap().into_iter().map(|ip| ip.ip).collect()
        })
    }

    /// Waits until a pod's phase is `phase`.
    pub(crate) fn wait_for_phase(&self, name: &str, phase: &str) {
        self.with_pods(async |pods| {
            let reached = |pod: Option<&Pod>| {
                pod.and_then(|pod| pod.status.as_ref()?.phase.as_deref()).is_some_and(|found| found == phase)
            };
            let waited = tokio::time::timeout(DEADLINE, await_condition(pods, name, reached)).await;
            assert!(waited.is_ok(), "pod {name} did not become {phase}");
        });
    }

    /// Waits until the log of a pod has a line.
    pub(crate) fn wait_for_log(&self, name: &str, line: &str) {
        let until = Instant::now() + DEADLINE;
        loop {
            let output = self.run(&["logs", name]);
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            if text.lines().any(|found| found == line) {
                return;
            }
            assert!(Instant::now() < until, "no line {line:?} in the log of {name}: {output:?}");
            std::thread::sleep(LOOK_INTERVAL);
        }
    }

    /// Every process of the sandbox: those in the process id namespace of its first process.
    pub(crate) fn processes(&self) -> Vec<Process> {
        let first = Process::recorded(&self.dir).unwrap().pid;
        let namespace = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
        let wanted = namespace(first).expect("the first process may be looked at");
        let entries = fs::read_dir("/proc").unwrap();
        let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
        pids.filter(|&pid| namespace(pid).as_ref() == Some(&wanted)).filter_map(Process::of).collect()
    }

    /// Kills the daemon (the child of the first process) without warning.
    pub(crate) fn kill_daemon(&self) {
        let first = Process::recorded(&self.dir).unwrap().pid;
        let children = fs::read_to_string(format!("/proc/{first}/task/{first}/children")).unwrap();
        let daemon = children.split_whitespace().next().unwrap().parse().unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(daemon), nix::sys::signal::Signal::SIGKILL).unwrap();
    }

    fn with_pods<T>(&self, work: impl AsyncFnOnce(Api<Pod>) -> T) -> T {
        // Another test of this process may have been first.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let file = Kubeconfig::read_from(self.dir.join("kubeconfig")).unwrap();
            let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.unwrap();
            work(Api::default_namespaced(Client::try_from(config).unwrap())).await
        })
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Ok(log) = fs::read_to_string(self.dir.join("daemon.log"))
        {
            eprintln!("--- daemon.log\n{log}");
        }
        self.run(&["down"]);
    }
}

/// A pod that does nothing on a node.
pub(crate) fn sleeper(name: &str, node: &str) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"nodeName": node, "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "app", "image": "local/sleep"}]},
    })
}

/// Whether a process has ended, waiting for it.
pub(crate) fn gone_within(process: Process, patience: Duration) -> bool {
    let until = Instant::now() + patience;
    while process.alive() && Instant::now() < until {
        std::thread::sleep(LOOK_INTERVAL);
    }
    !process.alive()
}
