//! The tunnels that arrived at a pod, and which one makes room when there are too many.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mesh_hbone::Settings;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::share;
use crate::limits::{POD_TUNNELS_MAX, POD_TUNNELS_OF_SOURCE_MAX, POD_UNPROVEN_MAX};

/// The tunnels of one pod. Shared by its workers.
#[derive(Debug)]
pub(crate) struct Tunnels {
    slots: Arc<Semaphore>,
    unproven_max: usize,
    of_source_max: usize,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    next_id: u64,
    entries: HashMap<u64, Entry>,
    /// Those of them whose handshake is not done.
    unproven: usize,
    /// How many of them come from where.
    of_source: HashMap<IpAddr, usize>,
}

#[derive(Debug)]
struct Entry {
    source: IpAddr,
    /// The handshake is done.
    proven: bool,
    streams: usize,
    /// Since it was accepted, or its last stream ended.
    idle_since: Instant,
    told: bool,
    leave: Arc<Notify>,
}

/// A tunnel's place among them; left on drop.
#[derive(Debug)]
pub(crate) struct Place {
    tunnels: Arc<Tunnels>,
    id: u64,
    leave: Arc<Notify>,
    /// Tunnels from the same address when this one came, and of the pod, with this one.
    rank: (usize, usize),
    _slot: OwnedSemaphorePermit,
}

/// Counts a stream for as long as it is open.
#[derive(Debug)]
pub(crate) struct OpenStream {
    tunnels: Arc<Tunnels>,
    id: u64,
}

impl Tunnels {
    pub(crate) fn of_a_pod() -> Arc<Self> {
        Self::new(POD_TUNNELS_MAX, POD_UNPROVEN_MAX, POD_TUNNELS_OF_SOURCE_MAX)
    }

    fn new(max: usize, unproven_max: usize, of_source_max: usize) -> Arc<Self> {
        Arc::new(Self { slots: Arc::new(Semaphore::new(max)), unproven_max, of_source_max, table: Mutex::default() })
    }

    /// Room for one more tunnel. At the bound those that nobody uses are told to leave, one at a time.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub(crate) async fn room(&self) -> OwnedSemaphorePermit {
        loop {
            let slot = self.slots.clone();
            match slot.try_acquire_owned() {
                Ok(slot) => return slot,
                Err(_) => self.table().close_longest_idle(),
            }
            let slot = tokio::time::timeout(ROOM_PAUSE, self.slots.clone().acquire_owned()).await;
            if let Ok(slot) = slot {
                return slot.expect("is never closed");
            }
        }
    }

    /// A connection was accepted. Who says nothing makes room for who does, and who has very many, for himself.
    pub(crate) fn enter(self: &Arc<Self>, slot: OwnedSemaphorePermit, source: IpAddr) -> Place {
        let leave = Arc::new(Notify::new());
        let idle_since = Instant::now();
        let entry = Entry { source, proven: false, streams: 0, idle_since, told: false, leave: leave.clone() };
        let mut table = self.table();
        let id = table.next_id;
        table.next_id += 1;
        table.entries.insert(id, entry);
        table.unproven += 1;
        if table.unproven > self.unproven_max {
            table.close_longest_unproven();
        }
        let of_source = table.of_source.entry(source).or_default();
        *of_source += 1;
        let of_source = *of_source;
        if of_source > self.of_source_max {
            // The newcomer, if all others are in use.
            table.close_longest(|entry| entry.source == source && entry.streams == 0);
        }
        let rank = (of_source, table.entries.len());
        drop(table);
        Place { tunnels: self.clone(), id, leave, rank, _slot: slot }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// A client that does not get its handshake done is the first to go: those who did may come back with a stream.
    fn close_longest_idle(&mut self) {
        if !self.close_longest(|entry| !entry.proven) {
            self.close_longest(|entry| entry.streams == 0);
        }
    }

    fn close_longest_unproven(&mut self) {
        self.close_longest(|entry| !entry.proven);
    }

    /// Of those that may go, the one idle for longest, and first of the client that has most of them: who opens many
    /// does not push out who opened few. Tells whether there was one.
    fn close_longest(&mut self, may_go: impl Fn(&Entry) -> bool) -> bool {
        let may_go = |entry: &Entry| !entry.told && may_go(entry);
        let mut of_source: HashMap<IpAddr, usize> = HashMap::new();
        for entry in self.entries.values().filter(|entry| may_go(entry)) {
            *of_source.entry(entry.source).or_default() += 1;
        }
        let most = of_source.values().copied().max().unwrap_or_default();
        // Less than half as many is few; among the others age decides.
        let many = |entry: &Entry| of_source.get(&entry.source).is_some_and(|count| *count * 2 >= most);
        let found = self.entries.values_mut().filter(|entry| may_go(entry) && many(entry));
        let Some(entry) = found.min_by_key(|entry| entry.idle_since) else {
            return false;
        };
        entry.told = true;
        entry.leave.notify_one();
        true
    }

    fn remove(&mut self, id: u64) {
        let Some(entry) = self.entries.remove(&id) else { return };
        self.unproven -= usize::from(!entry.proven);
        if let Some(count) = self.of_source.get_mut(&entry.source) {
            *count -= 1;
            if *count == 0 {
                self.of_source.remove(&entry.source);
            }
        }
    }
}

impl Place {
    /// The handshake is done.
    pub(crate) fn proven(&self) {
        let mut table = self.tunnels.table();
        if let Some(entry) = table.entries.get_mut(&self.id)
            && !std::mem::replace(&mut entry.proven, true)
        {
            table.unproven -= 1;
        }
    }

