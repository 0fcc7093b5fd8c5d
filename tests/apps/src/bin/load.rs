//! Traffic: steady HTTP requests with a summary of errors and latencies, and checks of raw TCP.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use apps::call::Call;
use bytes::Bytes;
use clap::{Parser, Subcommand};
use http::{Request, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};

/// Makes traffic and says how it went.
#[derive(Debug, Parser)]
#[command(after_help = "Example: load http http://web:8080/ --rps 50 --duration 10")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Steady GET requests until the time is over or SIGTERM; prints a JSON summary. Fails if a request failed.
    Http {
        /// What to request.
        url: Uri,
        /// Requests per second over all workers.
        #[arg(long, default_value_t = 20.0)]
        rps: f64,
        /// Workers; each has at most one connection.
        #[arg(long, default_value_t = 2)]
        workers: u32,
        /// Seconds to run; 0 runs until SIGTERM.
        #[arg(long, default_value_t = 0)]
        duration: u64,
        /// A new connection for each request.
        #[arg(long)]
        new_connections: bool,
        /// Seconds after which a request counts as failed.
        #[arg(long, default_value_t = 5)]
        timeout: u64,
    },
    /// As many GET requests as each worker can make, one after the other; prints a JSON summary.
    Closed {
        /// What to request.
        url: Uri,
        /// Workers; each has one connection.
        #[arg(long, default_value_t = 1)]
        workers: u32,
        /// Seconds to run.
        #[arg(long, default_value_t = 5)]
        duration: u64,
        /// A new connection for each request.
        #[arg(long)]
        new_connections: bool,
    },
    /// One GET request; prints the answer's body. Fails unless it is a 200.
    Get {
        /// What to request.
        url: Uri,
        /// Seconds to wait.
        #[arg(long, default_value_t = 5)]
        timeout: u64,
    },
    /// Requests of any shape; prints a JSON summary with the last answer. Does not fail when requests fail.
    Call(Box<Call>),
    /// Opens a WebSocket, sends texts and checks that they come back.
    Ws {
        /// What to open, for example http://web/ws.
        url: Uri,
        /// Host to ask for, in place of the URL's.
        #[arg(long)]
        host: Option<String>,
        /// How many texts.
        #[arg(long, default_value_t = 3)]
        count: u32,
        /// Milliseconds between them.
        #[arg(long, default_value_t = 0)]
        pause: u64,
    },
    /// Sends and receives this many MiB and checks every byte.
    Digest {
        /// host:port of the checksum port.
        target: String,
        /// How much each way.
        #[arg(long, default_value_t = 64)]
        mib: u64,
    },
    /// Sends a line, half-closes, prints all that comes back.
    HalfClose {
        /// host:port of the mirror port.
        target: String,
    },
    /// Prints what the server says first.
    Banner {
        /// host:port of the port that speaks first.
        target: String,
    },
    /// Holds many connections open at once and uses each.
    Many {
        /// host:port of the mirror port.
        target: String,
        /// How many.
        #[arg(long, default_value_t = 500)]
        count: usize,
    },
}

#[tokio::main]
async fn main() -> Result<()> {
    let line = match Args::parse().command {
        Command::Http { url, rps, workers, duration, new_connections, timeout } => {
            let plan = Plan { url, new_connections, timeout: Duration::from_secs(timeout) };
            let summary = steady(plan, rps, workers, duration).await?;
            say(&serde_json::to_string(&summary)?)?;
            ensure!(summary.failed == 0, "{} of {} requests failed", summary.failed, summary.requests);
            return Ok(());
        }
        Command::Closed { url, workers, duration, new_connections } => {
            let plan = Plan { url, new_connections, timeout: Duration::from_secs(5) };
            closed(plan, workers, Duration::from_secs(duration)).await?
        }
        Command::Get { url, timeout } => {
            let plan = Plan { url, new_connections: true, timeout: Duration::from_secs(timeout) };
            String::from_utf8_lossy(&plan.request(&mut None).await?).into_owned()
        }
        Command::Call(call) => serde_json::to_string(&call.run().await?)?,
        Command::Ws { url, host, count, pause } => {
            apps::ws::run(&url, host.as_deref(), count, Duration::from_millis(pause)).await?
        }
        Command::Digest { target, mib } => {
            apps::tcp::check_digest(&target, mib << 20).await?;
            format!("{mib} MiB each way, every byte right")
        }
        Command::HalfClose { target } => apps::tcp::half_close(&target, "half-closed\n").await?,
        Command::Banner { target } => apps::tcp::banner(&target).await?,
        Command::Many { target, count } => {
            apps::tcp::many(&target, count).await?;
            format!("{count} connections at once, each answered")
        }
    };
    say(line.trim_end())
}

fn say(line: &str) -> Result<()> {
    Ok(writeln!(std::io::stdout(), "{line}")?)
}

/// How each request is made.
#[derive(Debug, Clone)]
struct Plan {
    url: Uri,
    new_connections: bool,
    timeout: Duration,
}

type Connection = SendRequest<Empty<Bytes>>;

