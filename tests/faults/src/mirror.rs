//! A proxy that keeps what it is told, and stays connected.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::ads::{Proxy, Stream, Target};

/// What one proxy knows.
#[derive(Debug)]
pub struct Mirror {
    known: watch::Receiver<Known>,
    task: JoinHandle<()>,
}

/// Versions of resources by type and name, and what has happened.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// By type and name.
    pub resources: BTreeMap<(String, String), String>,
    /// Responses so far.
    pub responses: u64,
    /// Streams opened so far.
    pub streams: u64,
}

/// Type and name of a resource, and the version on either side, if it is there.
pub type Difference<'a> = (&'a (String, String), Option<&'a String>, Option<&'a String>);

impl Known {
    /// The version of a resource, whatever its type.
    #[must_use]
    pub fn version(&self, name: &str) -> Option<&str> {
        self.resources.iter().find(|((_, known), _)| known == name).map(|(_, version)| version.as_str())
    }

    /// Type, name and both versions of what is not the same in both.
    pub fn differences<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = Difference<'a>> {
        let ours = self.resources.iter().map(|(key, version)| (key, Some(version), other.resources.get(key)));
        let more = other.resources.iter().filter(|(key, _)| !self.resources.contains_key(*key));
        let theirs = more.map(|(key, version)| (key, None, Some(version)));
        ours.chain(theirs).filter(|(_, ours, theirs)| ours != theirs)
    }
}

impl Mirror {
    /// Connects one; it tries again for as long as it must.
    #[must_use]
    pub fn start(proxy: Proxy, target: &Target) -> Self {
        let (sender, known) = watch::channel(Known::default());
        let target = target.clone();
        let task = tokio::spawn(async move {
            loop {
                if let Ok(stream) = proxy.connect(&target).await {
                    // A new stream begins with everything: what is not sent again is gone.
                    sender.send_modify(|known| {
                        known.resources.clear();
                        known.streams += 1;
                    });
                    // Broken streams are what these tests are about.
                    let _ = listen(stream, &sender).await;
                }
                tokio::time::sleep(PAUSE).await;
            }
        });
        Self { known, task }
    }

    /// What it knows now.
    #[must_use]
    pub fn known(&self) -> Known {
        self.known.borrow().clone()
    }

    /// Waits until it knows what is wanted, and tells how long that took.
    ///
    /// # Errors
    /// It does not in time.
    pub async fn wait(&mut self, what: &str, within: Duration, wanted: impl FnMut(&Known) -> bool) -> Result<Duration> {
        let started = Instant::now();
        let found = tokio::time::timeout(within, self.known.wait_for(wanted)).await;
        ensure!(matches!(found, Ok(Ok(_))), "not within {:.1}s: {what}", within.as_secs_f64());
        Ok(started.elapsed())
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn listen(mut stream: Stream, sender: &watch::Sender<Known>) -> Result<()> {
    while let Some(told) = stream.next().await? {
        let Some(message) = told.message else { continue };
        sender.send_modify(|known| {
            known.responses += 1;
            for resource in message.resources {
                known.resources.insert((told.type_url.clone(), resource.name), resource.version);
            }
            for name in message.removed_resources {
                known.resources.remove(&(told.type_url.clone(), name));
            }
        });
    }
    Ok(())
}

const PAUSE: Duration = Duration::from_millis(100);
