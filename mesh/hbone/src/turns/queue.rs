//! Who has a turn, who is next, and who must go. Pure: time comes in as a value.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::time::Duration;

use super::TurnBounds;

/// Everybody who has a turn or waits for one. `B` is what rings for them.
#[derive(Debug)]
pub(super) struct Queue<B> {
    bounds: TurnBounds,
    next_id: u64,
    /// By age.
    entries: BTreeMap<u64, Entry<B>>,
    /// Turns of each client that has any.
    held: HashMap<IpAddr, usize>,
    turns: usize,
    /// Looking for somebody to send away takes a while when there are many.
    next_look: Duration,
}

#[derive(Debug)]
struct Entry<B> {
    source: IpAddr,
    bell: B,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    /// Since then.
    Turn(Duration),
    /// Has been told to go.
    Told,
}

impl<B: Clone> Queue<B> {
    pub(super) fn new(bounds: TurnBounds) -> Self {
        Self { bounds, next_id: 0, entries: BTreeMap::new(), held: HashMap::new(), turns: 0, next_look: Duration::ZERO }
    }

    /// One more; tells its number and whether its turn has come at once.
    pub(super) fn join(&mut self, source: IpAddr, bell: B, now: Duration) -> (u64, bool) {
        let id = self.next_id;
        self.next_id += 1;
        let free = self.turns < self.bounds.all && self.held_by(source) < self.bounds.source;
        let state = if free { State::Turn(now) } else { State::Waiting };
        if free {
            self.count(source);
        }
        self.entries.insert(id, Entry { source, bell, state });
        (id, free)
    }

    /// One is done, or gave up. Yields the bells of those whose turn has come.
    pub(super) fn leave(&mut self, id: u64, now: Duration) -> Option<B> {
        let entry = self.entries.remove(&id)?;
        if entry.state == State::Waiting {
            return None;
        }
        self.turns -= 1;
        if let Some(held) = self.held.get_mut(&entry.source) {
            *held -= 1;
            if *held == 0 {
                self.held.remove(&entry.source);
            }
        }
        self.admit(now)
    }

    /// Who has the fewest turns is next, among those who waited longest.
    fn admit(&mut self, now: Duration) -> Option<B> {
        let waiting = self.entries.iter().filter(|(_, entry)| entry.state == State::Waiting);
        let may = waiting.filter(|(_, entry)| self.held_by(entry.source) < self.bounds.source);
        let (next, _) = may.min_by_key(|(id, entry)| (self.held_by(entry.source), **id))?;
        let next = *next;
        let entry = self.entries.get_mut(&next)?;
        entry.state = State::Turn(now);
        let (source, bell) = (entry.source, entry.bell.clone());
        self.count(source);
        Some(bell)
    }

    /// Whom to send away so that somebody may get on: of the client with the most turns, the one who has held his for
    /// longest. Nobody if all who wait are at their client's own bound. Looks only now and then, however often it is
    /// asked.
    pub(super) fn evict(&mut self, now: Duration) -> Option<B> {
        if self.turns < self.bounds.all || now < self.next_look {
            return None;
        }
        self.next_look = now + LOOK_PAUSE;
        let waiting = self.entries.iter().filter(|(_, entry)| entry.state == State::Waiting);
        let waiting = waiting.map(|(id, entry)| (self.held_by(entry.source), *id));
        // On behalf of the one who is next, whoever asks.
        let (own, _) = waiting.min().filter(|(own, _)| *own < self.bounds.source)?;
        let TurnBounds { grace, grace_newcomer, .. } = self.bounds;
        let overdue = self.entries.iter().filter_map(|(id, entry)| {
            let State::Turn(since) = entry.state else { return None };
            let held = self.held_by(entry.source);
            let grace = if own == 0 && held > 1 { grace_newcomer } else { grace };
            // Who has less than the one who waits need not make room.
            (held > own && now.saturating_sub(since) >= grace).then_some((held, since, *id))
        });
        let (_, _, victim) = overdue.max_by_key(|(held, since, id)| (*held, std::cmp::Reverse((*since, *id))))?;
        let victim = self.entries.get_mut(&victim)?;
        victim.state = State::Told;
        Some(victim.bell.clone())
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.held.is_empty() && self.turns == 0
    }

    fn held_by(&self, source: IpAddr) -> usize {
        self.held.get(&source).copied().unwrap_or_default()
    }

