//! Bytes that go ahead of the answer to a CONNECT.

use std::cell::RefCell;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use h2::server::SendResponse;
use mesh_hbone::client::Opened;
use mesh_hbone::{FirstBytes, OpenError, Pool, Settings};
use tokio::io::DuplexStream;
use tokio::task::spawn_local;

use crate::fixture::{PipeDialer, connect_to, local, pipe_key};

/// How a far end treats one request: by the first bytes of its body, if they come before an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Far {
    /// 200 at once.
    Accept,
    /// 200 after the first bytes have come, which it sends back.
    AcceptAfterBytes,
    /// REFUSED_STREAM after the first bytes have come.
    RefuseAfterBytes,
    /// The connection breaks after the first bytes have come.
    BreakAfterBytes,
}

/// What happens to one request after the other, on whatever tunnel it comes.
type Plan = Rc<RefCell<std::vec::IntoIter<Far>>>;

/// Serves requests as `plan` says.
async fn far(io: DuplexStream, plan: Plan) {
    let mut connection = h2::server::handshake(io).await.unwrap();
    let mut keep = Vec::new();
    while let Some(Ok((request, respond))) = connection.accept().await {
        let mut body = request.into_body();
        let what = plan.borrow_mut().next().unwrap();
        if what == Far::Accept {
            keep.push((answer(respond, None), body));
            continue;
        }
        let first = loop {
            tokio::select! {
                biased;
                first = body.data() => break first.unwrap().unwrap(),
                none = connection.accept() => assert!(none.is_none_or(|other| other.is_err())),
            }
        };
        match what {
            Far::BreakAfterBytes => return,
            Far::RefuseAfterBytes => {
                let mut respond = respond;
                respond.send_reset(Reason::REFUSED_STREAM);
            }
            _ => keep.push((answer(respond, Some(first)), body)),
        }
    }
}

fn answer(mut respond: SendResponse<Bytes>, echo: Option<Bytes>) -> h2::SendStream<Bytes> {
    let mut send = respond.send_response(http::Response::new(()), false).unwrap();
    if let Some(bytes) = echo {
        send.send_data(bytes, false).unwrap();
    }
    send
}

struct Tunnel {
    pool: Pool<PipeDialer>,
}

impl Tunnel {
    fn to(plan: Vec<Far>) -> Self {
        let (dialer, mut far_ends) = PipeDialer::new();
        spawn_local(async move {
            let plan = Plan::new(RefCell::new(plan.into_iter()));
            while let Some(io) = far_ends.recv().await {
                spawn_local(far(io, plan.clone()));
            }
        });
        Self { pool: Pool::new(dialer, Settings::default()) }
    }

    /// Opens a stream whose application has said `hello`; tells how much of that went ahead, too.
    async fn open(&self) -> (Result<Opened, OpenError>, u64) {
        let mut first = FirstBytes::new(|_: &mut _| Poll::Ready(Some(Bytes::from_static(b"hello"))));
        let opened = self.pool.open_with(&pipe_key(), connect_to("10.1.0.77:8080"), &mut first).await;
        (opened, first.len())
    }
}

#[tokio::test(start_paused = true)]
async fn first_bytes_go_ahead_where_the_peer_has_just_answered() {
    local(async {
        let tunnel = Tunnel::to(vec![Far::Accept, Far::AcceptAfterBytes]);
        let (first, ahead) = tunnel.open().await;
        assert_eq!((first.is_ok(), ahead), (true, 0), "nothing is known of a new tunnel");
        let (second, ahead) = tunnel.open().await;
        assert_eq!(ahead, 5);
        let mut stream = second.unwrap().stream;
        let echoed = std::future::poll_fn(|cx| stream.poll_data(cx)).await.unwrap().unwrap();
        assert_eq!(echoed, "hello", "sent once, before the answer");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn nothing_goes_ahead_on_a_tunnel_that_was_silent() {
    local(async {
        let tunnel = Tunnel::to(vec![Far::Accept, Far::Accept]);
        let first = tunnel.open().await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        let second = tunnel.open().await;
        assert_eq!((first.1, second.1), (0, 0));
        assert!(second.0.is_ok());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_request_begins_with_the_same_bytes_again() {
    local(async {
        let tunnel = Tunnel::to(vec![Far::Accept, Far::RefuseAfterBytes, Far::AcceptAfterBytes]);
        let first = tunnel.open().await;
        let (second, ahead) = tunnel.open().await;
        let mut stream = second.unwrap().stream;
        let echoed = std::future::poll_fn(|cx| stream.poll_data(cx)).await.unwrap().unwrap();
        assert_eq!((&echoed[..], ahead), (&b"hello"[..], 5));
        drop(first);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn bytes_that_may_have_arrived_are_never_sent_twice() {
    local(async {
        let tunnel = Tunnel::to(vec![Far::Accept, Far::BreakAfterBytes, Far::AcceptAfterBytes]);
        let first = tunnel.open().await;
        let (second, ahead) = tunnel.open().await;
        assert!(matches!(second, Err(OpenError::Broken { .. })), "{second:?}");
        assert_eq!(ahead, 5);
        drop(first);
    })
    .await;
}
