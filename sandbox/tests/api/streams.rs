//! Logs, exec and port forwarding with kube-rs, in process and over TLS.

use futures::AsyncReadExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    api::{AttachParams, LogParams},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::server::{Server, bound_pod, crypto, pod, within};

async fn apis(server: &Server, listening: &crate::server::Listening) -> [Api<Pod>; 2] {
    let pods = "/api/v1/namespaces/default/pods";
    server.create(pods, bound_pod("web")).await;
    server.create(pods, pod("unbound")).await;
    [Api::default_namespaced(server.client()), Api::default_namespaced(listening.client().await)]
}

#[tokio::test]
async fn logs() {
    crypto();
    let server = Server::start();
    let listening = server.listen();
    for api in apis(&server, &listening).await {
        let tail = LogParams { tail_lines: Some(2), ..LogParams::default() };
        assert_eq!(api.logs("web", &tail).await.unwrap(), "main line 4\nmain line 5\n");
        let follow = LogParams { follow: true, ..LogParams::default() };
        let mut stream = api.log_stream("web", &follow).await.unwrap();
        let mut text = vec![0; "main line 1\n".len()];
        within(stream.read_exact(&mut text)).await.unwrap();
        assert_eq!(text, b"main line 1\n");
        let previous = LogParams { previous: true, ..LogParams::default() };
        assert!(api.logs("web", &previous).await.unwrap_err().to_string().contains("previous instance"));
        let other = LogParams { container: Some("other".to_owned()), ..LogParams::default() };
        assert!(api.logs("web", &other).await.unwrap_err().to_string().contains("container other is not valid"));
        assert!(api.logs("unbound", &LogParams::default()).await.is_err());
    }
}

#[tokio::test]
async fn commands_run_with_input_output_and_exit_status() {
    crypto();
    let server = Server::start();
    let listening = server.listen();
    for api in apis(&server, &listening).await {
        let mut said = within(api.exec("web", ["echo", "hi there"], &AttachParams::default())).await.unwrap();
        let mut text = String::new();
        let status = said.take_status().unwrap();
        within(said.stdout().unwrap().read_to_string(&mut text)).await.unwrap();
        assert_eq!(text, "echo hi there");
        assert_eq!(within(status).await.unwrap().status.as_deref(), Some("Success"));

        let mut failed = within(api.exec("web", ["fail", "7"], &AttachParams::default())).await.unwrap();
        let status = failed.take_status().unwrap();
        let mut text = String::new();
        within(failed.stderr().unwrap().read_to_string(&mut text)).await.unwrap();
        assert_eq!(text, "failed\n");
        let status = within(status).await.unwrap();
        assert_eq!(status.reason.as_deref(), Some("NonZeroExitCode"));
        let cause = status.details.unwrap().causes.unwrap()[0].clone();
        assert_eq!((cause.reason.as_deref(), cause.message.as_deref()), (Some("ExitCode"), Some("7")));

        let input = AttachParams::default().stdin(true).stderr(false);
        let mut cat = within(api.exec("web", ["cat"], &input)).await.unwrap();
        let (mut stdin, mut stdout) = (cat.stdin().unwrap(), cat.stdout().unwrap());
        let status = cat.take_status().unwrap();
        stdin.write_all(b"round trip").await.unwrap();
        stdin.shutdown().await.unwrap();
        drop(stdin);
        let mut text = String::new();
        within(stdout.read_to_string(&mut text)).await.unwrap();
        assert_eq!(text, "round trip");
        assert_eq!(within(status).await.unwrap().status.as_deref(), Some("Success"));
        assert!(api.exec("unbound", ["true"], &AttachParams::default()).await.is_err());
    }
}

#[tokio::test]
async fn ports_are_forwarded() {
    crypto();
    let server = Server::start();
    let listening = server.listen();
    for api in apis(&server, &listening).await {
        let mut forwarder = within(api.portforward("web", &[80])).await.unwrap();
        let mut stream = forwarder.take_stream(80).unwrap();
        stream.write_all(b"hello").await.unwrap();
        let mut answer = [0; 5];
        within(stream.read_exact(&mut answer)).await.unwrap();
        assert_eq!(&answer, b"HELLO");
        let mut closed = within(api.portforward("web", &[81])).await.unwrap();
        let error = closed.take_error(81).unwrap();
        assert!(within(error).await.unwrap().contains("nothing listens on port 81"));
    }
}
