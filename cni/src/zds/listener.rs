//! Accepts node proxies and runs one session for each.

use std::path::Path;
use std::sync::Arc;

use mesh_core::drain::DrainWatch;
use mesh_sys::seqpacket::{SeqpacketListener, SeqpacketStream};
use tokio::time::{Instant, sleep, sleep_until};

use super::proxies::Command;
use super::session::{SCOPE, Session, SessionError};
use super::{ACCEPT_INTERVAL, Proxies, Snapshots};

/// Binds the socket, replacing a stale one, and makes its directory when it is missing.
///
/// # Errors
/// When the directory or the socket cannot be made.
pub fn bind(path: &Path) -> std::io::Result<SeqpacketListener> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir)?;
    }
    SeqpacketListener::bind(path)
}

/// Serves proxies until the drain starts. Each gets the snapshot first, then what happens later.
pub async fn serve(listener: SeqpacketListener, proxies: Proxies, pods: Arc<dyn Snapshots>, mut drain: DrainWatch) {
    let mut next = Instant::now();
    loop {
        tokio::select! {
            () = sleep_until(next) => {}
            _ = drain.signaled() => return,
        }
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = drain.signaled() => return,
        };
        next = Instant::now() + ACCEPT_INTERVAL;
        match accepted {
            Ok(stream) => {
                let (proxies, pods, mut drain) = (proxies.clone(), Arc::clone(&pods), drain.clone());
                tokio::spawn(async move {
                    tokio::select! {
                        () = converse(stream, proxies, pods) => {}
                        _ = drain.signaled() => {}
                    }
                });
            }
            Err(error) => {
                tracing::warn!(target: SCOPE, %error, "accepting a node proxy failed");
                sleep(ACCEPT_INTERVAL).await;
            }
        }
    }
}

async fn converse(stream: SeqpacketStream, proxies: Proxies, pods: Arc<dyn Snapshots>) {
    let mut session = match Session::greet(stream).await {
        Ok(session) => session,
        Err(error) => {
            tracing::warn!(target: SCOPE, %error, "node proxy dropped");
            return;
        }
    };
    // Joining before the snapshot is taken: what changes meanwhile waits in the queue and follows it.
    let Some((membership, mut requests)) = proxies.join() else {
        tracing::warn!(target: SCOPE, "node proxy dropped: too many are connected");
        return;
    };
    tracing::info!(target: SCOPE, connected = proxies.connected(), "node proxy connected");
    let end = match session.snapshot(pods.snapshot()).await {
        Ok(()) => updates(&mut session, &mut requests).await,
        Err(error) => error,
    };
    drop(membership);
    tracing::info!(target: SCOPE, reason = %end, connected = proxies.connected(), "node proxy disconnected");
}

async fn updates(session: &mut Session, requests: &mut tokio::sync::mpsc::Receiver<Command>) -> SessionError {
    loop {
        let command = tokio::select! {
            biased;
            end = session.idle() => return end,
            command = requests.recv() => command,
        };
        let Some(Command { request, answer }) = command else {
            return SessionError::Broken("agent is stopping".to_owned());
        };
        let result = session.request(&request).await;
        // Whoever asked may have given up; the proxy has done it all the same.
        let _ = answer.send(result.as_ref().map(|&()| ()).map_err(SessionError::to_zds));
        match result {
            Err(error @ SessionError::Broken(_)) => return error,
            Err(error) => tracing::warn!(target: SCOPE, %error, "node proxy did not do as asked"),
            Ok(()) => {}
        }
    }
}
