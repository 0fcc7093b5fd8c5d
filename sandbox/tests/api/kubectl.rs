//! kubectl against the TLS listener: `$KUBECTL`, or the one on the path.

use std::{
    path::PathBuf,
    process::{Output, Stdio},
};

use serde_json::Value;
use tokio::{io::AsyncWriteExt, process::Command};

use crate::server::{Listening, Server, within};

const DEPLOYMENT: &str = r"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers: [{name: web, image: 'echo:1', ports: [{containerPort: 80}]}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{name: http, port: 80}]}
";

const DEFINITION: &str = r"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: widgets, kind: Widget, shortNames: [wd]}
  versions:
  - name: v1
    served: true
    storage: true
    additionalPrinterColumns: [{name: Size, type: integer, jsonPath: .spec.size}]
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec: {type: object, properties: {size: {type: integer, description: How big it is.}}}
";

/// kubectl with a server of its own.
struct Kubectl {
    program: PathBuf,
    listening: Listening,
    server: Server,
}

impl Kubectl {
    fn start() -> Self {
        let program = std::env::var_os("KUBECTL").map_or_else(|| PathBuf::from("kubectl"), PathBuf::from);
        let server = Server::start();
        let listening = server.listen();
        Self { program, listening, server }
    }

    async fn output(&self, arguments: &[&str], input: &str) -> Output {
        let mut command = Command::new(&self.program);
        command
            .args(arguments)
            .env("KUBECONFIG", &self.listening.kubeconfig)
            .env("HOME", self.listening.directory.path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap_or_else(|error| {
            panic!("these tests need kubectl 1.29 or newer; starting {} failed: {error}", self.program.display())
        });
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input.as_bytes()).await.unwrap();
        drop(stdin);
        within(child.wait_with_output()).await.unwrap()
    }

    /// Runs a command that must succeed, and returns what it prints.
    async fn run(&self, arguments: &[&str]) -> String {
        self.feed(arguments, "").await
    }

