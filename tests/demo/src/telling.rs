//! How the story looks: chapters, what was done, what proves it.

use std::io::{self, Write};
use std::time::Instant;

/// Writes the story, with the time since it began before each line.
#[derive(Debug)]
pub(crate) struct Teller {
    began: Instant,
}

impl Teller {
    /// The story begins now.
    pub(crate) fn new() -> Self {
        Self { began: Instant::now() }
    }

    /// A new step.
    pub(crate) fn chapter(&self, letter: char, title: &str) {
        self.write(&format!("\n({letter}) {title}"));
    }

    /// What is being done, as the reader would type it.
    pub(crate) fn command(&self, text: &str) {
        self.write(&format!("    $ {text}"));
    }

    /// What was seen, which proves the step.
    pub(crate) fn proof(&self, text: &str) {
        self.write(&format!("    ✔ {text}"));
    }

    /// What a program said, as it said it.
    pub(crate) fn quote(&self, text: &str) {
        for line in text.trim_end().lines() {
            self.write(&format!("      {line}"));
        }
    }

    /// A line without a mark.
    pub(crate) fn plain(&self, text: &str) {
        self.write(text);
    }

    fn write(&self, text: &str) {
        let seconds = self.began.elapsed().as_secs_f64();
        for line in text.lines() {
            // Nobody listens any more when the output is closed.
            let _ =
                if line.is_empty() { writeln!(io::stdout()) } else { writeln!(io::stdout(), "{seconds:6.1}s {line}") };
        }
    }
}

/// Why the story stopped.
pub(crate) fn failed(error: &anyhow::Error) {
    let _ = writeln!(io::stderr(), "\nThe story stopped: {error:#}");
}
