//! Packet captures on the nodes' fabric links.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use mesh_sys::netns::NetNs;
use mesh_sys::packet::{PacketCapture, PcapWriter};

use crate::fabric::NODE_INTERFACE;

/// How often an idle capture looks whether it should stop, and writes out what it holds.
const IDLE_INTERVAL: Duration = Duration::from_millis(50);

/// More than the kernel's queue holds when the stop is seen.
const FRAMES_AFTER_STOP: u64 = 100_000;

/// A frame with offloads may be 64 KiB plus headers.
const FRAME_BYTES_MAX: usize = 66_000;

/// The captures that run, by node.
#[derive(Debug, Default)]
pub(crate) struct Captures {
    running: Mutex<BTreeMap<String, Running>>,
}

#[derive(Debug)]
struct Running {
    file: PathBuf,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<io::Result<u64>>,
}

impl Captures {
    /// Starts capturing on a node. The socket is open and the file exists when this returns.
    pub(crate) fn start(&self, node: &str, netns: &NetNs, file: &Path) -> Result<(), String> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(earlier) = running.get(node).filter(|earlier| !earlier.thread.is_finished()) {
            return Err(format!(
                "{node} is being captured to {} already: end it with `capture stop {node}`",
                earlier.file.display()
            ));
        }
        let socket = netns
            .run(|| PacketCapture::open(NODE_INTERFACE))
            .and_then(|opened| opened)
            .map_err(|error| format!("opening a capture on {node}: {error}"))?;
        let output = File::create(file)
            .and_then(|file| PcapWriter::new(BufWriter::new(file)))
            .map_err(|error| format!("creating {}: {error}", file.display()))?;
        let stop = Arc::new(AtomicBool::new(false));
        let seen_by_thread = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name(format!("capture-{node}"))
            .spawn(move || record(&socket, output, &seen_by_thread))
            .map_err(|error| format!("starting a capture thread: {error}"))?;
        running.insert(node.to_owned(), Running { file: file.to_owned(), stop, thread });
        Ok(())
    }

    /// Ends the capture of a node, or all; says what was written. Blocks for [`IDLE_INTERVAL`].
    pub(crate) fn stop(&self, node: Option<&str>) -> Result<String, String> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let chosen: Vec<String> =
            running.keys().filter(|&name| node.is_none_or(|node| node == name)).cloned().collect();
        if chosen.is_empty() {
            return Err(format!("no capture runs on {}", node.unwrap_or("any node")));
        }
        let mut sentences = Vec::new();
        for name in chosen {
            let Some(capture) = running.remove(&name) else { continue };
            capture.stop.store(true, Ordering::Relaxed);
            let frames = capture.thread.join().map_err(|_| format!("the capture of {name} panicked"))?;
            let frames = frames.map_err(|error| format!("the capture of {name} failed: {error}"))?;
            sentences.push(format!("{name}: {frames} frames in {}", capture.file.display()));
        }
        Ok(sentences.join("\n"))
    }
}

fn record(socket: &PacketCapture, mut output: PcapWriter<BufWriter<File>>, stop: &AtomicBool) -> io::Result<u64> {
    let mut buffer = vec![0; FRAME_BYTES_MAX];
    let mut frames = 0;
    let mut after_stop = 0;
    loop {
        // Read before the look at the queue: what arrived until the stop is still recorded, and on a busy link not
        // for ever what comes after it.
        let stopping = stop.load(Ordering::Relaxed);
        let wait = if stopping { Duration::ZERO } else { IDLE_INTERVAL };
        after_stop += u64::from(stopping);
        match socket.next(&mut buffer, wait)? {
            Some(_) if after_stop > FRAMES_AFTER_STOP => {
                output.flush()?;
                return Ok(frames);
            }
            Some(frame) => {
                output.write(SystemTime::now(), frame)?;
                frames += 1;
            }
            None => {
                output.flush()?;
                if stopping {
                    return Ok(frames);
                }
            }
        }
    }
}
