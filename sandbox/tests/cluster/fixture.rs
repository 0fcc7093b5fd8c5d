//! A sandbox of its own for each test, driven through its API.

use std::fmt::Debug;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::{Api, ListParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::wait::await_condition;
use kube::{Client, Config, Resource};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sandbox::daemon::state::Process;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Longest wait for anything; normally everything takes well under two seconds.
const DEADLINE: Duration = Duration::from_secs(30);

/// How often something that cannot be watched is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// A running sandbox with two nodes.
pub(crate) struct Sandbox {
    _scratch: tempfile::TempDir,
    pub(crate) dir: PathBuf,
    client: Option<Client>,
}

impl Sandbox {
    /// Brings up a sandbox.
    pub(crate) async fn up(name: &str) -> Self {
        // Another test of this process may have been first.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let scratch = tempfile::Builder::new().prefix(&format!("sandbox-{name}-")).tempdir().unwrap();
        let dir = scratch.path().canonicalize().unwrap().join("state");
        let mut sandbox = Self { _scratch: scratch, dir, client: None };
        sandbox.up_again().await;
        sandbox
    }

    /// Brings the sandbox up in its directory; what the command line said.
    pub(crate) async fn up_again(&mut self) -> String {
        let said = self.command(&["up"]).unwrap();
        let file = Kubeconfig::read_from(self.dir.join("kubeconfig")).unwrap();
        let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.unwrap();
        self.client = Some(Client::try_from(config).unwrap());
        said
    }

    /// Kills the sandbox and everything in it, and waits until the kernel has done so.
    pub(crate) fn kill(&self) {
        let recorded = Process::recorded(&self.dir).unwrap();
        kill(Pid::from_raw(recorded.pid), Signal::SIGKILL).unwrap();
        let end = Instant::now() + DEADLINE;
        while recorded.alive() {
            assert!(Instant::now() < end, "the sandbox outlives SIGKILL");
            std::thread::sleep(LOOK_INTERVAL);
        }
    }

    /// Runs a command line against this sandbox; what it printed, or its complaint.
    pub(crate) fn command(&self, arguments: &[&str]) -> Result<String, String> {
        let output = Command::new(env!("CARGO_BIN_EXE_meltemi-sandbox"))
            .arg("--dir")
            .arg(&self.dir)
            .args(arguments)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            Ok(text)
        } else {
            Err(format!("{text}{}", String::from_utf8_lossy(&output.stderr)))
        }
    }

    /// The objects of a kind in namespace `default`.
    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::default_namespaced(self.client.clone().unwrap())
    }

    /// Creates an object.
    pub(crate) async fn create<K>(&self, object: Value) -> K
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned + Serialize,
    {
        let object: K = serde_json::from_value(object).unwrap();
        self.api().create(&PostParams::default(), &object).await.unwrap()
    }

    /// Waits until an object is as `test` says, and returns it.
    pub(crate) async fn wait<K>(&self, name: &str, what: &str, test: impl Fn(&K) -> bool) -> K
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + Debug
            + DeserializeOwned
            + Send
            + 'static,
    {
        let condition = |object: Option<&K>| object.is_some_and(&test);
        match tokio::time::timeout(DEADLINE, await_condition(self.api::<K>(), name, condition)).await {
            Ok(found) => found.unwrap().unwrap(),
            Err(_) => panic!("{} {name} is not {what}: {:#?}", K::kind(&()), self.api::<K>().get(name).await),
        }
    }

    /// Waits until an object is gone.
    pub(crate) async fn wait_gone<K>(&self, name: &str)
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + Debug
            + DeserializeOwned
            + Send
            + 'static,
    {
        let gone = await_condition(self.api::<K>(), name, |object: Option<&K>| object.is_none());
        assert!(tokio::time::timeout(DEADLINE, gone).await.is_ok(), "{name} is still there");
    }

    /// Waits until a pod is ready.
    pub(crate) async fn ready(&self, name: &str) -> Pod {
        self.wait(name, "ready", is_ready).await
    }

    /// The pods with a label, oldest first.
    pub(crate) async fn pods(&self, selector: &str) -> Vec<Pod> {
        let mut pods = self.api::<Pod>().list(&ListParams::default().labels(selector)).await.unwrap().items;
        pods.sort_by_key(|pod| pod.metadata.creation_timestamp.clone().map(|time| time.0));
        pods
    }

    /// Runs a program in a pod.
    pub(crate) fn exec(&self, pod: &str, argv: &[&str]) -> Result<String, String> {
        self.command(&[&["exec", pod, "--"], argv].concat())
    }

    /// What a pod hears when it calls; `Err` when it cannot connect.
    pub(crate) fn call(&self, pod: &str, host: &str, port: u16) -> Result<String, String> {
        self.exec(pod, &["perl", "-e", CLIENT, host, &port.to_string()])
    }

    /// Looks until `look` finds something.
    pub(crate) async fn until<T>(&self, what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
        let end = Instant::now() + DEADLINE;
        loop {
            if let Some(found) = look().await {
                return found;
            }
            assert!(Instant::now() < end, "{what}: not within {DEADLINE:?}");
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    /// Waits for an event about an object; its message.
    pub(crate) async fn event(&self, about: &str, reason: &str) -> String {
        let fields = format!("involvedObject.name={about},reason={reason}");
        self.until(&format!("event {reason} about {about}"), async || {
            let events = self.api::<Event>().list(&ListParams::default().fields(&fields)).await.unwrap();
            events.items.into_iter().next().and_then(|event| event.message)
        })
        .await
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Ok(log) = std::fs::read_to_string(self.dir.join("daemon.log"))
        {
            eprintln!("--- daemon.log\n{log}");
        }
        let _ = self.command(&["down"]);
    }
}

/// Condition `Ready` of a pod.
pub(crate) fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// An HTTP server on port 8080, both families: says which pod it is.
pub(crate) const SERVER: &str = r#"
    use IO::Socket::IP;
    $SIG{TERM} = sub { exit 0 };
    my $server = IO::Socket::IP->new(LocalHost => "::", LocalPort => 8080, Listen => 64, ReuseAddr => 1,
        V6Only => 0) or die "listen: $@";
    while (1) {
        my $peer = $server->accept or next;
        while (my $line = <$peer>) { last if $line =~ /^\r?\n$/ }
        my $body = $ENV{HOSTNAME};
        print $peer "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: ", length($body), "\r\n\r\n$body";
        close $peer;
    }
"#;

/// Prints the body of the answer of a server.
const CLIENT: &str = r#"
    use IO::Socket::IP;
    my $peer = IO::Socket::IP->new(PeerHost => $ARGV[0], PeerPort => $ARGV[1], Timeout => 5) or die "$@\n";
    print $peer "GET / HTTP/1.1\r\nhost: x\r\n\r\n";
    local $/;
    my ($head, $body) = split /\r\n\r\n/, <$peer>, 2;
    print $body;
"#;
