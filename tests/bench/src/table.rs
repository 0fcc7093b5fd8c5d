//! The result: one line for each metric, with its ratio, its bar and whether that was cleared.

use std::fmt;

use crate::args::Shape;
use crate::case::{Bar, Case, Kind, Metric, Traffic};
use crate::control;
use crate::l7::{self, Place};
use crate::memory::Found;
use crate::town::Variant;
use crate::traffic::Sample;

/// Lines so far.
#[derive(Default)]
pub(crate) struct Table {
    rows: Vec<Row>,
    noisy: bool,
}

struct Row {
    case: &'static str,
    metric: String,
    direct: String,
    meltemi: String,
    peer: String,
    ratio: Option<f64>,
    /// Measured here if it took part, else what it reached on the reference machine.
    peer_ratio: Option<f64>,
    bar: Option<(f64, bool)>,
}

impl Table {
    /// Rates, latencies and CPU of one case.
    pub(crate) fn add_traffic(&mut self, case: &'static Case, samples: &[(Variant, Sample)]) {
        let Kind::Traffic(traffic) = case.kind else { return };
        let of = |variant| samples.iter().find(|(of, _)| *of == variant).map(|(_, sample)| sample);
        let all = [of(Variant::Direct), of(Variant::Meltemi), of(Variant::Peer)];
        let noisy = all.iter().flatten().any(|sample| sample.noisy);
        self.noisy |= noisy;
        let (rate, unit, scale) = units(traffic);
        self.compare(case, rate, Some(Metric::Rate), all, |sample| Some(sample.rate));
        if !matches!(traffic.shape, Shape::Up | Shape::Down) {
            self.compare(case, "p50 us", Some(Metric::P50), all, |sample| Some(sample.outcome.p50_us));
            self.compare(case, "p99 us", None, all, |sample| Some(sample.outcome.p99_us));
            self.compare(case, "p99.9 us", None, all, |sample| Some(sample.outcome.p999_us));
        }
        // Others disturb what the machine says; those that take part are told apart from them.
        let (of_parties, of_machine) = if noisy { (Some(Metric::Cpu), None) } else { (None, Some(Metric::Cpu)) };
        let name = |who: &str| format!("{who} CPU {unit}");
        self.compare(case, &name("machine"), of_machine, all, |sample| Some(sample.machine * scale));
        self.compare(case, &name("all parties'"), of_parties, all, |sample| Some(sample.parties * scale));
        let sum = |sample: &Sample| sample.proxies.map(|(source, destination)| (source + destination) * scale);
        self.compare(case, &name("proxies'"), None, all, sum);
        self.compare(case, &name("  client-side"), None, all, |s| s.proxies.map(|both| both.0 * scale));
        self.compare(case, &name("  server-side"), None, all, |s| s.proxies.map(|both| both.1 * scale));
    }

    fn compare(
        &mut self,
        case: &'static Case,
        name: &str,
        metric: Option<Metric>,
        [direct, meltemi, peer]: [Option<&Sample>; 3],
        value: impl Fn(&Sample) -> Option<f64>,
    ) {
        let value = |sample: Option<&Sample>| sample.and_then(&value);
        let (direct, meltemi, peer) = (value(direct), value(meltemi), value(peer));
        let ratio_of = |of: Option<f64>| Some(of? / direct.filter(|direct| *direct > 0.0)?);
        let bar = case.bars.iter().find(|bar| Some(bar.metric) == metric);
        let ratio = ratio_of(meltemi);
        self.rows.push(Row {
            case: case.name,
            metric: name.to_owned(),
            direct: shown(direct),
            meltemi: shown(meltemi),
            peer: shown(peer),
            ratio,
            peer_ratio: ratio_of(peer).or(bar.and_then(|bar| bar.peer)),
            bar: judged(bar, ratio),
        });
    }

    /// The control plane at one size.
    pub(crate) fn add_control(&mut self, case: &'static Case, found: &control::Found) {
        for (name, value, metric) in found {
            self.rows.push(Row {
                case: case.name,
                metric: (*name).to_owned(),
                direct: String::new(),
                meltemi: shown(Some(*value)),
                peer: String::new(),
                ratio: None,
                peer_ratio: None,
                bar: judged(bar_of(case, *metric), Some(*value)),
            });
        }
    }