    async fn feed(&self, arguments: &[&str], input: &str) -> String {
        let output = self.output(arguments, input).await;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "kubectl {arguments:?}: {}{}", text(&output.stdout), text(&output.stderr));
        text(&output.stdout)
    }

    /// Runs a command that must fail, and returns its complaint.
    async fn fail(&self, arguments: &[&str], input: &str) -> String {
        let output = self.output(arguments, input).await;
        assert!(!output.status.success(), "kubectl {arguments:?} succeeded");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn apply_get_label_annotate_patch_delete() {
    let kubectl = Kubectl::start();
    let applied = kubectl.feed(&["apply", "-f", "-"], DEPLOYMENT).await;
    assert_eq!(applied, "deployment.apps/web created\nservice/web created\n");
    let again = kubectl.feed(&["apply", "-f", "-"], DEPLOYMENT).await;
    assert_eq!(again, "deployment.apps/web unchanged\nservice/web unchanged\n");
    let changed = kubectl.feed(&["apply", "-f", "-"], &DEPLOYMENT.replace("replicas: 2", "replicas: 3")).await;
    assert_eq!(changed, "deployment.apps/web configured\nservice/web unchanged\n");
    let wide = kubectl.run(&["get", "deployments", "-o", "wide"]).await;
    assert!(wide.contains("CONTAINERS") && wide.contains("0/3") && wide.contains("echo:1"), "{wide}");
    let yaml = kubectl.run(&["get", "service", "web", "-o", "yaml"]).await;
    assert!(yaml.contains("clusterIP: 10.96."), "{yaml}");
    let replicas = kubectl.run(&["get", "deploy/web", "-o", "jsonpath={.spec.replicas}"]).await;
    assert_eq!(replicas, "3");
    kubectl.run(&["label", "deployment", "web", "tier=front"]).await;
    kubectl.run(&["annotate", "deployment", "web", "note=hi"]).await;
    assert_eq!(kubectl.run(&["get", "deploy", "-l", "tier=front", "-o", "name"]).await, "deployment.apps/web\n");
    let patch = r#"{"spec":{"template":{"spec":{"containers":[{"name":"web","image":"echo:2"}]}}}}"#;
    kubectl.run(&["patch", "deployment", "web", "-p", patch]).await;
    kubectl.run(&["patch", "deployment", "web", "--type=merge", "-p", r#"{"spec":{"replicas":4}}"#]).await;
    let patch = r#"[{"op":"replace","path":"/spec/replicas","value":5}]"#;
    kubectl.run(&["patch", "deployment", "web", "--type=json", "-p", patch]).await;
    kubectl.run(&["scale", "deployment", "web", "--replicas=6"]).await;
    let path = "jsonpath={.spec.replicas} {.spec.template.spec.containers[0].image} {.metadata.annotations.note}";
    assert_eq!(kubectl.run(&["get", "deploy", "web", "-o", path]).await, "6 echo:2 hi");
    assert_eq!(kubectl.run(&["delete", "deployment", "web"]).await.trim(), "deployment.apps \"web\" deleted");
    let gone = kubectl.fail(&["get", "deployment", "web"], "").await;
    assert!(gone.contains("deployments.apps \"web\" not found"), "{gone}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_side_apply_reports_conflicts() {
    let kubectl = Kubectl::start();
    let apply = ["apply", "--server-side", "-f", "-"];
    let applied = kubectl.feed(&apply, DEPLOYMENT).await;
    assert!(applied.contains("deployment.apps/web serverside-applied"), "{applied}");
    kubectl.run(&["patch", "deployment", "web", "-p", r#"{"spec":{"replicas":7}}"#]).await;
    let conflict = kubectl.fail(&apply, DEPLOYMENT).await;
    assert!(conflict.contains("Apply failed with 1 conflict") && conflict.contains(".spec.replicas"), "{conflict}");
    kubectl.feed(&["apply", "--server-side", "--force-conflicts", "-f", "-"], DEPLOYMENT).await;
    assert_eq!(kubectl.run(&["get", "deploy/web", "-o", "jsonpath={.spec.replicas}"]).await, "2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn creating_without_a_file() {
    let kubectl = Kubectl::start();
    kubectl.run(&["create", "namespace", "demo"]).await;
    let inside: &[&[&str]] = &[
        &["create", "deployment", "web", "--image=echo", "--port=80"],
        &["expose", "deployment", "web", "--port=80"],
        &["create", "configmap", "settings", "--from-literal=a=b"],
        &["create", "secret", "generic", "secret", "--from-literal=a=b"],
        &["create", "serviceaccount", "web"],
        &["create", "role", "reader", "--verb=get", "--resource=pods"],
        &["create", "rolebinding", "reader", "--role=reader", "--serviceaccount=demo:web"],
        &["create", "job", "once", "--image=echo", "--", "true"],
        &["run", "pod", "--image=echo"],
    ];
    for arguments in inside {
        kubectl.run(&[*arguments, &["-n", "demo"]].concat()).await;
    }
    let image =
        "jsonpath={.spec.template.spec.containers[0].image} {.spec.template.spec.containers[0].ports[0].containerPort}";
    assert_eq!(kubectl.run(&["get", "deploy", "web", "-n", "demo", "-o", image]).await, "echo 80");
    assert_eq!(kubectl.run(&["get", "cm", "settings", "-n", "demo", "-o", "jsonpath={.data.a}"]).await, "b");
    let rules = kubectl.run(&["get", "role", "reader", "-n", "demo", "-o", "jsonpath={.rules}"]).await;
    assert_eq!(rules, r#"[{"apiGroups":[""],"resources":["pods"],"verbs":["get"]}]"#);
    let token = kubectl.run(&["create", "token", "web", "-n", "demo"]).await;
    assert_eq!(token.trim().split('.').count(), 3);
    let whoami = kubectl.run(&["auth", "whoami", "-o", "jsonpath={.status.userInfo.username}"]).await;
    assert_eq!(whoami, "kubernetes-admin");
    assert_eq!(kubectl.run(&["auth", "can-i", "create", "pods"]).await, "yes\n");
    kubectl.run(&["delete", "namespace", "demo"]).await;
    assert_eq!(kubectl.server.call("GET", "/api/v1/namespaces/demo", Value::Null).await.0, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn discovery_explain_and_custom_resources() {
    let kubectl = Kubectl::start();
    let resources = kubectl.run(&["api-resources", "--no-headers"]).await;
    for wanted in ["pods", "deployments", "endpointslices", "customresourcedefinitions", "tokenreviews"] {
        assert!(resources.lines().any(|line| line.starts_with(wanted)), "{wanted} in {resources}");
    }
    assert!(kubectl.run(&["explain", "deployment.spec.replicas"]).await.contains("<integer>"));
    kubectl.feed(&["apply", "-f", "-"], DEFINITION).await;
    let definition = "crd/widgets.example.com";
    kubectl.run(&["wait", "--for=condition=established", definition, "--timeout=10s"]).await;
    let widget = "apiVersion: example.com/v1\nkind: Widget\nmetadata: {name: w}\nspec: {size: 3}\n";
    kubectl.feed(&["apply", "-f", "-"], widget).await;
    let table = kubectl.run(&["get", "wd"]).await;
    assert_eq!(table.split_whitespace().collect::<Vec<_>>(), ["NAME", "SIZE", "w", "3"]);
    assert!(kubectl.run(&["explain", "widget.spec.size"]).await.contains("How big it is."));
    kubectl.run(&["delete", definition]).await;
    let gone = kubectl.fail(&["get", "wd"], "").await;
    assert!(gone.contains("doesn't have a resource type") || gone.contains("could not find"), "{gone}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_input_is_refused_with_the_field() {
    let kubectl = Kubectl::start();
    let pod = "apiVersion: v1\nkind: Pod\nspec: {containers: [{name: a, image: b}]}\nmetadata: ";
    let map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: ";
    let cases = [
        (format!("{}{{name: a}}", pod.replace("image", "imagee")), "spec.containers[0].imagee"),
        (format!("{pod}{{name: a, labels: {{k: 'no good'}}}}"), "no good"),
        (format!("{}{{name: a}}", pod.replace("Pod", "Gizmo")), "Gizmo"),
        (format!("{map}{{a: 3}}"), "data"),
        (format!("{map}[broken"), "error"),
    ];
    for (object, text) in cases {
        let error = kubectl.fail(&["apply", "-f", "-"], &object).await;
        assert!(error.contains(text), "{text} in {error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_exec_and_waiting() {
    let kubectl = Kubectl::start();
    let pods = "/api/v1/namespaces/default/pods";
    kubectl.server.create(pods, crate::server::bound_pod("web")).await;
    let status = serde_json::json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}],
        "containerStatuses": [{"name": "main", "ready": true, "restartCount": 0, "image": "echo", "imageID": "", "state": {"running": {}}}]}});
    kubectl.server.call("PATCH", &format!("{pods}/web/status"), status).await;
    kubectl.run(&["wait", "--for=condition=Ready", "pod/web", "--timeout=10s"]).await;
    assert_eq!(kubectl.run(&["logs", "web", "--tail=1"]).await, "main line 5\n");
    assert_eq!(kubectl.run(&["exec", "web", "--", "hello", "world"]).await, "hello world");
    assert_eq!(kubectl.feed(&["exec", "-i", "web", "--", "cat"], "piped through").await, "piped through");
    let output = kubectl.output(&["exec", "web", "--", "fail", "7"], "").await;
    assert_eq!(output.status.code(), Some(7), "{output:?}");
    kubectl.run(&["delete", "pod", "web", "--wait=false", "--now"]).await;
    let path = format!("{pods}/web");
    assert_eq!(kubectl.server.get(&path).await["metadata"]["deletionGracePeriodSeconds"], 1);
    let (_, (code, _)) = tokio::join!(
        kubectl.run(&["wait", "--for=delete", "pod/web", "--timeout=20s"]),
        kubectl.server.call("DELETE", &path, serde_json::json!({"gracePeriodSeconds": 0})),
    );
    assert_eq!(code, 200);
}

/// Forwards a port to `target` with kubectl and returns what `rounds` connections answered.
async fn forwarded(kubectl: &Kubectl, target: &str, websockets: &str, rounds: usize) -> Vec<String> {
    use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
    let mut child = Command::new(&kubectl.program)
        .args(["port-forward", target, ":80"])
        .env("KUBECONFIG", &kubectl.listening.kubeconfig)
        .env("HOME", kubectl.listening.directory.path())
        .env("KUBECTL_PORT_FORWARD_WEBSOCKETS", websockets)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let Some(line) = within(lines.next_line()).await.unwrap() else {
        let output = within(child.wait_with_output()).await.unwrap();
        panic!("kubectl port-forward: {}", String::from_utf8_lossy(&output.stderr));
    };
    // "Forwarding from 127.0.0.1:40001 -> 80"
    let address = line.split_whitespace().nth(2).unwrap().to_owned();
    let connections = (0..rounds).map(|round| {
        let address = address.clone();
        async move {
            let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
            stream.write_all(format!("hell{round}").as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer
        }
    });
    within(futures::future::join_all(connections)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ports_of_pods_and_services_are_forwarded_both_ways_kubectl_knows() {
    let kubectl = Kubectl::start();
    let mut pod = crate::server::bound_pod("web");
    pod["metadata"]["labels"] = serde_json::json!({"app": "web"});
    kubectl.server.create("/api/v1/namespaces/default/pods", pod).await;
    let running = serde_json::json!({"status": {"phase": "Running"}});
    kubectl.server.call("PATCH", "/api/v1/namespaces/default/pods/web/status", running).await;
    kubectl
        .feed(
            &["create", "-f", "-"],
            "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {selector: {app: web}, ports: [{port: 80}]}\n",
        )
        .await;
    for (target, websockets) in [("pod/web", "true"), ("svc/web", "true"), ("pod/web", "false")] {
        let answers = forwarded(&kubectl, target, websockets, 3).await;
        assert_eq!(answers, ["HELL0", "HELL1", "HELL2"], "{target} {websockets}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn can_i_answers_for_service_accounts() {
    let kubectl = Kubectl::start();
    kubectl.run(&["create", "serviceaccount", "web"]).await;
    kubectl.run(&["create", "role", "reader", "--verb=get,list", "--resource=pods"]).await;
    kubectl.run(&["create", "rolebinding", "reader", "--role=reader", "--serviceaccount=default:web"]).await;
    let as_web = "--as=system:serviceaccount:default:web";
    assert_eq!(kubectl.run(&["auth", "can-i", "list", "pods", as_web]).await, "yes\n");
    let output = kubectl.output(&["auth", "can-i", "delete", "pods", as_web], "").await;
    assert_eq!((output.status.success(), String::from_utf8_lossy(&output.stdout).trim()), (false, "no"));
    let listed = kubectl.run(&["auth", "can-i", "--list", as_web]).await;
    assert!(listed.contains("pods") && listed.contains("[get list]"), "{listed}");
    let refused = kubectl.fail(&["get", "secrets", as_web], "").await;
    assert!(refused.contains("Forbidden") && refused.contains("cannot list resource \"secrets\""), "{refused}");
    assert_eq!(kubectl.run(&["auth", "can-i", "*", "*"]).await, "yes\n");
}
