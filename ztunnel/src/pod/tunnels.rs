//! The tunnels that arrived at a pod, and which one makes room when there are too many.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// The tunnels of one pod. Shared by its workers.
#[derive(Debug)]
pub(crate) struct Tunnels {
    slots: Arc<Semaphore>,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    next_id: u64,
    entries: HashMap<u64, Entry>,
}

#[derive(Debug)]
struct Entry {
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
    _slot: OwnedSemaphorePermit,
}

/// Counts a stream for as long as it is open.
#[derive(Debug)]
pub(crate) struct OpenStream {
    tunnels: Arc<Tunnels>,
    id: u64,
}

impl Tunnels {
    pub(crate) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { slots: Arc::new(Semaphore::new(max)), table: Mutex::default() })
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
                Err(_) => self.close_longest_idle(),
            }
            let slot = tokio::time::timeout(ROOM_PAUSE, self.slots.clone().acquire_owned()).await;
            if let Ok(slot) = slot {
                return slot.expect("is never closed");
            }
        }
    }

    /// A connection was accepted.
    pub(crate) fn enter(self: &Arc<Self>, slot: OwnedSemaphorePermit) -> Place {
        let leave = Arc::new(Notify::new());
        let entry = Entry { proven: false, streams: 0, idle_since: Instant::now(), told: false, leave: leave.clone() };
        let mut table = self.table();
        let id = table.next_id;
        table.next_id += 1;
        table.entries.insert(id, entry);
        Place { tunnels: self.clone(), id, leave, _slot: slot }
    }

    /// A client that does not get its handshake done is the first to go: those who did may come back with a stream.
    fn close_longest_idle(&self) {
        let mut table = self.table();
        let idle = table.entries.values_mut().filter(|entry| entry.streams == 0 && !entry.told);
        if let Some(entry) = idle.min_by_key(|entry| (entry.proven, entry.idle_since)) {
            entry.told = true;
            entry.leave.notify_one();
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// The handshake is done.
    pub(crate) fn proven(&self) {
        if let Some(entry) = self.tunnels.table().entries.get_mut(&self.id) {
            entry.proven = true;
        }
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
        self.tunnels.table().entries.remove(&self.id);
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

    #[tokio::test(start_paused = true)]
    async fn the_longest_idle_tunnel_makes_room_and_none_in_use_does() {
        let tunnels = Tunnels::new(4);
        let mut places = Vec::new();
        for _ in 0..4 {
            places.push(tunnels.enter(tunnels.room().await));
            tokio::time::sleep(SOON).await;
        }
        // The first is in use, the second was until now, the fourth does not get on with its handshake.
        places.iter().take(3).for_each(Place::proven);
        let open = places[0].stream();
        drop(places[1].stream());
        let told = |place: &Place| place.told_to_leave().now_or_never().is_some();
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
        assert!(tunnels.table().entries.is_empty());
    }
}
