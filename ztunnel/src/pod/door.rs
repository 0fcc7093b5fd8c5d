//! Which worker accepts at a port of a pod: one at a time.
//!
//! Connections of a pod share tunnels only on the same worker, and the fewer workers they are on, the more of their frames
//! leave in one write. So each pod has a home among the workers, and another one accepts only while the home is busy. The
//! listener is registered with the worker whose turn it is and no other, which therefore sleeps on.

use std::io;
use std::net::TcpListener as StdListener;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

/// A port of a pod as one worker sees it.
pub(super) struct Door {
    port: Arc<Port>,
    worker: usize,
    turn: watch::Receiver<Turn>,
}

/// Where the workers of the process are for one pod.
#[derive(Debug, Clone, Copy)]
pub(super) struct Places {
    pub(super) workers: usize,
    /// Accepts while it is not busy.
    pub(super) home: usize,
}

struct Port {
    listener: StdListener,
    /// Whether another process may share it.
    shared: bool,
    places: Places,
    turn: watch::Sender<Turn>,
    rota: Rota,
}

/// Which worker has time for one more connection.
pub(super) struct Rota {
    home: usize,
    last: Mutex<Look>,
}

/// Whose turn it is. Not passed on any more once the door closes.
#[derive(Debug, Clone, Copy)]
struct Turn {
    worker: usize,
    closed: bool,
}

/// CPU time of each worker when somebody looked.
struct Look {
    at: Instant,
    used: Vec<Duration>,
}

impl Door {
    /// One for each worker, on the same listener.
    pub(super) fn for_each(listener: StdListener, shared: bool, places: Places) -> Vec<Self> {
        let (turn, watched) = watch::channel(Turn { worker: places.home, closed: false });
        let port = Arc::new(Port { listener, shared, places, turn, rota: Rota::new(places.home) });
        (0..places.workers).map(|worker| Self { port: port.clone(), worker, turn: watched.clone() }).collect()
    }

    /// Waits for this worker's turn.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub(super) async fn opens(&mut self) {
        let own = self.worker;
        if self.turn.wait_for(|turn| turn.worker == own).await.is_err() {
            // Cannot be: the port, which we hold, has the sender.
            std::future::pending().await
        }
    }

    /// The listener, to be registered for as long as the turn lasts.
    pub(super) fn listener(&self) -> io::Result<StdListener> {
        self.port.listener.try_clone()
    }

    /// Whether a listener of another process may take over.
    pub(super) fn may_have_successor(&self) -> bool {
        self.port.shared
    }

    /// After a connection was accepted: passes the turn on if another worker has more time, or if this one has `done`
    /// what it may do for a while. `used` is the CPU time of each worker. Tells whether it was passed.
    pub(super) fn pass(&self, done: bool, used: impl FnOnce() -> Vec<Duration>) -> bool {
        let workers = self.port.places.workers;
        if workers < 2 {
            return false;
        }
        let next = self.port.rota.next(self.worker, used);
        let next = if done && next == self.worker { (next + 1) % workers } else { next };
        next != self.worker
            && self.port.turn.send_if_modified(|turn| {
                if !turn.closed {
                    turn.worker = next;
                }
                !turn.closed
            })
    }

    /// The turn is passed no more. Tells whether it is this worker's.
    pub(super) fn closes(&self) -> bool {
        let mut own = false;
        self.port.turn.send_if_modified(|turn| {
            turn.closed = true;
            own = turn.worker == self.worker;
            false
        });
        own
    }
}

impl Rota {
    pub(super) fn new(home: usize) -> Self {
        Self { home, last: Mutex::new(Look { at: Instant::now(), used: Vec::new() }) }
    }

    /// Who is next if it is `present` now. `used` is the CPU time of each worker, looked at now and then.
    pub(super) fn next(&self, present: usize, used: impl FnOnce() -> Vec<Duration>) -> usize {
        let now = Instant::now();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let elapsed = now - last.at;
        if elapsed < LOOK_PAUSE {
            return present;
        }
        let used = used();
        let busy: Vec<_> = used.iter().zip(&last.used).map(|(now, then)| share(*now, *then, elapsed)).collect();
        *last = Look { at: now, used };
        next(self.home, present, &busy)
    }
}

