//! What the requests of one connection share.

use std::cell::{Cell, OnceCell, RefCell};
use std::fmt::Write as _;
use std::rc::Rc;

use http::HeaderValue;
use tokio::time::Instant;

use super::guard::Watch;
use super::tunnel::Tunnel;
use crate::connection::ConnectionContext;
use crate::limits::WARY_REQUESTS;

/// One connection of a client.
pub(crate) struct Connection {
    pub(crate) context: ConnectionContext,
    /// Of HTTP/1 only.
    pub(crate) watch: Option<Rc<Watch>>,
    /// No request after the one at hand.
    pub(crate) closing: Cell<bool>,
    /// Requests left that are looked at twice before anything is done for them.
    wary: Cell<u32>,
    active: Cell<usize>,
    quiet_since: Cell<Instant>,
    /// The upgrade that was granted, until the server has let go of the stream.
    pub(crate) upgraded: RefCell<Option<Tunnel>>,
    /// Bytes of request bodies that were read from the connection and passed on.
    passed_on: Rc<Cell<u64>>,
    forwarded_client: OnceCell<Option<HeaderValue>>,
}

/// A request that is under way.
pub(crate) struct Active(Rc<Connection>);

impl Connection {
    pub(crate) fn new(context: ConnectionContext, watch: Option<Rc<Watch>>) -> Rc<Self> {
        Rc::new(Self {
            context,
            watch,
            closing: Cell::new(false),
            wary: Cell::new(0),
            active: Cell::new(0),
            quiet_since: Cell::new(Instant::now()),
            upgraded: RefCell::new(None),
            passed_on: Rc::default(),
            forwarded_client: OnceCell::new(),
        })
    }

    /// Whether it is HTTP/2.
    pub(crate) fn is_http2(&self) -> bool {
        self.watch.is_none()
    }

    /// The client has given up a request. It may do so with the next ones, too.
    pub(crate) fn given_up(&self) {
        self.wary.set(WARY_REQUESTS);
    }

    /// Lets the server look whether the client of HTTP/2 has given up the request, which has just come, as it did with
    /// others lately: that may be known already, and then nothing is to be done for it.
    ///
    /// # Cancel safety
    /// Being dropped is the point.
    pub(crate) async fn look_twice(&self) {
        let left = self.wary.get();
        if left > 0 && self.is_http2() {
            self.wary.set(left - 1);
            // The server looks when its service does not answer at once.
            tokio::task::yield_now().await;
        }
    }

    /// Counts a request until it has ended.
    pub(crate) fn begin(self: &Rc<Self>) -> Active {
        self.active.set(self.active.get() + 1);
        Active(self.clone())
    }

    /// Since when there is no request; `None` while there is one.
    pub(crate) fn quiet_since(&self) -> Option<Instant> {
        (self.active.get() == 0).then(|| self.quiet_since.get())
    }

    /// Counts what of request bodies is passed on.
    pub(crate) fn passed_on(&self) -> Rc<Cell<u64>> {
        self.passed_on.clone()
    }

    /// A random number that is no secret.
    pub(crate) fn random(&self) -> u64 {
        self.context.worker.random()
    }

    /// Value of `x-forwarded-client-cert` that names the client, where it has proven who it is.
    pub(crate) fn forwarded_client(&self) -> Option<&HeaderValue> {
        let made = self.forwarded_client.get_or_init(|| {
            let peer = &self.context.peer;
            let Some(client) = &peer.source_identity else {
                let tls = peer.tls.as_ref().filter(|tls| tls.client_verified)?;
                return super::client_cert::element(tls.client_leaf.as_ref()?);
            };
            let own = peer.local_identity.as_ref().unwrap_or_else(|| self.context.worker.shared.own.identity());
            let mut text = String::new();
            // Writing to a text does not fail.
            let _ = write!(text, "By={own};URI={client}");
            HeaderValue::try_from(text).ok()
        });
        made.as_ref()
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        let connection = &self.0;
        connection.active.set(connection.active.get().saturating_sub(1));
        connection.quiet_since.set(Instant::now());
    }
}
