//! Bytes one way, a thread for each connection.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::{Outcome, WARM_UP, begin};
use crate::args::{LoadPlan, Shape};
use crate::serve::{CHUNK_BYTES, SINK_PORT, SOURCE_PORT};

pub(super) fn run(plan: &LoadPlan) -> Result<Outcome> {
    let (moved, failed, over) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    let port = if plan.shape == Shape::Up { SINK_PORT } else { SOURCE_PORT };
    let server = SocketAddr::new(plan.server.ip(), port);
    let streams = (0..plan.connections)
        .map(|_| TcpStream::connect(server).with_context(|| format!("connecting to {server}")))
        .collect::<Result<Vec<_>>>()?;
    std::thread::scope(|scope| {
        for stream in streams {
            scope.spawn(|| {
                if carry(stream, plan.shape, &moved, &over).is_err() {
                    failed.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        std::thread::sleep(WARM_UP);
        begin()?;
        let (started, before) = (Instant::now(), moved.load(Ordering::Relaxed));
        std::thread::sleep(Duration::from_secs(plan.seconds));
        let units = moved.load(Ordering::Relaxed) - before;
        let seconds = started.elapsed().as_secs_f64();
        over.store(true, Ordering::Relaxed);
        Ok(Outcome { units, seconds, failed: failed.load(Ordering::Relaxed), ..Outcome::default() })
    })
}

fn carry(mut stream: TcpStream, shape: Shape, moved: &AtomicU64, over: &AtomicBool) -> std::io::Result<()> {
    let mut buffer = vec![7; CHUNK_BYTES];
    while !over.load(Ordering::Relaxed) {
        let count = match shape {
            Shape::Up => stream.write(&buffer)?,
            _ => stream.read(&mut buffer)?,
        };
        if count == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        moved.fetch_add(count as u64, Ordering::Relaxed);
    }
    Ok(())
}
