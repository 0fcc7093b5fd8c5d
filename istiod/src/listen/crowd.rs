//! Connections that have not said who they are, counted by where they come from. Pure: no I/O, no clock.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;

use super::Bounds;

/// Who holds a place, in the order of arrival.
pub(super) type Ticket = u64;

/// Places for strangers. A source has a share; when all places are taken, the oldest of the source with most makes room,
/// so that a few hostile sources never keep the others out.
#[derive(Debug)]
pub(super) struct Crowd {
    max: usize,
    per_source: usize,
    /// What becomes of a newcomer whose source has its share.
    newest_first: bool,
    next: Ticket,
    total: usize,
    /// By source, oldest first; a source without any is not kept.
    by_source: HashMap<IpAddr, VecDeque<Ticket>>,
}

/// The answer to a newcomer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry {
    /// There is a place; whoever holds the other ticket has lost theirs.
    Admitted {
        /// The newcomer's.
        ticket: Ticket,
        /// Who made room.
        evicted: Option<Ticket>,
    },
    /// The source has as many as it may.
    Refused,
}

impl Crowd {
    /// So many places, and so many for one source.
    pub(super) fn new(bounds: &Bounds) -> Self {
        Self {
            max: bounds.strangers.max(1),
            per_source: bounds.strangers_per_source.max(1),
            newest_first: bounds.newest_first,
            next: 0,
            total: 0,
            by_source: HashMap::new(),
        }
    }

    /// A place for one more of this source.
    pub(super) fn enter(&mut self, source: IpAddr) -> Entry {
        let has_share = self.by_source.get(&source).map_or(0, VecDeque::len) >= self.per_source;
        let evicted = match has_share {
            true if self.newest_first => self.evict_of(source),
            true => return Entry::Refused,
            false if self.total >= self.max => self.evict(),
            false => None,
        };
        let ticket = self.next;
        self.next += 1;
        self.total += 1;
        self.by_source.entry(source).or_default().push_back(ticket);
        Entry::Admitted { ticket, evicted }
    }

    /// Gives a place back. One that was lost already is no error.
    pub(super) fn leave(&mut self, source: IpAddr, ticket: Ticket) {
        let Some(tickets) = self.by_source.get_mut(&source) else { return };
        let before = tickets.len();
        tickets.retain(|one| *one != ticket);
        self.total -= before - tickets.len();
        if tickets.is_empty() {
            self.by_source.remove(&source);
        }
    }

    /// Takes the place of the oldest of the source with most; among equals of the one that came first.
    fn evict(&mut self) -> Option<Ticket> {
        let key = |tickets: &VecDeque<Ticket>| (std::cmp::Reverse(tickets.len()), tickets.front().copied());
        let source = *self.by_source.iter().min_by_key(|(_, tickets)| key(tickets))?.0;
        self.evict_of(source)
    }

    /// Takes the place of the oldest of a source.
    fn evict_of(&mut self, source: IpAddr) -> Option<Ticket> {
        let oldest = self.by_source.get(&source)?.front().copied()?;
        self.leave(source, oldest);
        Some(oldest)
    }
}

#[cfg(test)]
mod tests {
    use mesh_core::addr::source;

    use super::*;

    fn crowd(strangers: usize, strangers_per_source: usize) -> Crowd {
        Crowd::new(&Bounds { strangers, strangers_per_source, ..Bounds::default() })
    }

    fn ip(text: &str) -> IpAddr {
        source(text.parse().unwrap())
    }

    #[test]
    fn a_source_has_a_share_and_gets_it_back() {
        let mut crowd = crowd(10, 2);
        let first = crowd.enter(ip("10.0.0.1"));
        assert!(matches!(first, Entry::Admitted { ticket: 0, evicted: None }));
        assert!(matches!(crowd.enter(ip("10.0.0.1")), Entry::Admitted { .. }));
        assert_eq!(crowd.enter(ip("::ffff:10.0.0.1")), Entry::Refused);
        assert!(matches!(crowd.enter(ip("10.0.0.2")), Entry::Admitted { .. }));
        crowd.leave(ip("10.0.0.1"), 0);
        crowd.leave(ip("10.0.0.1"), 0);
        assert!(matches!(crowd.enter(ip("10.0.0.1")), Entry::Admitted { .. }));
        assert_eq!(crowd.total, 3);
    }

    #[test]
    fn the_oldest_of_the_source_with_most_makes_room() {
        let mut crowd = crowd(4, 3);
        crowd.enter(ip("10.0.0.9"));
        for _ in 0..3 {
            crowd.enter(ip("10.0.0.1"));
        }
        let Entry::Admitted { evicted, .. } = crowd.enter(ip("10.0.0.2")) else { panic!("refused") };
        assert_eq!(evicted, Some(1), "not the older one of the modest source");
        assert_eq!(crowd.total, 4);
    }

    #[test]
    fn where_the_newest_comes_first_a_source_with_its_share_gives_up_its_oldest() {
        let mut crowd = Crowd::new(&Bounds { strangers: 10, strangers_per_source: 2, ..Bounds::open() });
        crowd.enter(ip("10.0.0.2"));
        for _ in 0..2 {
            crowd.enter(ip("10.0.0.1"));
        }
        let Entry::Admitted { evicted, .. } = crowd.enter(ip("10.0.0.1")) else { panic!("refused") };
        assert_eq!(evicted, Some(1), "its own, not the older one of another");
        assert_eq!(crowd.total, 3);
    }

    #[test]
    fn nothing_is_kept_of_who_left() {
        let mut crowd = crowd(100, 100);
        for number in 0..50_u8 {
            let Entry::Admitted { ticket, .. } = crowd.enter(IpAddr::from([10, 0, 0, number])) else { panic!() };
            crowd.leave(IpAddr::from([10, 0, 0, number]), ticket);
        }
        assert!(crowd.by_source.is_empty() && crowd.total == 0);
    }
}
