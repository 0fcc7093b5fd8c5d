//! Limits of a pool, shared by all workers. They may be overshot by the number of workers, never lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// One limit and how much of it is used. A limit of zero in the configuration means none.
#[derive(Debug)]
pub(super) struct Limit {
    max: u32,
    used: AtomicU32,
}

/// All limits of a pool.
#[derive(Debug)]
pub(super) struct Breakers {
    pub(super) connections: Limit,
    pub(super) pending: Limit,
    pub(super) requests: Limit,
    pub(super) retries: Limit,
}

/// A retry that runs; counts until it is dropped.
#[derive(Debug)]
pub struct Permit(Arc<Breakers>);

impl Limit {
    pub(super) fn new(configured: u32) -> Self {
        Self { max: if configured == 0 { u32::MAX } else { configured }, used: AtomicU32::new(0) }
    }

    /// Takes one if there is room. Give it back with [`Limit::release`].
    pub(super) fn acquire(&self) -> bool {
        if self.used.fetch_add(1, Ordering::Relaxed) < self.max {
            return true;
        }
        self.release();
        false
    }

    /// Takes one whether or not there is room.
    pub(super) fn force(&self) {
        self.used.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn release(&self) {
        self.used.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn used(&self) -> u32 {
        self.used.load(Ordering::Relaxed)
    }

    pub(super) fn is_open(&self) -> bool {
        self.used() >= self.max
    }
}

impl Breakers {
    pub(super) fn new(connections: u32, pending: u32, requests: u32, retries: u32) -> Self {
        Self {
            connections: Limit::new(connections),
            pending: Limit::new(pending),
            requests: Limit::new(requests),
            retries: Limit::new(retries),
        }
    }

    /// Counts a retry, which `allowed` has judged by those that run already.
    pub(super) fn retry(self: &Arc<Self>, allowed: impl FnOnce(u32) -> bool) -> Option<Permit> {
        if !allowed(self.retries.used()) || !self.retries.acquire() {
            return None;
        }
        Some(Permit(self.clone()))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.retries.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_holds_at_its_bound_and_not_before() {
        let limit = Limit::new(2);
        assert!(limit.acquire() && limit.acquire() && !limit.acquire() && limit.is_open());
        limit.release();
        assert!(limit.acquire());
        assert_eq!(limit.used(), 2);
        limit.force();
        assert!(limit.used() == 3 && !limit.acquire());
    }

    #[test]
    fn zero_is_no_limit() {
        let limit = Limit::new(0);
        assert!((0..10_000).all(|_| limit.acquire()) && !limit.is_open());
    }

    #[test]
    fn retries_count_while_they_run() {
        let breakers = Arc::new(Breakers::new(0, 0, 0, 1));
        let first = breakers.retry(|_| true);
        assert!(first.is_some() && breakers.retry(|_| true).is_none());
        drop(first);
        assert!(breakers.retry(|running| running > 0).is_none(), "the budget says no");
        assert!(breakers.retry(|running| running == 0).is_some());
    }
}