    fn count(&mut self, source: IpAddr) {
        self.turns += 1;
        *self.held.entry(source).or_default() += 1;
    }
}

/// Between two looks for somebody to send away: at most so many go in a second.
const LOOK_PAUSE: Duration = Duration::from_millis(5);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BOUNDS: TurnBounds = TurnBounds {
        all: 4,
        source: 3,
        grace: Duration::from_millis(1000),
        grace_newcomer: Duration::from_millis(250),
    };

    fn client(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Joins clients in order at time zero; the bell is the number.
    fn queue(clients: &[u8]) -> Queue<u64> {
        let mut queue = Queue::new(BOUNDS);
        for (nth, last) in clients.iter().enumerate() {
            let (id, _) = queue.join(client(*last), nth as u64, at(0));
            assert_eq!(id, nth as u64);
        }
        queue
    }

    #[test]
    fn who_has_fewest_turns_is_next() {
        // 1 holds three and waits with a fourth, 2 holds one, then 2 and 3 wait.
        let mut queue = queue(&[1, 1, 1, 1, 2, 2, 3]);
        assert_eq!(queue.leave(0, at(1)), Some(6), "3 has none");
        assert_eq!(queue.leave(1, at(1)), Some(3), "1 and 2 have one each, 1 waited longer");
        assert_eq!(queue.leave(2, at(1)), Some(5));
        assert_eq!(queue.leave(3, at(1)), None);
    }

    #[test]
    fn the_longest_turn_of_the_client_with_most_goes_first() {
        // 2 waits and has none: the shorter grace counts for a client with several.
        for (ms, expected) in [(249, None), (250, Some(0))] {
            assert_eq!(queue(&[1, 1, 1, 3, 2]).evict(at(ms)), expected, "{ms}");
        }
        let mut queue = queue(&[1, 1, 2, 2, 3, 3, 3]);
        assert_eq!(queue.evict(at(300)), Some(0));
        assert_eq!(queue.evict(at(304)), None, "looks only now and then");
        assert_eq!(queue.evict(at(305)), Some(1), "who was told already is not told again");
        assert_eq!(queue.evict(at(310)), Some(2));
        assert_eq!(queue.leave(0, at(310)), Some(4));
        assert_eq!(queue.evict(at(999)), None, "3 has one now: the longer grace counts");
        assert_eq!(queue.evict(at(1004)), Some(3));
    }

    #[test]
    fn whoever_asks_it_is_the_newcomer_who_gets_on() {
        // 1 has three and waits with a fourth; 2 has one; 3 has none and came last.
        let mut queue = queue(&[1, 1, 1, 2, 1, 3]);
        assert_eq!(queue.evict(at(250)), Some(0), "with the grace of a newcomer");
        assert_eq!(queue.leave(0, at(250)), Some(5));
    }

    #[test]
    fn nobody_goes_for_a_client_at_its_own_bound_or_with_as_many_turns() {
        assert_eq!(queue(&[1, 1, 1, 2, 1]).evict(at(9000)), None);
        assert_eq!(queue(&[1, 1, 2, 2, 1]).evict(at(9000)), None);
        assert_eq!(queue(&[1, 1, 2, 2]).evict(at(9000)), None, "nobody waits");
    }

    proptest! {
        #[test]
        fn bounds_hold_and_no_free_turn_is_wasted(steps in prop::collection::vec((0_u8..4, 1_u8..5, 0_u64..100), 1..200)) {
            let mut queue = Queue::new(BOUNDS);
            let mut present: Vec<u64> = Vec::new();
            let mut now = 0;
            for (step, who, pause) in steps {
                now += pause;
                match step {
                    0 | 1 => present.push(queue.join(client(who), 0_u64, at(now)).0),
                    2 if !present.is_empty() => {
                        let gone = present.remove(usize::from(who) % present.len());
                        queue.leave(gone, at(now));
                    }
                    _ => drop(queue.evict(at(now))),
                }
                prop_assert!(queue.turns <= BOUNDS.all);
                prop_assert!(queue.held.values().all(|held| *held <= BOUNDS.source));
                let waits = |entry: &Entry<u64>| {
                    entry.state == State::Waiting && queue.held_by(entry.source) < BOUNDS.source
                };
                prop_assert!(queue.turns == BOUNDS.all || !queue.entries.values().any(waits));
            }
            for id in present {
                queue.leave(id, at(now));
            }
            prop_assert!(queue.is_empty());
        }
    }
}