/// Per cent of a processor.
fn share(now: Duration, then: Duration, elapsed: Duration) -> u128 {
    now.saturating_sub(then).as_micros() * 100 / elapsed.as_micros().max(1)
}

/// Who accepts next, by how `busy` each worker is: home if it has time, else the present one if it has, else whoever has
/// most. Without knowledge nothing changes.
fn next(home: usize, present: usize, busy: &[u128]) -> usize {
    let of = |worker: usize| busy.get(worker).copied().unwrap_or_default();
    if busy.is_empty() || of(home) < BUSY_BELOW {
        return if busy.is_empty() { present } else { home };
    }
    if of(present) < BUSY_FROM {
        return present;
    }
    let least = (0..busy.len()).min_by_key(|worker| of(*worker)).unwrap_or(present);
    if of(least) + CLEARLY_LESS <= of(present) { least } else { present }
}

/// How often somebody looks, if there are new connections.
const LOOK_PAUSE: Duration = Duration::from_millis(100);
/// A worker is busy from here on, per cent.
const BUSY_FROM: u128 = 70;
/// The home has time again below this.
const BUSY_BELOW: u128 = 50;
/// By so much another worker must be less busy to be worth a change.
const CLEARLY_LESS: u128 = 10;

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn connections_stay_at_home_while_it_has_time() {
        // (home, present, how busy, next)
        let cases: [(usize, usize, &[u128], usize); 9] = [
            (0, 0, &[], 0),
            (1, 1, &[0, 40], 1),
            (1, 1, &[0, 69], 1),
            (1, 1, &[0, 70], 0),
            (1, 0, &[30, 60], 0),
            (1, 0, &[30, 49], 1),
            (1, 0, &[90, 60], 1),
            (0, 0, &[95, 90], 0),
            (0, 0, &[95, 80, 20, 60], 2),
        ];
        for (home, present, busy, wanted) in cases {
            assert_eq!(next(home, present, busy), wanted, "{home} {present} {busy:?}");
        }
    }

    fn doors() -> Vec<Door> {
        let listener = StdListener::bind("127.0.0.1:0").unwrap();
        Door::for_each(listener, true, Places { workers: 2, home: 0 })
    }

    #[tokio::test]
    async fn one_worker_accepts_at_a_time_and_the_other_is_called_when_it_is_needed() {
        let mut doors = doors();
        let used = Cell::new([Duration::ZERO; 2]);
        let past = |door: &Door| door.port.rota.last.lock().unwrap().at = Instant::now() - LOOK_PAUSE;
        let [first, second] = &mut doors[..] else { panic!("two") };
        first.opens().await;
        assert!(futures::poll!(std::pin::pin!(second.opens())).is_pending());
        past(first);
        assert!(!first.pass(false, || used.get().to_vec()), "nothing is known yet");
        assert!(!first.pass(false, || panic!("looked again at once")));
        past(first);
        used.set([Duration::from_secs(1), Duration::ZERO]);
        assert!(first.pass(false, || used.get().to_vec()));
        second.opens().await;
        // Home had a rest.
        past(first);
        assert!(second.pass(false, || used.get().to_vec()));
        first.opens().await;
        assert!(first.pass(true, || panic!("looked again at once")), "a worker at its rate lets the next one");
        second.opens().await;
    }

    #[test]
    fn who_accepts_alone_keeps_the_door_however_busy_the_workers_are() {
        let listener = StdListener::bind("127.0.0.1:0").unwrap();
        let [alone] = &Door::for_each(listener, true, Places { workers: 1, home: 0 })[..] else { panic!("one") };
        for used in [Duration::ZERO, Duration::from_secs(100)] {
            alone.port.rota.last.lock().unwrap().at = Instant::now() - LOOK_PAUSE;
            assert!(!alone.pass(true, || vec![used, Duration::ZERO]));
        }
        assert!(alone.closes());
    }

    #[test]
    fn exactly_one_worker_sees_the_door_closed() {
        let doors = doors();
        assert!(!doors[1].closes());
        assert!(!doors[0].pass(true, || panic!("too early")), "passed to one that has gone");
        assert!(doors[0].closes());
    }
}
