//! Progress on the error output: when a step began, how it ended and how long it took.

use std::time::Instant;

use crate::output;

/// One step that is going on.
#[derive(Debug)]
pub struct Progress {
    started: Instant,
}

impl Progress {
    /// Says that the step began.
    #[must_use]
    pub fn start(title: &str) -> Self {
        output::note(format!("- {title} …"));
        Self { started: Instant::now() }
    }

    /// Says how it ended and how long it took.
    pub fn done(self, text: &str) {
        output::note(format!("{text} ({:.1}s)", self.started.elapsed().as_secs_f64()));
    }
}
