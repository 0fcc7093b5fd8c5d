//! The watches that clients hold open, so that a fault can end them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::oneshot,
    time::{Instant, sleep_until},
};

use super::{
    super::{attributes::Attributes, user::User},
    Ending, Filter,
};

/// All open watches of clients. Bounded by the number of streams that the server allows.
#[derive(Debug, Default)]
pub(super) struct Watches(Arc<Mutex<Open>>);

#[derive(Debug, Default)]
struct Open {
    last: u64,
    watches: BTreeMap<u64, Entry>,
}

#[derive(Debug)]
struct Entry {
    user: User,
    request: Attributes,
    end: oneshot::Sender<Ending>,
}

/// A watch's place among the open ones; it leaves when this is dropped.
#[derive(Debug, Default)]
pub(crate) struct Hold {
    place: Option<Place>,
    cut: Option<(Instant, Ending)>,
}

#[derive(Debug)]
struct Place {
    number: u64,
    ended: oneshot::Receiver<Ending>,
    open: Arc<Mutex<Open>>,
}

impl Watches {
    pub(super) fn begin(&self, user: &User, request: &Attributes, cut: Option<(Duration, Ending)>) -> Hold {
        let (end, ended) = oneshot::channel();
        let mut open = lock(&self.0);
        open.last += 1;
        let number = open.last;
        open.watches.insert(number, Entry { user: user.clone(), request: request.clone(), end });
        let place = Place { number, ended, open: Arc::clone(&self.0) };
        Hold { place: Some(place), cut: cut.map(|(after, ending)| (Instant::now() + after, ending)) }
    }

    pub(super) fn end(&self, filter: &Filter, ending: Ending) -> usize {
        let mut open = lock(&self.0);
        let covered: Vec<u64> = (open.watches.iter())
            .filter(|(_, entry)| filter.covers(&entry.user, &entry.request))
            .map(|(number, _)| *number)
            .collect();
        let ended = covered.iter().filter_map(|number| open.watches.remove(number));
        ended.filter_map(|entry| entry.end.send(ending).ok()).count()
    }

    pub(super) fn count(&self) -> usize {
        lock(&self.0).watches.len()
    }
}

impl Hold {
    /// Waits until the watch is to end; for ever when no fault ends it.
    ///
    /// # Cancel safety
    ///
    /// A call that is dropped loses nothing.
    pub(crate) async fn ended(&mut self) -> Ending {
        let cut = self.cut;
        let timer = async {
            match cut {
                Some((when, ending)) => {
                    sleep_until(when).await;
                    ending
                }
                None => std::future::pending().await,
            }
        };
        let asked = async {
            if let Some(place) = &mut self.place
                && let Ok(ending) = (&mut place.ended).await
            {
                return ending;
            }
            std::future::pending().await
        };
        tokio::select! {
            ending = timer => ending,
            ending = asked => ending,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.open).watches.remove(&self.number);
    }
}

fn lock(open: &Mutex<Open>) -> MutexGuard<'_, Open> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
}
