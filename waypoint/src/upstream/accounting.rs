//! What is counted for as long as it lasts.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::breaker::Breakers;
use super::error::UpstreamError;
use super::host::HostState;
use super::stats::Stats;

/// What a pool counts. Outlives the pool while something of it is under way.
#[derive(Debug)]
pub(super) struct Ledger {
    name: Arc<str>,
    pub(super) breakers: Arc<Breakers>,
    pub(super) stats: Stats,
}

/// A request, from the pick to the end of its response, or a TCP connection.
#[derive(Debug)]
pub(super) struct Active {
    ledger: Arc<Ledger>,
    host: Arc<HostState>,
    request: bool,
}

/// A connection that is open or being made.
#[derive(Debug)]
pub(super) struct Open(Arc<Ledger>);

/// A request that waits for a connection.
#[derive(Debug)]
pub(super) struct Pending(Arc<Ledger>);

impl Ledger {
    pub(super) fn new(name: Arc<str>, breakers: Breakers) -> Arc<Self> {
        Arc::new(Self { name, breakers: Arc::new(breakers), stats: Stats::default() })
    }
}

impl Active {
    /// # Errors
    /// [`UpstreamError::Overflow`].
    pub(super) fn request(ledger: &Arc<Ledger>, host: &Arc<HostState>) -> Result<Self, UpstreamError> {
        if !ledger.breakers.requests.acquire() {
            ledger.stats.rq_pending_overflow.add();
            return Err(overflow(ledger, "max_requests"));
        }
        ledger.stats.rq_total.add();
        host.active.fetch_add(1, Ordering::Relaxed);
        Ok(Self { ledger: ledger.clone(), host: host.clone(), request: true })
    }

    pub(super) fn connection(ledger: &Arc<Ledger>, host: &Arc<HostState>) -> Self {
        host.active.fetch_add(1, Ordering::Relaxed);
        Self { ledger: ledger.clone(), host: host.clone(), request: false }
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.host.active.fetch_sub(1, Ordering::Relaxed);
        if self.request {
            self.ledger.breakers.requests.release();
        }
    }
}

impl Open {
    /// `None`: the pool has as many as it may.
    pub(super) fn within_limit(ledger: &Arc<Ledger>) -> Option<Self> {
        if ledger.breakers.connections.acquire() {
            return Some(Self(ledger.clone()));
        }
        ledger.stats.cx_overflow.add();
        None
    }

    /// Whether or not the pool has as many as it may.
    pub(super) fn anyway(ledger: &Arc<Ledger>) -> Self {
        ledger.breakers.connections.force();
        Self(ledger.clone())
    }

    /// It is there.
    pub(super) fn made(&self) {
        self.0.stats.cx_total.add();
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.breakers.connections.release();
        self.0.stats.cx_destroy.add();
    }
}

impl Pending {
    /// # Errors
    /// [`UpstreamError::Overflow`].
    pub(super) fn new(ledger: &Arc<Ledger>) -> Result<Self, UpstreamError> {
        if !ledger.breakers.pending.acquire() {
            ledger.stats.rq_pending_overflow.add();
            return Err(overflow(ledger, "max_pending_requests"));
        }
        ledger.stats.rq_pending_total.add();
        Ok(Self(ledger.clone()))
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.0.breakers.pending.release();
    }
}

pub(super) fn overflow(ledger: &Ledger, limit: &'static str) -> UpstreamError {
    UpstreamError::Overflow { cluster: ledger.name.clone(), limit }
}