    /// What the tunnel may make us hold, of the `full` settings.
    pub(crate) fn share(&self, full: &Settings) -> Settings {
        let (of_source, of_pod) = self.rank;
        share::of(full, of_source, of_pod)
    }

    /// Waits until another tunnel needs the room.
    ///
    /// # Cancel safety
    /// Cancel-safe; for one task only.
    pub(crate) async fn told_to_leave(&self) {
        self.leave.notified().await;
    }

    /// A stream begins.
    pub(crate) fn stream(&self) -> OpenStream {
        if let Some(entry) = self.tunnels.table().entries.get_mut(&self.id) {
            entry.streams += 1;
        }
        OpenStream { tunnels: self.tunnels.clone(), id: self.id }
    }

    pub(crate) fn in_use(&self) -> bool {
        self.tunnels.table().entries.get(&self.id).is_some_and(|entry| entry.streams > 0)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.tunnels.table().remove(self.id);
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        // The tunnel may be gone before its streams have noticed.
        if let Some(entry) = self.tunnels.table().entries.get_mut(&self.id) {
            entry.streams -= 1;
            entry.idle_since = Instant::now();
        }
    }
}

/// Until the next tunnel is told to leave, if none did: one may have become idle meanwhile.
const ROOM_PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing)] // reason: tests

    use super::*;
    use futures::FutureExt;

    const SOON: Duration = Duration::from_secs(1);

    fn client(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    fn told(place: &Place) -> bool {
        place.told_to_leave().now_or_never().is_some()
    }

    #[tokio::test(start_paused = true)]
    async fn the_longest_idle_tunnel_makes_room_and_none_in_use_does() {
        let tunnels = Tunnels::new(4, 4, 4);
        let mut places = Vec::new();
        for _ in 0..4 {
            places.push(tunnels.enter(tunnels.room().await, client(1)));
            tokio::time::sleep(SOON).await;
        }
        // The first is in use, the second was until now, the fourth does not get on with its handshake.
        places.iter().take(3).for_each(Place::proven);
        let open = places[0].stream();
        drop(places[1].stream());
        for expected in [3, 2, 1] {
            assert!(tokio::time::timeout(ROOM_PAUSE / 2, tunnels.room()).await.is_err(), "nobody has left yet");
            let first: Vec<_> = places.iter().map(told).collect();
            assert_eq!(first.iter().position(|told| *told), Some(expected), "{first:?}");
            assert_eq!(first.iter().filter(|told| **told).count(), 1, "one at a time");
        }
        assert!(tokio::time::timeout(SOON, tunnels.room()).await.is_err());
        assert!(!told(&places[0]) && places[0].in_use());
        drop(open);
        assert!(tokio::time::timeout(SOON, tunnels.room()).await.is_err());
        assert!(told(&places[0]) && !places[0].in_use());
        places.clear();
        drop(tokio::time::timeout(SOON, tunnels.room()).await.expect("room"));
        assert!(tunnels.table().entries.is_empty() && tunnels.table().of_source.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_holds_more_places_than_his_share_and_the_rest_stays_for_others() {
        let tunnels = Tunnels::new(10, 10, 3);
        let mut places = Vec::new();
        let mut streams = Vec::new();
        for nth in 0..4 {
            places.push(tunnels.enter(tunnels.room().await, client(1)));
            places[nth].proven();
            tokio::time::sleep(SOON).await;
        }
        let gone: Vec<_> = places.iter().map(told).collect();
        assert_eq!(gone, [true, false, false, false], "the longest idle one makes room for the fourth");
        places.remove(0);
        streams.extend(places.iter().map(Place::stream));
        let newcomer = tunnels.enter(tunnels.room().await, client(1));
        assert!(told(&newcomer), "all others are in use");
        drop(newcomer);
        let other = tunnels.enter(tunnels.room().await, client(2));
        assert!(!told(&other) && !places.iter().any(told), "somebody else has a share of his own");
        let full = Settings::default();
        assert_eq!(other.share(&full), full);
        drop(streams);
    }

    #[tokio::test(start_paused = true)]
    async fn who_opens_many_does_not_push_out_who_opened_few() {
        let tunnels = Tunnels::new(10, 10, 10);
        let mut places = Vec::new();
        for last in [1, 1, 2, 2, 2, 2, 2, 2, 2, 2] {
            places.push(tunnels.enter(tunnels.room().await, client(last)));
            places.iter().for_each(Place::proven);
            tokio::time::sleep(SOON).await;
        }
        for _ in 0..4 {
            let _ = tokio::time::timeout(ROOM_PAUSE / 2, tunnels.room()).await;
        }
        let gone: Vec<_> = places.iter().map(told).collect();
        assert_eq!(gone, [false, false, true, true, true, true, false, false, false, false]);
    }

    #[tokio::test(start_paused = true)]
    async fn clients_that_prove_nothing_make_room_among_themselves_at_their_bound_and_not_before() {
        let tunnels = Tunnels::new(10, 2, 10);
        let mut places = Vec::new();
        for nth in 0..4_u8 {
            places.push(tunnels.enter(tunnels.room().await, client(nth)));
            // The first proves itself at once.
            places[..1].iter().for_each(Place::proven);
            tokio::time::sleep(SOON).await;
            let gone: Vec<_> = places.iter().map(told).collect();
            assert_eq!(gone.iter().position(|gone| *gone), (nth == 3).then_some(1), "{gone:?}");
        }
        drop(places);
        assert_eq!(tunnels.table().unproven, 0);
    }
}
