//! What hostile peers do. Each runs on one thread until it is told to stop, and starts over when it is thrown out.

mod crowds;
mod frames;
mod windows;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::peer::Attack;

/// One way to be hostile.
#[derive(Clone, Copy)]
pub struct Flood {
    /// In words.
    pub name: &'static str,
    /// What the proxy's log must say of it; nothing if it is within what anybody may do.
    pub logged: Option<&'static str>,
    /// Bytes that the proxy may hold on account of it, at most.
    pub memory_bytes: u64,
    run: Run,
}

type Run = fn(Attack, Progress) -> Pin<Box<dyn Future<Output = ()>>>;

/// How an attack is going. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicU64>,
}

impl Flood {
    /// Attacks until told to stop. Runs on a thread that lives in the attacker's pod.
    pub async fn run(&self, attack: Attack, progress: Progress) {
        (self.run)(attack, progress).await;
    }
}

impl std::fmt::Debug for Flood {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

impl Progress {
    /// Tells the attack to stop.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// How often the attack began anew, or went on: not at all means that nothing was attacked.
    #[must_use]
    pub fn rounds(&self) -> u64 {
        self.rounds.load(Ordering::Relaxed)
    }

    fn go_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    fn round(&self) {
        self.rounds.fetch_add(1, Ordering::Relaxed);
    }
}

/// All of them.
#[must_use]
pub fn all() -> Vec<Flood> {
    [frames::FLOODS, windows::FLOODS, crowds::FLOODS].concat()
}

/// A table row: name, words of the log, memory, function.
macro_rules! flood {
    ($name:literal, $logged:expr, $mb:literal, $run:path) => {
        crate::floods::Flood {
            name: $name,
            logged: $logged,
            memory_bytes: $mb << 20,
            run: |attack, progress| Box::pin($run(attack, progress)),
        }
    };
}
use flood;
