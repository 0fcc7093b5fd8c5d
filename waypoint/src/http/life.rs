//! When a connection of a client is to be wound up: the process drains, or nothing has happened for long.

use std::rc::Rc;

use mesh_core::drain::DrainMode;
use tokio::time::{Instant, sleep_until};

use super::connection::Connection;
use crate::limits::{DRAIN_IDLE_BUDGET, HTTP_IDLE_BUDGET};

/// Resolves when no further request should be read. Before that, when a drain begins, the connection is marked: answers
/// tell the client to go elsewhere, while a request that crosses with the news is still served.
pub(crate) async fn life(connection: Rc<Connection>) {
    let mut drain = connection.context.drain.clone();
    let mode = tokio::select! {
        mode = drain.signaled() => mode,
        () = idle(&connection, HTTP_IDLE_BUDGET) => return,
    };
    connection.closing.set(true);
    if mode == DrainMode::Graceful && !connection.is_http2() {
        tokio::select! {
            () = drain.cut() => {}
            () = quiet(&connection) => {}
        }
    }
}

/// Resolves when there has been no request for so long.
async fn idle(connection: &Connection, budget: std::time::Duration) {
    loop {
        let since = connection.quiet_since();
        let deadline = since.unwrap_or_else(Instant::now) + budget;
        if since.is_some() && deadline <= Instant::now() {
            return;
        }
        sleep_until(deadline).await;
    }
}

/// As [`idle`], for a connection that is being drained: it is given a moment even if it was quiet for long.
async fn quiet(connection: &Connection) {
    tokio::time::sleep(DRAIN_IDLE_BUDGET).await;
    idle(connection, DRAIN_IDLE_BUDGET).await;
}
