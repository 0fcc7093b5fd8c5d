//! Queries in datagrams.

use std::io;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::time::Duration;

use mesh_core::drain::{DrainMode, DrainWatch};
use tokio::net::UdpSocket;

use super::{Server, Step};
use crate::dns::answer::Transport;
use crate::dns::place::receive;
use crate::limits::{ACCEPT_PAUSE, DNS_TURN_MAX};

/// Answers until the drain starts; then what has already come.
pub(super) async fn serve(server: Rc<Server>, socket: std::net::UdpSocket, watch: DrainWatch) {
    let socket = match UdpSocket::from_std(socket) {
        Ok(socket) => Rc::new(socket),
        Err(error) => {
            tracing::error!(%error, "DNS socket cannot be watched");
            return;
        }
    };
    let mut draining = watch.clone();
    let mode = loop {
        let ready = tokio::select! {
            mode = draining.signaled() => break mode,
            ready = socket.readable() => ready,
        };
        if let Err(error) = ready.and_then(|()| take_turn(&server, &socket, &watch)) {
            tracing::warn!(%error, "DNS socket failed, pausing");
            tokio::time::sleep(ACCEPT_PAUSE).await;
        }
        // Others on this worker have their turn.
        tokio::task::yield_now().await;
    };
    if mode == DrainMode::Graceful {
        finish(&server, &socket, &watch).await;
    }
}

/// A client that asked this process cannot be answered by its successor.
async fn finish(server: &Rc<Server>, socket: &Rc<UdpSocket>, watch: &DrainWatch) {
    for _ in 0..LAST_TURNS_MAX {
        // The runtime may not have seen yet what the kernel holds.
        let waits = tokio::time::timeout(LAST_LOOK, socket.readable()).await.is_ok();
        if !waits || take_turn(server, socket, watch).is_err() {
            return;
        }
    }
}

/// Handles what waits, up to a bound.
fn take_turn(server: &Rc<Server>, socket: &Rc<UdpSocket>, watch: &DrainWatch) -> io::Result<()> {
    for _ in 0..DNS_TURN_MAX {
        match receive(socket, |message, client| (step(server, message), client)) {
            Ok((step, client)) => act(server, socket, watch, step, client),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// What breaks on one message must not end the service.
fn step(server: &Server, message: &[u8]) -> Step {
    let stepping = AssertUnwindSafe(|| server.step(message, Transport::Udp));
    std::panic::catch_unwind(stepping).unwrap_or(Step::Ignore)
}

fn act(server: &Rc<Server>, socket: &Rc<UdpSocket>, watch: &DrainWatch, step: Step, client: SocketAddr) {
    let request = match step {
        Step::Ignore => return,
        Step::Answer(answer) => {
            // A client whose buffer is full asks again.
            if let Err(error) = socket.try_send_to(&answer, client) {
                tracing::debug!(%error, %client, "DNS answer not sent");
            }
            return;
        }
        Step::Forward(request) => request,
    };
    let Some(room) = server.room_to_forward() else {
        server.refuse_for_lack_of_room(&request);
        return;
    };
    let (server, socket, mut cut) = (server.clone(), socket.clone(), watch.clone());
    tokio::task::spawn_local(async move {
        let forward = async {
            if let Some(answer) = server.forward(&request, Transport::Udp).await
                && let Err(error) = socket.send_to(&answer, client).await
            {
                tracing::debug!(%error, %client, "DNS answer not sent");
            }
        };
        tokio::select! {
            () = forward => {}
            () = cut.cut() => {}
        }
        drop(room);
    });
}

/// At the end: no query for so long means that none is left.
const LAST_LOOK: Duration = Duration::from_millis(5);
/// Beyond that it is the queries that come now.
const LAST_TURNS_MAX: usize = 16;
