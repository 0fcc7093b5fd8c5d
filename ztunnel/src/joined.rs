//! A connection whose both sides are open: relay, then report.

use std::pin::Pin;
use std::rc::Rc;

use crate::connections::Registered;
use crate::copy::{Relay, Side};
use crate::failure::Failure;
use crate::pod::PodWorker;
use crate::report::{self, Outcome, SocketGuard};

/// What runs in a connection's task. Boxed stage by stage: getting to a connection needs several times the memory of
/// keeping it, and what is gone must not be paid for by a connection that idles for a day.
pub(crate) type Work = Pin<Box<dyn Future<Output = ()>>>;

/// Everything that a connection keeps while bytes flow.
pub(crate) struct Joined<C, S> {
    pub(crate) relay: Relay<C, S>,
    pub(crate) reported: report::Connection,
    pub(crate) registered: Registered,
    /// The accepted socket, counted while it is open; tunnels count for their streams.
    pub(crate) socket: Option<SocketGuard>,
    /// Keeps the tunnels of the pod alive.
    pub(crate) worker: Rc<PodWorker>,
}

impl<C: Side + 'static, S: Side + 'static> Joined<C, S> {
    /// The rest of the connection's life.
    pub(crate) fn into_work(self) -> Work {
        Box::pin(self.relay_and_report())
    }

    /// Bytes both ways until both ends are done, or policy says otherwise; then the connection is cut.
    // A block rather than an async function: a captured `self` is stored once, a moved argument twice.
    #[allow(clippy::manual_async_fn)]
    fn relay_and_report(mut self) -> impl Future<Output = ()> {
        async move {
            let outcome = tokio::select! {
                // A denial must not lose a draw against bytes that are ready.
                biased;
                denial = self.registered.denied() => Failure::from(denial).into(),
                ended = self.relay.run(&self.reported) => match ended {
                    Ok(()) => Outcome::Complete,
                    Err(error) => Failure::from(error).into(),
                },
            };
            let Self { relay, reported, registered, socket, worker } = self;
            // Both sides are closed before the connection counts as ended.
            drop((relay, registered, socket));
            reported.closed(outcome);
            drop(worker);
        }
    }
}

/// Runs `prepare` and then what it leads to.
pub(crate) fn in_stages(prepare: impl Future<Output = Option<Work>> + 'static) -> Work {
    let preparing: Pin<Box<dyn Future<Output = Option<Work>>>> = Box::pin(prepare);
    Box::pin(async move {
        if let Some(work) = preparing.await {
            work.await;
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::copy::TcpSide;
    use mesh_hbone::H2Stream;

    fn size_of_task<T, F>(_: impl Fn(T) -> F) -> usize {
        size_of::<F>()
    }

    /// The promise is 3 KB for an idle tunnelled connection; HTTP/2, the socket and the allocator take the rest.
    #[test]
    fn an_idle_connection_keeps_little() {
        let leaving = size_of_task(Joined::<TcpSide, H2Stream>::relay_and_report);
        let arriving = size_of_task(Joined::<H2Stream, TcpSide>::relay_and_report);
        let reported = size_of::<report::Connection>();
        let relay = size_of::<Relay<TcpSide, H2Stream>>();
        assert!(leaving.max(arriving) <= 640, "{leaving} {arriving} of which {reported} report, {relay} relay");
    }
}
