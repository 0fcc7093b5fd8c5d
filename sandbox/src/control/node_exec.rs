//! Commands run on a node: in its network namespace, with its directories at their usual paths.

use std::process::Stdio;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::mpsc;

use super::Answer;
use crate::runtime::NodeRuntime;
use crate::runtime::support::{EnterSpec, StandardStreams, exit_code, launch, node_world};

/// Bytes of output sent in one line.
const CHUNK_BYTES_MAX: usize = 16 * 1024;

/// Runs the command and sends its output and exit code. Killed when the receiver goes away.
pub(crate) async fn run(node: &NodeRuntime, argv: Vec<String>, answers: &mpsc::Sender<Answer>) -> Result<(), String> {
    let spec = EnterSpec {
        world: node_world(node),
        netns: Some(node.node_netns_path()),
        argv,
        env: vec![
            ("PATH".to_owned(), node.search_path()),
            ("HOME".to_owned(), "/root".to_owned()),
            ("NODE_NAME".to_owned(), node.node_name().to_owned()),
        ],
        cwd: "/".into(),
        terminal: false,
    };
    let streams = StandardStreams { stdin: Stdio::null(), stdout: Stdio::piped(), stderr: Stdio::piped() };
    let mut child = launch(&spec, streams).await?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let copies = async {
        tokio::join!(copy(stdout, Answer::Stdout, answers), copy(stderr, Answer::Stderr, answers));
        child.wait().await
    };
    let status = tokio::select! {
        status = copies => Some(status),
        () = answers.closed() => None,
    };
    match status {
        Some(status) => {
            let code = status.map_or(255, exit_code);
            // A client that left does not need it.
            let _ = answers.send(Answer::Exit(code)).await;
        }
        None => {
            let _ = child.kill().await;
        }
    }
    Ok(())
}

async fn copy(output: Option<impl AsyncRead + Unpin>, wrap: fn(String) -> Answer, answers: &mpsc::Sender<Answer>) {
    let Some(mut output) = output else { return };
    let mut chunk = vec![0; CHUNK_BYTES_MAX];
    while let Ok(length @ 1..) = output.read(&mut chunk).await {
        let text = String::from_utf8_lossy(chunk.get(..length).unwrap_or_default()).into_owned();
        if answers.send(wrap(text)).await.is_err() {
            return;
        }
    }
}
