//! A sandbox that lives as long as one test or one demo.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::pcap::Capture;
use crate::run::{Ended, bin_dir, kubectl, run};
use crate::wait::eventually;

/// A running sandbox in a folder of its own. Taken down when dropped.
#[derive(Debug)]
pub struct Lab {
    dir: PathBuf,
    bin: PathBuf,
    /// Removes the folder; absent when the sandbox is to stay.
    _temp: Option<tempfile::TempDir>,
}

impl Lab {
    /// A sandbox with two nodes in a temporary folder.
    ///
    /// # Errors
    /// What `meltemi sandbox up` said.
    pub fn up() -> Result<Self> {
        let temp = tempfile::Builder::new().prefix("meltemi-test-").tempdir()?;
        let mut lab = Self::up_in(temp.path())?;
        lab._temp = Some(temp);
        Ok(lab)
    }

    /// A sandbox with two nodes in `dir`.
    ///
    /// # Errors
    /// What `meltemi sandbox up` said.
    pub fn up_in(dir: &Path) -> Result<Self> {
        let lab = Self { dir: dir.to_owned(), bin: bin_dir()?, _temp: None };
        lab.sandbox(&["up", "--nodes", "2"])?.ok().context("sandbox up")?;
        Ok(lab)
    }

    /// A sandbox with the mesh installed.
    ///
    /// # Errors
    /// What the commands said, with the logs of the components.
    pub fn with_mesh() -> Result<Self> {
        let lab = Self::up()?;
        lab.install()?;
        Ok(lab)
    }

    /// Installs the mesh.
    ///
    /// # Errors
    /// What `meltemi install` said, with the logs of the components.
    pub fn install(&self) -> Result<()> {
        let ended = self.meltemi(&["install", "--skip-confirmation", "--readiness-timeout", "30"])?;
        ended.ok().map(drop).map_err(|error| error.context(self.diagnosis()))
    }

    /// Folder of the sandbox's files.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Folder of the built programs.
    #[must_use]
    pub fn bin(&self) -> &Path {
        &self.bin
    }