impl Plan {
    /// One request; a connection that can be used again is left in `kept`.
    async fn request(&self, kept: &mut Option<Connection>) -> Result<Bytes> {
        let work = async {
            let mut connection = match kept.take() {
                Some(connection) if !self.new_connections && !connection.is_closed() => connection,
                _ => self.connect().await?,
            };
            let host = self.url.authority().context("the URL names no host")?.as_str();
            let path = self.url.path_and_query().map_or("/", |path| path.as_str());
            let request = Request::get(path).header(http::header::HOST, host).body(Empty::new())?;
            let answer = connection.send_request(request).await.context("request")?;
            let status = answer.status();
            let body = answer.into_body().collect().await.context("reading the answer")?.to_bytes();
            if !status.is_success() {
                bail!("answer {status}");
            }
            if !self.new_connections && connection.ready().await.is_ok() {
                *kept = Some(connection);
            }
            anyhow::Ok(body)
        };
        tokio::time::timeout(self.timeout, work).await.context("timed out")?
    }

    async fn connect(&self) -> Result<Connection> {
        let host = self.url.host().context("the URL names no host")?.trim_matches(['[', ']']);
        let port = self.url.port_u16().unwrap_or(80);
        let stream = TcpStream::connect((host, port)).await.context("connect")?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await.context("handshake")?;
        tokio::spawn(connection);
        Ok(sender)
    }
}

/// How the requests went.
#[derive(Debug, Serialize)]
struct Summary {
    requests: usize,
    failed: usize,
    /// Text of each kind of failure, and how often.
    errors: BTreeMap<String, usize>,
    /// Seconds after the start of the first and the last failure.
    first_error_s: Option<f64>,
    last_error_s: Option<f64>,
    p50_us: u64,
    p90_us: u64,
    p99_us: u64,
    max_us: u64,
}

struct Sample {
    at: Duration,
    took: Duration,
    error: Option<String>,
}

async fn steady(plan: Plan, rps: f64, workers: u32, duration_s: u64) -> Result<Summary> {
    ensure!(rps > 0.0 && workers > 0, "--rps and --workers must be more than 0");
    let started = Instant::now();
    let period = Duration::from_secs_f64(f64::from(workers) / rps);
    let (stop, stopped) = watch::channel(false);
    let (results, mut samples) = mpsc::channel::<Sample>(1024);
    for worker in 0..workers {
        let (plan, mut stopped, results) = (plan.clone(), stopped.clone(), results.clone());
        tokio::spawn(async move {
            tokio::time::sleep(period.mul_f64(f64::from(worker) / f64::from(workers))).await;
            let mut tick = tokio::time::interval(period);
            tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            let mut kept = None;
            loop {
                tokio::select! {
                    _ = stopped.wait_for(|stop| *stop) => return,
                    _ = tick.tick() => {}
                }
                let begun = Instant::now();
                let error = plan.request(&mut kept).await.err().map(|error| format!("{error:#}"));
                let sample = Sample { at: begun - started, took: begun.elapsed(), error };
                if results.send(sample).await.is_err() {
                    return;
                }
            }
        });
    }
    drop(results);
    tokio::spawn(async move {
        let mut term = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        let over =
            tokio::time::sleep(Duration::from_secs(if duration_s == 0 { u64::from(u32::MAX) } else { duration_s }));
        tokio::select! {
            () = over => {}
            _ = term.recv() => {}
        }
        stop.send_replace(true);
        anyhow::Ok(())
    });
    let mut all = Vec::new();
    while let Some(sample) = samples.recv().await {
        if let Some(error) = &sample.error {
            // Told at once: whoever follows the log sees when it happened.
            say(&format!("{:.3}s failed: {error}", sample.at.as_secs_f64()))?;
        }
        if all.len() < SAMPLES_MAX {
            all.push(sample);
        }
    }
    Ok(summarise(&all))
}

async fn closed(plan: Plan, workers: u32, duration: Duration) -> Result<String> {
    ensure!(workers > 0, "--workers must be more than 0");
    let started = Instant::now();
    let runs = (0..workers).map(|_| {
        let plan = plan.clone();
        tokio::spawn(async move {
            let (mut kept, mut samples) = (None, Vec::new());
            while started.elapsed() < duration {
                let begun = Instant::now();
                let error = plan.request(&mut kept).await.err().map(|error| format!("{error:#}"));
                samples.push(Sample { at: begun - started, took: begun.elapsed(), error });
            }
            samples
        })
    });
    let samples: Vec<Sample> =
        futures::future::try_join_all(runs.collect::<Vec<_>>()).await?.into_iter().flatten().collect();
    let per_second = samples.len() as f64 / started.elapsed().as_secs_f64();
    let mut summary = serde_json::to_value(summarise(&samples))?;
    if let Some(fields) = summary.as_object_mut() {
        fields.insert("per_second".to_owned(), per_second.into());
    }
    Ok(summary.to_string())
}

fn summarise(samples: &[Sample]) -> Summary {
    let mut took: Vec<u64> =
        samples.iter().map(|sample| u64::try_from(sample.took.as_micros()).unwrap_or(u64::MAX)).collect();
    took.sort_unstable();
    let at = |percent: usize| {
        let index = (took.len() * percent / 100).min(took.len().saturating_sub(1));
        took.get(index).copied().unwrap_or_default()
    };
    let mut errors = BTreeMap::new();
    let mut failures = samples.iter().filter(|sample| sample.error.is_some()).map(|sample| sample.at.as_secs_f64());
    for error in samples.iter().filter_map(|sample| sample.error.clone()) {
        *errors.entry(error).or_insert(0) += 1;
    }
    Summary {
        requests: samples.len(),
        failed: errors.values().sum(),
        first_error_s: failures.next(),
        last_error_s: failures.next_back(),
        errors,
        p50_us: at(50),
        p90_us: at(90),
        p99_us: at(99),
        max_us: at(100),
    }
}

/// Bound of what one run remembers: an hour at 1,000 requests per second.
const SAMPLES_MAX: usize = 3_600_000;
