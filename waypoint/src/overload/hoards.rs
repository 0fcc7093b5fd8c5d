//! Streams and connections of one worker whose clients send what nobody passes on, and how much each holds back.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use tokio::sync::Notify;

use crate::limits::HOARD_BYTES_MIN;

/// One per worker.
#[derive(Default)]
pub(crate) struct Hoards {
    next: Cell<u64>,
    entries: RefCell<BTreeMap<u64, Entry>>,
    /// Bytes that clients of HTTP/2 may send before they are read.
    promised: Cell<u64>,
}

struct Entry {
    held: Box<dyn Fn() -> u64>,
    cut: Rc<Notify>,
}

/// One stream or connection; forgotten on drop.
pub(crate) struct Hoard {
    hoards: Rc<Hoards>,
    id: u64,
    cut: Rc<Notify>,
    promised: u64,
}

impl Hoards {
    /// One more; `held` tells how many bytes it holds back.
    pub(crate) fn enter(self: &Rc<Self>, held: impl Fn() -> u64 + 'static) -> Hoard {
        let id = self.next.replace(self.next.get() + 1);
        let cut = Rc::new(Notify::new());
        self.entries.borrow_mut().insert(id, Entry { held: Box::new(held), cut: cut.clone() });
        Hoard { hoards: self.clone(), id, cut, promised: 0 }
    }

    /// What was promised with [`Hoard::promise`].
    pub(crate) fn promised(&self) -> u64 {
        self.promised.get()
    }

    /// Cuts those that hold back most until `bytes` are free, and tells how many were cut. Small ones are left alone.
    pub(crate) fn shed(&self, bytes: u64) -> usize {
        let entries = self.entries.borrow();
        let mut most: Vec<_> = entries.values().map(|entry| ((entry.held)(), &entry.cut)).collect();
        most.retain(|(held, _)| *held >= HOARD_BYTES_MIN);
        most.sort_unstable_by_key(|(held, _)| std::cmp::Reverse(*held));
        let (mut freed, mut count) = (0, 0);
        for (held, cut) in most {
            if freed >= bytes {
                break;
            }
            cut.notify_one();
            (freed, count) = (freed + held, count + 1);
        }
        count
    }
}

impl Hoard {
    /// It may hold back so much.
    pub(crate) fn promise(&mut self, bytes: u64) {
        let others = self.hoards.promised.get() - self.promised;
        self.promised = bytes;
        self.hoards.promised.set(others + bytes);
    }

    /// Waits until it is cut.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub(crate) async fn cut(&self) {
        self.cut.notified().await;
    }
}

impl Drop for Hoard {
    fn drop(&mut self) {
        self.promise(0);
        self.hoards.entries.borrow_mut().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn who_holds_back_most_is_cut_first_and_no_more_than_needed() {
        let hoards = Rc::new(Hoards::default());
        let of = |kib: u64| hoards.enter(move || kib << 10);
        let all = [of(100), of(900), of(10), of(300)];
        let cut = || all.iter().map(|one| one.cut().now_or_never().is_some()).collect::<Vec<_>>();
        assert_eq!((hoards.shed(1 << 20), cut()), (2, vec![false, true, false, true]));
        assert_eq!((hoards.shed(1 << 30), cut()), (3, vec![true, true, false, true]));
        drop(all);
        assert_eq!(hoards.shed(1 << 30), 0);
    }

    #[test]
    fn promises_end_with_who_has_them() {
        let hoards = Rc::new(Hoards::default());
        let (mut one, mut other) = (hoards.enter(|| 0), hoards.enter(|| 0));
        one.promise(5);
        other.promise(7);
        one.promise(6);
        assert_eq!(hoards.promised(), 13);
        drop(one);
        assert_eq!(hoards.promised(), 7);
        drop(other);
        assert_eq!(hoards.promised(), 0);
    }
}