    /// The kubeconfig of the sandbox.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.join("kubeconfig")
    }

    /// Runs `meltemi ARGS` against the sandbox.
    ///
    /// # Errors
    /// When it does not end.
    pub fn meltemi(&self, args: &[&str]) -> Result<Ended> {
        let mut command = Command::new(self.bin.join("meltemi"));
        run(command.args(args).env("KUBECONFIG", self.kubeconfig()), "", COMMAND)
    }

    /// Runs `meltemi sandbox ARGS --dir …`; the folder goes before any `--`.
    ///
    /// # Errors
    /// When it does not end.
    pub fn sandbox(&self, args: &[&str]) -> Result<Ended> {
        let (verb, rest) = args.split_first().context("a verb is needed")?;
        let mut command = Command::new(self.bin.join("meltemi"));
        command.args(["sandbox", verb, "--dir"]).arg(&self.dir).args(rest);
        run(&mut command, "", COMMAND)
    }

    /// Runs `kubectl ARGS`.
    ///
    /// # Errors
    /// When there is no kubectl, or it does not end.
    pub fn kubectl_raw(&self, args: &[&str], input: &str) -> Result<Ended> {
        let kubectl =
            kubectl().context("no kubectl on the PATH and $KUBECTL is not set: run the tests with 'make test'")?;
        run(Command::new(kubectl).args(args).env("KUBECONFIG", self.kubeconfig()), input, COMMAND)
    }

    /// Runs `kubectl ARGS`, which must succeed.
    ///
    /// # Errors
    /// What it said.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        self.kubectl_raw(args, "")?.ok().with_context(|| format!("kubectl {}", args.join(" ")))
    }

    /// Applies YAML.
    ///
    /// # Errors
    /// What the API server said.
    pub fn apply(&self, yaml: &str) -> Result<String> {
        self.kubectl_raw(&["apply", "-f", "-"], yaml)?.ok().context("kubectl apply")
    }

    /// Waits until a Deployment is rolled out.
    ///
    /// # Errors
    /// What kubectl said, with the pods' state.
    pub fn rolled_out(&self, namespace: &str, deployment: &str) -> Result<()> {
        let target = format!("deployment/{deployment}");
        self.kubectl(&["rollout", "status", "-n", namespace, &target, "--timeout=30s"])
            .map(drop)
            .map_err(|error| error.context(self.diagnosis()))
    }

    /// Runs a program in a pod (`deploy/NAME` or a pod's name).
    ///
    /// # Errors
    /// When kubectl cannot be run.
    pub fn exec(&self, namespace: &str, target: &str, argv: &[&str]) -> Result<Ended> {
        let mut args = vec!["exec", "-n", namespace, target, "--"];
        args.extend_from_slice(argv);
        self.kubectl_raw(&args, "")
    }

    /// Names of the pods with a label, oldest first.
    ///
    /// # Errors
    /// What kubectl said.
    pub fn pods(&self, namespace: &str, selector: &str) -> Result<Vec<String>> {
        let path = "jsonpath={.items[*].metadata.name}";
        let args =
            ["get", "pods", "-n", namespace, "-l", selector, "--sort-by=.metadata.creationTimestamp", "-o", path];
        Ok(self.kubectl(&args)?.split_whitespace().map(str::to_owned).collect())
    }

    /// One field of one object.
    ///
    /// # Errors
    /// What kubectl said.
    pub fn field(&self, namespace: &str, object: &str, jsonpath: &str) -> Result<String> {
        let path = format!("jsonpath={{{jsonpath}}}");
        self.kubectl(&["get", "-n", namespace, object, "-o", &path])
    }

    /// Waits until all running pods of a namespace are enrolled, or none is.
    ///
    /// # Errors
    /// Names the annotation states after 10 s.
    pub fn enrolled(&self, namespace: &str, wanted: bool) -> Result<()> {
        let path = r"jsonpath={range .items[*]}{.metadata.annotations.ambient\.istio\.io/redirection}{','}{end}";
        eventually("enrolment follows the label", Duration::from_secs(10), || {
            let states = self.kubectl(&["get", "pods", "-n", namespace, "-o", path])?;
            let states: Vec<&str> = states.split_terminator(',').collect();
            let want = if wanted { "enabled" } else { "" };
            ensure!(!states.is_empty() && states.iter().all(|state| *state == want), "annotations are {states:?}");
            Ok(())
        })
        .map_err(|error| error.context(self.diagnosis()))
    }

    /// The node proxy pod of a node.
    ///
    /// # Errors
    /// When there is none.
    pub fn ztunnel(&self, node: &str) -> Result<String> {
        self.system_pod("app=ztunnel", node)
    }

    /// The node agent pod of a node.
    ///
    /// # Errors
    /// When there is none.
    pub fn agent(&self, node: &str) -> Result<String> {
        self.system_pod("k8s-app=istio-cni-node", node)
    }

    fn system_pod(&self, selector: &str, node: &str) -> Result<String> {
        let field = format!("--field-selector=spec.nodeName={node}");
        let path = "jsonpath={.items[0].metadata.name}";
        self.kubectl(&["get", "pods", "-n", "istio-system", "-l", selector, &field, "-o", path])
    }

    /// Kills the main process of a system pod's container with SIGKILL.
    ///
    /// # Errors
    /// What the sandbox said.
    pub fn kill(&self, pod: &str) -> Result<()> {
        self.sandbox(&["kill", pod, "-n", "istio-system", "--signal", "KILL"])?.ok().map(drop)
    }

    /// Starts capturing every packet on a node's link.
    ///
    /// # Errors
    /// What the sandbox said.
    pub fn capture(&self, node: &str) -> Result<Capture> {
        let file = self.dir.join(format!("{node}-{}.pcap", self.captures()));
        let text = file.display().to_string();
        self.sandbox(&["capture", "start", node, "--file", &text])?.ok().context("capture start")?;
        Ok(Capture::new(node, file))
    }

    /// Stops a capture and reads it.
    ///
    /// # Errors
    /// What the sandbox said, or when the file is not a capture.
    pub fn captured(&self, capture: Capture) -> Result<crate::pcap::Packets> {
        self.sandbox(&["capture", "stop", capture.node()])?.ok().context("capture stop")?;
        capture.read()
    }

    fn captures(&self) -> usize {
        let files = std::fs::read_dir(&self.dir).map(|dir| dir.flatten().collect::<Vec<_>>()).unwrap_or_default();
        files.iter().filter(|file| file.path().extension().is_some_and(|end| end == "pcap")).count()
    }

    /// What a person would look at first when something does not start.
    #[must_use]
    pub fn diagnosis(&self) -> String {
        let mut text = String::new();
        for args in [
            &["get", "pods", "-A", "-o", "wide"][..],
            &["get", "events", "-A", "--field-selector=type=Warning"],
            &["logs", "-n", "istio-system", "-l", "app=istiod", "--tail=15"],
            &["logs", "-n", "istio-system", "-l", "app=ztunnel", "--tail=15", "--prefix"],
            &["logs", "-n", "istio-system", "-l", "k8s-app=istio-cni-node", "--tail=15", "--prefix"],
        ] {
            let said = self.kubectl_raw(args, "").map_or_else(|error| format!("{error:#}"), |e| e.stdout + &e.stderr);
            text.push_str(&format!("$ kubectl {}\n{said}\n", args.join(" ")));
        }
        text
    }

    /// Leaves the sandbox running when this value goes.
    pub fn keep(mut self) {
        if let Some(temp) = self._temp.take() {
            drop(temp.keep());
        }
        std::mem::forget(self);
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // A test that failed has said why already.
        let _ = self.sandbox(&["down"]);
    }
}

/// No single command of a journey takes longer.
const COMMAND: Duration = Duration::from_secs(90);
