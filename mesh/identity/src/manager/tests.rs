//! The manager on paused time.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures::FutureExt;
use tokio::sync::Semaphore;

use super::*;
use crate::testing::{TestCa, TokioClock};

struct Scripted {
    clock: TokioClock,
    ca: TestCa,
    calls: AtomicUsize,
    failing: AtomicUsize,
    gate: Arc<Semaphore>,
}

impl Scripted {
    fn new(failing: usize, permits: usize) -> Arc<Self> {
        let clock = TokioClock::start();
        Arc::new(Self {
            clock,
            ca: TestCa::with_clock(Arc::new(clock)),
            calls: AtomicUsize::new(0),
            failing: AtomicUsize::new(failing),
            gate: Arc::new(Semaphore::new(permits)),
        })
    }
}

impl CertSource for Scripted {
    fn issue(&self, identity: Identity) -> BoxFuture<'static, Result<WorkloadCert, CertError>> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let fail = self.failing.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok();
        let good = self.ca.issue(&identity);
        let gate = self.gate.clone();
        async move {
            gate.acquire().await.unwrap().forget();
            if fail {
                return Err(CertError::Refused { identity, code: "internal".into(), message: "not ready".into() });
            }
            Ok(Arc::try_unwrap(good).unwrap())
        }
        .boxed()
    }
}

fn web() -> Identity {
    "spiffe://td/ns/shop/sa/web".parse().unwrap()
}

fn manager(source: &Arc<Scripted>) -> CertManager {
    CertManager::spawn(source.clone(), Arc::new(source.clock))
}

#[tokio::test(start_paused = true)]
async fn ca_row_12_twenty_waiters_share_one_request() {
    let source = Scripted::new(0, 0);
    let certs = manager(&source);
    let waiters: Vec<_> = (0..20)
        .map(|_| {
            let certs = certs.clone();
            tokio::spawn(async move { certs.fetch(&web()).await.map(|cert| cert.identity().clone()) })
        })
        .collect();
    source.gate.add_permits(1);
    for waiter in waiters {
        assert_eq!(waiter.await.unwrap().unwrap(), web());
    }
    assert_eq!(source.calls.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_failure_reaches_the_waiter_and_is_repaired_in_the_background() {
    let source = Scripted::new(1, 100);
    let certs = manager(&source);
    let error = certs.fetch(&web()).await.unwrap_err();
    assert_eq!(error.to_string(), "certificate authority refused spiffe://td/ns/shop/sa/web: internal: not ready");
    assert_eq!(certs.fetch(&web()).await.unwrap_err(), error);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(certs.fetch(&web()).await.is_ok());
    assert_eq!(source.calls.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn the_certificate_is_replaced_half_way_through_its_life() {
    let source = Scripted::new(0, 100);
    let certs = manager(&source);
    let first = certs.fetch(&web()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(11 * 3600)).await;
    assert!(Arc::ptr_eq(&first, &certs.fetch(&web()).await.unwrap()));
    tokio::time::sleep(Duration::from_secs(3600)).await;
    let second = certs.fetch(&web()).await.unwrap();
    assert!(!Arc::ptr_eq(&first, &second));
    assert_eq!(source.calls.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn ca_row_11_while_the_authority_is_down_the_certificate_is_used_to_its_end() {
    let source = Scripted::new(0, 100_000);
    let certs = manager(&source);
    certs.prefetch(&web());
    let first = certs.fetch(&web()).await.unwrap();
    source.failing.store(usize::MAX, Ordering::SeqCst);
    // Due after about half a day; half an hour and half a day later it still serves.
    for hours in [12.5, 11.0] {
        tokio::time::sleep(Duration::from_secs_f64(hours * 3600.0)).await;
        assert!(Arc::ptr_eq(&first, &certs.fetch(&web()).await.unwrap()));
    }
    assert!(source.calls.load(Ordering::SeqCst) > 100, "it must be asked for again and again");
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert!(certs.fetch(&web()).await.is_err(), "an expired certificate is served");
    source.failing.store(0, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert!(!Arc::ptr_eq(&first, &certs.fetch(&web()).await.unwrap()));
}

#[tokio::test(start_paused = true)]
async fn ca_row_13_an_identity_that_comes_back_gets_a_certificate_of_its_own() {
    let source = Scripted::new(0, 100);
    let certs = manager(&source);
    let first = certs.fetch(&web()).await.unwrap();
    certs.forget(&web());
    let second = certs.fetch(&web()).await.unwrap();
    assert_ne!(first.leaf(), second.leaf());
    assert_eq!(source.calls.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn forgetting_wakes_waiters_with_an_error_and_frees_the_slot() {
    let source = Scripted::new(0, 0);
    let certs = manager(&source);
    let waiter = tokio::spawn({
        let certs = certs.clone();
        async move { certs.fetch(&web()).await }
    });
    while source.calls.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    certs.forget(&web());
    assert_eq!(waiter.await.unwrap().unwrap_err(), CertError::Forgotten { identity: web() });
    assert!(certs.list().is_empty());
    source.gate.add_permits(1);
    assert!(certs.fetch(&web()).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn an_authority_that_hangs_is_given_up_after_its_budget() {
    let source = Scripted::new(0, 0);
    let certs = manager(&source);
    let error = certs.fetch(&web()).await.unwrap_err();
    assert_eq!(error, CertError::TimedOut { identity: web(), budget: REQUEST_BUDGET });
}