    /// Requests through a layer-7 proxy; the ratio is that of ours to the peer, on the full way that to direct.
    pub(crate) fn add_requests(&mut self, case: &'static Case, found: &l7::Found) {
        let full = matches!(case.kind, Kind::Requests(requests) if requests.place == Place::Waypoint);
        for (name, [direct, ours, peer], metric) in found {
            let yardstick = if full { direct } else { peer };
            let ratio = ours.zip(*yardstick).map(|(ours, yardstick)| ours / yardstick);
            let judged_value = if *metric == Some(Metric::L7IdleKb) { *ours } else { ratio };
            self.rows.push(Row {
                case: case.name,
                metric: name.clone(),
                direct: shown(*direct),
                meltemi: shown(*ours),
                peer: shown(*peer),
                ratio,
                peer_ratio: None,
                bar: judged(bar_of(case, *metric), judged_value),
            });
        }
    }

    /// Memory of one variant: the worse of its two proxies counts.
    pub(crate) fn add_memory(&mut self, case: &'static Case, variant: Variant, found: &Found) {
        for (metric, sides) in found {
            let worse = sides.iter().copied().fold(f64::MIN, f64::max);
            let bar = case.bars.iter().find(|bar| bar.metric == *metric);
            let text = format!("{} / {}", shown(Some(sides[0])), shown(Some(sides[1])));
            let name = memory_name(*metric);
            if variant == Variant::Peer {
                if let Some(row) = self.rows.iter_mut().find(|row| row.case == case.name && row.metric == name) {
                    row.peer = text;
                    row.peer_ratio = None;
                }
                continue;
            }
            self.rows.push(Row {
                case: case.name,
                metric: name.to_owned(),
                direct: String::new(),
                meltemi: text,
                peer: bar.and_then(|bar| bar.peer).map_or_else(String::new, |peer| format!("[{}]", shown(Some(peer)))),
                ratio: None,
                peer_ratio: None,
                bar: judged(bar, Some(worse)),
            });
        }
    }
}

/// Which bar a metric is judged by is looked up by the metric.
fn bar_of(case: &'static Case, metric: Option<Metric>) -> Option<&'static Bar> {
    case.bars.iter().find(|bar| Some(bar.metric) == metric)
}

fn judged(bar: Option<&Bar>, value: Option<f64>) -> Option<(f64, bool)> {
    let bar = bar?;
    let limit = bar.limit?;
    Some((limit, bar.metric.clears(value?, limit)))
}

/// Name of the rate, unit of CPU, and what CPU seconds are multiplied with.
fn units(traffic: Traffic) -> (&'static str, &'static str, f64) {
    match traffic.shape {
        Shape::Up | Shape::Down => ("Gbit/s", "s/GB", 1.0),
        Shape::Keepalive | Shape::Hold | Shape::Http2 => ("requests/s", "us/request", 1e6),
        Shape::Connect => ("connections/s", "us/connection", 1e6),
    }
}

fn memory_name(metric: Metric) -> &'static str {
    match metric {
        Metric::IdleKb => "RSS kB, one pod",
        Metric::ConnectionKb => "RSS kB per idle connection",
        Metric::WorkloadKb => "RSS kB per workload",
        Metric::RestedKb => "RSS kB after bulk and a rest",
        Metric::Wakeups => "wake-ups/s after that",
        _ => "",
    }
}

fn shown(value: Option<f64>) -> String {
    value.map_or_else(String::new, |value| match value {
        value if value.abs() >= 1000.0 => format!("{value:.0}"),
        value if value.abs() >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    })
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<19} {:<30} {:>11} {:>17} {:>17} {:>7} {:>8} {:>9}",
            "case", "metric", "direct", "meltemi", "peer", "ratio", "peer's", "bar"
        )?;
        let mut last = "";
        for row in &self.rows {
            let case = if row.case == last { "" } else { row.case };
            last = row.case;
            let bar = row.bar.map_or_else(String::new, |(limit, cleared)| {
                format!("{} {}", shown(Some(limit)), if cleared { "pass" } else { "MISS" })
            });
            let line = format!(
                "{case:<19} {:<30} {:>11} {:>17} {:>17} {:>7} {:>8} {bar:>12}",
                row.metric,
                row.direct,
                row.meltemi,
                row.peer,
                shown(row.ratio),
                shown(row.peer_ratio),
            );
            writeln!(f, "{}", line.trim_end())?;
        }
        writeln!(f, "Memory: client-side / server-side proxy; the worse one counts.")?;
        if self.noisy {
            writeln!(f, "The machine was busy with other things: rates are doubtful, CPU of the parties counts.")?;
        }
        Ok(())
    }
}
