//! The plugin's binary as a runtime runs it, with a scripted API server and a scripted agent.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;

use serde_json::{Value, json};

/// What a run of the plugin gave.
struct Run {
    status: i32,
    stdout: String,
    stderr: String,
}

impl Run {
    fn error(&self) -> Value {
        assert_eq!(self.status, 1, "{}", self.stdout);
        // Parsing the whole output also says that nothing else is in it.
        serde_json::from_str(&self.stdout).unwrap_or_else(|_| panic!("not one JSON value: {:?}", self.stdout))
    }
}

fn plugin(verb: &str, netns: &str, pod: &str, config: &Value) -> Run {
    let mut child = Command::new(env!("CARGO_BIN_EXE_istio-cni"))
        .env_clear()
        .envs([
            ("CNI_COMMAND", verb),
            ("CNI_CONTAINERID", "c1"),
            ("CNI_NETNS", netns),
            ("CNI_IFNAME", "eth0"),
            ("CNI_PATH", "/opt/cni/bin"),
        ])
        .env("CNI_ARGS", format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=demo;K8S_POD_NAME={pod};K8S_POD_UID=u-1"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(config.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    Run {
        status: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

fn config(run_dir: &Path) -> Value {
    json!({
        "cniVersion": "1.0.0", "name": "net", "type": "istio-cni", "cni_agent_run_dir": run_dir,
        "ambient_enabled": true, "pod_namespace": "istio-system", "exclude_namespaces": ["kube-system"],
        "enablement_selectors": cni::eligibility::default_selectors(),
        "prevResult": prev_result(),
    })
}

fn prev_result() -> Value {
    json!({"cniVersion": "1.0.0", "interfaces": [{"name": "eth0", "sandbox": "/x"}],
           "ips": [{"interface": 0, "address": "10.9.0.2/24", "gateway": "10.9.0.1"}], "dns": {}})
}

/// Answers every request about pods with one pod, about namespaces with one namespace; a kubeconfig leads to it.
fn api_server(run_dir: &Path, mode: &'static str) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = format!("http://{}", listener.local_addr().unwrap());
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "local", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": "c", "context": {"cluster": "local", "user": "u"}}],
    });
    std::fs::write(run_dir.join("istio-cni-kubeconfig"), kubeconfig.to_string()).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || answer_api(stream, mode));
        }
    });
}

fn answer_api(mut stream: std::net::TcpStream, mode: &str) {
    while let Some((path, _)) = read_request(&mut stream) {
        let (status, body) = if path.contains("/pods/") {
            let labels = json!({"istio.io/dataplane-mode": mode});
            (
                "200 OK",
                json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "namespace": "demo", "labels": labels}}),
            )
        } else if path.contains("/namespaces/") {
            ("200 OK", json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "demo"}}))
        } else {
            (
                "404 Not Found",
                json!({"kind": "Status", "status": "Failure", "code": 404, "message": "no", "reason": "NotFound"}),
            )
        };
        respond(&mut stream, status, &body.to_string());
    }
}

/// Answers the first event and hands it to the test.
fn agent(run_dir: &Path, status: &'static str, text: &'static str) -> mpsc::Receiver<(String, Value)> {
    let listener = UnixListener::bind(run_dir.join("pluginevent.sock")).unwrap();
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let (path, body) = read_request(&mut stream).unwrap();
        sender.send((path, serde_json::from_str(&body).unwrap())).unwrap();
        respond(&mut stream, status, text);
    });
    receiver
}

fn read_request(stream: &mut (impl Read + Write)) -> Option<(String, String)> {
    let mut text = Vec::new();
    let mut byte = [0];
    while !text.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        text.push(byte[0]);
    }
    let head = String::from_utf8(text).unwrap();
    let path = head.split(' ').nth(1)?.to_owned();
    let length = head.to_lowercase().lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).ok()?;
    Some((path, String::from_utf8(body).unwrap()))
}

fn respond(stream: &mut impl Write, status: &str, body: &str) {
    let text =
        format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let _ = stream.write_all(text.as_bytes());
}

#[test]
fn cni_row_1_an_ambient_pod_does_not_start_without_the_agent() {
    let dir = tempfile::tempdir().unwrap();
    api_server(dir.path(), "ambient");
    let run = plugin("ADD", "/does/not/exist", "web", &config(dir.path()));
    let error = run.error();
    assert_eq!(error["code"], 999);
    assert!(error["msg"].as_str().unwrap().contains("istio-cni-node"), "{error}");
    assert!(run.stderr.contains("\"level\":\"error\""), "{}", run.stderr);
    assert!(std::fs::read_to_string(dir.path().join("istio-cni.log")).unwrap().contains("istio-cni-node"));
}

