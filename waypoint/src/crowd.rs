//! Connections of clients, counted by where they come from, so that one address never keeps the others out. Pure: no I/O,
//! no clock.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

/// Who holds a place, in the order of arrival.
pub(crate) type Ticket = u64;

/// How many places there are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Connections at once.
    pub(crate) all: usize,
    /// Those of them that have proven nothing yet.
    pub(crate) unproven: usize,
}

/// Places. `B` is what rings for a connection that must make room.
#[derive(Debug)]
pub(crate) struct Crowd<B> {
    bounds: Bounds,
    next: Ticket,
    places: usize,
    unproven: usize,
    sources: HashMap<IpAddr, Source<B>>,
    /// Sources by how many they have, and by how many of them are unproven.
    most: BTreeSet<(usize, IpAddr)>,
    most_unproven: BTreeSet<(usize, IpAddr)>,
}

#[derive(Debug)]
struct Source<B> {
    /// Oldest first.
    all: BTreeMap<Ticket, B>,
    unproven: BTreeSet<Ticket>,
}

/// The answer to a newcomer.
#[derive(Debug)]
pub(crate) struct Entered<B> {
    pub(crate) ticket: Ticket,
    /// Connections of its source, with this one.
    pub(crate) of_source: usize,
    /// Rings for who makes room: it has lost its place already.
    pub(crate) evicted: Option<B>,
}

impl<B> Crowd<B> {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            next: 0,
            places: 0,
            unproven: 0,
            sources: HashMap::new(),
            most: BTreeSet::new(),
            most_unproven: BTreeSet::new(),
        }
    }

    /// A place for one more of this source, of which so many may have proven nothing. `None`: all are taken, and nobody has
    /// more of them than this source.
    pub(crate) fn enter(&mut self, source: IpAddr, unproven_max: usize, bell: B) -> Option<Entered<B>> {
        let has = self.sources.get(&source).map_or((0, 0), |one| (one.all.len(), one.unproven.len()));
        let evicted = if has.1 >= unproven_max {
            self.evict_unproven_of(source)
        } else if self.unproven >= self.bounds.unproven {
            self.evict_unproven()
        } else if self.places >= self.bounds.all {
            Some(self.make_room(has.0)?)
        } else {
            None
        };
        let ticket = self.next;
        self.next += 1;
        (self.places, self.unproven) = (self.places + 1, self.unproven + 1);
        self.change(source, |one| {
            one.all.insert(ticket, bell);
            one.unproven.insert(ticket);
        });
        let of_source = self.sources.get(&source).map_or(0, |one| one.all.len());
        Some(Entered { ticket, of_source, evicted })
    }

    /// It is no stranger any more.
    pub(crate) fn proven(&mut self, source: IpAddr, ticket: Ticket) {
        let mut was = false;
        self.change(source, |one| was = one.unproven.remove(&ticket));
        self.unproven -= usize::from(was);
    }

    /// Gives a place back. One that was lost already is no error.
    pub(crate) fn leave(&mut self, source: IpAddr, ticket: Ticket) -> Option<B> {
        let (mut bell, mut was) = (None, false);
        self.change(source, |one| {
            bell = one.all.remove(&ticket);
            was = one.unproven.remove(&ticket);
        });
        self.places -= usize::from(bell.is_some());
        self.unproven -= usize::from(was);
        bell
    }

    /// Takes the places of an eighth of the connections of the source with most, oldest first, if it has more than
    /// `modest`.
    pub(crate) fn thin_out(&mut self, modest: usize) -> Vec<B> {
        let Some((count, source)) = self.most.last().copied().filter(|(count, _)| *count > modest) else {
            return Vec::new();
        };
        let part = count.div_ceil(8).min(count - modest);
        let oldest = self.sources.get(&source).map(|one| one.all.keys().take(part).copied().collect::<Vec<_>>());
        oldest.unwrap_or_default().into_iter().filter_map(|ticket| self.leave(source, ticket)).collect()
    }

    /// Of the source with most, its oldest that has proven nothing, or of one that has more than `own` its oldest.
    fn make_room(&mut self, own: usize) -> Option<B> {
        if self.unproven > 0 {
            return self.evict_unproven();
        }
        let (_, source) = self.most.last().copied().filter(|(count, _)| *count > own)?;
        let oldest = *self.sources.get(&source)?.all.first_key_value()?.0;
        self.leave(source, oldest)
    }

    fn evict_unproven(&mut self) -> Option<B> {
        let (_, source) = *self.most_unproven.last()?;
        self.evict_unproven_of(source)
    }

    fn evict_unproven_of(&mut self, source: IpAddr) -> Option<B> {
        let oldest = *self.sources.get(&source)?.unproven.first()?;
        self.leave(source, oldest)
    }

    /// Changes one source and what is kept about it; one without connections is not kept.
    fn change(&mut self, source: IpAddr, change: impl FnOnce(&mut Source<B>)) {
        let empty = || Source { all: BTreeMap::new(), unproven: BTreeSet::new() };
        let one = self.sources.entry(source).or_insert_with(empty);
        let before = (one.all.len(), one.unproven.len());
        change(one);
        let after = (one.all.len(), one.unproven.len());
        if after.0 == 0 {
            self.sources.remove(&source);
        }
        for (order, before, after) in
            [(&mut self.most, before.0, after.0), (&mut self.most_unproven, before.1, after.1)]
        {
            if before != after {
                order.remove(&(before, source));
                if after > 0 {
                    order.insert((after, source));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