#[test]
fn cni_row_2_a_pod_outside_the_mesh_starts_without_the_agent() {
    let dir = tempfile::tempdir().unwrap();
    api_server(dir.path(), "none");
    let run = plugin("ADD", "/does/not/exist", "web", &config(dir.path()));
    assert_eq!(run.status, 0, "{}", run.stdout);
    assert_eq!(serde_json::from_str::<Value>(&run.stdout).unwrap(), prev_result());
}

#[test]
fn cni_row_3_del_with_nothing_there_succeeds() {
    let config = config(Path::new("/does/not/exist"));
    let run = plugin("DEL", "", "web", &config);
    assert_eq!((run.status, run.stdout.as_str()), (0, ""));
}

#[test]
fn an_ambient_pod_starts_when_the_agent_says_so() {
    let dir = tempfile::tempdir().unwrap();
    api_server(dir.path(), "ambient");
    let events = agent(dir.path(), "200 OK", "");
    let run = plugin("ADD", "/var/run/netns/x", "web", &config(dir.path()));
    assert_eq!(run.status, 0, "{}", run.stdout);
    assert_eq!(serde_json::from_str::<Value>(&run.stdout).unwrap(), prev_result());
    let (path, event) = events.recv().unwrap();
    assert_eq!(path, "/cmdadd");
    assert_eq!(
        event,
        json!({"Netns": "/var/run/netns/x", "PodName": "web", "PodNamespace": "demo", "PodUID": "u-1",
               "IPs": [{"Interface": 0, "Address": {"IP": "10.9.0.2", "Mask": "////AA=="}, "Gateway": "10.9.0.1"}]})
    );
}

#[test]
fn what_the_agent_says_becomes_the_error() {
    let dir = tempfile::tempdir().unwrap();
    api_server(dir.path(), "ambient");
    let _events = agent(dir.path(), "500 Internal Server Error", "no node proxy is connected");
    let error = plugin("ADD", "/var/run/netns/x", "web", &config(dir.path())).error();
    assert!(error["details"].as_str().unwrap().contains("no node proxy is connected"), "{error}");
}

#[test]
fn without_credentials_or_an_answer_no_pod_starts() {
    let dir = tempfile::tempdir().unwrap();
    let error = plugin("ADD", "/does/not/exist", "web", &config(dir.path())).error();
    assert!(error["msg"].as_str().unwrap().contains("kubeconfig"), "{error}");

    api_server(dir.path(), "none");
    let text = std::fs::read_to_string(dir.path().join("istio-cni-kubeconfig")).unwrap();
    let mut kubeconfig: Value = serde_json::from_str(&text).unwrap();
    kubeconfig["clusters"][0]["cluster"]["server"] = json!("http://127.0.0.1:1");
    std::fs::write(dir.path().join("istio-cni-kubeconfig"), kubeconfig.to_string()).unwrap();
    let error = plugin("ADD", "/does/not/exist", "web", &config(dir.path())).error();
    assert!(error["msg"].as_str().unwrap().contains("cannot tell"), "{error}");
}

#[test]
fn an_excluded_namespace_passes_without_a_question() {
    let dir = tempfile::tempdir().unwrap();
    api_server(dir.path(), "ambient");
    let mut config = config(dir.path());
    config["exclude_namespaces"] = json!(["demo"]);
    let run = plugin("ADD", "/does/not/exist", "web", &config);
    assert_eq!(run.status, 0, "{}", run.stdout);
}

#[test]
fn log_lines_reach_the_agent() {
    let dir = tempfile::tempdir().unwrap();
    api_server(dir.path(), "none");
    let listener = UnixListener::bind(dir.path().join("log.sock")).unwrap();
    let receiver = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let request = read_request(&mut stream).unwrap();
        respond(&mut stream, "200 OK", "");
        request
    });
    let mut config = config(dir.path());
    config["plugin_log_level"] = json!("debug");
    assert_eq!(plugin("ADD", "/does/not/exist", "web", &config).status, 0);
    let (path, body) = receiver.join().unwrap();
    let lines: Vec<String> = serde_json::from_str(&body).unwrap();
    assert_eq!(path, "/log");
    let first: Value = serde_json::from_str(&lines[0]).unwrap();
    assert!(first["level"] == "debug" && first["msg"].is_string() && first["time"].is_string(), "{first}");
}
